//! Shares of a worker's slots: how many of them jobs of one namespace may hold, and claims while one has its share.
//!
//! A claim reads the first rows of the queue and knows no namespace. As long as no namespace can come to its share with it, it is
//! that. Else the first rows of each part of the queue are read together with the namespaces of their jobs, then some rows
//! further on, and those are claimed that may be. A namespace that begins to wait comes before the backlogs of others
//! (`controller/fair_queue.rs`), so that the first rows mostly do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Row as _};

use super::claim::{ClaimOver, Which};
use super::front::Front;
use super::head::lane_of;
use super::many::{filled, times};
use super::row::PlaceKey;
use super::{Claim, PlaceInQueue, Queue, QueueError, Room};
use crate::job::{Incarnation, Lane, PermitClass};
use crate::shard::Shard;

/// Rows of one part of the queue that are read at once.
const PAGE: usize = 16;
/// Between two looks while all that was seen is of namespaces that have their share: so many times as long as one takes, within
/// these bounds. Whoever comes meanwhile waits for it.
const NOTHING_LOOKS: u32 = 5;
const NOTHING: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
/// A namespace takes another slot as long as it then holds at most so many times what stays free: three quarters of the slots
/// where it is alone in them, and wherever others hold many too there is one left for the next.
const TIMES_FREE: u32 = 3;

/// What bounds the jobs of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareBound {
    /// What is free: each may hold three times that.
    Free,
    /// So many slots.
    Slots(u32),
}

/// Who holds the slots of a worker.
#[derive(Debug, Clone)]
pub struct Shares {
    bound: ShareBound,
    room: Room,
    held: HashMap<String, u32>,
}

impl Shares {
    /// With so much room, and the namespaces of the jobs in the other slots.
    pub fn new<'a>(bound: ShareBound, room: Room, held: impl IntoIterator<Item = &'a str>) -> Self {
        let mut shares = Self { bound, room, held: HashMap::new() };
        for namespace in held {
            shares.hold(namespace);
        }
        shares
    }

    fn hold(&mut self, namespace: &str) {
        *self.held.entry(namespace.to_owned()).or_default() += 1;
    }

    fn free(&self, lane: Lane) -> u32 {
        if lane == Lane::Urgent { self.room.any + self.room.urgent } else { self.room.any }
    }

    /// Whether a job of that namespace may be taken up. One that holds no slot may have the last one.
    pub fn may_take(&self, namespace: &str, lane: Lane) -> bool {
        let (free, held) = (self.free(lane), self.held.get(namespace).copied().unwrap_or(0));
        match self.bound {
            _ if free == 0 => false,
            _ if held == 0 => true,
            ShareBound::Free => held < TIMES_FREE * (free - 1),
            ShareBound::Slots(most) => held < most,
        }
    }

    /// A job of that namespace is taken up.
    pub fn take(&mut self, namespace: &str) {
        self.hold(namespace);
        let of = if self.room.any > 0 { &mut self.room.any } else { &mut self.room.urgent };
        *of = of.saturating_sub(1);
    }

    /// So many jobs may be taken up whosever they are.
    pub fn of_anybody(&self) -> u32 {
        let (free, most) = (self.room.any, self.held.values().copied().max().unwrap_or(0));
        let may_take = match self.bound {
            ShareBound::Free => (TIMES_FREE * free).saturating_sub(most) / (TIMES_FREE + 1),
            ShareBound::Slots(each) => each.saturating_sub(most).min(free),
        };
        if most == 0 { may_take.max(free.min(1)) } else { may_take }
    }
}

/// A shard, and a place in it.
type Part = (Shard, PlaceInQueue);
/// An order key and an id: what comes behind them is looked at.
type Behind = (i64, i64);

/// What is remembered of a backlog of namespaces that have their share.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// How far a part was looked through, behind its first rows.
    until: HashMap<Part, Behind>,
    pause_until: Option<Instant>,
}

/// A row that waits. `namespace`: `None` where it has no job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    place: PlaceInQueue,
    key: PlaceKey,
    namespace: Option<String>,
}

impl Waiting {
    fn part(&self) -> Part {
        (Shard(self.key.0.max(0) as u16), self.place)
    }

    fn behind(&self) -> Behind {
        (self.key.1, self.key.2)
    }
}

/// What may be claimed: of one lane and place, in its order.
type Open = (Lane, PlaceInQueue, Vec<PlaceKey>);

/// Those that may be claimed, of the first lane and place that have some.
fn choose(mut rows: Vec<Waiting>, mut shares: Shares) -> Option<Open> {
    rows.sort_by_key(|row| (lane_of(row.key.1), row.place, row.key.1, row.key.2));
    let (mut from, mut chosen) = (None, Vec::new());
    for row in rows {
        let lane = lane_of(row.key.1);
        if from.is_some_and(|from| from != (lane, row.place)) {
            break;
        }
        match row.namespace.as_deref() {
            Some(namespace) if !shares.may_take(namespace, lane) => continue,
            Some(namespace) => shares.take(namespace),
            // It goes, as the claim of any other row without a job makes it go.
            None => {}
        }
        from = Some((lane, row.place));
        chosen.push(row.key);
    }
    from.map(|(lane, place)| (lane, place, chosen))
}

/// The last row of each part of which as many were read as one reads at once.
fn last_of_full_pages(rows: &[Waiting]) -> Vec<(Part, Behind)> {
    let mut parts: HashMap<Part, (usize, Behind)> = HashMap::new();
    for row in rows {
        let (count, last) = parts.entry(row.part()).or_insert((0, row.behind()));
        (*count, *last) = (*count + 1, row.behind().max(*last));
    }
    let full = parts.into_iter().filter(|(_, (count, _))| *count >= PAGE);
    full.map(|(part, (_, last))| (part, last)).collect()
}

impl Queue {
    /// Whether servers of more than one namespace are known, of whatever site. Reads every row where there is one alone.
    pub async fn has_several_namespaces(&self) -> Result<bool, QueueError> {
        let found =
            sqlx::query("SELECT DISTINCT namespace FROM server_state LIMIT 2").fetch_all(self.pool()).await?;
        Ok(found.len() > 1)
    }

    /// One claim as [`Queue::fetch`] makes it, of jobs of namespaces that may have more slots.
    pub async fn fetch_within(
        &self,
        front: &mut Front,
        me: Incarnation,
        shares: &Shares,
    ) -> Result<Vec<Claim>, QueueError> {
        let (room, now) = (shares.room, Instant::now());
        if room.any + room.urgent == 0 || front.passed.pause_until.is_some_and(|until| now < until) {
            return Ok(Vec::new());
        }
        self.wake_due(front).await?;
        // Nobody looks after what is remembered meanwhile.
        front.forget();
        let begun = Instant::now();
        let claims = self.fetch_passing_over(front, me, shares).await?;
        let pause = (begun.elapsed() * NOTHING_LOOKS).clamp(NOTHING.0, NOTHING.1);
        front.passed.pause_until = claims.is_empty().then(|| Instant::now() + pause);
        Ok(claims)
    }

    async fn fetch_passing_over(
        &self,
        front: &mut Front,
        me: Incarnation,
        shares: &Shares,
    ) -> Result<Vec<Claim>, QueueError> {
        let lower = if shares.room.any > 0 { front.lower_turn() } else { None };
        for from in lower.into_iter().chain([Lane::Urgent]) {
            let Some((lane, place, mut keys)) = self.open_from(front, from, shares).await? else { continue };
            if Some(from) == lower {
                keys.truncate(1);
            }
            let site = front.served().site.clone();
            let over = ClaimOver { site, place, lane, which: Which::These(keys) };
            let claims = self.claim_over(&mut front.kept, me, over).await?.claims;
            if !claims.is_empty() {
                front.has_claimed();
                return Ok(claims);
            }
        }
        Ok(Vec::new())
    }

    /// What may be claimed from a lane on: of the first rows of each part, and where those are all of namespaces that have their
    /// share, of some rows behind them, others with each look.
    async fn open_from(
        &self,
        front: &mut Front,
        lane: Lane,
        shares: &Shares,
    ) -> Result<Option<Open>, QueueError> {
        let (first, _) = lane.order_range();
        let heads: Vec<(Part, Behind)> =
            front.parts().into_iter().map(|part| (part, (first, i64::MIN))).collect();
        let rows = self.page(front, &heads).await?;
        let long = last_of_full_pages(&rows);
        let open = self.open(front, rows, shares).await?;
        if open.is_some() || long.is_empty() {
            return Ok(open);
        }
        let further = |(part, last): (Part, Behind)| {
            (part, front.passed.until.get(&part).copied().unwrap_or(last).max(last))
        };
        let behind: Vec<(Part, Behind)> = long.into_iter().map(further).collect();
        let rows = self.page(front, &behind).await?;
        // Where the end was reached, from the start again.
        front.passed.until = last_of_full_pages(&rows).into_iter().collect();
        self.open(front, rows, shares).await
    }

    /// Those of these rows that may be claimed; without a permit none of those that need one.
    async fn open(
        &self,
        front: &Front,
        mut rows: Vec<Waiting>,
        shares: &Shares,
    ) -> Result<Option<Open>, QueueError> {
        let is_bounded = |place| place == PlaceInQueue::QueuedBounded;
        let mut left = 0;
        if rows.iter().any(|row| is_bounded(row.place)) {
            let permits = self.permits(&front.served().site).await?;
            let install = permits.iter().find(|permits| permits.class == PermitClass::Install);
            left = install.map_or(0, super::Permits::left);
        }
        if left == 0 {
            rows.retain(|row| !is_bounded(row.place));
        }
        let mut open = choose(rows, shares.clone());
        if let Some((_, PlaceInQueue::QueuedBounded, keys)) = &mut open {
            keys.truncate(left as usize);
        }
        Ok(open)
    }

    /// The first rows of each of these parts behind a row.
    async fn page(&self, front: &mut Front, parts: &[(Part, Behind)]) -> Result<Vec<Waiting>, QueueError> {
        let branch = format!(
            "(SELECT STRAIGHT_JOIN queue.shard, queue.state, queue.ord, queue.id, job.namespace \
             FROM queue FORCE INDEX (PRIMARY) LEFT JOIN job FORCE INDEX (PRIMARY) ON job.server_uid = queue.server_uid \
             WHERE queue.site = ? AND queue.shard = ? AND queue.state = ? AND queue.ord >= ? \
             AND (queue.ord > ? OR queue.id > ?) ORDER BY queue.ord, queue.id LIMIT {PAGE})"
        );
        let mut rows = Vec::new();
        for group in filled(parts) {
            // Only constant branches are put together: nothing of a user is in the text.
            let mut query = sqlx::query(AssertSqlSafe(times(&branch, group.len(), " UNION ALL ")));
            for ((shard, place), (ord, id)) in group {
                query = query.bind(&front.served().site).bind(i64::from(shard.0)).bind(place.code());
                query = query.bind(ord).bind(ord).bind(id);
            }
            for row in self.read_on(&mut front.kept, query).await? {
                let Some(place) = PlaceInQueue::from_code(row.try_get("state")?) else { continue };
                let key = (row.try_get("shard")?, row.try_get("ord")?, row.try_get("id")?);
                rows.push(Waiting { place, key, namespace: row.try_get("namespace")? });
            }
        }
        // A part may have been asked for twice.
        rows.sort_by_key(|row: &Waiting| (row.place, row.key));
        rows.dedup_by_key(|row| (row.place, row.key));
        Ok(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::order_key;

    fn shares<'a>(bound: ShareBound, any: u32, held: impl IntoIterator<Item = &'a str>) -> Shares {
        Shares::new(bound, Room { any, urgent: 1 }, held)
    }

    /// Jobs that never end come as often as they can; how many of each namespace are taken up.
    fn taken(shares: &mut Shares, lane: Lane, names: &[&str]) -> Vec<u32> {
        let mut taken = vec![0; names.len()];
        while let Some(at) = (0..names.len()).find(|at| shares.may_take(names[*at], lane)) {
            shares.take(names[at]);
            taken[at] += 1;
        }
        taken
    }

    #[test]
    fn one_namespace_has_three_quarters_of_the_slots() {
        for (slots, most) in [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (16, 12), (100, 75), (2000, 1500)] {
            assert_eq!(
                taken(&mut shares(ShareBound::Free, slots, []), Lane::High, &["a"]),
                [most],
                "{slots}"
            );
            assert_eq!(taken(&mut shares(ShareBound::Slots(1), slots, []), Lane::High, &["a"]), [1]);
        }
        let mut sixteen = shares(ShareBound::Free, 15, []);
        assert_eq!(taken(&mut sixteen, Lane::Urgent, &["a"]), [12], "nor has it more with urgent jobs");
        assert!(sixteen.may_take("b", Lane::Low));
    }

    #[test]
    fn however_many_hold_what_they_may_the_next_one_finds_a_slot() {
        let mut sixteen = shares(ShareBound::Free, 16, []);
        assert_eq!(taken(&mut sixteen, Lane::High, &["a", "b", "c"]), [12, 3, 1]);
        for (slots, hostile) in [(16, 2), (64, 3), (1000, 4)] {
            let names: Vec<String> = (0..hostile).map(|number| format!("hostile-{number}")).collect();
            let mut shares = shares(ShareBound::Free, slots, []);
            taken(&mut shares, Lane::High, &names.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(shares.may_take("honest", Lane::High), "{slots} slots, {hostile} namespaces: {shares:?}");
        }
    }

    fn row(place: PlaceInQueue, lane: Lane, at: i64, namespace: &str) -> Waiting {
        Waiting { place, key: (0, order_key(lane, at), at), namespace: Some(namespace.to_owned()) }
    }

    #[test]
    fn what_may_be_claimed_is_chosen_in_the_order_of_the_queue() {
        let (ready, queued, high) = (PlaceInQueue::Ready, PlaceInQueue::Queued, Lane::High);
        let rows = vec![
            row(queued, high, 1, "a"),
            row(queued, high, 3, "b"),
            row(queued, high, 2, "b"),
            row(ready, high, 9, "a"),
            row(ready, Lane::Low, 4, "b"),
        ];
        let ids = |open: Option<Open>| {
            open.map(|(lane, place, keys)| (lane, place, keys.iter().map(|key| key.2).collect::<Vec<_>>()))
        };
        let held = ["a"; 6];
        let full = shares(ShareBound::Free, 2, held);
        assert_eq!(
            ids(choose(rows.clone(), full.clone())),
            Some((high, queued, vec![2])),
            "then b has its own"
        );
        assert_eq!(choose(vec![row(ready, high, 1, "a")], full), None);
        let room = shares(ShareBound::Free, 10, held);
        assert_eq!(ids(choose(rows, room)), Some((high, ready, vec![9])), "one place at a time");
        let urgent_alone = shares(ShareBound::Free, 0, held);
        let rows = vec![row(queued, high, 1, "b"), row(queued, Lane::Urgent, 2, "b")];
        assert_eq!(ids(choose(rows, urgent_alone)), Some((Lane::Urgent, queued, vec![2])));
    }

    proptest! {
        /// What may be taken whosever it is breaks nobody's share, and nothing else may be taken by whoever holds most.
        #[test]
        fn what_is_anybodys_is_within_every_share(
            any in 0..40_u32, held in prop::collection::vec(0..4_usize, 0..40), takes in prop::collection::vec(0..4_usize, 40),
            most in 1..20_u32, fixed: bool,
        ) {
            let names = ["a", "b", "c", "d"];
            let bound = if fixed { ShareBound::Slots(most) } else { ShareBound::Free };
            let mut shares = shares(bound, any, held.iter().map(|at| names[*at]));
            let of_anybody = shares.of_anybody();
            prop_assert!(of_anybody <= any);
            let all_may = names.iter().all(|name| shares.may_take(name, Lane::High));
            prop_assert_eq!(of_anybody > 0, all_may);
            for at in takes.into_iter().take(of_anybody as usize) {
                prop_assert!(shares.may_take(names[at], Lane::High), "{:?}", shares);
                shares.take(names[at]);
            }
        }

        /// Whoever holds nothing may have a slot that is free.
        #[test]
        fn a_free_slot_is_there_for_who_has_none(any in 1..40_u32, held in prop::collection::vec(0..3_usize, 0..40)) {
            let names = ["a", "b", "c"];
            prop_assert!(shares(ShareBound::Free, any, held.iter().map(|at| names[*at])).may_take("d", Lane::Low));
        }
    }
}
