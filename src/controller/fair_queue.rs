//! Where the jobs of a namespace come in the queue beside those of others: start-time fair queuing, by the key of the queue's
//! rows, so that a claim costs what it did.
//!
//! Of one lane the jobs of a namespace come a second after each other, and those of a namespace that begins to wait come where
//! the others have got to. So namespaces take turns however many jobs each has, and one that is alone is never held up. And of
//! one namespace so many jobs are `Urgent` at once and no more.
//!
//! What waits is what this process saw and enqueued: it orders jobs, and nothing hangs on it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::{Action, Lane, ServerUid};

/// Between two waiting jobs of one lane and namespace, in milliseconds. The unit does not matter to one controller; where
/// several watch namespaces of one site, a backlog of one is spread before what the others enqueue meanwhile.
const APART_MS: i64 = 1_000;

/// In which line of a site a job waits: those that need a permit have one of their own in each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    /// The lane.
    pub lane: Lane,
    /// Whether it needs a permit.
    pub bounded: bool,
}

impl Line {
    /// The line of an action in a lane.
    pub(super) fn of(action: Action, lane: Lane) -> Self {
        Self { lane, bounded: action.permit_class().is_some() }
    }
}

/// A live job of a server, as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    /// Its line.
    pub line: Line,
    /// Its place in it.
    pub order_ms: i64,
    /// Whether it was ever claimed: then it waits no more.
    pub started: bool,
}

#[derive(Debug, Clone)]
struct Waiting {
    site: String,
    namespace: String,
    line: Line,
    order_ms: i64,
}

#[derive(Debug, Default)]
struct Book {
    waiting: HashMap<ServerUid, Waiting>,
    /// By site and line.
    orders: BTreeSet<(String, Line, i64, ServerUid)>,
    /// By site, line and namespace.
    of_namespaces: BTreeSet<(String, Line, String, i64, ServerUid)>,
    /// The order of the last job of a namespace that left a line in which others wait: without it two that have one job at a time
    /// would begin anew for ever, and the third would wait.
    left: BTreeMap<(String, Line), HashMap<String, i64>>,
    urgent: HashMap<String, HashSet<ServerUid>>,
}

impl Book {
    fn insert(&mut self, uid: &ServerUid, waiting: Waiting) {
        let Waiting { site, namespace, line, order_ms } = waiting.clone();
        self.orders.insert((site.clone(), line, order_ms, uid.clone()));
        self.of_namespaces.insert((site, line, namespace, order_ms, uid.clone()));
        self.waiting.insert(uid.clone(), waiting);
    }

    fn remove(&mut self, uid: &ServerUid) {
        let Some(Waiting { site, namespace, line, order_ms }) = self.waiting.remove(uid) else { return };
        self.orders.remove(&(site.clone(), line, order_ms, uid.clone()));
        self.of_namespaces.remove(&(site, line, namespace, order_ms, uid.clone()));
    }

    /// A job waits no more: it was claimed, or is gone.
    fn leave(&mut self, uid: &ServerUid) {
        let Some(Waiting { site, namespace, line, order_ms }) = self.waiting.get(uid).cloned() else {
            return;
        };
        self.remove(uid);
        if self.first(&site, line).is_none() {
            // What is over costs nobody anything.
            self.left.remove(&(site, line));
            return;
        }
        let last = self.left.entry((site, line)).or_default().entry(namespace).or_insert(order_ms);
        *last = order_ms.max(*last);
    }

    /// The order of the job that waits longest in a line.
    fn first(&self, site: &str, line: Line) -> Option<i64> {
        let from = (site.to_owned(), line, i64::MIN, ServerUid(String::new()));
        let (of, at, order_ms, _) = self.orders.range(from..).next()?;
        (of == site && *at == line).then_some(*order_ms)
    }

    /// The order of the last job of a namespace in a line, of those that have left it too.
    fn last(&self, site: &str, line: Line, namespace: &str) -> Option<i64> {
        let until = (site.to_owned(), line, namespace.to_owned(), i64::MAX, ServerUid(String::new()));
        let waiting = self.of_namespaces.range(..until).next_back();
        let waiting = waiting
            .filter(|(of, at, by, ..)| of == site && *at == line && by == namespace)
            .map(|(.., order_ms, _)| *order_ms);
        let left = self.left.get(&(site.to_owned(), line)).and_then(|left| left.get(namespace)).copied();
        waiting.max(left)
    }

    fn is_full(&self, cap: usize, namespace: &str, uid: &ServerUid) -> bool {
        self.urgent.get(namespace).is_some_and(|urgent| !urgent.contains(uid) && urgent.len() >= cap)
    }

    fn is_urgent(&mut self, namespace: &str, uid: &ServerUid, is_urgent: bool) {
        if is_urgent {
            self.urgent.entry(namespace.to_owned()).or_default().insert(uid.clone());
        } else if let Some(urgent) = self.urgent.get_mut(namespace) {
            urgent.remove(uid);
            if urgent.is_empty() {
                self.urgent.remove(namespace);
            }
        }
    }
}

/// A server, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    /// The server.
    pub uid: &'a ServerUid,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its site.
    pub site: &'a str,
}

/// The order of the jobs that one controller enqueues.
#[derive(Debug, Default)]
pub(super) struct FairQueue(Mutex<Book>);

impl FairQueue {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the database has for a server now.
    pub(super) fn saw(&self, whose: Whose<'_>, live: Option<Live>) {
        let mut book = self.book();
        if live.is_some_and(|live| !live.started && live.line.lane != Lane::Background) {
            book.remove(whose.uid);
        } else {
            book.leave(whose.uid);
        }
        book.is_urgent(whose.namespace, whose.uid, live.is_some_and(|live| live.line.lane == Lane::Urgent));
        if let Some(live) = live.filter(|live| !live.started && live.line.lane != Lane::Background) {
            let waiting = Waiting {
                site: whose.site.to_owned(),
                namespace: whose.namespace.to_owned(),
                line: live.line,
                order_ms: live.order_ms,
            };
            book.insert(whose.uid, waiting);
        }
    }

    /// Whether as many jobs of the namespace are urgent as may be, this server's own not counted. 0: there is no bound.
    pub(super) fn is_full(&self, cap: u16, namespace: &str, uid: &ServerUid) -> bool {
        cap > 0 && self.book().is_full(usize::from(cap), namespace, uid)
    }

    /// Takes a place among the urgent jobs of the namespace, where the lane is that; `false`: there is none.
    pub(super) fn enter(&self, cap: u16, whose: Whose<'_>, lane: Lane) -> bool {
        let mut book = self.book();
        if lane == Lane::Urgent && cap > 0 && book.is_full(usize::from(cap), whose.namespace, whose.uid) {
            return false;
        }
        book.is_urgent(whose.namespace, whose.uid, lane == Lane::Urgent);
        true
    }

    /// Where a new job comes in its line, milliseconds since the Unix epoch. Inspections come as they came.
    pub(super) fn order(&self, whose: Whose<'_>, line: Line, now_ms: i64) -> i64 {
        if line.lane == Lane::Background {
            return now_ms;
        }
        let mut book = self.book();
        book.remove(whose.uid);
        let start = book.first(whose.site, line).unwrap_or(now_ms);
        let after = book.last(whose.site, line, whose.namespace).map(|last| last + APART_MS);
        let order_ms = after.map_or(start, |after| after.max(start));
        let waiting =
            Waiting { site: whose.site.to_owned(), namespace: whose.namespace.to_owned(), line, order_ms };
        book.insert(whose.uid, waiting);
        order_ms
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(namespace: &str, number: usize) -> ServerUid {
        ServerUid(format!("{namespace}-{number:04}"))
    }

    const SITE: &str = "north";

    fn whose<'a>(namespace: &'a str, uid: &'a ServerUid) -> Whose<'a> {
        Whose { uid, namespace, site: SITE }
    }

    fn line(lane: Lane) -> Line {
        Line::of(Action::Reboot, lane)
    }

    /// A queue as workers see it: keys, and what is claimed is the smallest.
    #[derive(Default)]
    struct Site {
        fair: FairQueue,
        keys: BTreeMap<(Lane, i64, usize), (String, ServerUid)>,
        made: usize,
    }

    impl Site {
        fn put(&mut self, namespace: &str, lane: Lane, now_ms: i64) -> ServerUid {
            self.made += 1;
            let uid = uid(namespace, self.made);
            let order_ms = self.fair.order(whose(namespace, &uid), line(lane), now_ms);
            self.keys.insert((lane, order_ms, self.made), (namespace.to_owned(), uid.clone()));
            uid
        }

        fn claim(&mut self) -> Option<(String, ServerUid)> {
            let ((lane, order_ms, _), (namespace, uid)) = self.keys.pop_first()?;
            self.fair.saw(whose(&namespace, &uid), Some(Live { line: line(lane), order_ms, started: true }));
            Some((namespace, uid))
        }

        fn next(&mut self) -> String {
            self.claim().unwrap().0
        }
    }

    #[test]
    fn three_hundred_jobs_of_one_namespace_keep_no_job_of_another_one_waiting() {
        for (lane, claimed, later_ms) in [
            (Lane::Urgent, 0, 1),
            (Lane::Normal, 100, 10),
            (Lane::High, 100, 100_000_000),
            (Lane::Low, 299, 1),
        ] {
            let mut site = Site::default();
            for at in 0..300 {
                site.put("a", lane, at);
            }
            for _ in 0..claimed {
                site.claim();
            }
            site.put("b", lane, 300 + later_ms);
            let before = std::iter::from_fn(|| site.claim()).take_while(|(namespace, _)| namespace == "a");
            assert!(before.count() <= 1, "{lane:?} after {claimed} claims");
        }
    }

    #[test]
    fn who_came_first_has_had_its_share_and_goes_on_having_it() {
        let mut site = Site::default();
        for at in 0..300 {
            site.put("a", Lane::Normal, at);
        }
        for _ in 0..200 {
            site.claim();
        }
        for at in 0..100 {
            site.put("b", Lane::Normal, 1_000_000 + at);
        }
        let order: Vec<String> = (0..100).map(|_| site.next()).collect();
        let of_a = order.iter().filter(|namespace| *namespace == "a").count();
        assert!((49..=51).contains(&of_a), "{of_a} of a hundred");
    }

    #[test]
    fn a_namespace_that_is_alone_has_its_jobs_in_the_order_in_which_they_came() {
        let mut site = Site::default();
        let put: Vec<ServerUid> = (0..50).map(|at| site.put("a", Lane::High, at)).collect();
        let claimed: Vec<ServerUid> = std::iter::from_fn(|| site.claim()).map(|(_, uid)| uid).collect();
        assert_eq!(claimed, put);
        let now_ms = 7;
        let uid = site.put("a", Lane::High, now_ms);
        assert_eq!(site.keys.pop_first().unwrap().0.1, now_ms, "{uid}: what is over costs it nothing");
    }

    #[test]
    fn installations_that_wait_for_permits_hold_back_nothing_else_of_their_namespace() {
        let fair = FairQueue::default();
        for number in 0..300 {
            fair.order(whose("a", &uid("a", number)), Line::of(Action::Reimage, Lane::Normal), 1);
        }
        let reboot = Line::of(Action::Reboot, Lane::Normal);
        assert_eq!(fair.order(whose("a", &uid("a", 300)), reboot, 2), 2);
        assert_eq!(
            fair.order(whose("b", &uid("b", 0)), reboot, 3),
            2,
            "it comes where the others have got to"
        );
    }

    #[test]
    fn a_controller_that_has_just_begun_goes_on_from_what_it_sees() {
        let mut site = Site::default();
        for at in 0..10 {
            site.put("a", Lane::Normal, at);
        }
        let fair = FairQueue::default();
        for ((lane, order_ms, _), (namespace, uid)) in &site.keys {
            fair.saw(
                whose(namespace, uid),
                Some(Live { line: line(*lane), order_ms: *order_ms, started: false }),
            );
        }
        site.fair = fair;
        let last = site.put("a", Lane::Normal, 11);
        let claimed: Vec<ServerUid> = std::iter::from_fn(|| site.claim()).map(|(_, uid)| uid).collect();
        assert_eq!(claimed.last(), Some(&last), "of one namespace nothing overtakes");
    }

    #[test]
    fn so_many_jobs_of_a_namespace_are_urgent_and_no_more() {
        let fair = FairQueue::default();
        let uids: Vec<ServerUid> = (0..3).map(|number| uid("a", number)).collect();
        for uid in &uids[..2] {
            assert!(!fair.is_full(2, "a", uid));
            assert!(fair.enter(2, whose("a", uid), Lane::Urgent));
        }
        assert!(fair.is_full(2, "a", &uids[2]) && !fair.enter(2, whose("a", &uids[2]), Lane::Urgent));
        assert!(fair.enter(2, whose("a", &uids[2]), Lane::High), "it goes where it would without a word");
        assert!(fair.enter(2, whose("a", &uids[0]), Lane::Urgent), "what is urgent stays so");
        assert!(fair.enter(2, whose("b", &uid("b", 0)), Lane::Urgent), "each namespace has its own");
        assert!(fair.enter(0, whose("a", &uids[2]), Lane::Urgent), "0 is no bound");
        fair.saw(whose("a", &uids[2]), None);
        let running = Live { line: line(Lane::Urgent), order_ms: 1, started: true };
        fair.saw(whose("a", &uids[0]), Some(running));
        assert!(fair.is_full(2, "a", &uids[2]), "one that runs is counted");
        fair.saw(whose("a", &uids[0]), None);
        assert!(!fair.is_full(2, "a", &uids[2]), "one that ended is not");
    }

    #[test]
    fn two_that_have_one_job_at_a_time_keep_no_third_one_waiting() {
        let mut site = Site::default();
        site.put("c", Lane::Normal, 0);
        let waits = site.put("c", Lane::Normal, 0);
        site.put("a", Lane::Normal, 1);
        let mut claims = 0;
        for at in 0.. {
            site.put(if at % 2 == 0 { "b" } else { "a" }, Lane::Normal, 2 + at);
            claims += 1;
            if site.claim().unwrap().1 == waits {
                break;
            }
            assert!(claims < 10, "it waits for ever");
        }
    }

    proptest! {
        /// While a job of a namespace waits, no other namespace has more than three claimed.
        #[test]
        fn whoever_waits_has_its_turn(puts in prop::collection::vec((0..3_usize, 0..4_u8), 1..200)) {
            let names = ["a", "b", "c"];
            let mut site = Site::default();
            let mut missed = [[0_usize; 3]; 3];
            for (at, (namespace, claims)) in puts.into_iter().enumerate() {
                site.put(names[namespace], Lane::Normal, at as i64);
                for _ in 0..claims.saturating_sub(2) {
                    let Some((claimed, _)) = site.claim() else { break };
                    let claimed = names.iter().position(|name| *name == claimed).unwrap();
                    for (name, missed) in names.iter().zip(&mut missed) {
                        let is_there = site.keys.values().any(|(of, _)| of == name);
                        missed[claimed] = if is_there { missed[claimed] + 1 } else { 0 };
                        prop_assert!(*name == names[claimed] || missed[claimed] <= 3, "{missed:?}");
                    }
                    missed[claimed] = [0; 3];
                }
            }
        }
    }
}
