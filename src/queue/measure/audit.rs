//! Where the jobs are: counts by which a benchmark accounts for each of them.

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

use super::{QueueError, Scratch};
use crate::job::ServerUid;

/// How many jobs are where, when nothing is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Live jobs.
    pub live: u64,
    /// Rows of `queue`.
    pub waiting: u64,
    /// Live jobs that name an owner.
    pub owned: u64,
    /// Ended jobs.
    pub history: u64,
    /// Jobs that are both live and ended.
    pub both: u64,
}

impl Scratch {
    /// Counts the jobs of the schema.
    pub async fn accounts(&self) -> Result<Accounts, QueueError> {
        let mut connection = self.connect().await?;
        let accounts = Accounts {
            live: count(&mut connection, "SELECT COUNT(*) FROM job").await?,
            waiting: count(&mut connection, "SELECT COUNT(*) FROM queue").await?,
            owned: count(&mut connection, "SELECT COUNT(*) FROM job WHERE owner IS NOT NULL").await?,
            history: count(&mut connection, "SELECT COUNT(*) FROM job_history").await?,
            both: count(
                &mut connection,
                "SELECT COUNT(*) FROM job_history STRAIGHT_JOIN job \
                 ON job.server_uid = job_history.server_uid AND job.id = job_history.job_id",
            )
            .await?,
        };
        connection.close().await.ok();
        Ok(accounts)
    }

    /// Rows of `queue`: quick beside [`Scratch::accounts`].
    pub async fn waiting(&self) -> Result<u64, QueueError> {
        let mut connection = self.connect().await?;
        let waiting = count(&mut connection, "SELECT COUNT(*) FROM queue").await?;
        connection.close().await.ok();
        Ok(waiting)
    }

    /// The names of the servers whose jobs a worker holds, by the end of the name under which it is registered.
    pub async fn held_by(&self, worker: &str) -> Result<Vec<String>, QueueError> {
        let mut connection = self.connect().await?;
        let rows = sqlx::query(
            "SELECT job.name FROM worker STRAIGHT_JOIN job ON job.owner = worker.incarnation \
             WHERE RIGHT(worker.host, CHAR_LENGTH(?)) = ?",
        )
        .bind(worker)
        .bind(worker)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await.ok();
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Up to `at_most` servers without a live job, with the version of what is known of each.
    pub async fn idle_servers(&self, at_most: u64) -> Result<Vec<(ServerUid, i64)>, QueueError> {
        let mut connection = self.connect().await?;
        let rows = sqlx::query(
            "SELECT server_state.server_uid, version FROM server_state LEFT JOIN job \
             ON job.server_uid = server_state.server_uid WHERE job.server_uid IS NULL LIMIT ?",
        )
        .bind(at_most)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await.ok();
        rows.iter().map(|row| Ok((ServerUid(row.try_get(0)?), row.try_get(1)?))).collect()
    }
}

async fn count(connection: &mut MySqlConnection, text: &'static str) -> Result<u64, QueueError> {
    let count: i64 = sqlx::query_scalar(text).fetch_one(connection).await?;
    Ok(count.unsigned_abs())
}

/// Reads versions of many servers at once, as a controller reads those that it was told of.
#[derive(Debug)]
pub struct Versions {
    connection: MySqlConnection,
}

impl Versions {
    /// Connects.
    pub async fn of(scratch: &Scratch) -> Result<Self, QueueError> {
        Ok(Self { connection: scratch.connect().await? })
    }

    /// The present version of each server.
    pub async fn read(&mut self, uids: &[ServerUid]) -> Result<Vec<(ServerUid, i64)>, QueueError> {
        let marks = vec!["?"; uids.len()].join(",");
        // Only the number of marks varies: nothing of a user is in the text.
        let text = format!("SELECT server_uid, version FROM server_state WHERE server_uid IN ({marks})");
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in uids {
            query = query.bind(uid.as_str());
        }
        let rows = query.fetch_all(&mut self.connection).await?;
        rows.iter().map(|row| Ok((ServerUid(row.try_get(0)?), row.try_get(1)?))).collect()
    }
}
