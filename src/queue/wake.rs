//! Waking: parked jobs whose time has come become ready.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::claim::set_aside;
use super::many::{filled, marks};
use super::row::{JobRow, QueueRow, delete_places, insert_places, lock_jobs};
use super::transaction::{Ending, Kept, Pass, Transaction};
use super::{PlaceInQueue, Queue, QueueError, now_ms};
use crate::job::{Lane, order_key};
use crate::shard::Shard;

struct Wake {
    site: String,
    shards: Vec<Shard>,
    at_most: u32,
}

/// The queue row of a parked job.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sleeper {
    uid: String,
    shard: i64,
    ord: i64,
    id: i64,
}

impl Transaction for Wake {
    type Output = u32;
    const NAME: &'static str = "wake";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<u32>, QueueError> {
        let mut due = self.due(connection).await?;
        due.sort();
        let uids: Vec<&str> = due.iter().map(|sleeper| sleeper.uid.as_str()).collect();
        let mut rows = lock_jobs(connection, &uids).await?;
        let (mut woken, mut left) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
        for Sleeper { uid, shard, ord, id } in &due {
            let Some(row) = rows.remove(uid) else { continue };
            let here = row.try_get::<i64, _>("id")? == *id
                && row.try_get::<Option<i64>, _>("q_state")? == Some(PlaceInQueue::Parked.code())
                && row.try_get::<Option<i64>, _>("q_ord")? == Some(*ord);
            if !here {
                continue;
            }
            match JobRow::read(&row) {
                Ok(job) => {
                    woken.push(job);
                    left.push((*shard, *ord, *id));
                }
                Err(error) => {
                    tracing::error!(server = uid, %error, "a job row cannot be read; it stays parked for ten minutes");
                    let part = (&*self.site, Shard((*shard).max(0) as u16));
                    set_aside(connection, uid, part, PlaceInQueue::Parked, *ord, *id).await?;
                }
            }
        }
        delete_places(connection, &self.site, PlaceInQueue::Parked, &left).await?;
        awaken_all(connection, &woken).await?;
        let places: Vec<QueueRow<'_>> =
            woken.iter().map(|job| QueueRow::of(job, job.waits_in(), job.order_key())).collect();
        insert_places(connection, &places).await?;
        Ok(Ending::Commit(woken.len() as u32))
    }
}

impl Wake {
    /// Locks the rows of parked jobs whose time has come; of each shard the earliest first.
    async fn due(&self, connection: &mut MySqlConnection) -> Result<Vec<Sleeper>, QueueError> {
        let mut due = Vec::new();
        for shards in filled(&self.shards) {
            let left = self.at_most.saturating_sub(due.len() as u32);
            if left == 0 {
                break;
            }
            // In the order of the index: over several shards any other one would be sorted.
            let text = format!(
                "SELECT shard, ord, id, server_uid FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard IN ({}) \
                 AND state = ? AND ord <= {} LIMIT ? FOR UPDATE SKIP LOCKED",
                marks(shards.len()),
                now_ms!()
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(&self.site);
            for shard in shards {
                query = query.bind(i64::from(shard.0));
            }
            query = query.bind(PlaceInQueue::Parked.code()).bind(left);
            for row in query.fetch_all(&mut *connection).await? {
                due.push(Sleeper {
                    uid: row.try_get("server_uid")?,
                    shard: row.try_get("shard")?,
                    ord: row.try_get("ord")?,
                    id: row.try_get("id")?,
                });
            }
        }
        Ok(due)
    }
}

/// Marks locked jobs as waiting for a worker, in nobody's hands; the caller inserts their queue rows last.
pub(super) async fn awaken_all(connection: &mut MySqlConnection, jobs: &[JobRow]) -> Result<(), QueueError> {
    for place in [PlaceInQueue::Ready, PlaceInQueue::QueuedBounded] {
        let there = jobs.iter().filter(|job| job.waits_in() == place);
        let uids: Vec<&str> = there.map(|job| job.uid.as_str()).collect();
        for group in filled(&uids) {
            // The order key as `order_key` makes it.
            let text = format!(
                "UPDATE job FORCE INDEX (PRIMARY) SET owner = NULL, token = NULL, q_state = ?, \
                 q_ord = lane * {LANE_STEP} + order_ms WHERE server_uid IN ({})",
                marks(group.len())
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(place.code());
            for uid in group {
                query = query.bind(uid);
            }
            query.execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Between the first order keys of two lanes.
const LANE_STEP: i64 = order_key(Lane::High, 0);

/// Marks one locked job as waiting for a worker.
pub(super) async fn awaken(connection: &mut MySqlConnection, job: &JobRow) -> Result<(), QueueError> {
    awaken_all(connection, std::slice::from_ref(job)).await
}

impl Queue {
    /// Lets up to `at_most` due jobs of these shards wait for a worker again; returns how many.
    pub async fn wake(&self, site: &str, shards: &[Shard], at_most: u32) -> Result<u32, QueueError> {
        self.wake_on(&mut Kept::default(), site, shards, at_most).await
    }

    /// Like [`Queue::wake`], on a connection that is kept.
    pub(super) async fn wake_on(
        &self,
        kept: &mut Kept,
        site: &str,
        shards: &[Shard],
        at_most: u32,
    ) -> Result<u32, QueueError> {
        self.transact_on(kept, Wake { site: site.to_owned(), shards: shards.to_vec(), at_most }).await
    }
}
