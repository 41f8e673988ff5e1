//! The disk under the cache: how much it has, and what it says when it takes nothing more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still write.
    pub free: u64,
}

/// A disk. Calls may block.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// How much it has.
    fn space(&self, folder: &Path) -> io::Result<Space>;

    /// Writes all of this at a place of a file. After an error the same is written again.
    fn write(&self, file: &File, piece: &[u8], at: u64) -> io::Result<()>;
}

/// That of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn space(&self, folder: &Path) -> io::Result<Space> {
        let told = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Space { total: bytes(told.f_blocks), free: bytes(told.f_bavail) })
    }

    fn write(&self, file: &File, piece: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(piece, at)
    }
}

/// Whether the disk, or what this user may have of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
