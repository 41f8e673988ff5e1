//! The registry of workers and their heartbeats.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use super::history::{self, Asked, Entered, Entry, History, Quiet, Told};
use super::present::COMMITS_HANG;
use super::{Queue, QueueError, connection};
use crate::job::Incarnation;

/// How old a connection for heartbeats may be. A new one finds out where the address leads by now, even if nobody cut
/// the one before.
const RENEWED: Duration = Duration::from_secs(5);

/// What came of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease is good, counted from when the heartbeat was sent.
    Alive,
    /// The worker's row bears a tombstone: others took it for dead, and the incarnation is over.
    Over,
    /// The database is another one than before (restored, or failed over): the incarnation is over, and nobody
    /// claims before every lease and every settle time has passed, and the controller has derived every job again.
    AnotherHistory,
    /// The worker's row is missing, and the incarnation is over. While its lease was good that means another history.
    /// After it, others may have buried the row and taken it away.
    Missing,
}

/// What a worker knows of its last incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing speaks for another history.
    Continued,
    /// The history may be another one. Being quiet in vain costs little; deriving in vain ends jobs that go on.
    Doubtful,
    /// The history is another one.
    Lost,
}

/// Who enters the registry of workers.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer<'a> {
    /// The BMC network that it serves.
    pub site: &'a str,
    /// For people only.
    pub host: &'a str,
    /// The longer of its lease and its longest settle time: for so long nobody claims after another history was found.
    pub quiet: Duration,
    /// How its last incarnation ended.
    pub past: Past,
}

/// A worker's own connection for heartbeats, so that a busy pool never costs it the lease.
#[derive(Debug)]
pub struct Heart {
    queue: Queue,
    me: Incarnation,
    sequence: i64,
    history: History,
    quiet_until: Instant,
    /// Present until the quiet time is over.
    quiet: Option<Quiet>,
    derived: bool,
    /// Whether a heartbeat was sent and no answer came.
    unanswered: bool,
    connection: Option<(MySqlConnection, Instant)>,
}

impl Heart {
    /// The incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.me
    }

    /// Nothing may be claimed before this: a request of a history that was lost may still take effect.
    pub fn quiet_until(&self) -> Instant {
        self.quiet_until
    }

    /// Whether every job of this history was derived from the Servers, as of the last heartbeat. Nothing may be claimed
    /// before: the database may have lost what they did.
    pub fn derived(&self) -> bool {
        self.derived
    }

    /// Whether the last heartbeat was sent and no answer came.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Sends one heartbeat. An error leaves open whether it arrived; the next one tells.
    pub async fn beat(&mut self) -> Result<Beat, QueueError> {
        let (mut connection, opened) = match self.connection.take() {
            Some((connection, opened)) if opened.elapsed() < RENEWED => (connection, opened),
            _ => {
                let opened = Instant::now();
                let mut connection = connection::single(&self.queue.inner.address.options()?).await?;
                // A node that lags has an older row, which says nothing before it has caught up.
                if self.queue.inner.writer.is_galera()
                    && self.reads(&mut connection, Asked::First).await?.is_none()
                {
                    return Ok(Beat::AnotherHistory);
                }
                (connection, opened)
            }
        };
        if self.unanswered {
            self.is_free(&mut connection).await?;
        }
        self.unanswered = true;
        // The answer to the last one may have been lost: then the row is one ahead of what is known here. Not prepared:
        // on a connection that is renewed so soon that would cost as many round trips as it saves.
        let (me, before, now) = (self.me.0, self.sequence, self.sequence + 1);
        let matched = sqlx::raw_sql(AssertSqlSafe(format!(
            "UPDATE worker SET heartbeat = {now} WHERE incarnation = {me} AND tombstone = 0 \
             AND heartbeat IN ({before}, {now})"
        )))
        .execute(&mut connection)
        .await?
        .rows_affected();
        self.unanswered = false;
        let Some(told) = self.reads(&mut connection, Asked::Again).await? else {
            return Ok(Beat::AnotherHistory);
        };
        if matched == 0 {
            return self.why_over(&mut connection).await;
        }
        self.sequence += 1;
        self.derived = told.underived.is_none();
        if let Some(quiet) = self.quiet.as_ref().filter(|_| Instant::now() >= self.quiet_until) {
            history::end_quiet(&mut connection, quiet).await?;
            self.quiet = None;
        }
        self.connection = Some((connection, opened));
        Ok(Beat::Alive)
    }

    /// Looks whether the heartbeat before, to which no answer came, still has the row: then its COMMIT hangs.
    async fn is_free(&self, connection: &mut MySqlConnection) -> Result<(), QueueError> {
        let me = self.me.0;
        let text = format!("SELECT incarnation FROM worker WHERE incarnation = {me} FOR UPDATE NOWAIT");
        match sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map_err(QueueError::nowait) {
            Ok(_) => Ok(()),
            Err(QueueError::Busy) => Err(QueueError::Unavailable(COMMITS_HANG.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// What the server tells; `None`: another history.
    async fn reads(
        &self,
        connection: &mut MySqlConnection,
        asked: Asked,
    ) -> Result<Option<Told>, QueueError> {
        let present = &self.queue.inner.present;
        let told = present.read(connection, self.queue.inner.writer, asked).await?;
        present.met(&told.node)?;
        Ok((told.history == self.history && !told.went_back).then_some(told))
    }

    async fn why_over(&self, connection: &mut MySqlConnection) -> Result<Beat, QueueError> {
        let row =
            sqlx::query("SELECT CAST(tombstone AS SIGNED) AS tombstone FROM worker WHERE incarnation = ?")
                .bind(self.me.0)
                .fetch_optional(connection)
                .await?;
        Ok(match row {
            Some(row) if row.try_get::<i64, _>("tombstone")? != 0 => Beat::Over,
            // Older than what was confirmed.
            Some(_) => Beat::AnotherHistory,
            None => Beat::Missing,
        })
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
        if let Some((connection, _)) = self.connection.take() {
            connection.close().await.ok();
        }
        Ok(())
    }
}

impl Queue {
    /// Enters a worker into the registry of its site that sends nothing to machines. `host` is for people only.
    pub async fn join(&self, site: &str, host: &str) -> Result<Heart, QueueError> {
        self.enter(Newcomer { site, host, quiet: Duration::ZERO, past: Past::Continued }).await
    }

    /// Enters a worker into the registry of its site, and this process into the history that the database tells now.
    pub async fn enter(&self, newcomer: Newcomer<'_>) -> Result<Heart, QueueError> {
        let me = Incarnation(rand::random());
        let opened = Instant::now();
        let present = &self.inner.present;
        let mut connection = connection::single(&self.inner.address.options()?).await?;
        let found = present.read(&mut connection, self.inner.writer, Asked::First).await?;
        present.met(&found.node)?;
        let another = newcomer.past == Past::Lost || found.went_back || !present.is(&found.history);
        let mut transaction = connection.begin().await?;
        let entry = Entry {
            lost: another || newcomer.past == Past::Doubtful,
            worked_in: another.then(|| present.history()),
            quiet: newcomer.quiet,
        };
        let Entered { quiet, told } = history::enter(&mut transaction, found, entry).await?;
        sqlx::query("INSERT INTO worker (incarnation, site, host, heartbeat) VALUES (?, ?, ?, 1)")
            .bind(me.0)
            .bind(newcomer.site)
            .bind(newcomer.host)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        present.entered(&told);
        let quiet_until = Instant::now() + quiet.as_ref().map_or(Duration::ZERO, |quiet| quiet.time);
        let connection = Some((connection, opened));
        Ok(Heart {
            queue: self.clone(),
            me,
            sequence: 1,
            history: told.history,
            quiet_until,
            quiet,
            derived: told.underived.is_none(),
            unanswered: false,
            connection,
        })
    }
}
