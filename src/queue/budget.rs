//! The destruction budget: how many machines of a namespace had their data given up in an hour. Taken by the enqueue, in its
//! transaction, and given back in the one in which a job goes that destroyed nothing.

use std::collections::BTreeMap;

use sqlx::MySqlConnection;

use super::row::JobRow;
use super::{Queue, QueueError, now_ms};

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// A namespace, and how many shares of its budget some jobs take.
pub(super) type Shares<'a> = BTreeMap<&'a str, i64>;

/// The present hour by the database's clock.
pub(super) async fn hour(connection: &mut MySqlConnection) -> Result<i64, QueueError> {
    let now_ms: i64 = sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(connection).await?;
    Ok(now_ms.div_euclid(HOUR_MS))
}

/// Takes shares of one namespace; returns how many were taken before and with them.
pub(super) async fn take(
    connection: &mut MySqlConnection,
    hour: i64,
    namespace: &str,
    count: i64,
) -> Result<i64, QueueError> {
    sqlx::query(
        "INSERT INTO budget (hour, namespace, used) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE used = used + VALUES(used)",
    )
    .bind(hour)
    .bind(namespace)
    .bind(count)
    .execute(&mut *connection)
    .await?;
    Ok(sqlx::query_scalar("SELECT used FROM budget WHERE hour = ? AND namespace = ?")
        .bind(hour)
        .bind(namespace)
        .fetch_one(connection)
        .await?)
}

/// Gives back the shares of jobs that go without having stored a request: nothing was destroyed.
pub(super) async fn give_back(
    connection: &mut MySqlConnection,
    jobs: impl Iterator<Item = &JobRow>,
) -> Result<(), QueueError> {
    let mut shares: BTreeMap<(i64, &str), i64> = BTreeMap::new();
    for job in jobs.filter(|job| !job.live.request_stored) {
        if let Some(hour) = job.budget_hour {
            *shares.entry((hour, &job.namespace)).or_default() += 1;
        }
    }
    for ((hour, namespace), count) in shares {
        sqlx::query("UPDATE budget SET used = GREATEST(used - ?, 0) WHERE hour = ? AND namespace = ?")
            .bind(count)
            .bind(hour)
            .bind(namespace)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

impl Queue {
    /// How many shares of a namespace's budget were taken in the present hour.
    pub async fn budget_used(&self, namespace: &str) -> Result<i64, QueueError> {
        let used: Option<i64> = sqlx::query_scalar(concat!(
            "SELECT used FROM budget WHERE hour = ",
            now_ms!(),
            " DIV 3600000 AND namespace = ?"
        ))
        .bind(namespace)
        .fetch_optional(self.pool())
        .await?;
        Ok(used.unwrap_or(0))
    }

    /// Deletes up to `at_most` budgets of hours that ended before this time (milliseconds since the Unix epoch).
    pub async fn trim_budgets(&self, before_ms: i64, at_most: u32) -> Result<u64, QueueError> {
        let deleted = sqlx::query("DELETE FROM budget WHERE hour < ? ORDER BY hour, namespace LIMIT ?")
            .bind(before_ms.div_euclid(HOUR_MS))
            .bind(at_most)
            .execute(self.pool())
            .await?;
        Ok(deleted.rows_affected())
    }
}
