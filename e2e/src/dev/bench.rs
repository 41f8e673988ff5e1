//! What `make bench` runs: the benchmark of the queue on a MySQL and on a MariaDB of its own, one after the other.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::signals::Signals;
use crate::database::{Database, Durability, Engine};
use crate::paths;
use crate::process::Lifetime;
use crate::wait::say;

/// Measures with the program `binary`, with `more` arguments, on both engines or on the one that `DB` names. Figures and
/// plots go under `target/bench`.
pub async fn bench(binary: &Path, more: &[String]) -> Result<()> {
    let engines = match std::env::var_os("DB") {
        None => Engine::ALL.to_vec(),
        Some(_) => vec![Engine::from_env()?],
    };
    let mut signals = Signals::new()?;
    let mut failed = Vec::new();
    for engine in engines {
        if let Err(error) = on(engine, binary, more, &mut signals).await {
            say(format!("{error:#}"));
            failed.push(engine.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("the benchmark failed on {}", failed.join(" and ")) }
}

async fn on(engine: Engine, binary: &Path, more: &[String], signals: &mut Signals) -> Result<()> {
    let dir = paths::private(&format!("bench-{}", engine.as_str()))?;
    let result = measured(engine, &dir, binary, more, signals).await;
    // Some gigabytes.
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    result
}

async fn measured(
    engine: Engine,
    dir: &Path,
    binary: &Path,
    more: &[String],
    signals: &mut Signals,
) -> Result<()> {
    let mut database = Database::start_in(dir, engine, Durability::Production, Lifetime::WithParent).await?;
    let results = paths::under_target("bench")?;
    let named = |end: &str| -> PathBuf { results.join(format!("{}{end}", engine.as_str())) };
    let mut command = Command::new(binary);
    command.args(["bench", "queue", "--json"]).arg(named(".json")).arg("--plots").arg(named("-plots"));
    // The peer makes its tables on MySQL only.
    if engine == Engine::MySql {
        command.args(["--peer", "apalis"]);
    }
    command.args(more).env("DATABASE_URL", database.url("")).stdin(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
    let status = tokio::select! {
        status = child.wait() => status?,
        // Ctrl-C on a terminal reaches the benchmark as well; its schemas go with the server.
        signal = signals.next() => return Err(signal.into()),
    };
    if database.is_own() {
        database.stop().await?;
    }
    if !status.success() {
        bail!("the benchmark on {} ended with {status}", engine.as_str());
    }
    say(format!("figures and plots are in {}", results.display()));
    Ok(())
}
