//! The Servers of a fleet: applied, changed, and waited for.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use autobuild::api::condition::{ConditionType, find};
use autobuild::api::{Reason, Server};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::Fleet;
use crate::wait::{Look, wait_for};

/// How long anything may take: the machine may be busy, and a test that passes never waits for it.
pub const LIMIT: Duration = Duration::from_mins(2);

/// The Secret that every BMC of the fleet accepts.
pub const SECRET: &str = "bmc";
/// The ConfigMap with the emulator's CA under `ca.crt`.
pub const AUTHORITY: &str = "bmc-ca";

impl Fleet {
    /// The manifest of a Server for that system, under its name, on the port where it is alone if it has one.
    pub fn manifest(&self, system: &str) -> Value {
        json!({
            "apiVersion": "autobuild.dev/v1alpha1",
            "kind": "Server",
            "metadata": { "name": system, "namespace": self.namespace() },
            "spec": {
                "bmc": {
                    "address": format!("redfish+https://{}/redfish/v1/Systems/{system}", self.bmcs().https_of(system)),
                    "credentialsRef": { "name": SECRET },
                    "tls": { "caRef": { "kind": "ConfigMap", "name": AUTHORITY, "key": "ca.crt" } },
                },
            },
        })
    }

    /// That manifest with more fields of `spec`.
    pub fn manifest_with(&self, system: &str, spec: &Value) -> Value {
        let mut manifest = self.manifest(system);
        merge(&mut manifest["spec"], spec);
        manifest
    }

    /// Applies a manifest as a user does.
    pub async fn apply(&self, manifest: &Value) -> Result<Server> {
        let name = manifest["metadata"]["name"].as_str().context("the manifest has no name")?;
        let params = PatchParams::apply("e2e").force();
        Ok(self.servers().patch(name, &params, &Patch::Apply(manifest)).await?)
    }

    /// Applies the manifest of a system with more fields of `spec`.
    pub async fn declare(&self, system: &str, spec: Value) -> Result<Server> {
        self.apply(&self.manifest_with(system, &spec)).await
    }

    /// Changes fields of `spec`; null takes one away.
    pub async fn change(&self, name: &str, spec: Value) -> Result<Server> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        Ok(self.servers().patch(name, &PatchParams::default(), &patch).await?)
    }

    /// The Server as it stands.
    pub async fn get(&self, name: &str) -> Result<Server> {
        Ok(self.servers().get(name).await?)
    }

    /// Deletes it and does not wait.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.servers().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until it is gone.
    pub async fn wait_gone(&self, name: &str) -> Result<()> {
        wait_for(&format!("{name} to be gone"), LIMIT, async || {
            Ok(match self.servers().get_opt(name).await? {
                None => Look::Holds(()),
                Some(server) => Look::NotYet(describe(&server)),
            })
        })
        .await
    }

    /// Waits until a Server looks so, and says at the end of its patience what it looked like.
    pub async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Server) -> bool) -> Result<Server> {
        let servers = self.servers();
        let result = wait_for(&format!("{name}: {what}"), LIMIT, async || {
            let server = servers.get(name).await?;
            Ok(if holds(&server) { Look::Holds(server) } else { Look::NotYet(describe(&server)) })
        })
        .await;
        match result {
            Ok(server) => Ok(server),
            Err(error) => Err(error.context(self.story(name).await)),
        }
    }

    /// Waits until it is as declared, by the present generation.
    pub async fn wait_ready(&self, name: &str) -> Result<Server> {
        self.wait(name, "Ready", is_ready).await
    }

    /// Waits until a condition has that reason in the present generation; returns the condition's message.
    pub async fn wait_reason(&self, name: &str, kind: ConditionType, reason: Reason) -> Result<String> {
        let holds = |server: &Server| message(server, kind, reason).is_some();
        let server = self.wait(name, &format!("{} with {reason}", kind.as_str()), holds).await?;
        message(&server, kind, reason).context("the condition is gone")
    }

    /// The events about a Server: reason and note.
    pub async fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let events: Api<Event> = Api::namespaced(self.client(), self.namespace());
        let all = events.list(&ListParams::default()).await?;
        let about = |event: &Event| {
            event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref()) == Some(name)
        };
        let told = all.items.into_iter().filter(about);
        Ok(told.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect())
    }

    /// Waits for an event with that reason; returns its note.
    pub async fn wait_event(&self, name: &str, reason: Reason) -> Result<String> {
        wait_for(&format!("{name}: an event with {reason}"), LIMIT, async || {
            let events = self.events(name).await?;
            let found = events.iter().find(|(why, _)| why == reason.as_str());
            Ok(match found {
                Some((_, note)) => Look::Holds(note.clone()),
                None => Look::NotYet(format!("{events:?}")),
            })
        })
        .await
    }

    /// Writes a credentials Secret.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) -> Result<()> {
        self.secret_of_type(name, "autobuild.dev/bmc-credentials", data).await
    }

    /// Writes a Secret of any type.
    pub async fn secret_of_type(&self, name: &str, kind: &str, data: &[(&str, &str)]) -> Result<()> {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": { "name": name }, "stringData": data,
        });
        let secrets: Api<Secret> = Api::namespaced(self.client(), self.namespace());
        secrets.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// Deletes a Secret.
    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client(), self.namespace());
        secrets.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Writes the ConfigMap with the emulator's CA.
    pub(super) async fn authority(&self) -> Result<()> {
        let pem = std::fs::read_to_string(self.bmcs().emulator().authority())?;
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": AUTHORITY }, "data": { "ca.crt": pem },
        });
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), self.namespace());
        maps.patch(AUTHORITY, &PatchParams::apply("e2e").force(), &Patch::Apply(map)).await?;
        Ok(())
    }

    /// What a failed wait should be read with: events, live job, history and what the BMC was asked.
    pub async fn story(&self, name: &str) -> String {
        let resets = self.bmcs().resets(name).await;
        format!(
            "events {:?}\nlive job {:?}\nhistory {:?}\nresets {resets:?}\nlogs in {}",
            self.events(name).await.unwrap_or_default(),
            self.records().job(name).await.ok().flatten(),
            self.records().history(name).await.unwrap_or_default(),
            self.dir().display(),
        )
    }

    /// Refuses to go on if a Server is anything but as declared now.
    pub async fn expect_ready(&self, name: &str) -> Result<Server> {
        let server = self.get(name).await?;
        if !is_ready(&server) {
            bail!("{}", describe(&server));
        }
        Ok(server)
    }
}

/// Whether it is as declared, by the present generation.
pub fn is_ready(server: &Server) -> bool {
    truth(server, ConditionType::Ready) == Some("True") && is_current(server)
}

/// Whether its status speaks of the present generation.
pub fn is_current(server: &Server) -> bool {
    server.status.as_ref().and_then(|status| status.observed_generation) == server.metadata.generation
}

/// The status of a condition.
pub fn truth(server: &Server, kind: ConditionType) -> Option<&str> {
    find(&server.status.as_ref()?.conditions, kind).map(|condition| condition.status.as_str())
}

/// The message of a condition, if it has that reason in the present generation.
pub fn message(server: &Server, kind: ConditionType, reason: Reason) -> Option<String> {
    let condition = find(&server.status.as_ref()?.conditions, kind)?;
    (condition.reason == reason.as_str() && is_current(server)).then(|| condition.message.clone())
}

/// One line about a Server.
pub fn describe(server: &Server) -> String {
    let Some(status) = &server.status else { return format!("{} without status", server.name_any()) };
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|one| format!("{}={} {}: {}", one.type_, one.status, one.reason, one.message))
        .collect();
    format!(
        "generation {:?}/{:?}, {:?}, power {:?}, job {:?}, tokens {:?}, deleting {}; {}",
        status.observed_generation,
        server.metadata.generation,
        status.phase,
        status.power,
        status.job.as_ref().map(|job| (job.action, job.state, job.step)),
        status.reboot_tokens,
        server.metadata.deletion_timestamp.is_some(),
        conditions.join("; ")
    )
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}
