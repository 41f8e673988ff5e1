//! Back-off: how long to wait before a step is tried again.

use crate::api::Reason;

/// How a problem is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// The BMC does not answer, or not as a BMC: tried for ever, up to a few minutes apart.
    Unreachable,
    /// The BMC said "not yet".
    Busy,
    /// A person has to give a right first, which nobody tells: tried seldom.
    Right,
    /// Something of ours is away (the API server): tried again within seconds.
    Surroundings,
}

impl RetryClass {
    /// First and longest delay, in milliseconds.
    const fn bounds(self) -> (i64, i64) {
        match self {
            Self::Unreachable => (2_000, 120_000),
            Self::Busy => (2_000, 60_000),
            Self::Right => (30_000, 600_000),
            Self::Surroundings => (1_000, 15_000),
        }
    }

    /// The class of a problem that is worth another try; `None`: it is not.
    pub const fn of(reason: Reason) -> Option<Self> {
        match reason {
            Reason::Unreachable | Reason::TLSFailed | Reason::BMCProtocolError => Some(Self::Unreachable),
            Reason::BMCBusy => Some(Self::Busy),
            Reason::BMCPermissionDenied => Some(Self::Right),
            Reason::APIUnavailable | Reason::WorkerTrouble => Some(Self::Surroundings),
            _ => None,
        }
    }
}

impl RetryClass {
    /// Whether a BMC with that problem may take all of its time again: it did not answer, or was busy, which some are for as long
    /// as a request may last.
    pub fn is_of_a_silent_bmc(reason: Reason) -> bool {
        matches!(Self::of(reason), Some(Self::Unreachable | Self::Busy))
    }
}

/// Milliseconds before try number `attempt` (counted from 1) is repeated: exponential with full upper-half jitter,
/// at least `asked_ms` (a Retry-After). `random` is any random number.
pub fn backoff(class: RetryClass, attempt: u32, asked_ms: i64, random: u64) -> i64 {
    let (first, longest) = class.bounds();
    let doubled = first.saturating_mul(1_i64 << attempt.saturating_sub(1).min(20));
    let ceiling = doubled.clamp(first, longest);
    let jitter = (random % (ceiling / 2).max(1) as u64) as i64;
    (ceiling / 2 + jitter).max(asked_ms.clamp(0, 600_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_stays_between_half_the_first_and_the_longest(attempt in 0_u32..1000, random: u64) {
            for class in [
                RetryClass::Unreachable,
                RetryClass::Busy,
                RetryClass::Right,
                RetryClass::Surroundings,
            ] {
                let (first, longest) = class.bounds();
                let delay = backoff(class, attempt, 0, random);
                prop_assert!(delay >= first / 2 && delay <= longest);
            }
        }

        #[test]
        fn a_bmc_that_asks_for_patience_gets_it(asked in 0_i64..600_000, attempt in 0_u32..10, random: u64) {
            prop_assert!(backoff(RetryClass::Busy, attempt, asked, random) >= asked);
        }
    }
}
