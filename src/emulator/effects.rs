//! The effect log: what was asked, when, by whom, what was answered, and what it did.
//!
//! Three bounded rings, so that a flood of reads never pushes a mutating request or a host's own act out. What fell out is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::host::{HostAct, HostEntry};
use super::manager::ManagerReset;
use super::power::ResetType;
use super::time::Millis;

/// What a request did to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// A read, or nothing was done yet.
    None,
    /// It was done (at `effect_at_ms`).
    Applied,
    /// The BMC refused it.
    Refused,
    /// The BMC answered that it was done, and did nothing.
    Pretended,
    /// The guest did not react.
    Ignored,
}

/// What a mutating request asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind")]
pub enum Action {
    /// `ComputerSystem.Reset`.
    Reset {
        /// The reset type.
        reset_type: ResetType,
    },
    /// `Manager.Reset`: the BMC starts again.
    ManagerReset {
        /// The reset type.
        reset_type: ManagerReset,
    },
    /// A PATCH of the system.
    Patch {
        /// The properties that it named, in the order of the body.
        properties: Vec<String>,
    },
    /// `VirtualMedia.InsertMedia`.
    InsertMedia {
        /// The address of the image.
        image: String,
    },
    /// `VirtualMedia.EjectMedia`.
    EjectMedia,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Grows by one with every request of the fleet, and with every act of a host.
    pub seq: u64,
    /// When the request came, in milliseconds since the start of the fleet.
    pub at_ms: Millis,
    /// When it was answered; absent while it was not.
    pub answered_ms: Option<Millis>,
    /// The system, when the path (or the port) belongs to one.
    pub system: Option<String>,
    /// The HTTP method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// Whether it was something else than GET or HEAD.
    pub mutating: bool,
    /// What a mutating request asked for, when it was understood.
    pub action: Option<Action>,
    /// The status that was answered; absent when there was no answer.
    pub status: Option<u16>,
    /// What it did.
    pub effect: Effect,
    /// When the effect took or takes place.
    pub effect_at_ms: Option<Millis>,
    /// The user name of the credentials, whether they were right or not.
    pub user: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// `X-AutoBuild-Worker`.
    pub worker: Option<String>,
    /// The misbehaviours that met it.
    pub faults: Vec<&'static str>,
}

/// Requests by what became of them; never reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Every request.
    pub requests: u64,
    /// Those that were neither GET nor HEAD.
    pub mutating: u64,
    /// Those whose effect was applied.
    pub applied: u64,
    /// Logins that were refused.
    pub bad_logins: u64,
    /// Requests without an answer (so far).
    pub unanswered: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Entries that fell out of the log.
    pub dropped: u64,
}

/// Which entries a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All requests.
    All,
    /// Mutating requests.
    Mutating,
}

#[derive(Debug, Default)]
struct Rings {
    next: u64,
    reads: VecDeque<Entry>,
    mutating: VecDeque<Entry>,
    acts: VecDeque<HostEntry>,
    counters: Counters,
}

/// The log of a fleet.
#[derive(Debug)]
pub(super) struct EffectLog {
    capacity: usize,
    rings: Mutex<Rings>,
}

impl EffectLog {
    /// Keeps at most `capacity` mutating requests and as many reads.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), rings: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Rings) -> T) -> T {
        act(&mut self.rings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records the arrival of a request; its `seq` is given here.
    pub(super) fn arrived(&self, mut entry: Entry) -> u64 {
        self.with(|rings| {
            rings.next += 1;
            entry.seq = rings.next;
            rings.counters.requests += 1;
            rings.counters.unanswered += 1;
            rings.counters.mutating += u64::from(entry.mutating);
            let ring = if entry.mutating { &mut rings.mutating } else { &mut rings.reads };
            ring.push_back(entry);
            if ring.len() > self.capacity {
                ring.pop_front();
                rings.counters.dropped += 1;
            }
            rings.next
        })
    }

    fn amend(&self, seq: u64, act: impl FnOnce(Option<&mut Entry>, &mut Counters)) {
        self.with(|rings| {
            let Rings { reads, mutating, counters, .. } = rings;
            let found = [mutating, reads].into_iter().find_map(|ring| {
                let position = ring.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
                ring.get_mut(position)
            });
            act(found, counters);
        });
    }

    /// Records what the request asked for and what it did.
    pub(super) fn did(&self, seq: u64, action: Option<Action>, effect: Effect, at: Option<Millis>) {
        self.amend(seq, |entry, counters| {
            counters.applied += u64::from(effect == Effect::Applied);
            if let Some(entry) = entry {
                entry.action = action;
                entry.effect = effect;
                entry.effect_at_ms = at;
            }
        });
    }

    /// Records the misbehaviours that the request meets.
    pub(super) fn met(&self, seq: u64, faults: Vec<&'static str>) {
        if !faults.is_empty() {
            self.amend(seq, |entry, _| {
                if let Some(entry) = entry {
                    entry.faults = faults;
                }
            });
        }
    }

    /// Records what a host did by itself.
    pub(super) fn acted(&self, system: &str, at_ms: Millis, act: HostAct) {
        self.with(|rings| {
            rings.next += 1;
            rings.acts.push_back(HostEntry { seq: rings.next, at_ms, system: system.to_owned(), act });
            if rings.acts.len() > self.capacity {
                rings.acts.pop_front();
                rings.counters.dropped += 1;
            }
        });
    }

    /// What hosts did after `since`, at most `limit`, and the last `seq` that was given.
    pub(super) fn acts(&self, system: Option<&str>, since: u64, limit: usize) -> (Vec<HostEntry>, u64) {
        self.with(|rings| {
            let wanted =
                |entry: &&HostEntry| entry.seq > since && system.is_none_or(|name| entry.system == name);
            (rings.acts.iter().filter(wanted).take(limit).cloned().collect(), rings.next)
        })
    }

    /// Records a refused login.
    pub(super) fn bad_login(&self) {
        self.with(|rings| rings.counters.bad_logins += 1);
    }

    /// Records the answer.
    pub(super) fn answered(&self, seq: u64, status: u16, at: Millis) {
        self.amend(seq, |entry, counters| {
            counters.unanswered = counters.unanswered.saturating_sub(1);
            *counters.by_status.entry(status).or_default() += 1;
            if let Some(entry) = entry {
                entry.status = Some(status);
                entry.answered_ms = Some(at);
            }
        });
    }

    pub(super) fn counters(&self) -> Counters {
        self.with(|rings| rings.counters.clone())
    }

    /// The entries after `since` in the order of arrival, at most `limit`, and the last `seq` that was given.
    pub(super) fn entries(
        &self,
        which: Which,
        system: Option<&str>,
        since: u64,
        limit: usize,
    ) -> (Vec<Entry>, u64) {
        self.with(|rings| {
            let wanted = |entry: &&Entry| {
                entry.seq > since && system.is_none_or(|name| entry.system.as_deref() == Some(name))
            };
            let mut found: Vec<Entry> = rings.mutating.iter().filter(wanted).take(limit).cloned().collect();
            if which == Which::All {
                found.extend(rings.reads.iter().filter(wanted).take(limit).cloned());
                found.sort_by_key(|entry| entry.seq);
                found.truncate(limit);
            }
            (found, rings.next)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn entry(mutating: bool) -> Entry {
        Entry {
            seq: 0,
            at_ms: 0,
            answered_ms: None,
            system: Some("node-0001".to_owned()),
            method: if mutating { "POST" } else { "GET" }.to_owned(),
            path: "/redfish/v1".to_owned(),
            mutating,
            action: None,
            status: None,
            effect: Effect::None,
            effect_at_ms: None,
            user: None,
            user_agent: None,
            request_id: None,
            worker: None,
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_flood_of_reads_pushes_no_mutating_request_out_and_what_fell_out_is_counted() {
        let log = EffectLog::new(3);
        let first = log.arrived(entry(true));
        for _ in 0..10 {
            log.arrived(entry(false));
        }
        let (found, last) = log.entries(Which::Mutating, None, 0, usize::MAX);
        assert_eq!(found.iter().map(|e| e.seq).collect::<Vec<_>>(), [first]);
        assert_eq!(last, 11);
        assert_eq!(log.counters().dropped, 7);
        assert_eq!(log.entries(Which::All, None, 0, usize::MAX).0.len(), 4);
    }

    #[test]
    fn an_answer_is_added_to_its_entry_and_since_leaves_out_what_was_seen() {
        let log = EffectLog::new(10);
        let one = log.arrived(entry(true));
        let two = log.arrived(entry(false));
        log.answered(one, 204, 7);
        let (found, _) = log.entries(Which::All, Some("node-0001"), 0, usize::MAX);
        assert_eq!((found[0].status, found[0].answered_ms), (Some(204), Some(7)));
        assert_eq!(log.entries(Which::All, None, one, usize::MAX).0[0].seq, two);
        assert!(log.entries(Which::All, Some("other"), 0, usize::MAX).0.is_empty());
        assert_eq!(log.counters().unanswered, 1);
    }
}
