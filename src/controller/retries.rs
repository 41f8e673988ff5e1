//! How long to wait after a reconcile that failed: longer each time, never longer than half a minute.
#![expect(clippy::disallowed_methods, reason = "pauses are jittered")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: Mutex<HashMap<String, u32>>,
}

impl Retries {
    /// One more failure; returns the pause that follows.
    pub(super) fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        *count += 1;
        let pause = FIRST.saturating_mul(1 << (*count - 1).min(10)).min(LONGEST);
        pause.mul_f64(rand::random_range(0.7..1.0))
    }

    /// It went well.
    pub(super) fn over(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_again_after_a_success() {
        let retries = Retries::default();
        let pauses: Vec<Duration> = (0..20).map(|_| retries.failed("u")).collect();
        assert!(pauses[0] <= FIRST && pauses[1] > pauses[0]);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        retries.over("u");
        assert!(retries.failed("u") <= FIRST);
    }
}
