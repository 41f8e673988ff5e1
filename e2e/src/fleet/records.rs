//! What stands in the database of a fleet, read past AutoBuild's own code.

use std::fmt::Write as _;

use anyhow::Result;
use sqlx::{AssertSqlSafe, MySqlPool, Row};

/// A row of `job_history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The job's id.
    pub id: i64,
    /// What it did.
    pub action: String,
    /// How it ended.
    pub result: String,
    /// Why.
    pub reason: String,
    /// The sentence about it.
    pub message: String,
}

/// A row of `job`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its id.
    pub id: i64,
    /// What it does.
    pub action: String,
    /// Its present step.
    pub step: String,
    /// Its lane; a lower one goes first.
    pub lane: i64,
    /// The incarnation that holds it.
    pub owner: Option<i64>,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// Whether a first request was stored.
    pub begun: bool,
    /// The request whose end is not known yet.
    pub request: Option<String>,
}

/// The tables.
#[derive(Debug, Clone)]
pub struct Records {
    pool: MySqlPool,
}

impl Records {
    pub(super) fn new(pool: MySqlPool) -> Self {
        Self { pool }
    }

    /// For statements of the test's own.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// The finished jobs of a server, the oldest first.
    pub async fn history(&self, name: &str) -> Result<Vec<Past>> {
        let rows = sqlx::query(
            "SELECT job_id, action, result, reason, message FROM job_history WHERE name = ? ORDER BY job_id",
        )
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Past {
                    id: row.try_get("job_id")?,
                    action: row.try_get("action")?,
                    result: row.try_get("result")?,
                    reason: row.try_get("reason")?,
                    message: row.try_get("message")?,
                })
            })
            .collect()
    }

    /// The finished jobs of a server that did this.
    pub async fn finished(&self, name: &str, action: &str) -> Result<Vec<Past>> {
        let mut all = self.history(name).await?;
        all.retain(|past| past.action == action);
        Ok(all)
    }

    /// The live job of a server.
    pub async fn job(&self, name: &str) -> Result<Option<Live>> {
        let row = sqlx::query(
            "SELECT id, action, step, CAST(lane AS SIGNED) AS lane, owner, waiting_for, \
             CAST(request_stored AS SIGNED) AS begun, request FROM job WHERE name = ?",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(Live {
                id: row.try_get("id")?,
                action: row.try_get("action")?,
                step: row.try_get("step")?,
                lane: row.try_get("lane")?,
                owner: row.try_get("owner")?,
                waiting_for: row.try_get("waiting_for")?,
                begun: row.try_get::<i64, _>("begun")? != 0,
                request: row.try_get("request")?,
            })
        })
        .transpose()
    }

    /// One number.
    pub async fn number(&self, sql: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// Every column of every row of every table, as text.
    pub async fn dump(&self) -> Result<String> {
        let columns = sqlx::query(
            "SELECT CAST(table_name AS CHAR) AS t, CAST(column_name AS CHAR) AS c FROM information_schema.columns \
             WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut text = String::new();
        for column in columns {
            let (table, column): (String, String) = (column.try_get("t")?, column.try_get("c")?);
            let sql = format!("SELECT CONVERT(`{column}` USING utf8mb4) FROM `{table}`");
            let values: Vec<Option<String>> =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.pool).await?;
            for value in values.into_iter().flatten() {
                writeln!(text, "{table}.{column}={value}")?;
            }
        }
        Ok(text)
    }
}
