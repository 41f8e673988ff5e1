//! How long a BMC takes for each request, whatever is asked: real ones need seconds.

use std::time::Duration;

use super::host::draw;

/// The shortest and the longest time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    shortest: Duration,
    longest: Duration,
}

impl Pace {
    /// `None` where the longest time is shorter than the shortest.
    pub fn new(shortest: Duration, longest: Duration) -> Option<Self> {
        (shortest <= longest).then_some(Self { shortest, longest })
    }

    /// How long a system takes for the request of this number: the same in every run.
    pub(super) fn of(self, seed: u64, system: &str, seq: u64) -> Duration {
        let spread =
            u64::try_from(self.longest.saturating_sub(self.shortest).as_millis()).unwrap_or(u64::MAX);
        self.shortest + Duration::from_millis(draw(seed, system, &[seq], spread.saturating_add(1)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn each_request_takes_its_own_time_between_the_two() {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(5));
        assert_eq!(Pace::new(longest, shortest), None);
        let pace = Pace::new(shortest, longest).unwrap();
        let times: Vec<Duration> = (0..50).map(|seq| pace.of(1, "a", seq)).collect();
        assert!(times.iter().all(|time| (shortest..=longest).contains(time)));
        assert!(times.iter().any(|time| *time != times[0]));
        assert_eq!(times[3], pace.of(1, "a", 3), "the same in every run");
    }
}
