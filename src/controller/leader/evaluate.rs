//! Who leads, as the Lease says it. Pure: what was read, and for how long it has not changed.

use std::time::Duration;

/// What a Lease says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// For how long, by its holder.
    pub duration: Duration,
    /// When it was renewed, as the holder wrote it: compared for change only, never with a clock.
    pub renewed: Option<String>,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// It is free, or its holder is gone: take it.
    Acquire,
    /// It is ours: go on holding it.
    Renew,
    /// Somebody else holds it.
    Wait,
}

/// `unchanged_for`: how long the observer has seen this very record, on its own monotonic clock. No wall clock of any
/// host decides.
pub(super) fn evaluate(record: &Record, me: &str, unchanged_for: Duration) -> Move {
    if record.holder == me {
        Move::Renew
    } else if record.holder.is_empty() || unchanged_for > record.duration {
        Move::Acquire
    } else {
        Move::Wait
    }
}

/// Whether a Lease that we wait for was written to last far longer than any that we write, and is not renewed: by hand, it may
/// be, and then nobody leads.
pub(super) fn is_overlong(record: &Record, own_duration: Duration, unchanged_for: Duration) -> bool {
    record.duration > own_duration && unchanged_for > own_duration.saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> Record {
        Record { holder: holder.to_owned(), duration: Duration::from_secs(15), ..Record::default() }
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        assert_eq!(evaluate(&held_by(""), "me", Duration::ZERO), Move::Acquire);
    }

    #[test]
    fn our_own_lease_is_renewed_however_old_it_is() {
        assert_eq!(evaluate(&held_by("me"), "me", Duration::from_hours(1)), Move::Renew);
    }

    #[test]
    fn another_ones_lease_is_taken_only_after_it_stood_still_for_its_whole_time() {
        assert_eq!(evaluate(&held_by("other"), "me", Duration::ZERO), Move::Wait);
        assert_eq!(evaluate(&held_by("other"), "me", Duration::from_secs(15)), Move::Wait);
        assert_eq!(evaluate(&held_by("other"), "me", Duration::from_millis(15_001)), Move::Acquire);
    }

    #[test]
    fn a_lease_of_a_day_that_nobody_renews_is_told() {
        let (own, day) = (Duration::from_secs(15), Duration::from_hours(24));
        let edited = Record { duration: day, ..held_by("gone") };
        assert!(!is_overlong(&edited, own, Duration::from_mins(1)));
        assert!(is_overlong(&edited, own, Duration::from_secs(61)));
        assert!(!is_overlong(&held_by("other"), own, Duration::from_secs(61)), "it is taken at that age");
    }

    #[test]
    fn the_holder_says_for_how_long_it_holds() {
        let short = Record { duration: Duration::from_secs(2), ..held_by("other") };
        assert_eq!(evaluate(&short, "me", Duration::from_secs(3)), Move::Acquire);
    }
}
