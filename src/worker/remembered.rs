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

/// What this process knows of the jobs that it began.
#[derive(Default)]
struct Jobs {
    /// What those that owe an "on" began with.
    owing: ByJob,
    /// All of them, and since when: they need no other witness.
    begun: HashMap<JobId, Instant>,
}

/// The jobs that this process began, and what those that owe an "on" began with. Cheap to clone.
#[derive(Clone, Default)]
pub struct Remembered(Arc<Mutex<Jobs>>);

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Remembered {
    fn with<T>(&self, act: impl FnOnce(&mut Jobs) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what a job began with.
    pub(super) fn keep(&self, uid: &ServerUid, job: JobId, begun: Begun) {
        self.with(|jobs| {
            jobs.owing.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
            jobs.owing.insert((uid.clone(), job), (Instant::now(), begun));
        });
    }

    /// Notes that this process stored a request of this job.
    pub(super) fn begin(&self, job: JobId) {
        self.with(|jobs| {
            jobs.begun.retain(|_, since| since.elapsed() < KEPT_FOR);
            jobs.begun.insert(job, Instant::now());
        });
    }

    /// Whether it did.
    pub(super) fn began(&self, job: JobId) -> bool {
        self.with(|jobs| jobs.begun.contains_key(&job))
    }

    /// What a job began with, where it began in this process.
    pub(super) fn of(&self, uid: &ServerUid, job: JobId) -> Option<Begun> {
        self.with(|jobs| jobs.owing.get(&(uid.clone(), job)).map(|(_, begun)| begun.clone()))
    }

    /// Forgets what it began with: the machine is on.
    pub(super) fn forget(&self, uid: &ServerUid, job: JobId) {
        self.with(|jobs| jobs.owing.remove(&(uid.clone(), job)));
    }

    /// Forgets the job: it is over.
    pub(super) fn end(&self, uid: &ServerUid, job: JobId) {
        self.forget(uid, job);
        self.with(|jobs| jobs.begun.remove(&job));
    }
}
