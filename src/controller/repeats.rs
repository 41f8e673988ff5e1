//! What the log has again and again: one line for each cause, and while it lasts ever fewer ones, with the count.
#![expect(clippy::disallowed_methods, reason = "what was not met for a while is news again")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A cause that was not met for so long is news.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Causes that are remembered at most: beyond them, those that are forgotten go.
const REMEMBERED: usize = 1000;

#[derive(Debug)]
struct Met {
    times: u64,
    last: Instant,
}

/// How often each cause was met.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    causes: Mutex<HashMap<String, Met>>,
}

impl Repeats {
    /// The cause was met once more: how often by now, where the log is to have it, which is at 1, 2, 4, 8, ….
    pub(super) fn met(&self, cause: &str) -> Option<u64> {
        self.met_at(cause, Instant::now())
    }

    fn met_at(&self, cause: &str, now: Instant) -> Option<u64> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_forgotten = |met: &Met| now.saturating_duration_since(met.last) > FORGOTTEN;
        if causes.len() >= REMEMBERED && !causes.contains_key(cause) {
            causes.retain(|_, met| !is_forgotten(met));
        }
        let met = causes.entry(cause.to_owned()).or_insert(Met { times: 0, last: now });
        met.times = if is_forgotten(met) { 1 } else { met.times + 1 };
        met.last = now;
        met.times.is_power_of_two().then_some(met.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_told_ever_more_rarely_and_each_by_itself() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let told: Vec<u64> = (0..200).filter_map(|_| repeats.met_at("forbidden in lab", now)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(repeats.met_at("forbidden in shop", now), Some(1));
        let later = now + FORGOTTEN * 2;
        assert_eq!(repeats.met_at("forbidden in lab", later), Some(1), "it was over meanwhile");
    }
}
