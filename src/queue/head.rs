//! The head query: what is at the front of each served shard.

use sqlx::{AssertSqlSafe, Row};

use super::{PlaceInQueue, Queue, QueueError, Served, now_ms};
use crate::job::{Lane, order_key};
use crate::shard::Shard;

/// The front of one part of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The shard.
    pub shard: Shard,
    /// Where in it; `Parked` only if the wake time has come.
    pub place: PlaceInQueue,
    /// The most urgent lane in it; of no meaning for `Parked`.
    pub lane: Lane,
    /// For how many milliseconds its first job has waited since it was enqueued; of no meaning for `Parked`.
    pub waiting_ms: i64,
}

/// One branch per shard and place; a constant number of rows is read however long the queue is.
const BRANCH: &str = concat!(
    "(SELECT shard, state, ord, ",
    now_ms!(),
    " AS now_ms FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord <= ",
    "IF(? = 3, ",
    now_ms!(),
    ", ?) ORDER BY ord, id LIMIT 1)"
);

impl Queue {
    /// The heads of the served shards: the most urgent lane first, started jobs before others. One statement, no lock.
    pub async fn heads(&self, served: &Served) -> Result<Vec<Head>, QueueError> {
        let places = [PlaceInQueue::Ready, PlaceInQueue::Queued, PlaceInQueue::Parked];
        let branches = served.shards.len() * places.len();
        if branches == 0 {
            return Ok(Vec::new());
        }
        // Only the number of constant branches varies: nothing of a user is in the text.
        let text = vec![BRANCH; branches].join(" UNION ALL ");
        let mut query = sqlx::query(AssertSqlSafe(text));
        for shard in &served.shards {
            for place in places {
                query = query
                    .bind(&served.site)
                    .bind(i64::from(shard.0))
                    .bind(place.code())
                    .bind(place.code())
                    .bind(i64::MAX);
            }
        }
        let mut heads = Vec::new();
        for row in query.fetch_all(self.pool()).await? {
            let shard: i64 = row.try_get("shard")?;
            let state: i64 = row.try_get("state")?;
            let now_ms: i64 = row.try_get("now_ms")?;
            let ord: i64 = row.try_get("ord")?;
            let Some(place) = PlaceInQueue::from_code(state) else { continue };
            let lane =
                Lane::ALL.into_iter().rev().find(|lane| ord >= order_key(*lane, 0)).unwrap_or(Lane::Urgent);
            let waiting_ms = (now_ms - (ord - order_key(lane, 0))).max(0);
            heads.push(Head { shard: Shard(shard.max(0) as u16), place, lane, waiting_ms });
        }
        heads.sort_by_key(|head| (head.lane, head.place));
        Ok(heads)
    }
}
