//! Where things lie.
//!
//! What is costly to make and the same for every clone (the control plane's binary, the unpacked MySQL) lies in the
//! user's cache; what belongs to this clone lies under `target/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf()
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
