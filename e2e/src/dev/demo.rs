//! `make demo`: ten servers become what they should be, or say plainly why not.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::pids::Pids;
use super::stack::Stack;
use crate::kubectl::Kubectl;
use crate::process::Lifetime;
use crate::wait::{Look, say, wait_for};
use crate::{autobuild, paths};

/// How long each of the demo's promises may take on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

/// The servers that become Ready, whatever else happens.
const READY: &[&str] = &["rack1-01", "rack1-02", "rack1-03", "rack1-04", "rack1-05", "rack1-07"];

/// Starts everything, shows it, and stops it again: at Ctrl-C on a terminal, at the end otherwise. An error means that
/// something did not come true.
pub async fn demo() -> Result<()> {
    let dir = paths::private("demo")?;
    let pids = Pids::of(&dir);
    let stack = Stack::start(&dir, Lifetime::WithParent, &pids).await?;
    stack.write_env()?;
    let shown = show(&stack).await;
    if let Err(error) = &shown {
        say(format!("not true: {error:#}"));
    }
    if std::io::stdin().is_terminal() {
        say("try in a second terminal:");
        for line in [
            format!("  export KUBECONFIG={}", stack.plane().kubeconfig().display()),
            "  kubectl get servers -o wide --watch".to_owned(),
            "  kubectl explain server.spec --recursive".to_owned(),
            "  kubectl patch server rack1-02 --type=merge -p '{\"spec\":{\"power\":\"PoweredOff\"}}'"
                .to_owned(),
            "  kubectl events --for server/rack1-02".to_owned(),
            format!("  curl http://{}/redfish/v1/Systems/system-0002", stack.emulator().http()),
        ] {
            say(line);
        }
        say("Ctrl-C stops everything");
        tokio::signal::ctrl_c().await?;
    }
    pids.stop(Duration::from_secs(40)).await?;
    shown
}

async fn show(stack: &Stack) -> Result<()> {
    let kubectl = stack.plane().kubectl();
    let examples = stack.examples().display().to_string();
    say(format!("kubectl apply -f {examples}"));
    kubectl.run(&["apply", "-f", &examples]).await?;
    for name in READY {
        condition(&kubectl, name, "Ready", "True").await?;
        table(&kubectl).await?;
    }
    say(
        "rack1-06 is paused, rack1-08 has a wrong password, rack1-09 does not answer, rack9-01 has no workers:",
    );
    condition(&kubectl, "rack1-06", "Paused", "True").await?;
    condition(&kubectl, "rack1-08", "Stalled", "True").await?;
    condition(&kubectl, "rack1-09", "Reachable", "False").await?;
    condition(&kubectl, "rack9-01", "Ready", "False").await?;
    table(&kubectl).await?;

    power(stack, 2, "On").await?;
    say("switching rack1-02 off: spec.power becomes PoweredOff");
    patch(&kubectl, "rack1-02", r#"{"spec":{"power":"PoweredOff"}}"#).await?;
    wait_json(&kubectl, "rack1-02", "status.power to be PoweredOff", |server| {
        server["status"]["power"] == "PoweredOff"
    })
    .await?;
    power(stack, 2, "Off").await?;

    say("rebooting rack1-04: spec.rebootToken gets a new value");
    patch(&kubectl, "rack1-04", r#"{"spec":{"rebootToken":"again"}}"#).await?;
    wait_json(&kubectl, "rack1-04", "its last job to be a successful Reboot", |server| {
        let job = &server["status"]["lastJob"];
        job["action"] == "Reboot" && job["result"] == "Succeeded"
    })
    .await?;
    power(stack, 4, "On").await?;
    table(&kubectl).await?;
    say("kubectl events --for server/rack1-04");
    let events = kubectl.run(&["events", "--for", "server/rack1-04"]).await?;
    ensure!(events.contains("rack1-04"), "rack1-04 has no events");
    say(events);
    Ok(())
}

async fn table(kubectl: &Kubectl) -> Result<()> {
    say(format!("kubectl get servers\n{}", kubectl.run(&["get", "servers"]).await?));
    Ok(())
}

async fn patch(kubectl: &Kubectl, name: &str, patch: &str) -> Result<()> {
    kubectl.run(&["patch", "server", name, "--type=merge", "-p", patch]).await?;
    Ok(())
}

async fn condition(kubectl: &Kubectl, name: &str, kind: &str, status: &str) -> Result<()> {
    wait_json(kubectl, name, &format!("condition {kind} to be {status}"), |server| {
        let conditions = server["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == status))
    })
    .await
}

async fn wait_json(kubectl: &Kubectl, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
    wait_for(&format!("{name}: {what}"), LIMIT, async || {
        let server: Value =
            serde_json::from_str(&kubectl.run(&["get", "server", name, "-o", "json"]).await?)?;
        Ok(if holds(&server) { Look::Holds(()) } else { Look::NotYet(server["status"].to_string()) })
    })
    .await
}

/// The machine's own word, from its BMC.
async fn power(stack: &Stack, system: u32, wanted: &str) -> Result<()> {
    let url = format!("http://{}/emulator/systems/system-{system:04}", stack.emulator().http());
    wait_for(&format!("system-{system:04} to be {wanted} by its own word"), LIMIT, async || {
        let (status, text) = autobuild::get(&url).await?;
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("{url} answered {status}: {text}"))?;
        let seen = value["power"].as_str().unwrap_or_default().trim_start_matches("Powered").to_owned();
        Ok(if seen == wanted { Look::Holds(()) } else { Look::NotYet(format!("{status}: {text}")) })
    })
    .await
}
