//! How long to wait after a reconcile that failed: longer each time, to half a minute; and to a minute for what is refused
//! until somebody does something about it.
#![expect(clippy::disallowed_methods, reason = "pauses are jittered, and a pause has an end")]

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::api_call::DEFINITION;
use super::work_queue::Key;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
const LONGEST_REFUSED: Duration = Duration::from_mins(1);

/// How often an object failed in a row, and until when it rests.
#[derive(Debug)]
struct Failed {
    key: Key,
    times: u32,
    until: Instant,
    /// The class of what refused it, until somebody does something about that.
    refused: Option<&'static str>,
}

/// Failures in a row, by the uid of the object.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: Mutex<HashMap<String, Failed>>,
    definition: Notify,
}

impl Retries {
    fn failures(&self) -> MutexGuard<'_, HashMap<String, Failed>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more failure; returns the pause that follows, which is at least `at_least`. `refused`: the class of what refuses it
    /// until somebody does something about that. Whether it is told on the object: at 1, 2, 4, 8, … in a row.
    pub(super) fn failed(
        &self,
        uid: &str,
        key: &Key,
        refused: Option<&'static str>,
        at_least: Duration,
    ) -> (Duration, bool) {
        let now = Instant::now();
        let mut failures = self.failures();
        let failed = failures.entry(uid.to_owned()).or_insert(Failed {
            key: key.clone(),
            times: 0,
            until: now,
            refused: None,
        });
        let another = refused != failed.refused;
        failed.times += 1;
        failed.refused = refused;
        if refused == Some(DEFINITION) {
            self.definition.notify_one();
        }
        let longest = if refused.is_some() { LONGEST_REFUSED } else { LONGEST };
        let pause = FIRST.saturating_mul(1 << (failed.times - 1).min(10)).min(longest);
        let pause = pause.mul_f64(rand::random_range(0.7..1.0)).max(at_least);
        failed.until = now + pause;
        (pause, another || failed.times.is_power_of_two())
    }

    /// Whether it failed and its pause is not over: what is still to be shown of it brings it up no sooner.
    pub(super) fn rests(&self, uid: &str) -> bool {
        self.failures().get(uid).is_some_and(|failed| Instant::now() < failed.until)
    }

    /// Waits until something was refused because of the definition of its kind.
    pub(super) async fn definition_refused(&self) {
        self.definition.notified().await;
    }

    /// What was in the way is gone: nothing rests any more.
    pub(super) fn forget(&self) {
        self.failures().clear();
    }

    /// It went well. Returns those of its namespace that rest because they were refused, if it was refused itself: what was in
    /// the way may be gone for them too, so their pauses are over.
    pub(super) fn over(&self, uid: &str) -> Vec<Key> {
        let mut failures = self.failures();
        let Some(Failed { key, refused: Some(class), .. }) = failures.remove(uid) else { return Vec::new() };
        let now = Instant::now();
        let mut others = Vec::new();
        for failed in failures.values_mut() {
            if failed.refused == Some(class) && failed.key.0 == key.0 && now < failed.until {
                failed.until = now;
                others.push(failed.key.clone());
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    fn pause(retries: &Retries, refused: Option<&'static str>) -> Duration {
        retries.failed("u", &key("lab", "u"), refused, Duration::ZERO).0
    }

    #[test]
    fn pauses_grow_to_a_bound_and_start_again_after_a_success() {
        let retries = Retries::default();
        let pauses: Vec<Duration> = (0..20).map(|_| pause(&retries, None)).collect();
        assert!(pauses[0] <= FIRST && pauses[1] > pauses[0]);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(retries.rests("u") && !retries.rests("v"));
        assert!(retries.over("u").is_empty() && !retries.rests("u"));
        assert!(pause(&retries, None) <= FIRST);
        let refused: Vec<Duration> = (0..20).map(|_| pause(&retries, Some("admission"))).collect();
        assert!(refused.iter().all(|pause| *pause <= LONGEST_REFUSED) && refused[19] > LONGEST);
    }

    #[test]
    fn an_api_server_that_wants_to_be_left_alone_is() {
        let retries = Retries::default();
        let wanted = Duration::from_secs(50);
        assert_eq!(retries.failed("u", &key("lab", "u"), None, wanted).0, wanted);
    }

    #[test]
    fn what_is_refused_for_the_same_cause_is_tried_again_when_one_of_it_went_well() {
        let retries = Retries::default();
        for (uid, namespace, refused) in [
            ("a", "lab", Some("admission")),
            ("b", "lab", Some("admission")),
            ("c", "lab", Some("rights")),
            ("d", "shop", Some("admission")),
            ("e", "lab", None),
        ] {
            for _ in 0..5 {
                retries.failed(uid, &key(namespace, uid), refused, Duration::ZERO);
            }
        }
        assert_eq!(retries.over("a"), [key("lab", "b")]);
        assert!(!retries.rests("b"));
        assert!(["c", "d", "e"].iter().all(|uid| retries.rests(uid)));
        assert!(retries.over("e").is_empty(), "it was refused by nobody");
    }

    #[test]
    fn what_fails_again_and_again_is_told_ever_more_rarely_and_another_cause_at_once() {
        let retries = Retries::default();
        let told = |refused| retries.failed("u", &key("lab", "u"), refused, Duration::ZERO).1;
        assert_eq!((0..200).filter(|_| told(Some("rights"))).count(), 8);
        assert!(told(Some("admission")) && !told(Some("admission")));
    }
}
