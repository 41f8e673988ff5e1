//! How long ago something was, in two units at most.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The time from `then` to `now`; nothing is in the future.
pub(super) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| {
        let rest = seconds % large / small;
        let whole = seconds / large;
        if rest == 0 {
            format!("{whole} {large_unit}")
        } else {
            format!("{whole} {large_unit} {rest} {small_unit}")
        }
    };
    match seconds {
        ..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        DAY.. => two(DAY, "d", HOUR, "h"),
    }
}

/// [`age`] of a time of the API.
pub(super) fn since(now: Timestamp, then: &Time) -> String {
    age(now, then.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (3 * 3600 + 300, "3 h 5 min"),
            (49 * 3600, "2 d 1 h"),
        ] {
            let now = Timestamp::from_second(1_795_000_000).unwrap();
            assert_eq!(age(now, Timestamp::from_second(1_795_000_000 - seconds).unwrap()), text);
        }
    }
}
