//! What the Servers show: one watch, and when each of them came to look as it does.
#![expect(clippy::disallowed_types, reason = "status is read as a user reads it")]
#![expect(clippy::disallowed_methods, reason = "when something is shown is what is measured")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::task::JoinSet;

use super::super::BenchError;
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{Phase, Server};
use crate::job::{JobState, Step};

/// Between two looks at what is shown; when it came is noted by the watch.
const LOOK: Duration = Duration::from_millis(20);

/// What a Server shows.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// When it was seen so first.
    pub at: Instant,
    /// The generation of its spec.
    pub generation: i64,
    /// Its status speaks of the present generation.
    pub current: bool,
    /// It is as declared.
    pub ready: bool,
    /// The power state.
    pub power: Option<PowerState>,
    /// Reimage tokens that were acted on.
    pub reimaged: Vec<String>,
    /// Its live job: state and step.
    pub job: Option<(JobState, Step)>,
    /// The phase.
    pub phase: Option<Phase>,
    /// What the condition Ready says.
    said: String,
}

impl View {
    fn of(server: &Server) -> Option<(String, Self)> {
        let name = server.metadata.name.clone()?;
        let generation = server.metadata.generation.unwrap_or(0);
        let status = server.status.clone().unwrap_or_default();
        let ready = find(&status.conditions, ConditionType::Ready);
        let view = Self {
            at: Instant::now(),
            generation,
            current: status.observed_generation == Some(generation),
            ready: ready.is_some_and(|one| one.status == "True"),
            power: status.power,
            reimaged: status.reimage_tokens,
            job: status.job.map(|job| (job.state, job.step)),
            phase: status.phase,
            said: ready.map(|one| format!("{}: {}", one.reason, one.message)).unwrap_or_default(),
        };
        Some((name, view))
    }

    /// As declared, by the present generation.
    pub(super) fn settled(&self) -> bool {
        self.ready && self.current
    }
}

/// The newest view of every Server.
#[derive(Debug)]
pub(super) struct Seen {
    views: Arc<Mutex<HashMap<String, View>>>,
    /// Ends with this.
    _watch: JoinSet<()>,
}

impl Seen {
    /// Watches from now on.
    pub(super) fn watch(servers: Api<Server>) -> Self {
        let views: Arc<Mutex<HashMap<String, View>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&views);
        tasks.spawn(async move {
            let events =
                watcher::watcher(servers, watcher::Config::default()).default_backoff().touched_objects();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                // After an error the watch begins anew, and shows everything again.
                let Ok(server) = event else { continue };
                if let Some((name, view)) = View::of(&server) {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).insert(name, view);
                }
            }
        });
        Self { views, _watch: tasks }
    }

    /// The newest view of one.
    pub(super) fn view(&self, name: &str) -> Option<View> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// How many look so.
    pub(super) fn count(&self, holds: impl Fn(&View) -> bool) -> usize {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).values().filter(|view| holds(view)).count()
    }

    /// Waits until each of them looks so; returns when each of them did.
    pub(super) async fn until(
        &self,
        what: &str,
        names: &[String],
        limit: Duration,
        holds: impl Fn(&str, &View) -> bool,
    ) -> Result<BTreeMap<String, Instant>, BenchError> {
        let since = Instant::now();
        let mut done = BTreeMap::new();
        let mut left: Vec<&String> = names.iter().collect();
        loop {
            {
                let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
                left.retain(|name| match views.get(*name).filter(|view| holds(name, view)) {
                    Some(view) => done.insert((*name).clone(), view.at).is_some(),
                    None => true,
                });
            }
            let Some(first) = left.first() else { return Ok(done) };
            if since.elapsed() > limit {
                let shown = self.view(first).map_or("nothing".to_owned(), |view| {
                    format!("phase {:?}, job {:?}, {}", view.phase, view.job, view.said)
                });
                return Err(BenchError::Late {
                    what: what.to_owned(),
                    seconds: limit.as_secs(),
                    left: left.len(),
                    first: (*first).clone(),
                    shown,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
