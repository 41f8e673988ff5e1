//! Initial RAM disks: busybox, a script that is the first process, and the modules that it loads.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};
use flate2::{Compression, GzBuilder};

/// The drivers of the network card and of the disk, each after those that it needs.
pub(super) const DRIVERS: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
];

/// What lets a system see that its power button is pressed.
pub(super) const BUTTON: [&str; 2] = ["evdev", "button"];

/// What goes into one.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// A static busybox.
    pub(super) busybox: &'a Path,
    /// The folder in which modules are looked for.
    pub(super) modules: &'a Path,
    /// The modules to load, in order.
    pub(super) load: &'a [&'a str],
    /// The script that is the first process.
    pub(super) init: &'a str,
    /// What `/etc/release` says.
    pub(super) release: &'a str,
}

const DHCP: &str = include_str!("dhcp.sh");
const FOLDERS: [&str; 9] = ["bin", "dev", "etc", "lib", "lib/modules", "proc", "run", "sys", "tmp"];

/// The compressed archive: the same bytes for the same content.
pub(super) fn pack(content: &Content<'_>) -> Result<Vec<u8>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut archive = Archive { bytes: Vec::new(), entries: 0 };
    for folder in FOLDERS {
        archive.add(Builder::new(folder).mode(0o755).set_mode_file_type(ModeFileType::Directory), &[])?;
    }
    // The first process has these open before it mounts anything.
    for (name, minor) in [("dev/console", (5, 1)), ("dev/null", (1, 3))] {
        let device = Builder::new(name).mode(0o600).set_mode_file_type(ModeFileType::Char);
        archive.add(device.rdev_major(minor.0).rdev_minor(minor.1), &[])?;
    }
    archive.file("init", 0o755, content.init.as_bytes())?;
    archive.file("bin/busybox", 0o755, &read(content.busybox)?)?;
    archive.file("bin/dhcp.sh", 0o755, DHCP.as_bytes())?;
    archive.file("etc/release", 0o644, format!("{}\n", content.release).as_bytes())?;
    archive.file("lib/modules/order", 0o644, format!("{}\n", content.load.join("\n")).as_bytes())?;
    for module in content.load {
        let name = format!("{module}.ko");
        let file = find(content.modules, &name)?
            .with_context(|| format!("there is no {name} below {}", content.modules.display()))?;
        archive.file(&format!("lib/modules/{name}"), 0o644, &read(&file)?)?;
    }
    let bytes = trailer(archive.bytes)?;
    let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    compressed.write_all(&bytes)?;
    Ok(compressed.finish()?)
}

struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(Builder::new(name).mode(mode).set_mode_file_type(ModeFileType::Regular), content)
    }

    fn add(&mut self, entry: Builder, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).context("a file of an initial RAM disk has 4 GiB at most")?;
        let mut writer = entry.ino(self.entries).write(std::mem::take(&mut self.bytes), size);
        writer.write_all(content)?;
        self.bytes = writer.finish()?;
        Ok(())
    }
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
