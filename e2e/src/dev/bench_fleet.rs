//! What `make bench-fleet` runs: the benchmark of all of it together, on a control plane and a database of its own.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::signals::Signals;
use crate::control_plane::ControlPlane;
use crate::database::{Database, Durability, Engine};
use crate::paths;
use crate::process::{Lifetime, Process};
use crate::wait::say;

/// Measures with the program `binary`, with `more` arguments, on the engine that `DB` names. Figures, plots and logs go under
/// `target/bench`.
pub async fn bench_fleet(binary: &Path, more: &[String]) -> Result<()> {
    let dir = paths::private("bench-fleet")?;
    let result = measured(&dir, binary, more).await;
    // Some gigabytes.
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    result
}

async fn measured(dir: &Path, binary: &Path, more: &[String]) -> Result<()> {
    let mut signals = Signals::new()?;
    let engine = Engine::from_env()?;
    let plane = ControlPlane::start_in(&dir.join("controlplane"), Lifetime::WithParent).await?;
    plane.apply_crds().await?;
    let mut database =
        Database::start_in(&dir.join("database"), engine, Durability::Production, Lifetime::WithParent)
            .await?;
    let results = paths::under_target("bench")?;
    let named = |end: &str| results.join(format!("fleet-{}{end}", engine.as_str()));
    let mut command = Command::new(binary);
    command.args(["bench", "fleet", "--json"]).arg(named(".json"));
    command.arg("--plots").arg(named("-plots")).arg("--logs").arg(named("-logs"));
    // What the user named runs elsewhere, or is not ours to look at.
    let server = database.server().ok().map(crate::database::Server::process);
    for process in plane.processes().iter().chain(server).filter(|process| is_watched(process)) {
        command.arg("--watch").arg(format!("{}={}", process.name(), process.pid()));
    }
    command.args(more).env("DATABASE_URL", database.url("")).env("KUBECONFIG", plane.kubeconfig());
    let mut child = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", binary.display()))?;
    let status = tokio::select! {
        status = child.wait() => status?,
        // Ctrl-C on a terminal reaches the benchmark as well, and it takes away what it made in a cluster that the user named.
        signal = signals.next() => {
            child.wait().await?;
            return Err(signal.into());
        }
    };
    if database.is_own() {
        database.stop().await?;
    }
    plane.stop().await?;
    if !status.success() {
        bail!("the benchmark ended with {status}; the logs are in {}", named("-logs").display());
    }
    say(format!("figures, plots and logs are in {}", results.display()));
    Ok(())
}

/// The controllers of the control plane have little to do here.
fn is_watched(process: &Process) -> bool {
    !process.name().contains("controller-manager")
}
