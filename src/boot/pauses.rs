//! How long what failed is left alone: each time twice as long as the time before. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The longest pause.
const LONGEST: Duration = Duration::from_mins(5);
/// So many failures are remembered before those that are over are forgotten.
const REMEMBERED: usize = 1_000;

/// What failed, and until when it is left alone.
#[derive(Debug)]
pub struct Pauses<K, E> {
    first: Duration,
    all: HashMap<K, Pause<E>>,
}

#[derive(Debug)]
struct Pause<E> {
    error: E,
    until: Instant,
    length: Duration,
}

impl<K: Eq + Hash, E: Clone> Pauses<K, E> {
    /// None; the first is so long.
    pub fn new(first: Duration) -> Self {
        Self { first, all: HashMap::new() }
    }

    /// Why it is left alone now; `None`: it is not.
    pub fn holds(&self, key: &K, now: Instant) -> Option<E> {
        self.all.get(key).filter(|pause| now < pause.until).map(|pause| pause.error.clone())
    }

    /// It failed; how long it is left alone.
    pub fn begin(&mut self, key: K, error: E, now: Instant) -> Duration {
        if self.all.len() >= REMEMBERED {
            self.all.retain(|_, pause| now < pause.until + LONGEST);
        }
        let before = self.all.get(&key).filter(|pause| now < pause.until + LONGEST);
        let length = before.map_or(self.first, |pause| (pause.length * 2).min(LONGEST));
        self.all.insert(key, Pause { error, until: now + length, length });
        length
    }

    /// It did not fail any more.
    pub fn end(&mut self, key: &K) {
        self.all.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a time to begin with")]
    fn pauses_grow_to_five_minutes_and_end_with_the_first_success() {
        let mut pauses = Pauses::new(Duration::from_secs(5));
        let mut now = Instant::now();
        let mut lengths = Vec::new();
        for _ in 0..8 {
            let length = pauses.begin("a", "away", now);
            assert_eq!(pauses.holds(&"a", now), Some("away"));
            assert_eq!(pauses.holds(&"b", now), None);
            now += length;
            assert_eq!(pauses.holds(&"a", now), None, "it is tried again");
            lengths.push(length.as_secs());
        }
        assert_eq!(lengths, [5, 10, 20, 40, 80, 160, 300, 300]);
        pauses.end(&"a");
        assert_eq!(pauses.begin("a", "away", now).as_secs(), 5);
    }
}
