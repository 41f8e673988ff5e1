//! Reaping: the jobs of a worker whose heartbeat stands still become ready for others.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::complete::{End, end_job};
use super::row::{JobRow, QueueRow, insert_places};
use super::state::touch;
use super::transaction::{Ending, Pass, Transaction};
use super::wake::awaken;
use super::{OwnedJob, Queue, QueueError, now_ms};
use crate::api::Reason;
use crate::job::{Incarnation, JobResult, Problem};

/// Crashes of one step after which its job is stopped; once more while it is being undone, and it is ended.
pub const CRASH_LIMIT: i64 = 5;

/// How long a job that cannot be run now is left alone, in milliseconds.
const ASIDE_MS: i64 = 3_600_000;

/// The same where it has crashed its workers and a request of it may still take effect, or has: its machine may be off.
const POISONED_MS: i64 = 120_000;

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

    /// How long after `now` the next lease expires, if no heartbeat moves until then; `None`: there is none.
    pub fn next_expiry(&self, now: Duration) -> Option<Duration> {
        let left = self.seen.values().map(|(_, since)| (*since + self.lease).saturating_sub(now));
        left.filter(|left| !left.is_zero()).min()
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
    /// Only this job of it; `None`: all of them, page by page.
    only: Option<OwnedJob>,
}

impl Transaction for TakeOver {
    type Output = u32;
    const NAME: &'static str = "take_over";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<u32>, QueueError> {
        let rows = self.rows(connection).await?;
        let mut ready = Vec::with_capacity(rows.len());
        let mut set_aside = Vec::new();
        for row in &rows {
            let job = match JobRow::read(row) {
                Ok(job) => job,
                Err(error) => {
                    // Another release's job: set aside by its key, unread.
                    let key = Key::read(row)?;
                    tracing::error!(server = key.uid, %error, "a job of a dead worker cannot be read; it is parked");
                    set_aside.push((key, None));
                    continue;
                }
            };
            if job.crashes + 1 >= CRASH_LIMIT && job.live.cancel == Some(Reason::CrashLimit) {
                // Nobody ends a job whose request may still take effect; it stays, shows why, and is tried again.
                if job.request.is_some() {
                    set_aside.push((Key::read(row)?, Some((poisoned(&job), job))));
                } else {
                    end_job(connection, &job, &End { problem: Some(poisoned(&job)), ..FAILED }).await?;
                }
                continue;
            }
            ready.push(give_up(connection, job).await?);
        }
        let now_ms: i64 =
            sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut *connection).await?;
        let wake_ms = |poisoned: bool| now_ms + if poisoned { POISONED_MS } else { ASIDE_MS };
        for (key, problem) in &set_aside {
            key.park(connection, wake_ms(problem.is_some()), problem.as_ref().map(|(problem, _)| problem))
                .await?;
        }
        let shown = set_aside.iter().filter_map(|(_, known)| known.as_ref().map(|(_, job)| job));
        for job in ready.iter().chain(shown) {
            touch(connection, &job.uid, job.tell()).await?;
        }
        for (key, problem) in &set_aside {
            key.insert_parked(connection, wake_ms(problem.is_some())).await?;
        }
        let places: Vec<QueueRow<'_>> =
            ready.iter().map(|job| QueueRow::of(job, job.waits_in(), job.order_key())).collect();
        insert_places(connection, &places).await?;
        Ok(Ending::Commit(rows.len() as u32))
    }
}

impl TakeOver {
    async fn rows(&self, connection: &mut MySqlConnection) -> Result<Vec<MySqlRow>, QueueError> {
        let query = match &self.only {
            None => sqlx::query(
                "SELECT * FROM job FORCE INDEX (owner) WHERE owner = ? ORDER BY owner, q_state, server_uid LIMIT ? FOR UPDATE",
            )
            .bind(self.worker.0)
            .bind(PAGE),
            Some(job) => sqlx::query(
                "SELECT * FROM job WHERE server_uid = ? AND id = ? AND owner = ? AND token = ? FOR UPDATE",
            )
            .bind(job.uid.as_str())
            .bind(job.id.0)
            .bind(self.worker.0)
            .bind(job.token.0),
        };
        Ok(query.fetch_all(connection).await?)
    }
}

/// Counts the crash, and asks a job that reached the limit to stop, so that its undo steps run.
async fn give_up(connection: &mut MySqlConnection, mut job: JobRow) -> Result<JobRow, QueueError> {
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
    if limit {
        job.live.cancel = Some(Reason::CrashLimit);
    }
    awaken(connection, &job).await?;
    Ok(job)
}

fn poisoned(job: &JobRow) -> Problem {
    let message = format!(
        "step {} crashed its worker {CRASH_LIMIT} times, and so did undoing it; see the workers' logs for job {}",
        job.live.step, job.live.id
    );
    Problem::new(Reason::CrashLimit, message)
}

const FAILED: End = End::new(JobResult::Failed, None);

/// What is needed to park a row whatever else it holds.
struct Key {
    uid: String,
    id: i64,
    site: String,
    shard: i64,
}

impl Key {
    fn read(row: &MySqlRow) -> Result<Self, QueueError> {
        Ok(Self {
            uid: row.try_get("server_uid")?,
            id: row.try_get("id")?,
            site: row.try_get("site")?,
            shard: row.try_get("shard")?,
        })
    }

    async fn park(
        &self,
        connection: &mut MySqlConnection,
        wake_ms: i64,
        problem: Option<&Problem>,
    ) -> Result<(), QueueError> {
        sqlx::query(
            "UPDATE job SET owner = NULL, token = NULL, q_state = 3, q_ord = ?, reason = COALESCE(?, reason), \
             exact_reason = IF(? IS NULL, exact_reason, ?), message = COALESCE(?, message) WHERE server_uid = ?",
        )
        .bind(wake_ms)
        .bind(problem.map(|problem| problem.reason.served().as_str()))
        .bind(problem.map(|problem| problem.reason.served().as_str()))
        .bind(problem.and_then(|problem| problem.reason.beside_served()).map(Reason::as_str))
        .bind(problem.map(|problem| problem.message.as_str()))
        .bind(&self.uid)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn insert_parked(&self, connection: &mut MySqlConnection, wake_ms: i64) -> Result<(), QueueError> {
        sqlx::query("INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES (?, ?, 3, ?, ?, ?)")
            .bind(&self.site)
            .bind(self.shard)
            .bind(wake_ms)
            .bind(self.id)
            .bind(&self.uid)
            .execute(connection)
            .await?;
        Ok(())
    }
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
            "DELETE FROM worker WHERE incarnation = ? AND tombstone = 1 AND NOT EXISTS (SELECT 1 FROM job FORCE INDEX (owner) WHERE owner = ?)",
        )
        .bind(expired.worker.0)
        .bind(expired.worker.0)
        .execute(self.pool())
        .await?;
        Ok(Reaped::Gone { jobs })
    }

    /// Gives back a job of `me` whose slot panicked: it counts as a crash of its step. `false`: it is no longer that
    /// claim.
    pub async fn crashed(&self, me: Incarnation, job: OwnedJob) -> Result<bool, QueueError> {
        Ok(self.transact(TakeOver { worker: me, only: Some(job) }).await? > 0)
    }

    /// Makes the jobs of a worker ready that is buried, or that no registry knows any more; returns how many.
    pub async fn take_over(&self, worker: Incarnation) -> Result<u32, QueueError> {
        let mut jobs = 0;
        loop {
            let page = self.transact(TakeOver { worker, only: None }).await?;
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
    fn the_next_expiry_is_that_of_the_heartbeat_that_stands_still_for_longest() {
        let mut watch = LeaseWatch::new(Duration::from_secs(10));
        let beat = |worker, sequence| Heartbeat { worker: Incarnation(worker), sequence };
        let at = Duration::from_secs;
        assert_eq!(watch.next_expiry(at(0)), None);
        watch.observe(&[beat(1, 1), beat(2, 1)], at(100));
        watch.observe(&[beat(1, 1), beat(2, 2)], at(104));
        assert_eq!(watch.next_expiry(at(104)), Some(at(6)));
        assert_eq!(watch.next_expiry(at(110)), Some(at(4)), "what has expired is not waited for");
        watch.observe(&[beat(1, 1)], at(111));
        assert_eq!(watch.next_expiry(at(111)), None);
    }

    #[test]
    fn an_observer_that_was_away_gives_everybody_a_whole_lease() {
        let mut watch = LeaseWatch::new(Duration::from_secs(10));
        assert_eq!(at(&mut watch, 1, 0), 0);
        watch.observe(&[], Duration::from_secs(50));
        assert_eq!(at(&mut watch, 1, 100), 0);
    }
}
