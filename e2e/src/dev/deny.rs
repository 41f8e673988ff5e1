//! What `make check` runs: `cargo deny` on all dependencies, by `deny.toml`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::packages::CARGO_DENY;
use crate::paths;
use crate::wait::say;

/// Checks licences, bans and sources; and advisories, where their database can be had.
pub fn deny() -> Result<()> {
    check(&["licenses", "bans", "sources"])?;
    // Fetched by itself: no network is no advisory.
    let fetched = cargo_deny()?.args(["fetch", "db"]).stdin(Stdio::null()).output()?;
    if !fetched.status.success() {
        let errors = String::from_utf8_lossy(&fetched.stderr);
        let why = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
        say(format!("advisories are NOT checked: their database cannot be had ({why})"));
        return Ok(());
    }
    check(&["--disable-fetch", "advisories"])
}

fn check(what: &[&str]) -> Result<()> {
    let mut command = cargo_deny()?;
    let status =
        command.args(["check", "--hide-inclusion-graph"]).args(what).stdin(Stdio::null()).status()?;
    ensure!(
        status.success(),
        "cargo deny check {} failed ({status}): see above, and deny.toml",
        what.join(" ")
    );
    Ok(())
}

fn cargo_deny() -> Result<Command> {
    let mut command =
        Command::new(CARGO_DENY.find().context("make check needs cargo-deny")?.join("cargo-deny"));
    command.arg("--locked").current_dir(paths::root());
    Ok(command)
}
