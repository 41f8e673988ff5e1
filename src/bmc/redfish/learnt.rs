//! What was learnt of each BMC from its answers, so that it is not learnt again with every request. A process forgets it
//! with its end, a day after it was last of use, and where it turned out to be wrong.
#![expect(clippy::disallowed_methods, reason = "what was learnt has a life")]

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::preconditions::Known;
use super::quirks::Habit;

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
    /// Which habits were met.
    pub(super) habits: BTreeSet<Habit>,
}

impl Learnt {
    /// Looks at what is known of the BMC at `host`, and changes it.
    pub(super) fn of<T>(&self, host: &str, look: impl FnOnce(&mut Facts) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if !all.contains_key(host) && all.len() >= BMCS_MAX {
            let oldest = all.iter().min_by_key(|(_, entry)| entry.used).map(|(host, _)| host.clone());
            oldest.and_then(|host| all.remove(&host));
        }
        let entry = all.entry(host.to_owned()).or_insert_with(|| Entry { used: now, facts: Facts::default() });
        if now.saturating_duration_since(entry.used) > LIFE {
            entry.facts = Facts::default();
        }
        entry.used = now;
        look(&mut entry.facts)
    }

    /// Remembers that a habit was met.
    pub(super) fn met(&self, host: &str, habit: Habit) {
        if self.of(host, |facts| facts.habits.insert(habit)) {
            tracing::info!(bmc = host, habit = habit.name(), "a BMC has a habit: {}", habit.row().known_by);
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
