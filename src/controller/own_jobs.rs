//! The live jobs that this process enqueued or showed: somebody may have taken one out of status, and what is over in no time is
//! not shown at all. They need no other witness.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::{Action, JobId, ServerUid};

/// One for each server that has a live job.
#[derive(Debug, Default)]
pub(super) struct OwnJobs(Mutex<HashMap<ServerUid, (JobId, Action)>>);

impl OwnJobs {
    /// This one was enqueued, or shown.
    pub(super) fn keep(&self, uid: &ServerUid, job: (JobId, Action)) {
        self.all().insert(uid.clone(), job);
    }

    /// The newest one of this server, as long as it has a live job.
    pub(super) fn of(&self, uid: &ServerUid, has_job: bool) -> Option<(JobId, Action)> {
        if has_job { self.all().get(uid).copied() } else { self.all().remove(uid).and(None) }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServerUid, (JobId, Action)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
