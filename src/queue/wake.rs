//! Waking: parked jobs whose time has come become ready.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::claim::set_aside;
use super::many::{filled, marks};
use super::row::{JobRow, QueueRow, delete_places, insert_places, lock_jobs};
use super::transaction::{Ending, Pass, Transaction};
use super::{PlaceInQueue, Queue, QueueError, now_ms};
use crate::job::{Lane, order_key};
use crate::shard::Shard;

struct Wake {
    site: String,
    shard: Shard,
    at_most: u32,
}

impl Transaction for Wake {
    type Output = u32;
    const NAME: &'static str = "wake";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<u32>, QueueError> {
        let due = sqlx::query(concat!(
            "SELECT ord, id, server_uid FROM queue WHERE site = ? AND shard = ? AND state = 3 AND ord <= ",
            now_ms!(),
            " ORDER BY ord, id LIMIT ? FOR UPDATE SKIP LOCKED"
        ))
        .bind(&self.site)
        .bind(i64::from(self.shard.0))
        .bind(self.at_most)
        .fetch_all(&mut *connection)
        .await?;
        let mut keys = Vec::with_capacity(due.len());
        for row in &due {
            let (uid, ord, id): (String, i64, i64) =
                (row.try_get("server_uid")?, row.try_get("ord")?, row.try_get("id")?);
            keys.push((uid, ord, id));
        }
        keys.sort();
        let uids: Vec<&str> = keys.iter().map(|(uid, ..)| uid.as_str()).collect();
        let mut rows = lock_jobs(connection, &uids).await?;
        let (mut woken, mut left) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for (uid, ord, id) in &keys {
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
                    left.push((*ord, *id));
                }
                Err(error) => {
                    tracing::error!(server = uid, %error, "a job row cannot be read; it stays parked for ten minutes");
                    set_aside(connection, uid, (&self.site, self.shard), PlaceInQueue::Parked, *ord, *id)
                        .await?;
                }
            }
        }
        delete_places(connection, (&self.site, i64::from(self.shard.0)), PlaceInQueue::Parked, &left).await?;
        awaken_all(connection, &woken).await?;
        let places: Vec<QueueRow<'_>> =
            woken.iter().map(|job| QueueRow::of(job, job.waits_in(), job.order_key())).collect();
        insert_places(connection, &places).await?;
        Ok(Ending::Commit(woken.len() as u32))
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
    /// Lets up to `at_most` due jobs of a shard wait for a worker again; returns how many.
    pub async fn wake(&self, site: &str, shard: Shard, at_most: u32) -> Result<u32, QueueError> {
        self.transact(Wake { site: site.to_owned(), shard, at_most }).await
    }
}
