//! Everything that watchers of a namespace were shown, and what has to hold over all of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use autobuild::api::Server;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{LIMIT, describe};

/// How long one of many may take while all of them want something at once, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5 * LIMIT.as_secs());

/// The newest version of each Server, by its name.
type Newest = Mutex<BTreeMap<String, watch::Sender<Option<Server>>>>;

/// A recorder of all versions of the Servers of a namespace. It ends when dropped.
#[derive(Debug)]
pub struct Shown {
    seen: Arc<Mutex<Vec<Server>>>,
    newest: Arc<Newest>,
    watching: JoinHandle<()>,
}

impl Shown {
    /// Records from now on.
    pub(super) fn record(servers: Api<Server>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let newest: Arc<Newest> = Arc::default();
        let (into, latest) = (Arc::clone(&seen), Arc::clone(&newest));
        let watching = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher::watcher(servers, watcher::Config::default()));
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(server) | Event::InitApply(server)) = event {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(server.clone());
                    sender(&latest, &server.name_any()).send_replace(Some(server));
                }
            }
        });
        Self { seen, newest, watching }
    }

    /// Waits until a Server was shown so: cheap for many at once, where a poll for each would be most of the load.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Server) -> bool) -> Result<Server> {
        let mut seen = sender(&self.newest, name).subscribe();
        let holds = |server: &Option<Server>| server.as_ref().is_some_and(&holds);
        let waited = async { seen.wait_for(holds).await.map(|server| server.clone()) };
        if let Ok(server) = tokio::time::timeout(PATIENCE, waited).await {
            return server?.context("it holds for nothing");
        }
        let last = seen.borrow().as_ref().map_or_else(|| "nothing".to_owned(), describe);
        bail!("{name}: waited {} s for {what}; last seen: {last}", PATIENCE.as_secs())
    }

    /// What was shown so far.
    pub fn so_far(&self) -> Vec<Server> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ids of the jobs that were ever shown for a server, by action.
    pub fn jobs(&self, name: &str) -> BTreeMap<String, String> {
        let all = self.so_far();
        all.iter()
            .filter(|server| server.name_any() == name)
            .filter_map(|server| server.status.as_ref()?.job.as_ref())
            .map(|job| (job.id.clone(), job.action.to_string()))
            .collect()
    }

    /// What does not hold: `observedGeneration` never goes back and never runs ahead, and a condition's time moves only
    /// with its status.
    pub fn contradictions(&self) -> Vec<String> {
        contradictions(&self.so_far())
    }
}

fn sender(all: &Newest, name: &str) -> watch::Sender<Option<Server>> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(name.to_owned()).or_insert_with(|| watch::channel(None).0).clone()
}

fn contradictions(shown: &[Server]) -> Vec<String> {
    let mut last: BTreeMap<String, &Server> = BTreeMap::new();
    let mut found = Vec::new();
    for server in shown {
        let uid = server.uid().unwrap_or_default();
        found.extend(alone(server));
        if let Some(before) = last.insert(uid, server) {
            found.extend(after(before, server));
        }
    }
    found
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

fn observed(server: &Server) -> i64 {
    server.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(-1)
}

fn alone(server: &Server) -> Option<String> {
    let (observed, generation) = (observed(server), server.metadata.generation.unwrap_or(0));
    (observed > generation).then(|| {
        format!("{}: observedGeneration {observed} is ahead of generation {generation}", server.name_any())
    })
}

fn after(before: &Server, now: &Server) -> Vec<String> {
    let name = now.name_any();
    let mut found = Vec::new();
    if observed(now) < observed(before) {
        found.push(format!("{name}: observedGeneration went from {} to {}", observed(before), observed(now)));
    }
    let conditions = |server: &Server| -> Vec<Condition> {
        server.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default()
    };
    let earlier = conditions(before);
    for condition in conditions(now) {
        let Some(was) = earlier.iter().find(|was| was.type_ == condition.type_) else { continue };
        let (Time(then), Time(at)) = (&was.last_transition_time, &condition.last_transition_time);
        let kept = was.status == condition.status;
        // The API counts whole seconds: a change within the same second shows no other time.
        if kept && then != at || !kept && at < then {
            found.push(format!(
                "{name}: {} went from {} at {then} to {} at {at}",
                condition.type_, was.status, condition.status
            ));
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(generation: i64, observed: i64, ready: &str, at: &str) -> Server {
        serde_json::from_value(json!({
            "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server",
            "metadata": { "name": "a", "uid": "u", "generation": generation },
            "spec": { "bmc": { "address": "redfish+https://192.0.2.1", "credentialsRef": { "name": "bmc" } } },
            "status": {
                "observedGeneration": observed,
                "conditions": [
                    { "type": "Ready", "status": ready, "reason": "AsDeclared", "message": "", "lastTransitionTime": at },
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_contradicts_itself_is_found_and_what_does_not_is_not() {
        let (then, later) = ("2026-03-01T00:00:00Z", "2026-03-01T00:00:05Z");
        let first = || shown(2, 2, "True", then);
        for (next, says) in [
            (shown(2, 2, "True", then), None),
            (shown(3, 2, "False", later), None),
            (shown(3, 2, "False", then), None),
            (shown(2, 1, "True", then), Some("went from 2 to 1")),
            (shown(2, 3, "True", then), Some("ahead of generation 2")),
            (shown(2, 2, "True", later), Some("Ready went from True")),
        ] {
            let found = contradictions(&[first(), next]);
            let as_it_should = match says {
                None => found.is_empty(),
                Some(text) => found.len() == 1 && found[0].contains(text),
            };
            assert!(as_it_should, "{says:?}: {found:?}");
        }
        assert_eq!(contradictions(&[shown(2, 2, "True", later), shown(2, 2, "False", then)]).len(), 1);
    }
}
