//! How often the steps of a job are shown: an installation tells many things in a row, and each patch of a status costs the API
//! server as much as many reads.
#![expect(clippy::disallowed_methods, reason = "the time between two patches is counted")]

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::job::ServerUid;

/// Between two patches that only tell how far a job is.
const PAUSE: Duration = Duration::from_secs(1);
/// How long jobs that are over in no time may keep a status from being written, however many come one after the other.
const LONGEST_PASSING: Duration = Duration::from_secs(2);
/// So many are remembered before those that are too old are forgotten.
const REMEMBERED: usize = 4_096;

type Times = Mutex<HashMap<ServerUid, Instant>>;

/// When each server's status was last written, and since when it is not what it would be; as far as that is not long ago.
#[derive(Debug, Default)]
pub(super) struct Paced {
    written: Times,
    behind: Times,
}

impl Paced {
    /// Its status was written now.
    pub(super) fn written(&self, uid: &ServerUid) {
        self.written_at(uid, Instant::now());
    }

    /// Its status is what it should be.
    pub(super) fn shown(&self, uid: &ServerUid) {
        times(&self.behind).remove(uid);
    }

    /// How long a mere step has to wait; `None`: it may be shown.
    pub(super) fn left(&self, uid: &ServerUid) -> Option<Duration> {
        self.left_at(uid, Instant::now())
    }

    /// Whether what is over in no time may go by unseen; not where that has gone on for a while.
    pub(super) fn may_pass(&self, uid: &ServerUid) -> bool {
        self.may_pass_at(uid, Instant::now())
    }

    fn written_at(&self, uid: &ServerUid, now: Instant) {
        self.shown(uid);
        let mut written = times(&self.written);
        forget_old(&mut written, now, PAUSE);
        written.insert(uid.clone(), now);
    }

    fn left_at(&self, uid: &ServerUid, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(*times(&self.written).get(uid)?);
        let left = PAUSE.saturating_sub(since);
        (!left.is_zero()).then_some(left)
    }

    fn may_pass_at(&self, uid: &ServerUid, now: Instant) -> bool {
        let mut behind = times(&self.behind);
        forget_old(&mut behind, now, LONGEST_PASSING * 2);
        let since = *behind.entry(uid.clone()).or_insert(now);
        now.saturating_duration_since(since) < LONGEST_PASSING
    }
}

fn times(of: &Times) -> MutexGuard<'_, HashMap<ServerUid, Instant>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget_old(times: &mut HashMap<ServerUid, Instant>, now: Instant, after: Duration) {
    if times.len() >= REMEMBERED {
        times.retain(|_, at| now.saturating_duration_since(*at) < after);
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
        assert_eq!(times(&paced.written).len(), 1);
    }

    #[test]
    fn quick_jobs_one_after_the_other_hide_nothing_for_long() {
        let (paced, begun) = (Paced::default(), Instant::now());
        let uid = ServerUid("one".into());
        assert!(paced.may_pass_at(&uid, begun));
        assert!(paced.may_pass_at(&uid, begun + LONGEST_PASSING / 2));
        assert!(!paced.may_pass_at(&uid, begun + LONGEST_PASSING));
        assert!(!paced.may_pass_at(&uid, begun + LONGEST_PASSING * 9), "until it is shown");
        paced.written_at(&uid, begun + LONGEST_PASSING * 9);
        assert!(paced.may_pass_at(&uid, begun + LONGEST_PASSING * 10));
        paced.shown(&uid);
        assert!(paced.may_pass_at(&uid, begun + LONGEST_PASSING * 20), "it was what it should be");
    }
}
