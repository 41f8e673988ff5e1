//! The books: what was accepted, what is held, what ended. They are compared with the tables when nothing is under way.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::job::{JobId, ServerUid};
use crate::queue::measure::Accounts;

/// What must not happen, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Accepted jobs that are neither live nor in the history, or that wait nowhere.
    pub lost: u64,
    /// Jobs that were carried out or recorded twice.
    pub doubled: u64,
    /// Claims of a server while another claim of it was not over.
    pub two_at_once: u64,
}

impl Faults {
    /// The sum of two.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            two_at_once: self.two_at_once + other.two_at_once,
        }
    }

    /// Whether there are none.
    pub(super) fn none(self) -> bool {
        self == Self::default()
    }
}

#[derive(Debug, Default)]
struct Open {
    held: HashSet<ServerUid>,
    ended: HashSet<JobId>,
}

/// The books of one schema.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accepted: AtomicU64,
    removed: AtomicU64,
    ended_twice: AtomicU64,
    two_at_once: AtomicU64,
    open: Mutex<Open>,
}

impl Ledger {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that the database has taken.
    pub(super) fn accepted(&self, jobs: u64) {
        self.accepted.fetch_add(jobs, Ordering::Relaxed);
    }

    /// Jobs that the benchmark itself took out again.
    pub(super) fn removed(&self, jobs: u64) {
        self.removed.fetch_add(jobs, Ordering::Relaxed);
    }

    /// A claim begins.
    pub(super) fn claimed(&self, uid: &ServerUid) {
        if !self.open().held.insert(uid.clone()) {
            self.two_at_once.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A claim is over, and the job was recorded as ended by it.
    pub(super) fn ended(&self, uid: &ServerUid, id: JobId) {
        let mut open = self.open();
        open.held.remove(uid);
        if !open.ended.insert(id) {
            self.ended_twice.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A claim is over, and the job was somebody else's meanwhile.
    pub(super) fn given_up(&self, uid: &ServerUid) {
        self.open().held.remove(uid);
    }

    /// Compares with the tables.
    pub(super) fn faults(&self, tables: Accounts) -> Faults {
        let kept = self.accepted.load(Ordering::Relaxed).saturating_sub(self.removed.load(Ordering::Relaxed));
        let found = tables.live + tables.history;
        let ended = self.open().ended.len() as u64;
        Faults {
            lost: kept.saturating_sub(found)
                + ended.saturating_sub(tables.history)
                + tables.live.abs_diff(tables.waiting)
                + tables.owned,
            doubled: self.ended_twice.load(Ordering::Relaxed) + tables.both + found.saturating_sub(kept),
            two_at_once: self.two_at_once.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> ServerUid {
        ServerUid(name.to_owned())
    }

    /// Three jobs, of which one ended.
    fn books() -> Ledger {
        let ledger = Ledger::default();
        ledger.accepted(3);
        ledger.claimed(&uid("a"));
        ledger.ended(&uid("a"), JobId(1));
        ledger
    }

    const GOOD: Accounts = Accounts { live: 2, waiting: 2, owned: 0, history: 1, both: 0 };

    #[test]
    fn books_that_agree_have_no_faults() {
        assert!(books().faults(GOOD).none());
    }

    #[test]
    fn a_job_that_is_nowhere_or_waits_nowhere_is_lost() {
        assert_eq!(books().faults(Accounts { live: 1, waiting: 1, ..GOOD }).lost, 1);
        assert_eq!(books().faults(Accounts { waiting: 1, ..GOOD }).lost, 1);
        // An end that was promised and is not in the history counts although the numbers add up.
        assert_eq!(books().faults(Accounts { live: 3, waiting: 3, history: 0, ..GOOD }).lost, 1);
    }

    #[test]
    fn a_job_that_is_there_twice_or_ended_twice_is_doubled() {
        assert_eq!(books().faults(Accounts { live: 3, waiting: 3, both: 1, ..GOOD }).doubled, 2);
        let ledger = books();
        ledger.ended(&uid("a"), JobId(1));
        assert_eq!(ledger.faults(GOOD).doubled, 1);
    }

    #[test]
    fn a_second_claim_counts_only_while_the_first_is_not_over() {
        let ledger = books();
        ledger.claimed(&uid("a"));
        ledger.given_up(&uid("a"));
        ledger.claimed(&uid("a"));
        assert_eq!(ledger.faults(GOOD).two_at_once, 0);
        ledger.claimed(&uid("a"));
        assert_eq!(ledger.faults(GOOD).two_at_once, 1);
    }
}
