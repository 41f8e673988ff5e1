//! The release before this one: what an upgrade comes from, and what somebody goes back to.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::paths;
use crate::wait::say;

/// The commit of that release. The one file that names it.
const COMMIT: &str = include_str!("../release_before/commit");

/// Its program: `AUTOBUILD_BEFORE`, or built from its commit, in the user's cache. Building takes minutes, once.
pub async fn program() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os("AUTOBUILD_BEFORE") {
        return Ok(PathBuf::from(file));
    }
    let commit = COMMIT.trim();
    let dir = paths::cache()?.join(format!("release-{commit}"));
    let program = dir.join("target/debug/autobuild");
    if !program.is_file() {
        say(format!("building the release before, {commit}, in {}: some minutes, once", dir.display()));
        build(commit, &dir).await?;
    }
    Ok(program)
}

async fn build(commit: &str, dir: &Path) -> Result<()> {
    let source = dir.join("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir_all(&source)?;
    let archive = dir.join("source.tar");
    let (archive, source) = (archive.to_string_lossy(), source.to_string_lossy());
    let root = paths::root();
    let way_out = format!("commit {commit} is not in this clone: `git fetch --unshallow`");
    run(Command::new("git").current_dir(&root).args(["archive", "-o", &archive, commit]))
        .await
        .context(way_out)?;
    run(Command::new("tar").args(["-xf", &archive, "-C", &source])).await?;
    run(Command::new("cargo")
        .current_dir(&*source)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("CARGO_INCREMENTAL", "0")
        .args(["build", "--locked", "--bin", "autobuild"]))
    .await
}

async fn run(command: &mut Command) -> Result<()> {
    let program = command.as_std().get_program().display().to_string();
    let status = command.stdin(Stdio::null()).status().await?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
