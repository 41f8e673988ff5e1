//! Identifiers of jobs, claims, workers and servers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bits of a [`JobId`] that are random; the higher ones are milliseconds since the Unix epoch.
const RANDOM_BITS: u32 = 22;

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

    /// Milliseconds since the Unix epoch at which the id was made.
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
}
