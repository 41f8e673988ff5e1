//! Claiming: waiting jobs become a worker's, each with a new random token.

use std::collections::BTreeSet;

use sqlx::{MySqlConnection, Row};

use super::row::{JobRow, delete_place};
use super::state::{Tell, touch};
use super::transaction::{Ending, Pass, Transaction};
use super::{OwnedJob, PlaceInQueue, Queue, QueueError, now_ms};
use crate::api::Reason;
use crate::job::{Incarnation, Lane, LiveJob, ServerUid, StoredRequest, Token};
use crate::shard::Shard;

/// The shards that a worker looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The site.
    pub site: String,
    /// Its shards.
    pub shards: BTreeSet<Shard>,
}

/// Where to claim: one lane of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFrom {
    /// The site.
    pub site: String,
    /// The shard.
    pub shard: Shard,
    /// `Ready` or `Queued`.
    pub place: PlaceInQueue,
    /// The lane.
    pub lane: Lane,
}

/// A claimed job: what the worker knows of it, and the proof that it is the worker's. Every write through it is
/// refused once another worker has the job.
#[derive(Debug, Clone)]
pub struct Claim {
    pub(super) job: JobRow,
    pub(super) token: Token,
}

impl Claim {
    /// The job as it was read last.
    pub fn job(&self) -> &LiveJob {
        &self.job.live
    }

    /// The server.
    pub fn uid(&self) -> &ServerUid {
        &self.job.uid
    }

    /// What names this claim in the list of its owner's jobs.
    pub fn owned(&self) -> OwnedJob {
        OwnedJob { uid: self.job.uid.clone(), id: self.job.live.id, token: self.token }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.job.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.job.name
    }

    /// What the last step left for the next one; empty at first.
    pub fn checkpoint(&self) -> &str {
        &self.job.checkpoint
    }

    /// The request whose answer is not known yet. A successor waits its whole settle time, then probes.
    pub fn request(&self) -> Option<&StoredRequest> {
        self.job.request.as_ref()
    }

    /// Why the job was asked to stop.
    pub fn cancel(&self) -> Option<Reason> {
        self.job.live.cancel
    }

    /// When the present step was first tried, milliseconds since the Unix epoch by the database's clock.
    pub fn step_since_ms(&self) -> Option<i64> {
        self.job.step_since_ms
    }

    /// Whether status shows the job only if it changes something or fails.
    pub fn quiet(&self) -> bool {
        self.job.quiet
    }

    /// Whom the controller is told of a change.
    pub(super) fn tell(&self) -> Tell {
        if self.job.quiet { Tell::Nobody } else { Tell::Controller }
    }
}

struct ClaimJobs {
    me: Incarnation,
    from: ClaimFrom,
    at_most: u32,
}

impl Transaction for ClaimJobs {
    type Output = Vec<Claim>;
    const NAME: &'static str = "claim";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Vec<Claim>>, QueueError> {
        // Held in share mode: whoever reaps this worker waits for the claim, or the claim sees the tombstone.
        let alive: Option<i64> = sqlx::query_scalar(
            "SELECT heartbeat FROM worker WHERE incarnation = ? AND tombstone = 0 LOCK IN SHARE MODE",
        )
        .bind(self.me.0)
        .fetch_optional(&mut *connection)
        .await?;
        if alive.is_none() {
            return Ok(Ending::Rollback(Vec::new()));
        }
        let (first, last) = self.from.lane.order_range();
        // Constants stay out of ORDER BY: MariaDB sorts in a file when a text column is among them.
        let candidates = sqlx::query(
            "SELECT ord, id, server_uid FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord BETWEEN ? AND ? \
             ORDER BY ord, id LIMIT ? FOR UPDATE SKIP LOCKED",
        )
        .bind(&self.from.site)
        .bind(i64::from(self.from.shard.0))
        .bind(self.from.place.code())
        .bind(first)
        .bind(last)
        .bind(self.at_most)
        .fetch_all(&mut *connection)
        .await?;
        // Table by table and by key, so that two claims never wait for each other in a circle.
        let mut keys = Vec::with_capacity(candidates.len());
        for row in &candidates {
            keys.push((
                row.try_get::<String, _>("server_uid")?,
                row.try_get::<i64, _>("ord")?,
                row.try_get("id")?,
            ));
        }
        keys.sort();
        let mut claims = Vec::with_capacity(keys.len());
        for (uid, ord, id) in keys {
            if let Some(claim) = self.take(connection, &uid, ord, id).await? {
                claims.push(claim);
            }
        }
        for claim in claims.iter().filter(|claim| !claim.job.live.started()) {
            if claim.tell() == Tell::Controller {
                touch(connection, claim.uid(), Tell::Controller).await?;
            }
        }
        claims.sort_by_key(|claim| claim.job.order_key());
        Ok(Ending::Commit(claims))
    }
}

impl ClaimJobs {
    async fn take(
        &self,
        connection: &mut MySqlConnection,
        uid: &str,
        ord: i64,
        id: i64,
    ) -> Result<Option<Claim>, QueueError> {
        let row = sqlx::query(
            "SELECT * FROM job WHERE server_uid = ? AND id = ? AND q_state = ? AND q_ord = ? FOR UPDATE",
        )
        .bind(uid)
        .bind(id)
        .bind(self.from.place.code())
        .bind(ord)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else {
            // A queue row without its job would be offered for ever.
            sqlx::query(
                "DELETE FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ?",
            )
            .bind(&self.from.site)
            .bind(i64::from(self.from.shard.0))
            .bind(self.from.place.code())
            .bind(ord)
            .bind(id)
            .execute(connection)
            .await?;
            tracing::warn!(server = uid, "removed a queue row that had no job");
            return Ok(None);
        };
        let mut job = match JobRow::read(&row) {
            Ok(job) => job,
            Err(error) => {
                // It stays where it is for a release that knows it, out of the way of the others.
                tracing::error!(server = uid, %error, "a job row cannot be read; it is parked for ten minutes");
                set_aside(connection, uid, (&self.from.site, self.from.shard), self.from.place, ord, id)
                    .await?;
                return Ok(None);
            }
        };
        let token = Token(rand::random());
        sqlx::query(concat!(
            "UPDATE job SET owner = ?, token = ?, q_state = NULL, q_ord = NULL, waiting_for = NULL, \
             started_at_ms = COALESCE(started_at_ms, ",
            now_ms!(),
            "), step_since_ms = COALESCE(step_since_ms, ",
            now_ms!(),
            ") WHERE server_uid = ?"
        ))
        .bind(self.me.0)
        .bind(token.0)
        .bind(uid)
        .execute(&mut *connection)
        .await?;
        delete_place(connection, &job, self.from.place, ord).await?;
        job.owner = Some(self.me.0);
        job.token = Some(token.0);
        job.place = None;
        Ok(Some(Claim { job, token }))
    }
}

/// Parks a row that this release cannot read.
pub(super) async fn set_aside(
    connection: &mut MySqlConnection,
    uid: &str,
    (site, shard): (&str, Shard),
    place: PlaceInQueue,
    ord: i64,
    id: i64,
) -> Result<(), QueueError> {
    let wake_ms: i64 =
        sqlx::query_scalar(concat!("SELECT ", now_ms!(), " + 600000")).fetch_one(&mut *connection).await?;
    sqlx::query("UPDATE job SET q_state = ?, q_ord = ? WHERE server_uid = ?")
        .bind(PlaceInQueue::Parked.code())
        .bind(wake_ms)
        .bind(uid)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE queue SET state = ?, ord = ? WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ?")
        .bind(PlaceInQueue::Parked.code())
        .bind(wake_ms)
        .bind(site)
        .bind(i64::from(shard.0))
        .bind(place.code())
        .bind(ord)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

impl Queue {
    /// Claims up to `at_most` jobs of one lane of one shard, the oldest first. Nothing is claimed by a worker whose
    /// row is gone or bears a tombstone.
    pub async fn claim(
        &self,
        me: Incarnation,
        from: ClaimFrom,
        at_most: u32,
    ) -> Result<Vec<Claim>, QueueError> {
        self.transact(ClaimJobs { me, from, at_most }).await
    }
}
