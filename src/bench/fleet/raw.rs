//! The raw limit of the API server: patches of the status of Servers that nobody looks after, by the same library and in
//! the same way as the controller's.
#![expect(clippy::disallowed_types, reason = "the API server itself is measured")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::BenchError;
use super::cluster::Cluster;
use crate::api::{Server, names};

/// Patches under way at once: as many as the controller's default for reconciles.
const AT_ONCE: usize = 16;
/// Servers of each task.
const EACH: usize = 4;

/// The Servers that are patched.
pub(super) struct Raw {
    servers: Api<Server>,
    names: Vec<String>,
}

impl Raw {
    /// Creates them.
    pub(super) async fn prepare(cluster: &Cluster) -> Result<Self, BenchError> {
        let servers = cluster.servers_aside();
        let names: Vec<String> = (0..AT_ONCE * EACH).map(|number| format!("raw-{number:02}")).collect();
        for name in &names {
            let manifest =
                Cluster::manifest(name, "redfish+https://bmc.example/redfish/v1/Systems/1", &json!({}));
            cluster.create(&servers, manifest).await?;
        }
        Ok(Self { servers, names })
    }

    /// Patches per second over some seconds.
    pub(super) async fn rate(&self, window: Duration) -> Result<f64, BenchError> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for mine in self.names.chunks(EACH) {
            tasks.spawn(patch(self.servers.clone(), mine.to_vec(), begun, window));
        }
        let mut patches = 0;
        while let Some(ended) = tasks.join_next().await {
            patches += ended??;
        }
        Ok(f64::from(patches) / begun.elapsed().as_secs_f64())
    }
}

async fn patch(
    servers: Api<Server>,
    names: Vec<String>,
    begun: Instant,
    window: Duration,
) -> Result<u32, BenchError> {
    let how = PatchParams::apply(names::STATUS_MANAGER).force();
    let mut versions: Vec<Option<String>> = vec![None; names.len()];
    let mut patches = 0;
    for turn in 0_u64.. {
        for (name, version) in names.iter().zip(&mut versions) {
            if begun.elapsed() >= window {
                break;
            }
            let apply = Patch::Apply(status(name, version.as_deref(), begun, turn));
            let answer = servers.patch_status(name, &how, &apply).await;
            let server = answer.map_err(|error| BenchError::Cluster {
                what: "measure its status patches".into(),
                why: error.to_string(),
            })?;
            *version = server.metadata.resource_version;
            patches += 1;
        }
        if begun.elapsed() >= window {
            break;
        }
    }
    Ok(patches)
}

/// A status as that of a Server with a job, another one each time.
fn status(name: &str, version: Option<&str>, begun: Instant, turn: u64) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str, truth: &str, message: String| {
        json!({
            "type": kind, "status": truth, "reason": "AsDeclared", "message": message,
            "lastTransitionTime": time, "observedGeneration": 1,
        })
    };
    let nic = |at: u64| json!({ "name": format!("NIC.{at}"), "macAddress": format!("02:00:00:00:00:0{at}"), "speedMbps": 25_000 });
    let disk = |at: u64| json!({ "name": format!("Disk.{at}"), "serialNumber": format!("S{at}"), "sizeBytes": 960_197_124_096_u64 });
    let mut metadata = json!({ "name": name });
    if let Some(version) = version {
        metadata["resourceVersion"] = version.into();
    }
    let message = format!("turn {turn} after {} ms", begun.elapsed().as_millis());
    json!({
        "apiVersion": "autobuild.dev/v1alpha1", "kind": "Server", "metadata": metadata,
        "status": {
            "observedGeneration": 1, "phase": "Rebooting", "power": "PoweredOn",
            "hardware": {
                "manufacturer": "Example", "model": "Model 1", "serialNumber": name, "biosVersion": "1.0", "cpus": 2,
                "memoryGiB": 512, "nics": [nic(0), nic(1)], "disks": [disk(0), disk(1), disk(2), disk(3)],
            },
            "job": {
                "id": "0123456789abcdef", "action": "Reboot", "priority": "High", "state": "Running", "step": "PowerOff",
                "enqueuedAt": time, "startedAt": time,
            },
            "conditions": [
                condition("Ready", "False", message.clone()),
                condition("Reachable", "True", "the BMC answered".into()),
                condition("Fresh", "True", "read a moment ago".into()),
                condition("Reconciling", "True", message),
            ],
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]
mod tests {
    use super::*;
    use crate::api::ServerStatus;

    #[test]
    fn what_is_patched_is_a_status_as_the_controller_writes_it() {
        let written = status("raw-00", Some("7"), Instant::now(), 1);
        let read: ServerStatus = serde_json::from_value(written["status"].clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written["status"]);
        assert_eq!(written["metadata"]["resourceVersion"], "7");
    }
}
