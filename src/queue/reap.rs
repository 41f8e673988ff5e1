//! Reaping: the jobs of a worker whose heartbeat stands still become ready for others.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{MySqlConnection, Row};

use super::complete::{End, end_job};
use super::row::{JobRow, insert_place};
use super::state::{Tell, touch};
use super::transaction::{Ending, Pass, Transaction};
use super::wake::move_to_ready;
use super::{PlaceInQueue, Queue, QueueError, Report};
use crate::api::Reason;
use crate::job::{Incarnation, JobResult, Problem};

/// Crashes of one step after which its job is stopped; once more while it is being undone, and it is ended.
pub const CRASH_LIMIT: i64 = 5;

/// Jobs taken over in one transaction.
const PAGE: u32 = 50;

/// One row of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The worker.
    pub worker: Incarnation,
    /// Its heartbeat sequence.
    pub sequence: i64,
}

/// Judges leases on the observer's own monotonic clock: one has expired when the same sequence was seen for the lease
/// time. No wall clock of any host or database decides.
#[derive(Debug)]
pub struct LeaseWatch {
    lease: Duration,
    seen: HashMap<Incarnation, (i64, Duration)>,
}

impl LeaseWatch {
    /// A watch that has seen nothing yet.
    pub fn new(lease: Duration) -> Self {
        Self { lease, seen: HashMap::new() }
    }

    /// Takes in the registry as read at `now` (time on any monotonic clock); returns those that have expired.
    pub fn observe(&mut self, registry: &[Heartbeat], now: Duration) -> Vec<Heartbeat> {
        self.seen.retain(|worker, _| registry.iter().any(|row| row.worker == *worker));
        let mut expired = Vec::new();
        for row in registry {
            let entry = self.seen.entry(row.worker).or_insert((row.sequence, now));
            if entry.0 != row.sequence {
                *entry = (row.sequence, now);
            }
            if now.saturating_sub(entry.1) >= self.lease {
                expired.push(*row);
            }
        }
        expired
    }
}

/// What reaping a worker came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// Its heartbeat moved after all.
    StillAlive,
    /// It is gone; so many jobs were taken over.
    Gone {
        /// Jobs that became ready, or were ended at the crash limit.
        jobs: u32,
    },
}

struct TakeOver {
    worker: Incarnation,
}

impl Transaction for TakeOver {
    type Output = u32;
    const NAME: &'static str = "take_over";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<u32>, QueueError> {
        let rows = sqlx::query(
            "SELECT * FROM job WHERE owner = ? ORDER BY owner, q_state, server_uid LIMIT ? FOR UPDATE",
        )
        .bind(self.worker.0)
        .bind(PAGE)
        .fetch_all(&mut *connection)
        .await?;
        let mut ready = Vec::with_capacity(rows.len());
        for row in &rows {
            let job = match JobRow::read(row) {
                Ok(job) => job,
                Err(error) => {
                    // Another release's job: given back by key, unread.
                    let uid: String = row.try_get("server_uid")?;
                    tracing::error!(server = uid, %error, "a job of a dead worker cannot be read; it stays with it");
                    continue;
                }
            };
            if job.crashes + 1 >= CRASH_LIMIT && job.live.cancel == Some(Reason::CrashLimit) {
                end_job(connection, &job, &poisoned(&job)).await?;
                continue;
            }
            give_up(connection, &job).await?;
            ready.push(job);
        }
        for job in &ready {
            touch(connection, &job.uid, if job.quiet { Tell::Nobody } else { Tell::Controller }).await?;
        }
        for job in &ready {
            insert_place(connection, job, PlaceInQueue::Ready, job.order_key()).await?;
        }
        Ok(Ending::Commit(rows.len() as u32))
    }
}

/// Counts the crash, and asks a job that reached the limit to stop, so that its undo steps run.
async fn give_up(connection: &mut MySqlConnection, job: &JobRow) -> Result<(), QueueError> {
    let limit = job.crashes + 1 >= CRASH_LIMIT && job.live.cancel.is_none();
    sqlx::query(
        "UPDATE job SET crashes = IF(?, 0, crashes + 1), cancel = IF(?, ?, cancel) WHERE server_uid = ?",
    )
    .bind(limit)
    .bind(limit)
    .bind(Reason::CrashLimit.as_str())
    .bind(job.uid.as_str())
    .execute(&mut *connection)
    .await?;
    move_to_ready(connection, job).await
}

fn poisoned(job: &JobRow) -> End {
    let message = format!(
        "step {} crashed its worker {CRASH_LIMIT} times, and so did undoing it; see the workers' logs for job {}",
        job.live.step, job.live.id
    );
    let problem = Some(Problem::new(Reason::CrashLimit, message));
    End { result: JobResult::Failed, problem, cause: None, report: Report::Nothing }
}

impl Queue {
    /// The heartbeats of a site's workers, dead ones included.
    pub async fn registry(&self, site: &str) -> Result<Vec<Heartbeat>, QueueError> {
        let rows = sqlx::query("SELECT incarnation, heartbeat FROM worker WHERE site = ?")
            .bind(site)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Heartbeat {
                    worker: Incarnation(row.try_get("incarnation")?),
                    sequence: row.try_get("heartbeat")?,
                })
            })
            .collect()
    }

    /// Buries a worker whose lease has expired and makes its jobs ready. The tombstone comes first: from then on the
    /// worker can neither claim nor renew. A stored request stays with its job: the successor waits for it to settle.
    pub async fn reap(&self, expired: Heartbeat) -> Result<Reaped, QueueError> {
        let buried = sqlx::query("UPDATE worker SET tombstone = 1 WHERE incarnation = ? AND heartbeat = ?")
            .bind(expired.worker.0)
            .bind(expired.sequence)
            .execute(self.pool())
            .await?;
        if buried.rows_affected() == 0 {
            return Ok(Reaped::StillAlive);
        }
        let jobs = self.take_over(expired.worker).await?;
        sqlx::query(
            "DELETE FROM worker WHERE incarnation = ? AND tombstone = 1 AND NOT EXISTS (SELECT 1 FROM job WHERE owner = ?)",
        )
        .bind(expired.worker.0)
        .bind(expired.worker.0)
        .execute(self.pool())
        .await?;
        Ok(Reaped::Gone { jobs })
    }

    /// Makes the jobs of a worker ready that is buried, or that no registry knows any more; returns how many.
    pub async fn take_over(&self, worker: Incarnation) -> Result<u32, QueueError> {
        let mut jobs = 0;
        loop {
            let page = self.transact(TakeOver { worker }).await?;
            jobs += page;
            if page < PAGE {
                return Ok(jobs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: Incarnation = Incarnation(1);

    fn at(watch: &mut LeaseWatch, sequence: i64, seconds: u64) -> usize {
        watch.observe(&[Heartbeat { worker: WORKER, sequence }], Duration::from_secs(seconds)).len()
    }

    #[test]
    fn a_lease_expires_only_after_the_same_heartbeat_was_seen_for_its_whole_time() {
        let mut watch = LeaseWatch::new(Duration::from_secs(10));
        assert_eq!(at(&mut watch, 1, 100), 0);
        assert_eq!(at(&mut watch, 1, 109), 0);
        assert_eq!(at(&mut watch, 2, 110), 0);
        assert_eq!(at(&mut watch, 2, 119), 0);
        assert_eq!(at(&mut watch, 2, 120), 1);
    }

    #[test]
    fn an_observer_that_was_away_gives_everybody_a_whole_lease() {
        let mut watch = LeaseWatch::new(Duration::from_secs(10));
        assert_eq!(at(&mut watch, 1, 0), 0);
        watch.observe(&[], Duration::from_secs(50));
        assert_eq!(at(&mut watch, 1, 100), 0);
    }
}
