//! Claiming: waiting jobs become a worker's, each with a new random token.

use std::collections::BTreeSet;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, marks};
use super::row::{JobRow, PlaceKey, delete_places, lock_jobs, these};
use super::state::{Tell, touch_all};
use super::transaction::{Ending, Kept, Pass, Transaction};
use super::{OwnedJob, PlaceInQueue, Queue, QueueError, now_ms, permit};
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
    /// Any but `Parked`.
    pub place: PlaceInQueue,
    /// The lane.
    pub lane: Lane,
}

/// One claim over some shards of a site.
#[derive(Debug, Clone)]
pub(super) struct ClaimOver {
    /// The site.
    pub site: String,
    /// Any but `Parked`.
    pub place: PlaceInQueue,
    /// The lane.
    pub lane: Lane,
    /// Which of those that wait there.
    pub which: Which,
}

/// Which jobs a claim takes.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// The first ones.
    First {
        /// The shards, in the order in which they are looked at, none twice; with the order key before which nothing is left,
        /// most likely: it is looked there only if there is not enough behind it.
        shards: Vec<(Shard, Option<i64>)>,
        /// So many jobs in all.
        at_most: u32,
    },
    /// Those that are still there of these rows: shard, order key, id.
    These(Vec<PlaceKey>),
}

/// What one claim came to.
#[derive(Debug)]
pub(super) struct Claimed {
    /// What was claimed, the oldest first.
    pub claims: Vec<Claim>,
    /// The shards that were looked at.
    pub looked: Vec<Looked>,
}

impl Claimed {
    const NOTHING: Self = Self { claims: Vec::new(), looked: Vec::new() };

    /// Rows that were found, those included that turned out to be no jobs.
    pub(super) fn found(&self) -> u32 {
        self.looked.iter().map(|looked| looked.found).sum()
    }
}

/// What a claim found in one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    /// The shard.
    pub shard: Shard,
    /// Rows that were found.
    pub found: u32,
    /// Whether nothing else is left in the lane.
    pub is_empty: bool,
    /// The order key of the last row that was found.
    pub last: Option<i64>,
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

    /// How a BMC that logs it can tell one claim from another: the job and the token of the claim.
    pub fn name_to_bmcs(&self) -> String {
        format!("{}-{:016x}", self.job.live.id, self.token.0)
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

    /// The value of `autobuild.dev/reconcile-requested-at` that the worker read with the object, empty where there is none:
    /// with the next report about its BMC that request was acted on.
    pub fn has_read(&mut self, asked: String) {
        self.job.asked = Some(asked);
    }

    /// Whom the controller is told of a change.
    pub(super) fn tell(&self) -> Tell {
        self.job.tell()
    }
}

struct ClaimJobs {
    me: Incarnation,
    over: ClaimOver,
}

impl Transaction for ClaimJobs {
    type Output = Claimed;
    const NAME: &'static str = "claim";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Claimed>, QueueError> {
        let (mut keys, looked) = self.candidates(connection).await?;
        if keys.is_empty() {
            return Ok(Ending::Rollback(Claimed { claims: Vec::new(), looked }));
        }
        // Table by table and by key, so that two claims never wait for each other in a circle.
        keys.sort_by(|a, b| a.uid.cmp(&b.uid));
        let mut claims = self.take(connection, &keys).await?;
        // Held in share mode: whoever reaps this worker waits for the claim, or the claim sees the tombstone. So late,
        // because a heartbeat waits for it as well.
        let alive: Option<i64> = sqlx::query_scalar(
            "SELECT heartbeat FROM worker WHERE incarnation = ? AND tombstone = 0 LOCK IN SHARE MODE",
        )
        .bind(self.me.0)
        .fetch_optional(&mut *connection)
        .await?;
        if alive.is_none() {
            return Ok(Ending::Rollback(Claimed::NOTHING));
        }
        if let (PlaceInQueue::QueuedBounded, Some(class)) =
            (self.over.place, claims.iter().find_map(|claim| claim.job.permit_class))
        {
            // Last of all locks. Others took what was left: this claim is not made, the next one asks for less.
            if !permit::take(connection, &self.over.site, class, claims.len()).await? {
                return Ok(Ending::Rollback(Claimed { claims: Vec::new(), looked }));
            }
        }
        claims.sort_by_key(|claim| (claim.job.order_key(), claim.job.live.id));
        Ok(Ending::Commit(Claimed { claims, looked }))
    }
}

/// A row of `queue` that may be a job's.
struct Candidate {
    shard: Shard,
    uid: String,
    ord: i64,
    id: i64,
}

fn candidate(row: &MySqlRow, shard: Shard) -> Result<Candidate, QueueError> {
    let (uid, ord, id) = (row.try_get("server_uid")?, row.try_get("ord")?, row.try_get("id")?);
    Ok(Candidate { shard, uid, ord, id })
}

impl ClaimJobs {
    /// Locks the first rows of one shard after the other, until there are enough.
    async fn candidates(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<(Vec<Candidate>, Vec<Looked>), QueueError> {
        let (shards, at_most) = match &self.over.which {
            Which::First { shards, at_most } => (shards, *at_most),
            Which::These(rows) => return Ok((self.lock_these(connection, rows).await?, Vec::new())),
        };
        let (first, last) = self.over.lane.order_range();
        let (mut keys, mut looked) = (Vec::new(), Vec::new());
        for (shard, from_ord) in shards {
            let wanted = at_most as usize - keys.len();
            if wanted == 0 {
                break;
            }
            let mut range = (from_ord.unwrap_or(first), last);
            let mut here = self.lock(connection, *shard, range, wanted).await?;
            if let (Some(from_ord), true) = (from_ord, here.len() < wanted) {
                // Something may have been put before it: woken, taken from a dead worker, moved to this lane.
                range = (first, from_ord - 1);
                let left = wanted - here.len();
                here.extend(self.lock(connection, *shard, range, left).await?);
            }
            looked.push(Looked {
                shard: *shard,
                found: here.len() as u32,
                is_empty: here.len() < wanted,
                last: here.last().map(|key| key.ord),
            });
            keys.extend(here);
        }
        Ok((keys, looked))
    }

    /// Locks the first rows of a range of order keys that nobody else has locked.
    async fn lock(
        &self,
        connection: &mut MySqlConnection,
        shard: Shard,
        (first, last): (i64, i64),
        at_most: usize,
    ) -> Result<Vec<Candidate>, QueueError> {
        // Constants stay out of ORDER BY: MariaDB sorts in a file when a text column is among them.
        let rows = sqlx::query(
            "SELECT ord, id, server_uid FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard = ? AND state = ? \
             AND ord BETWEEN ? AND ? ORDER BY ord, id LIMIT ? FOR UPDATE SKIP LOCKED",
        )
        .bind(&self.over.site)
        .bind(i64::from(shard.0))
        .bind(self.over.place.code())
        .bind(first)
        .bind(last)
        .bind(at_most as i64)
        .fetch_all(&mut *connection)
        .await?;
        rows.iter().map(|row| candidate(row, shard)).collect()
    }

    /// Locks those of these rows that are still there and that nobody else has locked.
    async fn lock_these(
        &self,
        connection: &mut MySqlConnection,
        rows: &[PlaceKey],
    ) -> Result<Vec<Candidate>, QueueError> {
        let mut found = Vec::with_capacity(rows.len());
        for group in filled(rows) {
            let text = format!(
                "SELECT shard, ord, id, server_uid FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND {} \
                 FOR UPDATE SKIP LOCKED",
                these(group.len())
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(&self.over.site);
            for (shard, ord, id) in group {
                query = query.bind(shard).bind(self.over.place.code()).bind(ord).bind(id);
            }
            for row in query.fetch_all(&mut *connection).await? {
                found.push(candidate(&row, Shard(row.try_get::<i64, _>("shard")?.max(0) as u16))?);
            }
        }
        Ok(found)
    }

    /// Makes the candidates' jobs this worker's.
    async fn take(
        &self,
        connection: &mut MySqlConnection,
        keys: &[Candidate],
    ) -> Result<Vec<Claim>, QueueError> {
        let place = self.over.place;
        let uids: Vec<&str> = keys.iter().map(|key| key.uid.as_str()).collect();
        let rows = lock_jobs(connection, &uids).await?;
        // One token for the whole claim: it is new, and nobody else has it.
        let token = Token(rand::random());
        let mut claims = Vec::with_capacity(keys.len());
        let mut removed = Vec::with_capacity(keys.len());
        let mut unreadable = Vec::new();
        for key in keys {
            let row = rows.get(&key.uid).filter(|row| is_at(row, key, place));
            // A queue row without its job would be offered for ever: it goes with the others.
            let Some(row) = row else {
                tracing::warn!(server = key.uid, "removed a queue row that had no job");
                removed.push((i64::from(key.shard.0), key.ord, key.id));
                continue;
            };
            match JobRow::read(row) {
                Ok(mut job) => {
                    removed.push((i64::from(key.shard.0), key.ord, key.id));
                    (job.owner, job.token, job.place) = (Some(self.me.0), Some(token.0), None);
                    job.permit_held |= place == PlaceInQueue::QueuedBounded;
                    claims.push(Claim { job, token });
                }
                Err(error) => {
                    // It stays where it is for a release that knows it, out of the way of the others.
                    tracing::error!(server = key.uid, %error, "a job row cannot be read; it is parked for ten minutes");
                    unreadable.push(key);
                }
            }
        }
        delete_places(connection, &self.over.site, place, &removed).await?;
        self.own(connection, &claims, token).await?;
        for key in unreadable {
            set_aside(connection, &key.uid, (&self.over.site, key.shard), place, key.ord, key.id).await?;
        }
        let news =
            claims.iter().filter(|claim| !claim.job.live.started() && claim.tell() == Tell::Controller);
        let news: Vec<&str> = news.map(|claim| claim.uid().as_str()).collect();
        touch_all(connection, &news, Tell::Controller).await?;
        Ok(claims)
    }

    async fn own(
        &self,
        connection: &mut MySqlConnection,
        claims: &[Claim],
        token: Token,
    ) -> Result<(), QueueError> {
        let uids: Vec<&str> = claims.iter().map(|claim| claim.uid().as_str()).collect();
        for group in filled(&uids) {
            let text = format!(
                "UPDATE job FORCE INDEX (PRIMARY) SET owner = ?, token = ?, q_state = NULL, q_ord = NULL, \
                 waiting_for = NULL, permit_held = IF(?, 1, permit_held), \
                 started_at_ms = COALESCE(started_at_ms, {now}), step_since_ms = COALESCE(step_since_ms, {now}) \
                 WHERE server_uid IN ({})",
                marks(group.len()),
                now = now_ms!(),
            );
            let mut query = sqlx::query(AssertSqlSafe(text))
                .bind(self.me.0)
                .bind(token.0)
                .bind(self.over.place == PlaceInQueue::QueuedBounded);
            for uid in group {
                query = query.bind(uid);
            }
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Whether a job's row says that it is at this very place in the queue.
fn is_at(row: &MySqlRow, key: &Candidate, place: PlaceInQueue) -> bool {
    let at = |row: &MySqlRow| -> Result<bool, sqlx::Error> {
        Ok(row.try_get::<i64, _>("id")? == key.id
            && row.try_get::<Option<i64>, _>("q_state")? == Some(place.code())
            && row.try_get::<Option<i64>, _>("q_ord")? == Some(key.ord))
    };
    at(row).unwrap_or(false)
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
    /// row is gone or bears a tombstone, nor without the permits that the jobs need.
    pub async fn claim(
        &self,
        me: Incarnation,
        from: ClaimFrom,
        at_most: u32,
    ) -> Result<Vec<Claim>, QueueError> {
        let ClaimFrom { site, shard, place, lane } = from;
        let which = Which::First { shards: vec![(shard, None)], at_most };
        let over = ClaimOver { site, place, lane, which };
        Ok(self.claim_over(&mut Kept::default(), me, over).await?.claims)
    }

    /// Claims jobs of one lane of some shards in one transaction, those of the first shard first.
    pub(super) async fn claim_over(
        &self,
        kept: &mut Kept,
        me: Incarnation,
        over: ClaimOver,
    ) -> Result<Claimed, QueueError> {
        self.transact_on(kept, ClaimJobs { me, over }).await
    }
}
