//! What a person at a terminal sees.

use e2e::fleet::{Fleet, Layout};
use e2e::wait::say;
use serde_json::{Value, json};

use crate::steps::{handled, kubectl_apply, kubectl_wait_ready};

const NAMES: &[&str] = &["rack12-u07-compute-a", "rack12-u08-compute-b", "rack12-u09-no-such-secret"];

fn named(fleet: &Fleet, number: usize, spec: &Value) -> Value {
    let mut manifest = fleet.manifest_with(&format!("system-{:04}", number + 1), spec);
    manifest["metadata"]["name"] = json!(NAMES[number]);
    manifest
}

fn widest(table: &str) -> usize {
    table.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0)
}

/// Fields of which `kubectl explain` has nothing to say.
fn unexplained(path: &str, schema: &Value, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (field, schema) in properties {
        let path = format!("{path}.{field}");
        if schema["description"].as_str().unwrap_or_default().trim().is_empty() {
            found.push(path.clone());
        }
        let items = &schema["items"];
        unexplained(&path, if items.is_null() { schema } else { items }, found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_the_fleet_in_a_terminal_and_the_story_of_one_server() {
    let fleet = Fleet::with(Layout::new(3).emulator(&["--initial-power", "on"])).await.unwrap();
    let _controller = fleet.controller("controller").await.unwrap();
    let _worker = fleet.worker("worker").await.unwrap();
    let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
    kubectl_apply(&fleet, &named(&fleet, 0, &json!({ "power": "PoweredOn" }))).await.unwrap();
    kubectl_apply(&fleet, &named(&fleet, 1, &json!({ "power": "PoweredOff" }))).await.unwrap();
    let missing = json!({ "bmc": { "credentialsRef": { "name": "no-such-secret" } } });
    kubectl_apply(&fleet, &named(&fleet, 2, &missing)).await.unwrap();
    for name in &NAMES[..2] {
        kubectl_wait_ready(&fleet, name).await.unwrap();
    }
    let stalled = format!("server/{}", NAMES[2]);
    kubectl.run(&["wait", "--for=condition=Stalled", &stalled, "--timeout=120s"]).await.unwrap();

    let table = kubectl.run(&["get", "servers"]).await.unwrap();
    let wide = kubectl.run(&["get", "bms", "-o", "wide"]).await.unwrap();
    say(format!("kubectl get servers\n{table}\nkubectl get bms -o wide\n{wide}"));
    assert!(widest(&table) <= 120, "{} columns:\n{table}", widest(&table));
    assert!(widest(&wide) <= 200, "{} columns:\n{wide}", widest(&wide));
    for text in ["PHASE", "POWER", "READY", "REASON", "JOB", "AGE", "PoweredOff", "CredentialsMissing"] {
        assert!(table.contains(text), "{text} is missing in\n{table}");
    }

    // The whole of the definition has a sentence for every field.
    let text = kubectl.run(&["explain", "server.spec", "--recursive"]).await.unwrap();
    for field in ["site", "bmc", "credentialsRef", "rebootToken", "deletionPolicy", "certificateSHA256"] {
        assert!(text.contains(field), "{field} is missing in\n{text}");
    }
    let definition = kubectl.run(&["get", "crd", "servers.autobuild.dev", "-o", "json"]).await.unwrap();
    let definition: Value = serde_json::from_str(&definition).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        unexplained(part, &schema[part], &mut found);
    }
    assert!(found.is_empty(), "fields without a text: {found:?}");

    // What was applied is what is there.
    let manifest = named(&fleet, 0, &json!({ "power": "PoweredOn" })).to_string();
    let diff = kubectl.output_with_input(&["diff", "-f", "-"], &manifest).await.unwrap();
    assert!(diff.success && diff.stdout.is_empty(), "{diff:?}");

    // Another manager, by server-side apply, gets in nobody's way.
    let mut manifest = named(&fleet, 0, &json!({ "power": "PoweredOn", "rebootToken": "2026-03-01" }));
    manifest["metadata"]["labels"] = json!({ "team": "compute" });
    let apply = ["apply", "--server-side", "--field-manager=pipeline", "-f", "-"];
    kubectl.run_with_input(&apply, &manifest.to_string()).await.unwrap();
    handled(&fleet, NAMES[0], "2026-03-01").await.unwrap();
    kubectl.run_with_input(&apply, &manifest.to_string()).await.unwrap();
    let server = fleet.get(NAMES[0]).await.unwrap();
    let managers: Vec<_> =
        server.metadata.managed_fields.iter().flatten().filter_map(|field| field.manager.clone()).collect();
    for manager in ["pipeline", "autobuild-controller", "autobuild-finalizer"] {
        assert!(managers.iter().any(|one| one == manager), "{managers:?}");
    }

    let story = kubectl.run(&["events", "--for", &format!("server/{}", NAMES[0])]).await.unwrap();
    say(format!("kubectl events --for server/{}\n{story}", NAMES[0]));
    for text in ["Rebooting", "Reboot succeeded: the machine is as declared"] {
        assert!(story.contains(text), "{text} is missing in\n{story}");
    }
    // One event for the end of a job that leaves nothing to do.
    assert!(!story.contains("AsDeclared"), "{story}");
    fleet.end().await.unwrap();
}
