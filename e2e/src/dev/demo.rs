//! `make demo`: servers become what they should be, are installed, or say plainly why not.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::promises::{self, ALL, condition, find};
use super::rows::Rows;
use super::signals::Signals;
use super::stack::{Namespace, Schema, Stack, things_to_try};
use super::{effects, installations};
use crate::kubectl::Kubectl;
use crate::paths;
use crate::process::Lifetime;
use crate::wait::{Look, say};

/// How long each part of the show may take on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);

/// How often the table is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often it says what is still waited for.
const SILENCE: Duration = Duration::from_secs(20);

/// Starts everything, shows it, and stops it again: at Ctrl-C on a terminal, at the end otherwise. An error means that
/// something did not come true.
pub async fn demo() -> Result<()> {
    let dir = paths::private("demo")?;
    let outcome = run(&dir).await;
    match &outcome {
        Ok(()) => std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?,
        Err(_) => say(format!("the logs are in {}", dir.join("*/logs").display())),
    }
    outcome
}

async fn run(dir: &Path) -> Result<()> {
    let mut signals = Signals::new()?;
    let start = Stack::start(dir, Lifetime::WithParent, Namespace::Passing, Schema::Passing);
    let stack = tokio::select! {
        stack = start => stack?,
        // What was started ends with the values that are dropped here.
        signal = signals.next() => return Err(signal.into()),
    };
    let shown = tokio::select! {
        shown = show(&stack) => shown,
        signal = signals.next() => {
            stack.stop().await?;
            return Err(signal.into());
        }
    };
    match &shown {
        Ok(()) => say("all of it came true"),
        Err(error) => say(format!("this did not come true: {error:#}")),
    }
    if std::io::stdin().is_terminal() {
        stack.write_env()?;
        hints(&stack, dir);
        signals.next().await;
    }
    say("stopping everything");
    stack.stop().await?;
    shown
}

fn hints(stack: &Stack, dir: &Path) {
    say("in a second terminal:");
    say(format!("  export KUBECONFIG={}", stack.kubeconfig().display()));
    say(format!("  kubectl get servers -o wide --watch{}", stack.namespace_flag()));
    say(format!("or, for DATABASE_URL, EMULATOR_URL and the rest too:  . {}", dir.join("env").display()));
    things_to_try().iter().for_each(say);
    say("Ctrl-C stops everything");
}

async fn show(stack: &Stack) -> Result<()> {
    let kubectl = stack.kubectl();
    become_as_promised(stack, &kubectl).await?;
    power_off(stack, &kubectl).await?;
    reboot(stack, &kubectl).await?;
    print("$ kubectl events --for server/rack1-04");
    let events = kubectl.run(&["events", "--for", "server/rack1-04"]).await?;
    print(&events);
    ensure!(events.contains("Reboot succeeded"), "the events of rack1-04 do not tell of the reboot");
    installations::show(stack, &kubectl).await?;
    stack.check_alive()
}

async fn become_as_promised(stack: &Stack, kubectl: &Kubectl) -> Result<()> {
    let examples = stack.examples().display().to_string();
    print(&format!("$ kubectl apply -f {examples}"));
    print(&kubectl.run(&["apply", "-f", &examples]).await?);
    print("$ kubectl get servers --watch");
    let mut shown = Rows::default();
    let all = "the ten servers to be as promised";
    wait(stack, all, async || {
        shown.changes(&kubectl.run(&["get", "servers"]).await?).iter().for_each(|line| print(line));
        let servers = promises::servers(kubectl).await?;
        let open: Vec<String> =
            ALL.iter().filter(|promise| !promise.holds(&servers)).map(promises::Promise::wanted).collect();
        Ok(if open.is_empty() { Look::Holds(()) } else { Look::NotYet(open.join("; ")) })
    })
    .await?;
    print("\n$ kubectl get servers");
    print(&kubectl.run(&["get", "servers"]).await?);
    print("\nEach of them, and what its condition Ready says where it is not True:");
    let servers = promises::servers(kubectl).await?;
    for promise in ALL {
        print(&format!("  {}  {}", promise.server, promise.story));
        let server = find(&servers, promise.server).unwrap_or(&Value::Null);
        if condition(server, "Ready", "status") != "True" {
            print(&format!("            {}", condition(server, "Ready", "message")));
        }
    }
    print("");
    for (system, wanted) in ALL.iter().filter_map(|promise| promise.system) {
        let asked = effects::resets(stack.emulator(), system, 0).await?;
        ensure!(
            asked == wanted,
            "{} was asked for {asked:?}, and should have been for {wanted:?}",
            effects::name(system)
        );
    }
    say(
        "the BMCs' own log says the same: each machine was asked once for what was missing, the others for nothing",
    );
    let refused = effects::bad_logins(stack.emulator()).await?;
    ensure!((1..=2).contains(&refused), "{refused} logins were refused, and it has to be one or two");
    say(format!(
        "logins that were refused because of the wrong password: {refused}, and never more than two"
    ));
    Ok(())
}

async fn power_off(stack: &Stack, kubectl: &Kubectl) -> Result<()> {
    let since = effects::last_seq(stack.emulator()).await?;
    patch(kubectl, &["rack1-02"], r#"{"spec":{"power":"PoweredOff"}}"#).await?;
    wait_server(stack, kubectl, "rack1-02", "to be powered off and Ready", |server| {
        server["status"]["power"] == "PoweredOff" && condition(server, "Ready", "status") == "True"
    })
    .await?;
    let (asked, power) =
        (effects::resets(stack.emulator(), 2, since).await?, effects::power(stack.emulator(), 2).await?);
    ensure!(asked == ["GracefulShutdown"] && power == "Off", "system-0002 is {power} after {asked:?}");
    say(format!("its BMC was asked once ({}) and says: {power}", asked.join(", ")));
    Ok(())
}

async fn reboot(stack: &Stack, kubectl: &Kubectl) -> Result<()> {
    let since = effects::last_seq(stack.emulator()).await?;
    patch(kubectl, &["rack1-04"], r#"{"spec":{"rebootToken":"again"}}"#).await?;
    wait_server(stack, kubectl, "rack1-04", "to have rebooted and be Ready", |server| {
        let job = &server["status"]["lastJob"];
        job["action"] == "Reboot"
            && job["result"] == "Succeeded"
            && condition(server, "Ready", "status") == "True"
    })
    .await?;
    let asked = effects::resets(stack.emulator(), 4, since).await?;
    let power = effects::power(stack.emulator(), 4).await?;
    ensure!(asked == ["GracefulShutdown", "On"] && power == "On", "system-0004 is {power} after {asked:?}");
    say(format!("its BMC was asked for exactly one off and one on ({}) and says: {power}", asked.join(", ")));

    let since = effects::last_seq(stack.emulator()).await?;
    let older = stack.examples().join("04-reboot.yaml").display().to_string();
    print(&format!("$ kubectl apply -f {older}   # the older token again, as a git revert would"));
    print(&kubectl.run(&["apply", "-f", &older]).await?);
    wait_server(stack, kubectl, "rack1-04", "to be Ready with the older manifest", |server| {
        condition(server, "Ready", "status") == "True"
    })
    .await?;
    let asked = effects::resets(stack.emulator(), 4, since).await?;
    ensure!(asked.is_empty(), "the older manifest made system-0004 be asked for {asked:?}");
    say("its BMC was asked for nothing: that token was handled before");
    Ok(())
}

/// One call for all of these Servers.
pub(super) async fn patch(kubectl: &Kubectl, names: &[&str], patch: &str) -> Result<()> {
    print(&format!("$ kubectl patch server {} --type=merge -p '{patch}'", names.join(" ")));
    print(&kubectl.run(&[&["patch", "server"], names, &["--type=merge", "-p", patch]].concat()).await?);
    Ok(())
}

async fn wait_server(
    stack: &Stack,
    kubectl: &Kubectl,
    name: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<()> {
    print(&format!("$ kubectl get server {name} --watch"));
    let mut shown = Rows::default();
    wait(stack, &format!("{name} {what}"), async || {
        shown.changes(&kubectl.run(&["get", "server", name]).await?).iter().for_each(|line| print(line));
        let servers = promises::servers(kubectl).await?;
        let server = find(&servers, name).with_context(|| format!("{name} is gone"))?;
        Ok(if holds(server) { Look::Holds(()) } else { Look::NotYet(server["status"].to_string()) })
    })
    .await
}

/// Waits for a part of the show; the end of one of the processes ends it at once.
pub(super) async fn wait(
    stack: &Stack,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Look<()>>,
) -> Result<()> {
    let start = Instant::now();
    let mut said = start;
    loop {
        stack.check_alive()?;
        let seen = match look().await {
            Ok(Look::Holds(())) => return Ok(()),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > LIMIT {
            bail!("waited {} s for {what}; last seen: {seen}", LIMIT.as_secs());
        }
        if said.elapsed() > SILENCE {
            said = Instant::now();
            say(format!("still waiting for {what}; now: {seen}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[expect(clippy::print_stdout, reason = "the show is for the person at the terminal")]
pub(super) fn print(text: &str) {
    println!("{}", text.trim_end_matches('\n'));
}
