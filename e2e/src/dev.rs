//! What `make up`, `make down`, `make demo`, `make bench` and `make bench-fleet` run.

mod bench;
mod bench_fleet;
mod demo;
mod deny;
mod effects;
mod examples;
mod installations;
mod promises;
mod rows;
mod signals;
mod stack;
mod started;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::fleet::BootFiles;
use crate::paths;
use crate::process::Lifetime;
use crate::wait::say;
pub use bench::bench;
pub use bench_fleet::bench_fleet;
pub use demo::demo;
pub use deny::deny;
use signals::Signals;
use stack::{Namespace, Schema, Stack};

/// Where everything of `make up` lies.
fn dir() -> PathBuf {
    paths::target().join("dev")
}

/// Starts everything detached and writes `target/dev/env`. A start that fails, or is interrupted, stops what it had
/// started.
pub async fn up() -> Result<()> {
    let dir = dir();
    let _only_one = lock(&dir)?;
    let started = started::all(&dir)?;
    let (alive, dead): (Vec<_>, Vec<_>) = started.iter().partition(|one| one.alive());
    if !alive.is_empty() {
        if dead.is_empty() && dir.join("env").is_file() {
            say("it is up already");
            hints(&dir);
            return Ok(());
        }
        let ended: Vec<&str> = dead.iter().map(|one| one.name.as_str()).collect();
        bail!(
            "it is up in part only (ended: {}); the logs are in {}. Run `make down`, then `make up`",
            if ended.is_empty() { "none, but it was not finished".to_owned() } else { ended.join(", ") },
            dir.join("*/logs").display()
        );
    }
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    let mut signals = Signals::new()?;
    let start = Stack::start(&dir, Lifetime::Detached, Namespace::Default, Schema::Named);
    let stack = tokio::select! {
        stack = start => stack,
        signal = signals.next() => Err(signal.into()),
    };
    match stack.and_then(|stack| stack.write_env()) {
        Ok(()) => {
            say("up");
            hints(&dir);
            Ok(())
        }
        Err(error) => {
            say("the start failed: stopping what was started");
            started::stop(&dir).await?;
            Err(error.context(format!("the logs are in {}", dir.join("*/logs").display())))
        }
    }
}

/// Serves the files that emulated machines boot, until the process ends.
pub async fn serve_files(address: &str) -> Result<()> {
    BootFiles::serve_at(address).await?.ended().await;
    Ok(())
}

/// Stops exactly what [`up`] started, and removes its folder.
pub async fn down() -> Result<()> {
    let dir = dir();
    let _only_one = lock(&dir)?;
    let stopped = started::stop(&dir).await?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    if stopped.is_empty() {
        say("nothing was up");
    } else {
        say(format!("down: stopped {}, and removed {}", stopped.join(", "), dir.display()));
    }
    Ok(())
}

/// Keeps a second `make up` or `make down` of this clone away.
fn lock(dir: &Path) -> Result<File> {
    std::fs::create_dir_all(paths::target())?;
    let file = File::create(dir.with_extension("lock"))?;
    if file.try_lock().is_err() {
        bail!("another `make up` or `make down` of this clone is at work: wait for its end");
    }
    Ok(file)
}

/// What to do once it is up.
fn hints(dir: &Path) {
    for line in [
        "in a shell:".to_owned(),
        format!("  . {}", dir.join("env").display()),
        format!(
            "  kubectl apply -f {} -f {}",
            dir.join("examples").display(),
            dir.join("install-examples").display()
        ),
        "  kubectl get servers --watch".to_owned(),
    ] {
        say(line);
    }
    say("then, for example:");
    stack::things_to_try().iter().for_each(say);
    say("make down stops it");
}
