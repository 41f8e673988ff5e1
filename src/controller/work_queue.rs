//! Which Servers wait to be reconciled, and whose turn is next.
//!
//! A Server waits once, whatever happens meanwhile, and is never reconciled twice at once; what happens during its reconcile
//! has it wait again. Namespaces come by turns, and of one who came first is first, with places that only new wishes may take,
//! and others for what is urgent.
//!
//! kube-runtime's own scheduler starts any of those that wait, so that under load some wait for minutes (measured: 25 s to 110 s
//! beside a hundred installations); and with ten thousand that it has started it asks each of them whenever one goes on, which
//! took a quarter of a processor and 468 MiB. Here one that waits is a name.
#![expect(clippy::disallowed_methods, reason = "a Server may be looked at again after a time")]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::{Priority, Server};
use crate::metrics;

/// Namespace and name.
pub(super) type Key = (String, String);

/// Who waits for a turn, the first before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waits {
    /// A Server with `spec.priority: Urgent`.
    Urgent,
    /// One whose spec is new.
    NewWish,
    /// Any other.
    Rest,
}

impl Waits {
    /// What this object is.
    pub(super) fn of(server: &Server) -> Self {
        let seen = server.status.as_ref().and_then(|status| status.observed_generation);
        if server.spec.priority == Some(Priority::Urgent) {
            Self::Urgent
        } else if seen == server.metadata.generation {
            Self::Rest
        } else {
            Self::NewWish
        }
    }
}

/// Whom a place serves: those up to this one.
pub(super) type Serves = Waits;

/// Whom each of so many places serves. A quarter is kept for Servers whose spec is new, so that a wish is acted on while much
/// waits to be shown, and a sixteenth for urgent ones, which so do not wait for the sixty thousand wishes of somebody else.
pub(super) fn places(at_once: u16) -> Vec<Serves> {
    let at_once = usize::from(at_once.max(1));
    let wishes = if at_once > 1 { (at_once / 4).max(1) } else { 0 };
    let urgent = if at_once > 2 { (at_once / 16).max(1) } else { 0 };
    let of = |number| match number {
        number if number < urgent => Serves::Urgent,
        number if number < urgent + wishes => Serves::NewWish,
        _ => Serves::Rest,
    };
    (0..at_once).map(of).collect()
}

/// One that waits: its place in line, and what it is. An entry of a line that is not this one is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    number: u64,
    who: Waits,
}

/// A line: namespaces by turns, and of one the oldest first.
#[derive(Debug, Default)]
struct Line {
    turns: VecDeque<String>,
    /// None of them is empty.
    of_namespaces: HashMap<String, VecDeque<(u64, String)>>,
}

impl Line {
    fn insert(&mut self, number: u64, (namespace, name): Key) {
        let of_namespace = self.of_namespaces.entry(namespace.clone()).or_default();
        if of_namespace.is_empty() {
            self.turns.push_back(namespace);
        }
        let at = of_namespace.partition_point(|(earlier, _)| *earlier < number);
        of_namespace.insert(at, (number, name));
    }

    fn first(&self) -> Option<(u64, Key)> {
        let namespace = self.turns.front()?;
        let (number, name) = self.of_namespaces.get(namespace)?.front()?;
        Some((*number, (namespace.clone(), name.clone())))
    }

    /// Takes out the first one; the next turn is another namespace's, unless the one that was taken out was void.
    fn pop(&mut self, was_void: bool) -> Option<Key> {
        let namespace = self.turns.pop_front()?;
        let of_namespace = self.of_namespaces.get_mut(&namespace)?;
        let (_, name) = of_namespace.pop_front()?;
        if of_namespace.is_empty() {
            self.of_namespaces.remove(&namespace);
        } else if was_void {
            self.turns.push_front(namespace.clone());
        } else {
            self.turns.push_back(namespace.clone());
        }
        Some((namespace, name))
    }
}

#[derive(Debug, Default)]
struct State {
    lines: [Line; 3],
    waiting: HashMap<Key, Waiting>,
    /// Those that are being reconciled, with what they wait as afterwards.
    running: HashMap<Key, Option<Waits>>,
    later: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    numbers: u64,
    closed: bool,
}

impl State {
    fn add(&mut self, key: Key, who: Waits) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(who, |before| before.min(who)));
            return;
        }
        let before = self.waiting.get(&key).copied();
        if before.is_some_and(|before| before.who <= who) {
            return;
        }
        self.numbers += 1;
        // One that becomes more important keeps its age.
        let number = before.map_or(self.numbers, |before| before.number);
        self.lines[who as usize].insert(number, key.clone());
        self.waiting.insert(key, Waiting { number, who });
    }

    /// The number of the first in a line.
    fn first(&mut self, who: Waits) -> Option<u64> {
        let Self { lines, waiting, .. } = self;
        let line = &mut lines[who as usize];
        while let Some((number, key)) = line.first() {
            if waiting.get(&key) == Some(&Waiting { number, who }) {
                return Some(number);
            }
            line.pop(true);
        }
        None
    }

    fn take(&mut self, serves: Serves) -> Option<Key> {
        let who = if self.first(Waits::Urgent).is_some() {
            Waits::Urgent
        } else {
            let others = [Waits::NewWish, Waits::Rest].into_iter().filter(|who| *who <= serves);
            others.filter_map(|who| Some((self.first(who)?, who))).min()?.1
        };
        let key = self.lines[who as usize].pop(false)?;
        self.waiting.remove(&key);
        if let Some(at) = self.due.remove(&key) {
            self.later.remove(&(at, key.clone()));
        }
        self.running.insert(key.clone(), None);
        Some(key)
    }

    fn done(&mut self, key: Key, after: Option<(Instant, Duration)>) {
        if let Some(Some(who)) = self.running.remove(&key) {
            self.add(key, who);
        } else if let Some((now, after)) = after {
            let at = now + after;
            self.due.insert(key.clone(), at);
            self.later.insert((at, key));
        }
    }

    /// Those whose time has come.
    fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.later.pop_first() else { break };
            self.due.remove(&key);
            due.push(key);
        }
        due
    }
}

/// The Servers that wait.
#[derive(Debug, Default)]
pub(super) struct WorkQueue {
    state: Mutex<State>,
    changed: Notify,
    later: Notify,
}

impl WorkQueue {
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = what(&mut state);
        metrics::WORK_QUEUE.set(&[super::CONTROLLER], state.waiting.len() as f64);
        result
    }

    /// Something happened to a Server.
    pub(super) fn add(&self, key: Key, who: Waits) {
        self.with(|state| state.add(key, who));
        self.changed.notify_waiters();
    }

    /// Waits until it is somebody's turn whom this place serves: whose turn it was then has to be [`WorkQueue::done`]. `None`: the
    /// term is over.
    pub(super) async fn next(&self, serves: Serves) -> Option<Key> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on nothing that is added goes by unnoticed.
            changed.as_mut().enable();
            match self.with(|state| if state.closed { Err(()) } else { Ok(state.take(serves)) }) {
                Ok(Some(key)) => return Some(key),
                Ok(None) => changed.await,
                Err(()) => return None,
            }
        }
    }

    /// A turn is over; the Server is looked at again after a time, unless something happened to it.
    pub(super) fn done(&self, key: Key, after: Option<Duration>) {
        let after = after.map(|after| (Instant::now(), after));
        self.with(|state| state.done(key, after));
        self.changed.notify_waiters();
        self.later.notify_one();
    }

    /// Waits until Servers are to be looked at again that [`WorkQueue::done`] was told of.
    pub(super) async fn due(&self) -> Vec<Key> {
        loop {
            let now = Instant::now();
            let (due, next) = self.with(|state| (state.due(now), state.later.first().map(|(at, _)| *at)));
            if !due.is_empty() {
                return due;
            }
            let until = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => {}
                () = self.later.notified() => {}
            }
        }
    }

    /// Nobody has a turn any more.
    pub(super) fn close(&self) {
        self.with(|state| state.closed = true);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::api::{ServerSpec, ServerStatus};

    fn key(name: &str) -> Key {
        ("lab".to_owned(), name.to_owned())
    }

    fn turn(queue: &WorkQueue, serves: Serves) -> Option<String> {
        queue.next(serves).now_or_never().flatten().map(|(_, name)| name)
    }

    #[test]
    fn who_came_first_is_first_and_places_are_kept_for_wishes_and_for_what_is_urgent() {
        let queue = WorkQueue::default();
        for (name, who) in [
            ("rest-1", Waits::Rest),
            ("wish-1", Waits::NewWish),
            ("rest-2", Waits::Rest),
            ("wish-2", Waits::NewWish),
            ("wish-3", Waits::NewWish),
            ("urgent", Waits::Urgent),
        ] {
            queue.add(key(name), who);
        }
        let order = [
            (Serves::Rest, Some("urgent")),
            (Serves::Urgent, None),
            (Serves::Rest, Some("rest-1")),
            (Serves::NewWish, Some("wish-1")),
            (Serves::Rest, Some("rest-2")),
            (Serves::Rest, Some("wish-2")),
            (Serves::NewWish, Some("wish-3")),
            (Serves::NewWish, None),
            (Serves::Rest, None),
        ];
        for (serves, expected) in order {
            assert_eq!(turn(&queue, serves).as_deref(), expected, "{serves:?}");
        }
    }

    #[test]
    fn namespaces_come_by_turns_however_many_wait_of_one() {
        let queue = WorkQueue::default();
        for number in 0..300 {
            queue.add(("hostile".to_owned(), format!("urgent-{number}")), Waits::Urgent);
            queue.add(("hostile".to_owned(), format!("wish-{number}")), Waits::NewWish);
        }
        queue.add(key("urgent"), Waits::Urgent);
        queue.add(key("urgent-too"), Waits::Urgent);
        queue.add(key("wish"), Waits::NewWish);
        let order = ["urgent-0", "urgent", "urgent-1", "urgent-too", "urgent-2", "urgent-3"];
        for expected in order {
            assert_eq!(turn(&queue, Serves::Rest).as_deref(), Some(expected));
        }
        for _ in 4..300 {
            assert!(turn(&queue, Serves::Urgent).is_some());
        }
        for expected in ["wish-0", "wish", "wish-1", "wish-2"] {
            assert_eq!(turn(&queue, Serves::Rest).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_server_waits_once_and_is_never_reconciled_twice_at_once() {
        let queue = WorkQueue::default();
        queue.add(key("a"), Waits::Rest);
        queue.add(key("a"), Waits::Rest);
        assert_eq!(turn(&queue, Serves::Rest).as_deref(), Some("a"));
        assert_eq!(turn(&queue, Serves::Rest), None);
        queue.add(key("a"), Waits::Rest);
        queue.add(key("a"), Waits::NewWish);
        assert_eq!(turn(&queue, Serves::Rest), None, "while it is reconciled");
        queue.done(key("a"), None);
        assert_eq!(
            turn(&queue, Serves::NewWish).as_deref(),
            Some("a"),
            "what happened meanwhile is not lost"
        );
        queue.done(key("a"), None);
        assert_eq!(turn(&queue, Serves::Rest), None);
    }

    #[test]
    fn one_that_becomes_more_important_keeps_its_age() {
        let queue = WorkQueue::default();
        queue.add(key("old"), Waits::Rest);
        queue.add(key("wish"), Waits::NewWish);
        queue.add(key("old"), Waits::NewWish);
        queue.add(key("old"), Waits::Rest);
        assert_eq!(turn(&queue, Serves::NewWish).as_deref(), Some("old"));
        assert_eq!(turn(&queue, Serves::Rest).as_deref(), Some("wish"));
        assert_eq!(turn(&queue, Serves::Rest), None, "its first place is void");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_looked_at_again_after_its_time_unless_something_happened_first() {
        let queue = WorkQueue::default();
        let begun = Instant::now();
        for (name, seconds) in [("late", 300), ("soon", 5), ("never", 60)] {
            queue.add(key(name), Waits::Rest);
            assert!(queue.next(Serves::Rest).await.is_some());
            queue.done(key(name), Some(Duration::from_secs(seconds)));
        }
        queue.add(key("never"), Waits::Rest);
        assert!(queue.next(Serves::Rest).await.is_some());
        queue.done(key("never"), None);
        assert_eq!(queue.due().await, [key("soon")]);
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(queue.due().await, [key("late")]);
        assert_eq!(begun.elapsed().as_secs(), 300);
        assert!(queue.due().now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_is_woken_and_sent_away_at_the_end() {
        let queue = WorkQueue::default();
        let mut first = Box::pin(queue.next(Serves::Rest));
        let mut wish = Box::pin(queue.next(Serves::NewWish));
        assert!(first.as_mut().now_or_never().is_none() && wish.as_mut().now_or_never().is_none());
        queue.add(key("a"), Waits::Rest);
        assert!(wish.as_mut().now_or_never().is_none());
        assert_eq!(first.await, Some(key("a")));
        queue.close();
        assert_eq!(wish.await, None);
        assert_eq!(queue.next(Serves::Rest).await, None);
    }

    #[test]
    fn few_places_are_for_everybody() {
        for at_once in 1..=64 {
            let places = places(at_once);
            assert_eq!(places.len(), usize::from(at_once));
            assert!(places.contains(&Serves::Rest), "{at_once}: nobody is left out");
        }
        let of = |at_once, who| places(at_once).into_iter().filter(|serves| *serves == who).count();
        assert_eq!((of(16, Serves::Urgent), of(16, Serves::NewWish), of(16, Serves::Rest)), (1, 4, 11));
    }

    #[test]
    fn priority_goes_before_news() {
        let mut server = Server::new("a", ServerSpec::default());
        server.metadata.generation = Some(2);
        assert_eq!(Waits::of(&server), Waits::NewWish);
        server.status = Some(ServerStatus { observed_generation: Some(2), ..ServerStatus::default() });
        assert_eq!(Waits::of(&server), Waits::Rest);
        server.spec.priority = Some(Priority::Urgent);
        assert_eq!(Waits::of(&server), Waits::Urgent);
    }
}
