//! How often the steps of a job are shown: an installation tells many things in a row, and each patch of a status costs the API
//! server as much as many reads.
#![expect(clippy::disallowed_methods, reason = "the time between two patches is counted")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::job::ServerUid;

/// Between two patches that only tell how far a job is.
const PAUSE: Duration = Duration::from_secs(1);
/// So many are remembered before those that are too old are forgotten.
const REMEMBERED: usize = 4_096;

/// When each server's status was last written, as far as that is not long ago.
#[derive(Debug, Default)]
pub(super) struct Paced {
    last: Mutex<HashMap<ServerUid, Instant>>,
}

impl Paced {
    /// Its status was written now.
    pub(super) fn written(&self, uid: &ServerUid) {
        self.written_at(uid, Instant::now());
    }

    /// How long a mere step has to wait; `None`: it may be shown.
    pub(super) fn left(&self, uid: &ServerUid) -> Option<Duration> {
        self.left_at(uid, Instant::now())
    }

    fn written_at(&self, uid: &ServerUid, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= REMEMBERED {
            last.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        }
        last.insert(uid.clone(), now);
    }

    fn left_at(&self, uid: &ServerUid, now: Instant) -> Option<Duration> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let left = PAUSE.saturating_sub(now.saturating_duration_since(*last.get(uid)?));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_patch_a_second_for_each_server() {
        let (paced, begun) = (Paced::default(), Instant::now());
        let (one, other) = (ServerUid("one".into()), ServerUid("other".into()));
        assert_eq!(paced.left_at(&one, begun), None, "nothing was written yet");
        paced.written_at(&one, begun);
        assert_eq!(paced.left_at(&one, begun + PAUSE / 4), Some(PAUSE * 3 / 4));
        assert_eq!(paced.left_at(&one, begun + PAUSE), None);
        assert_eq!(paced.left_at(&other, begun), None);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let (paced, begun) = (Paced::default(), Instant::now());
        for number in 0..REMEMBERED {
            paced.written_at(&ServerUid(number.to_string()), begun);
        }
        paced.written_at(&ServerUid("new".into()), begun + PAUSE);
        assert_eq!(paced.last.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    }
}
