//! Real machines to install: QEMU, in software, and what such a machine boots, writes to its disk and erases it with.
//!
//! A fleet whose emulator has `--host qemu` is given here what emulated hosts do not need: a kernel, an installer and
//! images of systems that boot. All of it is made from Debian packages without root, once, into the user's cache.

mod disk_image;
mod files;
mod initramfs;
mod shelf;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::packages;

pub use files::{MachineFiles, Release, build};
pub use shelf::{Shelf, Task};

/// Where a machine with user-mode networking finds the loopback address of its host.
pub const HOST: &str = "10.0.2.2";

/// QEMU's program, which is installed with its boot program for the network.
pub fn qemu() -> Result<PathBuf> {
    packages::QEMU.find()
}

/// The last lines that a machine wrote to its serial console, for messages.
pub fn console_tail(log: &Path) -> String {
    console(log).map_or_else(
        |error| format!("{error:#}"),
        |text| {
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        },
    )
}

/// Everything that a machine wrote to its serial console, without what moves a terminal's cursor.
pub fn console(log: &Path) -> Result<String> {
    let bytes = std::fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.chars().filter(|c| *c == '\n' || !c.is_control()).collect())
}
