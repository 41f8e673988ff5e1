//! How long to wait after a reconcile that failed: longer each time, never longer than half a minute.
#![expect(clippy::disallowed_methods, reason = "pauses are jittered, and a pause has an end")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// How often an object failed in a row, and until when it rests.
#[derive(Debug)]
struct Failed {
    times: u32,
    until: Instant,
    said: String,
}

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: Mutex<HashMap<String, Failed>>,
}

impl Retries {
    /// One more failure; returns the pause that follows.
    pub(super) fn failed(&self, uid: &str) -> Duration {
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed =
            failures.entry(uid.to_owned()).or_insert(Failed { times: 0, until: now, said: String::new() });
        failed.times += 1;
        let pause = FIRST.saturating_mul(1 << (failed.times - 1).min(10)).min(LONGEST);
        let pause = pause.mul_f64(rand::random_range(0.7..1.0));
        failed.until = now + pause;
        pause
    }

    /// Whether the log is to have this message, after [`Retries::failed`]: a new one at once, the same one ever more rarely.
    pub(super) fn is_news(&self, uid: &str, message: &str) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failed) = failures.get_mut(uid) else { return true };
        if failed.said == message {
            return failed.times.is_power_of_two();
        }
        message.clone_into(&mut failed.said);
        true
    }

    /// Whether it failed and its pause is not over: what is still to be shown of it brings it up no sooner.
    pub(super) fn rests(&self, uid: &str) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(uid).is_some_and(|failed| Instant::now() < failed.until)
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
        assert!(retries.rests("u") && !retries.rests("v"));
        retries.over("u");
        assert!(!retries.rests("u"));
        assert!(retries.failed("u") <= FIRST);
    }

    #[test]
    fn what_fails_again_and_again_is_told_ever_more_rarely() {
        let retries = Retries::default();
        let mut told = 0;
        for _ in 0..200 {
            retries.failed("u");
            told += u32::from(retries.is_news("u", "forbidden"));
        }
        assert_eq!(told, 8);
        retries.failed("u");
        assert!(retries.is_news("u", "another") && !retries.is_news("u", "another"));
        retries.over("u");
        retries.failed("u");
        assert!(retries.is_news("u", "another"));
    }
}
