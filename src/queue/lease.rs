//! The registry of workers and their heartbeats.

use sqlx::{Connection, MySqlConnection};

use super::{Queue, QueueError, connection};
use crate::job::Incarnation;

/// What came of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease is good, counted from when the heartbeat was sent.
    Alive,
    /// The worker's row is gone, bears a tombstone or went backwards: the incarnation is over.
    Over,
    /// The database is another one than before (restored, or failed over): the incarnation is over, and nobody
    /// claims before every lease and every settle time has passed.
    AnotherHistory,
}

/// A worker's own connection for heartbeats, so that a busy pool never costs it the lease.
#[derive(Debug)]
pub struct Heart {
    queue: Queue,
    me: Incarnation,
    sequence: i64,
    epoch: String,
    connection: Option<MySqlConnection>,
}

impl Heart {
    /// The incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.me
    }

    /// Sends one heartbeat. An error leaves open whether it arrived; the next one tells.
    pub async fn beat(&mut self) -> Result<Beat, QueueError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connection::single(&self.queue.inner.options).await?,
        };
        let epoch: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'epoch'")
            .fetch_optional(&mut connection)
            .await?;
        if epoch.as_deref() != Some(self.epoch.as_str()) {
            return Ok(Beat::AnotherHistory);
        }
        // The answer to the last one may have been lost: then the row is one ahead of what is known here.
        let matched = sqlx::query(
            "UPDATE worker SET heartbeat = ? WHERE incarnation = ? AND tombstone = 0 AND heartbeat IN (?, ?)",
        )
        .bind(self.sequence + 1)
        .bind(self.me.0)
        .bind(self.sequence)
        .bind(self.sequence + 1)
        .execute(&mut connection)
        .await?
        .rows_affected();
        self.connection = Some(connection);
        if matched == 0 {
            return Ok(Beat::Over);
        }
        self.sequence += 1;
        Ok(Beat::Alive)
    }

    /// Takes the worker out of the registry. Only when its last step has ended and its jobs are handed back.
    pub async fn leave(mut self) -> Result<(), QueueError> {
        sqlx::query(
            "DELETE FROM worker WHERE incarnation = ? AND NOT EXISTS (SELECT 1 FROM job FORCE INDEX (owner) WHERE owner = ?)",
        )
        .bind(self.me.0)
        .bind(self.me.0)
        .execute(self.queue.pool())
        .await?;
        if let Some(connection) = self.connection.take() {
            connection.close().await.ok();
        }
        Ok(())
    }
}

impl Queue {
    /// Enters a worker into the registry of its site. `host` is for people only.
    pub async fn join(&self, site: &str, host: &str) -> Result<Heart, QueueError> {
        let me = Incarnation(rand::random());
        let epoch =
            sqlx::query_scalar("SELECT value FROM meta WHERE name = 'epoch'").fetch_one(self.pool()).await?;
        sqlx::query("INSERT INTO worker (incarnation, site, host, heartbeat) VALUES (?, ?, ?, 1)")
            .bind(me.0)
            .bind(site)
            .bind(host)
            .execute(self.pool())
            .await?;
        Ok(Heart { queue: self.clone(), me, sequence: 1, epoch, connection: None })
    }
}
