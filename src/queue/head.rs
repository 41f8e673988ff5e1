//! Looks at the front of the queue: plain reads of a constant number of rows, however long the queue is.

use std::collections::{BTreeSet, HashMap};

use sqlx::{AssertSqlSafe, Row};

use super::many::{filled, marks, times};
use super::transaction::Kept;
use super::{PlaceInQueue, Queue, QueueError, now_ms};
use crate::job::{Lane, order_key};
use crate::shard::Shard;

/// The front of one part of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The shard.
    pub shard: Shard,
    /// Where in it.
    pub place: PlaceInQueue,
    /// The most urgent lane in it.
    pub lane: Lane,
}

/// Where in a lane of a part nothing is left before: an optimisation only, forgotten now and then.
pub(super) type Hints = HashMap<(Shard, PlaceInQueue, Lane), i64>;

/// One branch per part, without hints.
const PLAIN: &str = "ord <= ?";
/// One branch per part, lane by lane: whatever lies between the lanes' hints is not looked at. Where many rows were
/// deleted that some old snapshot still sees, it would be long.
const HINTED: &str = "(ord BETWEEN ? AND ? OR ord BETWEEN ? AND ? OR ord BETWEEN ? AND ? OR ord BETWEEN ? AND ? \
                      OR ord BETWEEN ? AND ?)";

fn branch(range: &str) -> String {
    format!(
        "(SELECT shard, state, ord FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard = ? AND state = ? AND {range} \
         ORDER BY ord, id LIMIT 1)"
    )
}

/// The lane of an order key.
pub(super) fn lane_of(ord: i64) -> Lane {
    Lane::ALL.into_iter().rev().find(|lane| ord >= order_key(*lane, 0)).unwrap_or(Lane::Urgent)
}

impl Queue {
    /// The heads of some parts of a site's queue, in no order, some perhaps twice. One statement, no lock.
    pub(super) async fn heads_of(
        &self,
        kept: &mut Kept,
        site: &str,
        parts: &[(Shard, PlaceInQueue)],
        hints: &Hints,
    ) -> Result<Vec<Head>, QueueError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let hinted = !hints.is_empty();
        let branches: Vec<String> =
            parts.iter().map(|_| branch(if hinted { HINTED } else { PLAIN })).collect();
        // Only constant branches are put together: nothing of a user is in the text.
        let mut query = sqlx::query(AssertSqlSafe(branches.join(" UNION ALL ")));
        for (shard, place) in parts {
            query = query.bind(site).bind(i64::from(shard.0)).bind(place.code());
            if !hinted {
                query = query.bind(i64::MAX);
                continue;
            }
            for lane in Lane::ALL {
                let (first, last) = lane.order_range();
                let hint = hints.get(&(*shard, *place, lane)).copied();
                query = query.bind(hint.unwrap_or(first)).bind(last);
            }
        }
        let mut heads = Vec::new();
        for row in self.read_on(kept, query).await? {
            let shard: i64 = row.try_get("shard")?;
            let state: i64 = row.try_get("state")?;
            let ord: i64 = row.try_get("ord")?;
            let Some(place) = PlaceInQueue::from_code(state) else { continue };
            let lane = lane_of(ord);
            heads.push(Head { shard: Shard(shard.max(0) as u16), place, lane });
        }
        Ok(heads)
    }

    /// The shards of these in which a parked job's time has come.
    pub(super) async fn due_in(
        &self,
        kept: &mut Kept,
        (site, shards): (&str, &[Shard]),
    ) -> Result<BTreeSet<Shard>, QueueError> {
        let mut due = BTreeSet::new();
        for shards in filled(shards) {
            let text = format!(
                "SELECT shard FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard IN ({}) AND state = ? \
                 AND ord <= {} LIMIT 100",
                marks(shards.len()),
                now_ms!()
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(site);
            for shard in shards {
                query = query.bind(i64::from(shard.0));
            }
            query = query.bind(PlaceInQueue::Parked.code());
            for row in self.read_on(kept, query).await? {
                due.insert(Shard(row.try_get::<i64, _>("shard")?.max(0) as u16));
            }
        }
        Ok(due)
    }

    /// Some part of these shards, of these places, that has a row with an order key in one of these ranges, the first and
    /// the last key included.
    pub(super) async fn any_in(
        &self,
        kept: &mut Kept,
        (site, shards): (&str, &[Shard]),
        places: &[PlaceInQueue],
        ranges: &[(i64, i64)],
    ) -> Result<Option<Head>, QueueError> {
        let Some(ranges) = filled(ranges).next() else { return Ok(None) };
        for shards in filled(shards) {
            let found = self.any_in_few(kept, (site, &shards), places, &ranges).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn any_in_few(
        &self,
        kept: &mut Kept,
        (site, shards): (&str, &[Shard]),
        places: &[PlaceInQueue],
        ranges: &[(i64, i64)],
    ) -> Result<Option<Head>, QueueError> {
        let text = format!(
            "SELECT shard, state, ord FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND shard IN ({}) \
             AND state IN ({}) AND ({}) LIMIT 1",
            marks(shards.len()),
            marks(places.len()),
            times("ord BETWEEN ? AND ?", ranges.len(), " OR ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(site);
        for shard in shards {
            query = query.bind(i64::from(shard.0));
        }
        for place in places {
            query = query.bind(place.code());
        }
        for (first, last) in ranges {
            query = query.bind(first).bind(last);
        }
        let Some(row) = self.read_on(kept, query).await?.pop() else { return Ok(None) };
        let (shard, state): (i64, i64) = (row.try_get("shard")?, row.try_get("state")?);
        let lane = lane_of(row.try_get("ord")?);
        Ok(PlaceInQueue::from_code(state).map(|place| Head {
            shard: Shard(shard.max(0) as u16),
            place,
            lane,
        }))
    }
}
