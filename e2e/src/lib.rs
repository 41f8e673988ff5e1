//! The harness: starts AutoBuild's surroundings for real, on loopback, with private data below the target directory,
//! and stops only what it started.

pub mod database;

use std::path::PathBuf;

/// The directory below which everything that runs keeps its data.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}
