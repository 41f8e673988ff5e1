//! Where the virtual machines find their program and their disks.

use std::io;
use std::path::{Path, PathBuf};

/// The smallest disk that a machine can be given.
const SMALLEST_DISK: u64 = 1024 * 1024;

/// How the virtual machines of a fleet are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuSettings {
    program: PathBuf,
    folder: PathBuf,
    disk_bytes: u64,
}

/// Virtual machines that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// No such program.
    #[error(
        "qemu is '{program}', which is not there: install the Debian packages qemu-system-x86 and ipxe-qemu, or name the program"
    )]
    NoProgram {
        /// What was looked for.
        program: String,
    },
    /// The program that ends a machine together with its emulator.
    #[error(
        "setpriv is not there, which ends the virtual machines with the emulator: install the Debian package util-linux"
    )]
    NoSetpriv,
    /// No place for disks.
    #[error("disk-folder is {folder}, which cannot be made: {source}; give a writable folder")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A disk that holds nothing.
    #[error("disk-size is {0} bytes: give at least 1MiB, in whole sectors of 512 bytes")]
    DiskSize(u64),
}

impl QemuSettings {
    /// Machines that run `program` (a path, or a name on `PATH`), whose disks of so many bytes lie in `folder`. A disk
    /// that is there already stays as it is.
    pub fn new(program: &Path, folder: &Path, disk_bytes: u64) -> Result<Self, QemuError> {
        if disk_bytes < SMALLEST_DISK || !disk_bytes.is_multiple_of(512) {
            return Err(QemuError::DiskSize(disk_bytes));
        }
        let found =
            found(program).ok_or_else(|| QemuError::NoProgram { program: program.display().to_string() })?;
        found_setpriv()?;
        let failed = |source| QemuError::Folder { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let folder = std::path::absolute(folder).map_err(failed)?;
        Ok(Self { program: found, folder, disk_bytes })
    }

    /// The program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The size of a disk that is made anew, in bytes.
    pub(in crate::emulator) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// The disk of the machine of that name: a raw image.
    pub(super) fn disk(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.raw"))
    }

    /// What the machine of that name wrote to its serial console, from its first start on.
    pub(super) fn serial_log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.serial.log"))
    }

    /// What QEMU itself had to say.
    pub(super) fn program_log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.qemu.log"))
    }
}

fn found(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn found_setpriv() -> Result<(), QemuError> {
    found(Path::new(super::process::SETPRIV)).map(drop).ok_or(QemuError::NoSetpriv)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let new = |program: &str, folder: &Path, size| {
            QemuSettings::new(Path::new(program), folder, size).unwrap_err().to_string()
        };
        let error = new("qemu-of-nobody", folder.path(), SMALLEST_DISK);
        assert!(error.contains("qemu-of-nobody") && error.contains("qemu-system-x86"), "{error}");
        let error = new("sh", &folder.path().join("sh"), 1000);
        assert!(error.contains("1000") && error.contains("512"), "{error}");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = new("sh", &file, SMALLEST_DISK);
        assert!(error.contains("disk-folder") && error.contains("writable"), "{error}");
    }
}
