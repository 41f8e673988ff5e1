//! Shares of a worker's slots: how many of them jobs of one namespace may hold, and claims while one has its share.
//!
//! A claim reads the first rows of the queue and knows no namespace. While no namespace can come to its share with it, it is
//! that; else what waits is read together with the namespaces of its jobs, of a long backlog the first rows, and those are
//! claimed that may be.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::claim::{ClaimOver, Which};
use super::front::Front;
use super::head::lane_of;
use super::many::{filled, marks, times};
use super::row::PlaceKey;
use super::{Claim, PlaceInQueue, Queue, QueueError, Room};
use crate::api::Reason;
use crate::job::{Incarnation, Lane, PermitClass, RetryClass};
use crate::shard::Shard;

/// The reason of a job, the exact one where it has it.
const REASON: &str = "COALESCE(job.exact_reason, job.reason)";
/// Rows that are read at once: of a longer backlog some of each part.
const ALL: usize = 1_000;
/// Rows of one part of the queue that are read at once.
const PAGE: usize = 64;
/// Between two looks while all that was seen is of namespaces that have their share.
const NOTHING: Duration = Duration::from_millis(50);
/// A namespace takes another slot as long as it then holds at most so many times what stays free: three quarters of the slots
/// where it is alone in them, and wherever others hold many too there is one left for the next.
const TIMES_FREE: u32 = 3;

/// What bounds the jobs of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShareBound {
    /// Nothing: no other namespace is known.
    #[default]
    Unbounded,
    /// What is free: each may hold three times that.
    Free,
    /// So many slots.
    Slots(u32),
}

/// A job as its share of the slots sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharer<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Whether its BMC did not answer the last time, or was busy.
    pub is_silent: bool,
}

/// So many slots are for jobs of BMCs that did not answer the last time, or were busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentSlots {
    /// Of each namespace.
    pub of_each: u32,
    /// Of all namespaces.
    pub of_all: u32,
}

/// Who holds the slots of a worker.
#[derive(Debug, Clone)]
pub struct Shares {
    bound: ShareBound,
    free: u32,
    silent_slots: SilentSlots,
    held: HashMap<String, u32>,
    silent: HashMap<String, u32>,
}

impl Shares {
    /// With so many free slots, those for urgent jobs included, and the jobs in the others.
    pub fn new<'a>(
        bound: ShareBound,
        free: u32,
        silent_slots: SilentSlots,
        held: impl IntoIterator<Item = Sharer<'a>>,
    ) -> Self {
        let mut shares = Self { bound, free, silent_slots, held: HashMap::new(), silent: HashMap::new() };
        for job in held {
            shares.hold(job);
        }
        shares
    }

    fn hold(&mut self, job: Sharer<'_>) {
        let Sharer { namespace, is_silent } = job;
        for of in std::iter::once(&mut self.held).chain(is_silent.then_some(&mut self.silent)) {
            *of.entry(namespace.to_owned()).or_default() += 1;
        }
    }

    /// Whether another job of that namespace may be taken up whose BMC did not answer the last time.
    pub fn may_be_silent(&self, namespace: &str) -> bool {
        let of_it = self.silent.get(namespace).copied().unwrap_or(0);
        of_it < self.silent_slots.of_each && self.silent.values().sum::<u32>() < self.silent_slots.of_all
    }

    /// Whether that job may be taken up. A namespace that holds no slot may have the last one.
    pub fn may_take(&self, job: Sharer<'_>) -> bool {
        let held = self.held.get(job.namespace).copied().unwrap_or(0);
        let may_hold = match self.bound {
            _ if self.free == 0 => false,
            ShareBound::Unbounded => true,
            _ if held == 0 => true,
            ShareBound::Free => held < TIMES_FREE * (self.free - 1),
            ShareBound::Slots(most) => held < most,
        };
        may_hold && (!job.is_silent || self.may_be_silent(job.namespace))
    }

    /// That job is taken up.
    pub fn take(&mut self, job: Sharer<'_>) {
        self.hold(job);
        self.free = self.free.saturating_sub(1);
    }

    /// So many jobs may be taken up whosever they are. Where others wait, those of BMCs that do not answer are not even claimed
    /// beyond their slots.
    fn of_anybody(&self) -> u32 {
        let most_held = self.held.values().copied().max().unwrap_or(0);
        let is_full = self.silent.keys().any(|namespace| !self.may_be_silent(namespace));
        match self.bound {
            ShareBound::Unbounded => u32::MAX,
            _ if is_full => 0,
            ShareBound::Free => (TIMES_FREE * self.free).saturating_sub(most_held) / (TIMES_FREE + 1),
            ShareBound::Slots(most) => most.saturating_sub(most_held),
        }
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
    until: HashMap<(Part, Lane), Behind>,
    found_nothing: Option<Instant>,
}

/// A row that waits. `namespace`: `None` where it has no job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    place: PlaceInQueue,
    key: PlaceKey,
    namespace: Option<String>,
    is_silent: bool,
}

impl Waiting {
    /// `None`: of a place that this release does not know.
    fn read(row: &MySqlRow) -> Result<Option<Self>, QueueError> {
        let Some(place) = PlaceInQueue::from_code(row.try_get("state")?) else { return Ok(None) };
        let key = (row.try_get("shard")?, row.try_get("ord")?, row.try_get("id")?);
        let reason: Option<String> = row.try_get("reason")?;
        let is_silent = reason.as_deref().and_then(Reason::parse).is_some_and(RetryClass::is_of_a_silent_bmc);
        Ok(Some(Self { place, key, namespace: row.try_get("namespace")?, is_silent }))
    }
}

/// Those that may be claimed, of the first place that has some, in their order.
fn choose(mut rows: Vec<Waiting>, mut shares: Shares, slots: u32) -> Option<(PlaceInQueue, Vec<PlaceKey>)> {
    rows.sort_by_key(|row| (row.place, row.key.1, row.key.2));
    rows.dedup_by_key(|row| row.key);
    let (mut place, mut chosen) = (None, Vec::new());
    for row in rows {
        if chosen.len() >= slots as usize || place.is_some_and(|place| place != row.place) {
            break;
        }
        let job = row.namespace.as_deref().map(|namespace| Sharer { namespace, is_silent: row.is_silent });
        match job {
            Some(job) if !shares.may_take(job) => continue,
            Some(job) => shares.take(job),
            // It goes, as the claim of any other row without a job makes it go.
            None => {}
        }
        place = Some(row.place);
        chosen.push(row.key);
    }
    Some((place?, chosen))
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
        room: Room,
        shares: &Shares,
    ) -> Result<Vec<Claim>, QueueError> {
        let of_anybody = shares.of_anybody();
        front.among_others = shares.bound != ShareBound::Unbounded;
        if of_anybody > 0 {
            let any = room.any.min(of_anybody);
            return self.fetch(front, me, Room { any, urgent: room.urgent.min(of_anybody - any) }).await;
        }
        let paused = front.passed.found_nothing.is_some_and(|at| at.elapsed() < NOTHING);
        if room.any + room.urgent == 0 || paused {
            return Ok(Vec::new());
        }
        self.wake_due(front).await?;
        // Nobody looks after what is remembered meanwhile.
        front.forget();
        let claims = self.fetch_passing_over(front, me, room, shares).await?;
        front.passed.found_nothing = claims.is_empty().then(Instant::now);
        Ok(claims)
    }

    async fn fetch_passing_over(
        &self,
        front: &mut Front,
        me: Incarnation,
        room: Room,
        shares: &Shares,
    ) -> Result<Vec<Claim>, QueueError> {
        let mut lanes = Lane::ALL;
        if room.any > 0 && front.is_lower_turn() {
            let below = lanes.len() - 1;
            lanes.rotate_left(1 + front.lower as usize % below);
            front.lower = front.lower.wrapping_add(1);
        }
        let all = self.all_that_wait(front).await?;
        for lane in lanes {
            let slots = if lane == Lane::Urgent { room.any + room.urgent } else { room.any };
            if slots == 0 {
                continue;
            }
            let open = match &all {
                Some(rows) => {
                    let rows = rows.iter().filter(|row| lane_of(row.key.1) == lane).cloned().collect();
                    choose(rows, shares.clone(), slots)
                }
                None => self.open_in(front, lane, slots, shares).await?,
            };
            let Some((place, mut keys)) = open else { continue };
            let site = front.served.site.clone();
            if place == PlaceInQueue::QueuedBounded {
                let permits = self.permits(&site).await?;
                let install = permits.iter().find(|permits| permits.class == PermitClass::Install);
                keys.truncate(install.map_or(0, super::Permits::left) as usize);
            }
            let over = ClaimOver { site, place, lane, which: Which::These(keys) };
            let claims = self.claim_over(&mut front.kept, me, over).await?.claims;
            if !claims.is_empty() {
                front.claims = front.claims.wrapping_add(1);
                front.claimed = Some(Instant::now());
                return Ok(claims);
            }
        }
        Ok(Vec::new())
    }

    /// Everything that waits for a worker; `None`: that is too much to be read with each look.
    async fn all_that_wait(&self, front: &mut Front) -> Result<Option<Vec<Waiting>>, QueueError> {
        let mut rows = Vec::new();
        let shards: Vec<Shard> = front.served.shards.iter().copied().collect();
        for shards in filled(&shards) {
            let text = format!(
                "SELECT STRAIGHT_JOIN queue.shard, queue.state, queue.ord, queue.id, job.namespace, {REASON} AS reason \
                 FROM queue FORCE INDEX (PRIMARY) LEFT JOIN job FORCE INDEX (PRIMARY) ON job.server_uid = queue.server_uid \
                 WHERE queue.site = ? AND queue.shard IN ({}) AND queue.state IN (?, ?, ?) LIMIT {ALL}",
                marks(shards.len())
            );
            let mut query = sqlx::query(AssertSqlSafe(text)).bind(&front.served.site);
            for shard in shards {
                query = query.bind(i64::from(shard.0));
            }
            for place in PlaceInQueue::CLAIMED {
                query = query.bind(place.code());
            }
            for row in self.read_on(&mut front.kept, query).await? {
                rows.extend(Waiting::read(&row)?);
            }
        }
        Ok((rows.len() < ALL).then_some(rows))
    }

    /// What may be claimed of a lane: of the first rows of each part, and where those are all of namespaces that have their
    /// share, of some rows behind them, others with each look.
    async fn open_in(
        &self,
        front: &mut Front,
        lane: Lane,
        slots: u32,
        shares: &Shares,
    ) -> Result<Option<(PlaceInQueue, Vec<PlaceKey>)>, QueueError> {
        let (first, _) = lane.order_range();
        let heads: Vec<(Part, Behind)> =
            front.parts().into_iter().map(|part| (part, (first, i64::MIN))).collect();
        let rows = self.page(front, lane, &heads).await?;
        let long = last_of_full_pages(&rows);
        let chosen = choose(rows, shares.clone(), slots);
        if chosen.is_some() || long.is_empty() {
            return Ok(chosen);
        }
        let behind: Vec<(Part, Behind)> = long
            .iter()
            .map(|(part, last)| (*part, front.passed.until.get(&(*part, lane)).copied().unwrap_or(*last)))
            .collect();
        let rows = self.page(front, lane, &behind).await?;
        let last = last_of_full_pages(&rows);
        for (part, _) in behind {
            match last.get(&part) {
                Some(last) => front.passed.until.insert((part, lane), *last),
                // From the start again.
                None => front.passed.until.remove(&(part, lane)),
            };
        }
        Ok(choose(rows, shares.clone(), slots))
    }

    /// The first rows of a lane in each of these parts, behind a row.
    async fn page(
        &self,
        front: &mut Front,
        lane: Lane,
        parts: &[(Part, Behind)],
    ) -> Result<Vec<Waiting>, QueueError> {
        let (_, last) = lane.order_range();
        let branch = format!(
            "(SELECT STRAIGHT_JOIN queue.shard, queue.state, queue.ord, queue.id, job.namespace, {REASON} AS reason \
             FROM queue FORCE INDEX (PRIMARY) LEFT JOIN job FORCE INDEX (PRIMARY) ON job.server_uid = queue.server_uid \
             WHERE queue.site = ? AND queue.shard = ? AND queue.state = ? AND queue.ord BETWEEN ? AND ? \
             AND (queue.ord > ? OR queue.id > ?) ORDER BY queue.ord, queue.id LIMIT {PAGE})"
        );
        let mut rows = Vec::new();
        for group in filled(parts) {
            // Only constant branches are put together: nothing of a user is in the text.
            let mut query = sqlx::query(AssertSqlSafe(times(&branch, group.len(), " UNION ALL ")));
            for ((shard, place), (ord, id)) in group {
                query = query.bind(&front.served.site).bind(i64::from(shard.0)).bind(place.code());
                query = query.bind(ord).bind(last).bind(ord).bind(id);
            }
            for row in self.read_on(&mut front.kept, query).await? {
                rows.extend(Waiting::read(&row)?);
            }
        }
        Ok(rows)
    }
}

/// The last row of each part of which as many were read as one reads at once.
fn last_of_full_pages(rows: &[Waiting]) -> HashMap<Part, Behind> {
    let mut parts: HashMap<Part, Vec<Behind>> = HashMap::new();
    for Waiting { place, key: (shard, ord, id), .. } in rows {
        parts.entry((Shard((*shard).max(0) as u16), *place)).or_default().push((*ord, *id));
    }
    let mut full = HashMap::new();
    for (part, mut behind) in parts {
        behind.sort_unstable();
        behind.dedup();
        if behind.len() >= PAGE {
            full.extend(behind.last().map(|last| (part, *last)));
        }
    }
    full
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SILENT: SilentSlots = SilentSlots { of_each: 2, of_all: 5 };

    fn of(namespace: &str) -> Sharer<'_> {
        Sharer { namespace, is_silent: false }
    }

    fn shares<'a>(bound: ShareBound, free: u32, held: impl IntoIterator<Item = &'a str>) -> Shares {
        Shares::new(bound, free, SILENT, held.into_iter().map(of))
    }

    /// Jobs that never end come as often as they can; how many of each namespace are taken up.
    fn taken(shares: &mut Shares, names: &[&str]) -> Vec<u32> {
        let mut taken = vec![0; names.len()];
        while let Some(at) = (0..names.len()).find(|at| shares.may_take(of(names[*at]))) {
            shares.take(of(names[at]));
            taken[at] += 1;
        }
        taken
    }

    #[test]
    fn one_namespace_has_three_quarters_of_the_slots_and_all_where_it_is_alone() {
        for (slots, most) in [(1, 1), (2, 1), (4, 3), (8, 6), (16, 12), (100, 75), (2000, 1500)] {
            assert_eq!(taken(&mut shares(ShareBound::Free, slots, []), &["a"]), [most], "{slots}");
            assert_eq!(taken(&mut shares(ShareBound::Unbounded, slots, []), &["a"]), [slots]);
            assert_eq!(taken(&mut shares(ShareBound::Slots(1), slots, []), &["a"]), [1]);
        }
    }

    #[test]
    fn however_many_hold_what_they_may_the_next_one_finds_a_slot() {
        let mut sixteen = shares(ShareBound::Free, 16, []);
        assert_eq!(taken(&mut sixteen, &["a", "b", "c"]), [12, 3, 1]);
        for (slots, hostile) in [(16, 2), (64, 3), (1000, 4)] {
            let names: Vec<String> = (0..hostile).map(|number| format!("hostile-{number}")).collect();
            let mut shares = shares(ShareBound::Free, slots, []);
            taken(&mut shares, &names.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(shares.may_take(of("honest")), "{slots} slots, {hostile} namespaces: {shares:?}");
        }
    }

    #[test]
    fn each_namespace_has_slots_of_its_own_for_bmcs_that_do_not_answer() {
        let mut shares = shares(ShareBound::Free, 100, []);
        let silent = |namespace| Sharer { namespace, is_silent: true };
        for (namespace, most) in [("a", 2), ("b", 2), ("c", 1), ("d", 0)] {
            for number in 0..3 {
                let may_take = shares.may_take(silent(namespace));
                assert_eq!(may_take, number < most, "{namespace} {number}");
                if may_take {
                    shares.take(silent(namespace));
                }
            }
            assert!(shares.may_take(of(namespace)), "what may answer is not bounded by that");
        }
        assert_eq!(shares.of_anybody(), 0, "none of them is claimed to be put off again");
    }

    fn row(place: PlaceInQueue, ord: i64, namespace: &str) -> Waiting {
        Waiting { place, key: (0, ord, ord), namespace: Some(namespace.to_owned()), is_silent: false }
    }

    #[test]
    fn what_may_be_claimed_is_chosen_in_the_order_of_the_queue() {
        let (ready, queued) = (PlaceInQueue::Ready, PlaceInQueue::Queued);
        let rows = vec![
            row(queued, 1, "a"),
            row(queued, 3, "b"),
            row(queued, 2, "b"),
            row(ready, 9, "a"),
            row(queued, 4, "b"),
        ];
        let held = ["a"; 6];
        let full = shares(ShareBound::Free, 2, held);
        assert_eq!(
            choose(rows.clone(), full.clone(), 2),
            Some((queued, vec![(0, 2, 2)])),
            "then b has its own"
        );
        assert_eq!(choose(vec![row(ready, 1, "a")], full, 2), None);
        let room = shares(ShareBound::Free, 10, held);
        assert_eq!(choose(rows, room, 9), Some((ready, vec![(0, 9, 9)])), "one place at a time");
    }

    proptest! {
        /// What may be taken whosever it is breaks nobody's share.
        #[test]
        fn what_is_anybodys_is_within_every_share(
            free in 0..40_u32, held in prop::collection::vec(0..4_usize, 0..40), takes in prop::collection::vec(0..4_usize, 0..40),
            most in 1..20_u32, fixed: bool,
        ) {
            let names = ["a", "b", "c", "d"];
            let bound = if fixed { ShareBound::Slots(most) } else { ShareBound::Free };
            let mut shares = shares(bound, free, held.iter().map(|at| names[*at]));
            let of_anybody = shares.of_anybody().min(free);
            for at in takes.into_iter().take(of_anybody as usize) {
                prop_assert!(shares.may_take(of(names[at])), "{shares:?}");
                shares.take(of(names[at]));
            }
        }

        /// Whoever holds nothing may have a slot that is free.
        #[test]
        fn a_free_slot_is_there_for_who_has_none(free in 1..40_u32, held in prop::collection::vec(0..3_usize, 0..40)) {
            let names = ["a", "b", "c"];
            let shares = shares(ShareBound::Free, free, held.iter().map(|at| names[*at]));
            prop_assert!(shares.may_take(of("d")));
        }
    }
}
