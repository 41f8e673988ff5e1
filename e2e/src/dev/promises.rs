//! What each of the examples has to come to.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kubectl::Kubectl;

/// One of the examples, and its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    /// The Server's name.
    pub(super) server: &'static str,
    /// The condition that tells.
    condition: &'static str,
    status: &'static str,
    reason: &'static str,
    /// The emulated machine, and the resets that it was asked for; `None`: nobody asks it.
    pub(super) system: Option<(u32, &'static [&'static str])>,
    /// In a few words.
    pub(super) story: &'static str,
}

const fn ready(server: &'static str, system: (u32, &'static [&'static str]), story: &'static str) -> Promise {
    Promise { server, condition: "Ready", status: "True", reason: "AsDeclared", system: Some(system), story }
}

const fn held(
    server: &'static str,
    [condition, status, reason]: [&'static str; 3],
    system: Option<(u32, &'static [&'static str])>,
    story: &'static str,
) -> Promise {
    Promise { server, condition, status, reason, system, story }
}

/// All ten. The systems start in turn on and off, the first one on.
pub(super) const ALL: [Promise; 10] = [
    ready("rack1-01", (1, &[]), "nothing is wished: looked at and left alone"),
    ready("rack1-02", (2, &["On"]), "was off, shall be on"),
    ready("rack1-03", (3, &["GracefulShutdown"]), "was on, shall be off"),
    ready("rack1-04", (4, &["On"]), "was off, shall be on; the token it came with reboots nothing"),
    ready("rack1-05", (5, &[]), "is on, shall be on"),
    held("rack1-06", ["Paused", "True", "Paused"], Some((6, &[])), "is off, shall be on, is paused"),
    ready("rack1-07", (7, &[]), "is on, shall be on"),
    held("rack1-08", ["Stalled", "True", "CredentialsInvalid"], Some((8, &[])), "has a wrong password"),
    held("rack1-09", ["Reachable", "False", "Unreachable"], None, "has an address where nobody answers"),
    held("rack9-01", ["Ready", "False", "NoWorkerForSite"], Some((10, &[])), "is in a site without workers"),
];

/// All servers by `kubectl get -o json`.
pub(super) async fn servers(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_str(&kubectl.run(&["get", "servers", "-o", "json"]).await?)?;
    list["items"].as_array().cloned().context("a list of servers")
}

/// One of them.
pub(super) fn find<'a>(servers: &'a [Value], name: &str) -> Option<&'a Value> {
    servers.iter().find(|server| server["metadata"]["name"] == name)
}

/// A condition's field; empty if the condition is not there, or speaks of an older generation.
pub(super) fn condition<'a>(server: &'a Value, kind: &str, field: &str) -> &'a str {
    let conditions = server["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == kind);
    let found = found
        .filter(|one| one["observedGeneration"] == server["metadata"]["generation"])
        .unwrap_or(&Value::Null);
    found[field].as_str().unwrap_or_default()
}

impl Promise {
    /// Whether the server's status says so.
    pub(super) fn holds(&self, servers: &[Value]) -> bool {
        find(servers, self.server).is_some_and(|server| {
            condition(server, self.condition, "status") == self.status
                && condition(server, self.condition, "reason") == self.reason
        })
    }

    /// What is wanted, for messages.
    pub(super) fn wanted(&self) -> String {
        format!("{}: condition {} {} ({})", self.server, self.condition, self.status, self.reason)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::{ALL, condition};

    #[test]
    fn every_example_has_a_promise() {
        let dir = crate::paths::root().join("manifests/examples");
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for document in serde_yaml::Deserializer::from_str(&text) {
                let value = <serde_yaml::Value as serde::Deserialize>::deserialize(document).unwrap();
                if value["kind"] == "Server" {
                    names.insert(value["metadata"]["name"].as_str().unwrap().to_owned());
                }
            }
        }
        assert_eq!(names, ALL.iter().map(|promise| promise.server.to_owned()).collect());
    }

    #[test]
    fn a_condition_of_an_older_generation_tells_nothing() {
        let mut server = json!({"metadata": {"generation": 2}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "observedGeneration": 1}]}});
        assert_eq!(condition(&server, "Ready", "status"), "");
        server["metadata"]["generation"] = 1.into();
        assert_eq!(condition(&server, "Ready", "status"), "True");
    }
}
