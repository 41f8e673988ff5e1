//! What a job that switches a machine off began with: its `Server`, and the way into its BMC. Kept in memory until the
//! machine is on again, because the API server may run on that very machine. Never written anywhere.
#![expect(clippy::disallowed_methods, reason = "what is kept has an age")]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::session::Login;
use crate::api::Server;
use crate::job::{JobId, ServerUid};

/// A job that ended under another worker leaves its entry here; it goes after this time.
const KEPT_FOR: Duration = Duration::from_hours(2);

/// What one job began with.
#[derive(Clone)]
pub(super) struct Begun {
    /// The object as it was when the off was sent.
    pub(super) server: Server,
    /// How its BMC was logged in to.
    pub(super) login: Login,
}

/// By server and job; since when.
type ByJob = HashMap<(ServerUid, JobId), (Instant, Begun)>;

/// What the jobs of this process that owe an "on" began with. Cheap to clone.
#[derive(Clone, Default)]
pub struct Remembered(Arc<Mutex<ByJob>>);

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Remembered {
    fn with<T>(&self, act: impl FnOnce(&mut ByJob) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what a job began with.
    pub(super) fn keep(&self, uid: &ServerUid, job: JobId, begun: Begun) {
        self.with(|all| {
            all.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
            all.insert((uid.clone(), job), (Instant::now(), begun));
        });
    }

    /// What a job began with, where it began in this process.
    pub(super) fn of(&self, uid: &ServerUid, job: JobId) -> Option<Begun> {
        self.with(|all| all.get(&(uid.clone(), job)).map(|(_, begun)| begun.clone()))
    }

    /// Forgets it: the machine is on, or the job is over.
    pub(super) fn forget(&self, uid: &ServerUid, job: JobId) {
        self.with(|all| all.remove(&(uid.clone(), job)));
    }
}
