//! Identifiers of jobs, claims, workers and servers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bits of a [`JobId`] that are random; the higher ones are milliseconds since the Unix epoch.
const RANDOM_BITS: u32 = 22;

/// How far ahead an id's time may lie, in milliseconds: a year, which a database's clock may have been wrong by.
const AHEAD_MS: i64 = 365 * 24 * 3_600_000;

/// A job's id, made by whoever enqueues it: 41 bits of milliseconds since the Unix epoch, 22 random bits.
/// The same id inserted twice is the same job, so an enqueue whose commit is unknown can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub i64);

impl JobId {
    /// The id for a job enqueued at `unix_ms`, with random bits from `random`.
    pub const fn new(unix_ms: i64, random: u64) -> Self {
        let mask = (1_i64 << (63 - RANDOM_BITS)) - 1;
        Self(((unix_ms & mask) << RANDOM_BITS) | (random as i64 & ((1 << RANDOM_BITS) - 1)))
    }

    /// The id for a job enqueued at `unix_ms` after one with the id `last`: always a later one, whatever the clock did since. Ids
    /// tell which of a server's jobs came first, and no clock does.
    pub fn after(last: Option<Self>, unix_ms: i64, random: u64) -> Self {
        let last_ms = last.filter(|last| !last.is_made_up(unix_ms)).map_or(i64::MIN, Self::unix_ms);
        Self::new(unix_ms.max(last_ms.saturating_add(1)), random)
    }

    /// Whether nobody can have made this id by `now_ms`: it lies further ahead than clocks differ.
    pub const fn is_made_up(self, now_ms: i64) -> bool {
        self.unix_ms() > now_ms.saturating_add(AHEAD_MS)
    }

    /// Milliseconds since the Unix epoch at which the id was made, or a little later: see [`JobId::after`].
    pub const fn unix_ms(self) -> i64 {
        self.0 >> RANDOM_BITS
    }

    /// The id as users see it: 16 hexadecimal digits; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        i64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The fencing token: random, new at every claim. Every write of a worker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub i64);

/// One life of a worker process: random, new at every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub i64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// `metadata.uid` of a `Server`: the key of everything that is stored about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerUid(pub String);

impl ServerUid {
    /// The uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_time_and_survives_its_text_form() {
        let id = JobId::new(1_795_000_000_123, u64::MAX);
        assert_eq!(id.unix_ms(), 1_795_000_000_123);
        assert!(id.0 > 0);
        assert_eq!(JobId::parse(&id.to_string()), Some(id));
        assert_eq!(JobId::parse("12"), None);
    }

    #[test]
    fn a_later_job_has_a_later_id_also_when_the_clock_went_back() {
        let now_ms = 1_795_000_000_000;
        let hour_ms = 3_600_000;
        for last_ms in [now_ms - hour_ms, now_ms, now_ms + 2 * hour_ms] {
            let last = JobId::new(last_ms, u64::MAX);
            let next = JobId::after(Some(last), now_ms, 0);
            assert!(next > last, "{last_ms}");
            assert!(JobId::after(Some(next), now_ms, 0) > next, "{last_ms}");
        }
        assert_eq!(JobId::after(None, now_ms, 7), JobId::new(now_ms, 7));
        // What nobody can have made is not followed to the end of what an id can hold.
        let made_up = JobId(i64::MAX);
        assert!(made_up.is_made_up(now_ms) && !JobId::new(now_ms + hour_ms, 0).is_made_up(now_ms));
        assert_eq!(JobId::after(Some(made_up), now_ms, 7), JobId::new(now_ms, 7));
    }
}
