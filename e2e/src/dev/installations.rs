//! The second half of `make demo`: machines are installed, one is left alone, one never boots and says why, and an urgent reboot
//! does not wait behind reimages.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::demo::{patch, print, wait};
use super::effects;
use super::promises::{self, condition, find};
use super::rows::Rows;
use super::stack::Stack;
use crate::autobuild::binary;
use crate::kubectl::Kubectl;
use crate::wait::{Look, say};

/// What is watched of an installation: `kubectl get servers -o wide` has the step, and the object the progress.
const COLUMNS: &str = "custom-columns=NAME:.metadata.name,PHASE:.status.phase,STEP:.status.job.step,\
                       PERCENT:.status.job.progress.percent,DOING:.status.job.progress.message,IMAGE:.status.image.name,\
                       CREATED:.metadata.creationTimestamp";

/// Blank machines, and their systems.
const BUILT: [(&str, u32); 4] = [("rack2-01", 12), ("rack2-02", 14), ("rack2-03", 16), ("rack2-04", 18)];
/// The machine that runs already, and that which never boots.
const ADOPTED: (&str, u32) = ("rack2-05", 11);
const NEVER_BOOTS: (&str, u32) = ("rack2-06", 20);
/// The urgent one.
const URGENT: (&str, u32) = ("rack1-05", 5);

pub(super) async fn show(stack: &Stack, kubectl: &Kubectl) -> Result<()> {
    effects::host_rule(stack.emulator(), NEVER_BOOTS.1, &json!({ "kind": "StayInPost" })).await?;
    build(stack, kubectl).await?;
    explain(stack).await?;
    overtake(stack, kubectl).await
}

fn has_image(server: &Value) -> bool {
    condition(server, "ImageSynced", "status") == "True" && condition(server, "Ready", "status") == "True"
}

async fn build(stack: &Stack, kubectl: &Kubectl) -> Result<()> {
    let examples = stack.install_examples().display().to_string();
    print(&format!("\n$ kubectl apply -f {examples}"));
    print(&kubectl.run(&["apply", "-f", &examples]).await?);
    print("$ kubectl get servers -l rack=2 --watch -o custom-columns=...");
    let mut shown = Rows::default();
    wait(stack, "four machines to be installed, one adopted, one to say that it never booted", async || {
        let table = kubectl.run(&["get", "servers", "-l", "rack=2", "-o", COLUMNS]).await?;
        shown.changes(&table).iter().for_each(|line| print(line));
        let servers = promises::servers(kubectl).await?;
        let open: Vec<&str> = BUILT
            .iter()
            .chain([&ADOPTED])
            .filter(|(name, _)| !find(&servers, name).is_some_and(has_image))
            .map(|(name, _)| *name)
            .collect();
        let stalled = find(&servers, NEVER_BOOTS.0)
            .is_some_and(|server| condition(server, "Stalled", "reason") == "NeverBooted");
        let done = open.is_empty() && stalled;
        Ok(if done {
            Look::Holds(())
        } else {
            Look::NotYet(format!("open: {open:?}, {}: {stalled}", NEVER_BOOTS.0))
        })
    })
    .await?;
    for (name, system) in BUILT {
        let installs = effects::installs(stack.emulator(), system).await?;
        ensure!(installs == 1, "{name} was installed {installs} times");
    }
    let touched = effects::resets(stack.emulator(), ADOPTED.1, 0).await?;
    ensure!(touched.is_empty(), "{} was asked for {touched:?}", ADOPTED.0);
    say(format!(
        "four blank machines were installed once each; {} runs its image already and was asked for nothing",
        ADOPTED.0
    ));
    Ok(())
}

/// What a person asks who sees `Stalled`.
async fn explain(stack: &Stack) -> Result<()> {
    let folder = binary()?.parent().context("the program has no folder")?.to_path_buf();
    print(&format!("\n$ kubectl autobuild why {}", NEVER_BOOTS.0));
    // A plugin has to be named first: the namespace comes after it.
    let namespace = stack.namespace();
    let plain = Kubectl::new(stack.kubeconfig()).with_plugins(&folder);
    let page = plain.run(&["autobuild", "why", NEVER_BOOTS.0, "-n", namespace]).await?;
    print(&page);
    ensure!(page.contains("NeverBooted"), "the page does not tell why");
    Ok(())
}

/// Reimages fill the permits and wait for them; an urgent reboot waits for none of them.
async fn overtake(stack: &Stack, kubectl: &Kubectl) -> Result<()> {
    print("\n# Four reimages, two at a time, and then an urgent reboot:");
    // By one call: on a slow machine the first ones had come to their end before the last ones were asked for.
    patch(kubectl, &BUILT.map(|(name, _)| name), r#"{"spec":{"reimageToken":"again"}}"#).await?;
    wait(stack, "two machines to be reimaged, and two to wait for their turn", async || {
        let servers = promises::servers(kubectl).await?;
        let phases = phases(&servers);
        let of = |phase: &str| phases.iter().filter(|one| **one == phase).count();
        Ok(if of("Reimaging") == 2 && of("Queued") == 2 {
            Look::Holds(())
        } else {
            Look::NotYet(phases.join(" "))
        })
    })
    .await?;
    patch(kubectl, &[URGENT.0], r#"{"spec":{"rebootToken":"now"}}"#).await?;
    print("$ kubectl get servers --watch");
    let mut shown = Rows::default();
    let (mut waited, mut rebooted) = (0, false);
    wait(stack, "the urgent reboot, and then the reimages", async || {
        shown.changes(&kubectl.run(&["get", "servers"]).await?).iter().for_each(|line| print(line));
        let servers = promises::servers(kubectl).await?;
        let urgent = find(&servers, URGENT.0).with_context(|| format!("{} is gone", URGENT.0))?;
        if !rebooted
            && urgent["status"]["lastJob"]["action"] == "Reboot"
            && condition(urgent, "Ready", "status") == "True"
        {
            rebooted = true;
            waited = phases(&servers).iter().filter(|phase| **phase == "Queued").count();
        }
        let again =
            |server: &Value| server["status"]["reimageTokens"] == json!(["again"]) && has_image(server);
        let done = BUILT.iter().all(|(name, _)| find(&servers, name).is_some_and(again));
        Ok(if done && rebooted { Look::Holds(()) } else { Look::NotYet(phases(&servers).join(" ")) })
    })
    .await?;
    ensure!(waited > 0, "the urgent reboot waited for the reimages");
    say(format!("{} had rebooted while {waited} reimages were still waiting", URGENT.0));
    Ok(())
}

/// The phases of the machines that are reimaged.
fn phases(servers: &[Value]) -> Vec<&str> {
    let phase = |name: &str| find(servers, name).and_then(|server| server["status"]["phase"].as_str());
    BUILT.iter().map(|(name, _)| phase(name).unwrap_or("-")).collect()
}
