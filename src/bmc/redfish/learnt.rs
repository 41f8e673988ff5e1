//! What was learnt of each BMC from its answers, so that it is not learnt again with every request. A process forgets it
//! with its end, a day after it was last of use, and where it turned out to be wrong.
#![expect(clippy::disallowed_methods, reason = "what was learnt has a life")]

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::insertion::Parameters;
use super::preconditions::Known;
use super::quirks::{Habit, Row};
use crate::api::hardware::{Accelerator, Disk};

/// BMCs that are remembered; the one that was of no use for the longest time makes room.
const BMCS_MAX: usize = 4096;
/// For how long without use: a firmware update may end a habit.
const LIFE: Duration = Duration::from_hours(24);

/// What is known of all BMCs that this process talks to. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::bmc) struct Learnt(Arc<Mutex<HashMap<String, Entry>>>);

#[derive(Debug)]
struct Entry {
    used: Instant,
    facts: Facts,
}

/// What is known of one BMC.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Which `If-Match` it takes with an action.
    pub(super) post: Known,
    /// Which `If-Match` it takes with a PATCH.
    pub(super) patch: Known,
    /// Which properties of a boot override the settings resource takes, and the system does not; `None`: nobody knows yet.
    pub(super) boot_in_settings: Option<BTreeSet<String>>,
    /// How it is asked to expand a collection; `None`: it does not, or nobody knows.
    pub(super) expand: Option<&'static str>,
    /// Whether the service root was read.
    pub(super) root_read: bool,
    /// Where systems were found, by what they are called in an address, and whether there are several.
    pub(super) systems: HashMap<Option<String>, System>,
    /// Descriptions that are not there.
    pub(super) no_description: BTreeSet<String>,
    /// Its drives, by system.
    pub(super) drives: HashMap<String, Drives>,
    /// Parts that hardly ever change, by system.
    pub(super) parts: HashMap<String, Parts>,
    /// What is told with an insertion.
    pub(super) insertion: Option<Parameters>,
    /// Which habits were met.
    pub(super) habits: BTreeSet<Habit>,
}

/// Where a system was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) path: String,
    /// Whether its BMC has other systems.
    pub(super) has_siblings: bool,
}

/// What was read of a system that hardly ever changes, and what of it showed that it did not.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) read_at: Option<Instant>,
    /// The summaries in the system's document.
    pub(super) sign: Value,
    pub(super) cpus: Option<i64>,
    pub(super) accelerators: Vec<Accelerator>,
    pub(super) memory_gib: Option<i64>,
    pub(super) firmware: Option<String>,
}

/// The drives of a system.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drives {
    pub(super) read_at: Instant,
    /// The paths of all that were there.
    pub(super) sign: Vec<String>,
    pub(super) disks: Vec<Disk>,
}

/// Systems and descriptions of one BMC that are remembered.
pub(super) const OF_ONE_MAX: usize = 64;

impl Learnt {
    /// Looks at what is known of the BMC at `host`, and changes it.
    pub(super) fn of<T>(&self, host: &str, look: impl FnOnce(&mut Facts) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if !all.contains_key(host) && all.len() >= BMCS_MAX {
            let oldest = all.iter().min_by_key(|(_, entry)| entry.used).map(|(host, _)| host.clone());
            oldest.and_then(|host| all.remove(&host));
        }
        let entry =
            all.entry(host.to_owned()).or_insert_with(|| Entry { used: now, facts: Facts::default() });
        if now.saturating_duration_since(entry.used) > LIFE {
            entry.facts = Facts::default();
        }
        entry.used = now;
        look(&mut entry.facts)
    }

    /// Remembers that a habit was met.
    pub(super) fn met(&self, host: &str, habit: Habit) {
        if self.of(host, |facts| facts.habits.insert(habit)) {
            let Row { name, seen_at, known_by, done, source } = habit.row();
            tracing::info!(
                bmc = host,
                habit = name,
                seen_at,
                source,
                "a BMC has a habit: {known_by}; {done}"
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_learnt_is_forgotten_a_day_after_its_last_use() {
        let learnt = Learnt::default();
        let knows = || learnt.of("a", |facts| !facts.habits.is_empty());
        learnt.met("a", Habit::IfMatchDemanded);
        tokio::time::advance(LIFE).await;
        assert!(knows());
        tokio::time::advance(LIFE + Duration::from_secs(1)).await;
        assert!(!knows());
    }

    #[tokio::test(start_paused = true)]
    async fn of_very_many_bmcs_those_in_use_are_remembered() {
        let learnt = Learnt::default();
        learnt.met("first", Habit::IfMatchDemanded);
        for number in 0..BMCS_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            learnt.met(&number.to_string(), Habit::IfMatchDemanded);
        }
        assert_eq!(learnt.0.lock().unwrap().len(), BMCS_MAX);
        assert!(learnt.of("first", |facts| facts.habits.is_empty()), "the oldest one made room");
        assert!(!learnt.of(&(BMCS_MAX - 1).to_string(), |facts| facts.habits.is_empty()));
    }
}
