//! Where things lie.
//!
//! What is costly to make and the same for every clone (the control plane's binary, the unpacked MySQL) lies in the
//! user's cache; what belongs to this clone lies under `target/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// The repository's root. It is looked for at run time: programs that were copied with their clone belong to the copy.
pub fn root() -> PathBuf {
    // Cargo says where a test is from. `make` runs programs in the root.
    let told = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = [told, std::env::current_dir().ok(), std::env::current_exe().ok()];
    root_above(starts.into_iter().flatten()).unwrap_or_default()
}

/// The first folder with the harness in it, at or above one of these.
fn root_above(starts: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let is_root = |dir: &&Path| dir.join("e2e/Cargo.toml").is_file();
    starts.into_iter().find_map(|start| start.ancestors().find(is_root).map(Path::to_path_buf))
}

/// A program of this build, beside the one that runs.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.parent().context("the running program has no folder")?;
    // Tests lie in `deps/`, programs one folder above.
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    let file = dir.join(name);
    ensure!(file.is_file(), "{} is missing: run `cargo build --workspace` first", file.display());
    Ok(file)
}

/// `target/` of this clone.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A folder under `target/`, made if missing.
pub fn under_target(name: &str) -> Result<PathBuf> {
    make(target().join(name))
}

/// A new folder under `target/harness/` that no other process and no other call has.
pub fn private(name: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let parent = under_target("harness")?;
    remove_leftovers(&parent);
    make(parent.join(format!("{}-{next}-{name}", std::process::id())))
}

/// Removes the folders of processes that are gone and that did not get to clean up.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        // Logs of the last failed run are worth keeping: only what is older than an hour goes.
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > std::time::Duration::from_hours(1)));
        if old && owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A new folder with a short path, for sockets: those are limited to 107 bytes.
pub fn short() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("ab-").tempdir_in("/tmp").context("make a folder for a socket in /tmp")
}

/// The user's cache for this project: `$XDG_CACHE_HOME/autobuild` or `~/.cache/autobuild`.
pub fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    make(
        base.context("neither XDG_CACHE_HOME nor HOME is set, so there is no place for a cache")?
            .join("autobuild"),
    )
}

/// The first file of that name on `PATH` or in the folders of system programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|dir| dir.join(OsStr::new(name)))
        .find(|file| file.is_file())
}

fn make(dir: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_copied_belongs_to_the_copy() {
        let copy = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("e2e")).unwrap();
        std::fs::write(copy.path().join("e2e/Cargo.toml"), "").unwrap();
        let of = |starts: &[&Path]| root_above(starts.iter().map(|start| start.to_path_buf()));
        let own = copy.path().join("target/debug/deps/test-1");
        assert_eq!(of(&[elsewhere.path(), &own]).as_deref(), Some(copy.path()));
        assert_eq!(of(&[&copy.path().join("e2e"), elsewhere.path()]).as_deref(), Some(copy.path()));
        assert_eq!(of(&[elsewhere.path()]), None);
    }
}
