//! `make up`, `make down` and `make demo`.

mod demo;
mod examples;
mod pids;
mod stack;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::paths;
use crate::process::Lifetime;
use crate::wait::say;
pub use demo::demo;
use pids::Pids;
use stack::Stack;

/// Where everything of `make up` lies.
fn dir() -> PathBuf {
    paths::target().join("dev")
}

/// Starts everything detached and writes `target/dev/env`.
pub async fn up() -> Result<()> {
    let dir = dir();
    let pids = Pids::of(&dir);
    if !pids.alive()?.is_empty() {
        bail!("it is up already (`. {}/env`); `make down` stops it", dir.display());
    }
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let stack = match Stack::start(&dir, Lifetime::Detached, &pids).await {
        Ok(stack) => stack,
        Err(error) => {
            say("the start failed: stopping what was started");
            pids.stop(Duration::from_secs(20)).await?;
            return Err(error);
        }
    };
    stack.write_env()?;
    say(format!("up. In a shell:  . {}", dir.join("env").display()));
    say(format!("then:            kubectl apply -f {}", stack.examples().display()));
    Ok(())
}

/// Stops exactly what [`up`] started.
pub async fn down() -> Result<()> {
    let pids = Pids::of(&dir());
    let alive = pids.alive()?;
    if alive.is_empty() {
        say("nothing is up");
        return Ok(());
    }
    pids.stop(Duration::from_secs(40)).await?;
    say(format!("stopped {}", alive.join(", ")));
    Ok(())
}
