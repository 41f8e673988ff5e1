//! How much waits for a worker at a site, and for how long: plain reads of the queue's key, whether anybody serves it or not.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Row};

use super::many::{filled, marks};
use super::{PlaceInQueue, Queue, QueueError, now_ms};
use crate::job::{JobId, Lane};

/// What waits in one lane of a site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Jobs that could be claimed, those included whose wake time has come.
    pub jobs: u64,
    /// For how many milliseconds the oldest of them has waited: since it was enqueued, or since its wake time.
    pub oldest_ms: i64,
}

impl Queue {
    /// What waits for a worker at a site, by lane; a lane in which nothing waits is left out. Reads each row that waits, and no
    /// other.
    pub async fn waiting(&self, site: &str) -> Result<BTreeMap<Lane, Waiting>, QueueError> {
        let mut all: BTreeMap<Lane, Waiting> = BTreeMap::new();
        let mut take = |lane, jobs: i64, oldest_ms: i64| {
            let waiting = all.entry(lane).or_default();
            waiting.jobs += jobs.max(0).unsigned_abs();
            waiting.oldest_ms = waiting.oldest_ms.max(oldest_ms);
        };
        let shards: Vec<i64> = (0..i64::from(self.shards())).collect();
        for shards in filled(&shards) {
            // One pass for all lanes: groups would need a temporary table.
            let lanes = Lane::ALL.map(|lane| {
                let (first, last) = lane.order_range();
                let number = lane.number();
                format!(
                    "CAST(SUM(ord BETWEEN {first} AND {last}) AS SIGNED) AS jobs_{number}, \
                     MIN(IF(ord BETWEEN {first} AND {last}, id, NULL)) AS first_{number}"
                )
            });
            let text = format!(
                "SELECT {}, {now} AS now_ms FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard IN ({}) AND state IN (?, ?, ?)",
                lanes.join(", "),
                marks(shards.len()),
                now = now_ms!(),
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(site);
            for shard in &shards {
                query = query.bind(shard);
            }
            for place in PlaceInQueue::CLAIMED {
                query = query.bind(place.code());
            }
            let row = query.fetch_one(self.pool()).await?;
            let now_ms: i64 = row.try_get("now_ms")?;
            for lane in Lane::ALL {
                let number = lane.number();
                let first: Option<i64> = row.try_get(format!("first_{number}").as_str())?;
                let jobs: Option<i64> = row.try_get(format!("jobs_{number}").as_str())?;
                if let (Some(first), Some(jobs)) = (first, jobs) {
                    // By its id: its place may be behind that of younger ones.
                    take(lane, jobs, (now_ms - JobId(first).unix_ms()).max(0));
                }
            }
            // Nobody wakes them where nobody works.
            let text = format!(
                "SELECT job.lane, queue.ord, {now} AS now_ms FROM queue FORCE INDEX (PRIMARY) JOIN job FORCE INDEX (PRIMARY) \
                 ON job.server_uid = queue.server_uid WHERE queue.site = ? AND queue.shard IN ({}) AND queue.state = ? \
                 AND queue.ord <= {now}",
                marks(shards.len()),
                now = now_ms!(),
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(site);
            for shard in &shards {
                query = query.bind(shard);
            }
            for row in query.bind(PlaceInQueue::Parked.code()).fetch_all(self.pool()).await? {
                let (woken, now_ms): (i64, i64) = (row.try_get("ord")?, row.try_get("now_ms")?);
                let number: i64 = row.try_get("lane")?;
                let lane = Lane::ALL.into_iter().find(|lane| i64::from(lane.number()) == number);
                take(lane.unwrap_or(Lane::Background), 1, now_ms - woken);
            }
        }
        Ok(all)
    }
}
