//! The front of the queue as one fetcher sees it: where to claim next, so that slots are filled in the right order.
//!
//! Lanes are emptied one after the other over all served shards, started jobs before others, and those that need a
//! permit last. What was seen is remembered for a moment, so that a claim does not begin with a look at every shard;
//! whatever is more urgent than what is remembered is looked for every two milliseconds.

use std::time::{Duration, Instant};

use super::claim::{ClaimOver, Claimed, Looked, Which};
use super::head::{Head, Hints};
use super::many::filled;
use super::shares::Passed;
use super::transaction::Kept;
use super::{Claim, PlaceInQueue, Queue, QueueError, Served};
use crate::job::{Incarnation, Lane, PermitClass};
use crate::metrics;
use crate::shard::Shard;

/// How long what was seen at the front is good for.
const FRESH: Duration = Duration::from_millis(500);
/// Between two looks for something more urgent; a claim of one job takes about as long.
const HIGHER: Duration = Duration::from_millis(2);
/// Between two claims while jobs wait, unless something more urgent came: a claim of one job costs the database nearly as
/// much as one of ten, and what it is spared serves the urgent ones.
const CLAIMS: Duration = Duration::from_millis(8);
/// Between two looks for parked jobs whose time has come.
const WAKES: Duration = Duration::from_millis(100);
/// How long hints are kept at least.
const HINTS_KEPT: Duration = Duration::from_secs(1);
/// A look without hints is made so rarely that it takes at most a twentieth of the time.
const HINTS_KEPT_LOOKS: u32 = 20;
/// The same, and how long what was seen is good for, where namespaces take turns: a job of one is put before what was claimed of
/// another, again and again.
const HINTS_KEPT_AMONG_OTHERS: Duration = Duration::from_millis(200);
/// Shards of one claim at most. A claim of one job from each of ten shards costs little more than one of ten from one; each by
/// itself, a worker that took over three hundred jobs on a busy machine claimed the last of them after eight seconds.
const SHARDS_AT_ONCE: usize = 16;
/// Due jobs that are woken in one transaction.
const WAKE: u32 = 100;

/// How many jobs may be taken up now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Slots for jobs of any lane.
    pub any: u32,
    /// Slots beyond those that only `Urgent` jobs may use.
    pub urgent: u32,
}

impl Room {
    /// At most so much of it.
    #[must_use]
    pub fn at_most(self, most: u32) -> Self {
        let any = self.any.min(most);
        Self { any, urgent: self.urgent.min(most - any) }
    }
}

/// What one fetcher remembers between two claims. One per process: it feeds all slots.
#[derive(Debug)]
pub struct Front {
    served: Served,
    /// One claim in so many starts from a lower lane; 0: none does.
    lower_share: u32,
    heads: Vec<Head>,
    looked: Option<Instant>,
    looked_higher: Option<Instant>,
    woken: Option<Instant>,
    claimed: Option<Instant>,
    hints: Hints,
    hints_end: Instant,
    permits_left: u32,
    claims: u32,
    lower: u32,
    pub(super) passed: Passed,
    among_others: bool,
    pub(super) kept: Kept,
}

impl Front {
    /// Knows nothing yet. One claim in `lower_share` starts from a lower lane than the most urgent one, so that nothing
    /// waits for ever; 0 turns that off.
    pub fn new(served: Served, lower_share: u32) -> Self {
        Self {
            served,
            lower_share,
            heads: Vec::new(),
            looked: None,
            looked_higher: None,
            woken: None,
            claimed: None,
            hints: Hints::new(),
            hints_end: Instant::now(),
            permits_left: 0,
            // Two fetchers that start together do not walk together.
            claims: rand::random_range(0..1000),
            lower: 0,
            passed: Passed::default(),
            among_others: false,
            kept: Kept::default(),
        }
    }

    /// The shards that are looked at.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Whether jobs of several namespaces come: then one may be put before what was claimed last.
    pub fn is_among_others(&mut self, among_others: bool) {
        self.among_others = among_others;
    }

    /// Looks at these shards from now on.
    pub fn serve(&mut self, shards: std::collections::BTreeSet<Shard>) {
        if shards != self.served.shards {
            self.served.shards = shards;
            self.forget();
        }
    }

    /// Looks at everything again before the next claim: something may have come.
    pub(super) fn forget(&mut self) {
        self.heads.clear();
        self.looked = None;
    }

    fn is_fresh(&self) -> bool {
        let fresh = if self.among_others { HINTS_KEPT_AMONG_OTHERS } else { FRESH };
        self.looked.is_some_and(|looked| looked.elapsed() < fresh)
    }

    pub(super) fn parts(&self) -> Vec<(Shard, PlaceInQueue)> {
        let all = |shard: &Shard| PlaceInQueue::CLAIMED.map(|place| (*shard, place));
        self.served.shards.iter().flat_map(all).collect()
    }

    fn shards(&self) -> Vec<Shard> {
        self.served.shards.iter().copied().collect()
    }

    /// The most urgent lane that is remembered.
    fn best(&self) -> Lane {
        self.heads.iter().map(|head| head.lane).min().unwrap_or(Lane::Urgent)
    }

    /// The most urgent heads that there is room for, another shard's first each time, and how many jobs to claim of them.
    fn choose(&self, room: Room) -> Option<(Vec<Head>, u32)> {
        let may = |head: &&Head| room.any > 0 || head.lane == Lane::Urgent;
        let best = self.heads.iter().filter(may).map(|head| (head.lane, head.place)).min()?;
        let mut alike: Vec<Head> =
            self.heads.iter().filter(|head| (head.lane, head.place) == best).copied().collect();
        alike.sort_by_key(|head| head.shard);
        alike.dedup_by_key(|head| head.shard);
        let first = self.claims as usize % alike.len();
        alike.rotate_left(first);
        alike.truncate(SHARDS_AT_ONCE);
        let (lane, place) = best;
        let slots = if lane == Lane::Urgent { room.any + room.urgent } else { room.any };
        Some((alike, self.bounded(place, slots)))
    }

    /// Where there is something to look for: not among those that need a permit when none is left.
    fn places(&self) -> &'static [PlaceInQueue] {
        match self.permits_left {
            0 => &[PlaceInQueue::Ready, PlaceInQueue::Queued],
            _ => &[PlaceInQueue::Ready, PlaceInQueue::Queued, PlaceInQueue::QueuedBounded],
        }
    }

    fn bounded(&self, place: PlaceInQueue, slots: u32) -> u32 {
        if place == PlaceInQueue::QueuedBounded { slots.min(self.permits_left) } else { slots }
    }

    /// The order keys of a lane, without those before every hint.
    fn range(&self, lane: Lane) -> (i64, i64) {
        let (first, last) = lane.order_range();
        let hints = self.hints.iter().filter(|((_, _, of), _)| *of == lane);
        (hints.map(|(_, hint)| *hint).min().unwrap_or(first), last)
    }

    fn is_lower_turn(&self) -> bool {
        self.lower_share > 0 && self.claims % self.lower_share == self.lower_share - 1
    }

    /// A lower lane, each of them in turn, where the next claim starts from one.
    pub(super) fn lower_turn(&mut self) -> Option<Lane> {
        let lower = &Lane::ALL[1..];
        let lane = self.is_lower_turn().then(|| lower[self.lower as usize % lower.len()])?;
        self.lower = self.lower.wrapping_add(1);
        self.claims = self.claims.wrapping_add(1);
        Some(lane)
    }

    /// Something was claimed.
    pub(super) fn has_claimed(&mut self) {
        self.claims = self.claims.wrapping_add(1);
        self.claimed = Some(Instant::now());
    }

    fn replace(&mut self, part: (Shard, PlaceInQueue), by: Option<Head>) {
        self.heads.retain(|head| (head.shard, head.place) != part);
        self.heads.extend(by);
        self.drop_bounded();
    }

    /// Without a permit there is nothing to claim among those that need one.
    fn drop_bounded(&mut self) {
        if self.permits_left == 0 {
            self.heads.retain(|head| head.place != PlaceInQueue::QueuedBounded);
        }
    }
}

impl Queue {
    /// One claim: up to `room` jobs of one lane of some shards, those of each shard in their order, or nothing where nothing
    /// waits.
    pub async fn fetch(
        &self,
        front: &mut Front,
        me: Incarnation,
        room: Room,
    ) -> Result<Vec<Claim>, QueueError> {
        if room.any + room.urgent == 0 {
            return Ok(Vec::new());
        }
        let mut looked = false;
        self.wake_due(front).await?;
        self.pace(front).await?;
        loop {
            if !front.is_fresh() || front.heads.is_empty() {
                if looked {
                    return Ok(Vec::new());
                }
                looked = true;
                self.look(front).await?;
            }
            if room.any > 0 && front.is_lower_turn() {
                let claims = self.fetch_lower(front, me, room).await?;
                if !claims.is_empty() {
                    return Ok(claims);
                }
            }
            let Some((heads, at_most)) = front.choose(room) else {
                // Room for urgent jobs only, and there is none; or nothing at all.
                if front.heads.is_empty() && !looked {
                    continue;
                }
                return Ok(Vec::new());
            };
            let claims = self.fetch_from(front, me, &heads, at_most).await?;
            if !claims.is_empty() {
                return Ok(claims);
            }
        }
    }

    /// Looks for something more urgent than what is remembered, and waits until it is time for another claim or
    /// something was found.
    async fn pace(&self, front: &mut Front) -> Result<(), QueueError> {
        while front.is_fresh() && !front.heads.is_empty() {
            let best = front.best();
            if front.looked_higher.is_none_or(|looked| looked.elapsed() >= HIGHER) {
                self.look_higher(front).await?;
                front.looked_higher = Some(Instant::now());
            }
            let rest =
                front.claimed.map_or(Duration::ZERO, |claimed| CLAIMS.saturating_sub(claimed.elapsed()));
            if rest.is_zero() || front.best() < best {
                break;
            }
            tokio::time::sleep(rest.min(HIGHER)).await;
        }
        Ok(())
    }

    /// Wakes what is due, now and then.
    pub(super) async fn wake_due(&self, front: &mut Front) -> Result<(), QueueError> {
        if front.woken.is_some_and(|woken| woken.elapsed() < WAKES) {
            return Ok(());
        }
        let shards = front.shards();
        let due = self.due_in(&mut front.kept, (&front.served.site, &shards)).await?;
        front.woken = Some(Instant::now());
        // One transaction for all shards: one after the other they would keep what is urgent waiting. Where there is more
        // than one may take, as many follow as there are shards.
        let shards: Vec<Shard> = due.iter().copied().collect();
        for _ in &shards {
            if self.wake_on(&mut front.kept, &front.served.site, &shards, WAKE).await? < WAKE {
                break;
            }
        }
        if !due.is_empty() {
            // What woke is older than what was claimed last, and there may be more of it.
            front.hints.retain(|(shard, place, _), _| *place == PlaceInQueue::Queued || !due.contains(shard));
            front.forget();
        }
        Ok(())
    }

    /// Looks at the front of every served shard.
    async fn look(&self, front: &mut Front) -> Result<(), QueueError> {
        metrics::HEAD_QUERIES.one(&[]);
        let begun = Instant::now();
        let forget = begun >= front.hints_end;
        if forget {
            front.hints.clear();
        }
        let mut heads = Vec::new();
        // Most looks find nothing at all, and one read of all parts is cheap as long as they are empty.
        let shards = front.shards();
        let everything = [(i64::MIN, i64::MAX)];
        let place = (&*front.served.site, &*shards);
        // With hints there is work, and without them that read would pass everything that was deleted.
        if !front.hints.is_empty()
            || self.any_in(&mut front.kept, place, &PlaceInQueue::CLAIMED, &everything).await?.is_some()
        {
            let parts = front.parts();
            heads = self.heads_of(&mut front.kept, &front.served.site, &parts, &front.hints).await?;
        }
        if forget {
            let kept = HINTS_KEPT.max(begun.elapsed() * HINTS_KEPT_LOOKS);
            front.hints_end = if front.among_others { begun + HINTS_KEPT_AMONG_OTHERS } else { begun + kept };
        }
        front.permits_left = 0;
        if heads.iter().any(|head| head.place == PlaceInQueue::QueuedBounded) {
            let permits = self.permits(&front.served.site).await?;
            let install = permits.iter().find(|permits| permits.class == PermitClass::Install);
            front.permits_left = install.map_or(0, super::Permits::left);
        }
        front.heads = heads;
        front.drop_bounded();
        front.looked = Some(Instant::now());
        Ok(())
    }

    /// Looks for something more urgent than what is remembered.
    async fn look_higher(&self, front: &mut Front) -> Result<(), QueueError> {
        let best = front.best();
        let above: Vec<(i64, i64)> =
            Lane::ALL.into_iter().filter(|lane| *lane < best).map(|lane| front.range(lane)).collect();
        let shards = front.shards();
        let places = front.places();
        match self.any_in(&mut front.kept, (&front.served.site, &shards), places, &above).await? {
            // Nothing goes before it: it is claimed without another look.
            Some(head) if head.lane == Lane::Urgent => front.heads.push(head),
            // Something in between may go before it.
            Some(_) => self.look(front).await?,
            None => {}
        }
        Ok(())
    }

    /// A claim that starts from a lower lane, each of them in turn.
    async fn fetch_lower(
        &self,
        front: &mut Front,
        me: Incarnation,
        room: Room,
    ) -> Result<Vec<Claim>, QueueError> {
        let Some(best) = front.heads.iter().map(|head| head.lane).min() else { return Ok(Vec::new()) };
        let below: Vec<Lane> = Lane::ALL.into_iter().filter(|lane| *lane > best).collect();
        let mut shards = front.shards();
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let start = front.lower as usize % shards.len();
        shards.rotate_left(start);
        // From the shard whose turn it is to the last one, then the others: a read of all finds the first ones only.
        let (rest, before) = shards.split_at(shards.len() - start);
        let places = front.places();
        for number in 0..below.len() {
            let lane = below[(front.lower as usize + number) % below.len()];
            let front_range = front.range(lane);
            for shards in [rest, before] {
                let found = self
                    .any_in(&mut front.kept, (&front.served.site, shards), places, &[front_range])
                    .await?;
                let Some(head) = found else { continue };
                let at_most = front.bounded(head.place, (room.any / front.lower_share).max(1));
                let claims = self.fetch_from(front, me, &[head], at_most).await?;
                if !claims.is_empty() {
                    front.lower = front.lower.wrapping_add(1);
                    return Ok(claims);
                }
            }
        }
        front.lower = front.lower.wrapping_add(1);
        front.claims = front.claims.wrapping_add(1);
        Ok(Vec::new())
    }

    /// Claims from these heads, which are of one lane and one place.
    async fn fetch_from(
        &self,
        front: &mut Front,
        me: Incarnation,
        heads: &[Head],
        at_most: u32,
    ) -> Result<Vec<Claim>, QueueError> {
        let Some(Head { lane, place, .. }) = heads.first().copied() else { return Ok(Vec::new()) };
        if at_most == 0 {
            for head in heads {
                front.replace((head.shard, place), None);
            }
            return Ok(Vec::new());
        }
        let hint = |head: &Head| (head.shard, front.hints.get(&(head.shard, place, lane)).copied());
        let over = ClaimOver {
            site: front.served.site.clone(),
            place,
            lane,
            which: Which::First { shards: heads.iter().map(hint).collect(), at_most },
        };
        let claimed = self.claim_over(&mut front.kept, me, over).await?;
        let found = claimed.found();
        let Claimed { claims, looked } = claimed;
        if !claims.is_empty() {
            front.has_claimed();
        }
        if place == PlaceInQueue::QueuedBounded {
            let refused = claims.is_empty() && found > 0;
            front.permits_left =
                if refused { 0 } else { front.permits_left.saturating_sub(claims.len() as u32) };
        }
        for Looked { shard, is_empty, last, .. } in &looked {
            let key = (*shard, place, lane);
            if *is_empty {
                front.hints.remove(&key);
            } else if let Some(last) = last {
                front.hints.insert(key, *last);
            }
        }
        let emptied: Vec<(Shard, PlaceInQueue)> =
            looked.iter().filter(|looked| looked.is_empty).map(|looked| (looked.shard, place)).collect();
        if !emptied.is_empty() && lane == Lane::Urgent {
            // It does not wait for a look at what comes after it.
            front.forget();
        } else if !emptied.is_empty() {
            // What lies in the lanes below was not to be seen before.
            let parts: Vec<_> = filled(&emptied).flatten().collect();
            match self.heads_of(&mut front.kept, &front.served.site, &parts, &front.hints).await {
                Ok(next) => {
                    for part in emptied {
                        let head = next.iter().find(|head| (head.shard, head.place) == part);
                        front.replace(part, head.copied());
                    }
                }
                Err(error) if claims.is_empty() => return Err(error),
                // What is claimed must reach its slots.
                Err(_) => front.forget(),
            }
        }
        front.drop_bounded();
        Ok(claims)
    }
}
