//! Images of installed systems: a boot record, and one FAT partition with a boot loader, the kernel and its RAM disk.
//! No root, no loop device, no mount, and the same bytes for the same content.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::{self, Unpacked};

/// Where the partition begins. Installers use the gap before it.
const PARTITION: u64 = 1024 * 1024;
const SECTOR: u64 = 512;
/// Room for the kernel of a cloud image and a small RAM disk.
const SIZE: u64 = 20 * 1024 * 1024;
/// In place of chance: of the disk, and of the file system.
const SERIAL: u32 = 0x4155_4255;
const LOADER: &str = "SERIAL 0 115200\nDEFAULT system\nPROMPT 0\nTIMEOUT 0\nLABEL system\n KERNEL vmlinuz\n INITRD initrd\n \
                      APPEND console=ttyS0 quiet no_timer_check panic=5\n";

/// The programs that make them.
#[derive(Debug)]
pub(super) struct Maker {
    mtools: Unpacked,
    syslinux: Unpacked,
}

impl Maker {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { mtools: packages::MTOOLS.find()?, syslinux: packages::SYSLINUX.find()? })
    }

    /// What the bytes of an image follow from, besides its content.
    pub(super) fn versions(&self) -> [&str; 2] {
        [&self.mtools.version, &self.syslinux.version]
    }

    /// Makes one from a kernel and an initial RAM disk; `out` must not be there.
    pub(super) fn make(&self, out: &Path, kernel: &Path, initrd: &Path) -> Result<()> {
        let mut file = File::create_new(out).with_context(|| format!("make {}", out.display()))?;
        file.set_len(SIZE)?;
        file.seek(SeekFrom::Start(0))?;
        let code = self.syslinux.root.join("usr/lib/SYSLINUX/mbr.bin");
        let code = std::fs::read(&code).with_context(|| format!("read {}", code.display()))?;
        file.write_all(&boot_record(&code)?)?;
        drop(file);
        let loader = out.with_extension("cfg");
        std::fs::write(&loader, LOADER)?;
        let partition = format!("{}@@{PARTITION}", out.display());
        let first = (PARTITION / SECTOR).to_string();
        let sectors = ((SIZE - PARTITION) / SECTOR).to_string();
        let mut format = self.program(&self.mtools, "mformat");
        format.args(["-i", &partition, "-T", &sectors, "-h", "16", "-s", "63", "-H", &first]);
        run(format.args(["-N", &format!("{SERIAL:08x}"), "-v", "AUTOBUILD", "::"]))?;
        for (from, to) in [(kernel, "::vmlinuz"), (initrd, "::initrd"), (&loader, "::syslinux.cfg")] {
            run(self.program(&self.mtools, "mcopy").args(["-i", &partition]).arg(from).arg(to))?;
        }
        let offset = PARTITION.to_string();
        run(self.program(&self.syslinux, "syslinux").args(["--install", "--offset", &offset]).arg(out))?;
        std::fs::remove_file(&loader)?;
        Ok(())
    }

    fn program(&self, package: &Unpacked, name: &str) -> Command {
        let mut command = Command::new(package.root.join("usr/bin").join(name));
        // syslinux calls mtools; file times are the same everywhere.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own: PathBuf = self.mtools.root.join("usr/bin");
        if let Ok(path) = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
        command.envs([("SOURCE_DATE_EPOCH", "1700000000"), ("TZ", "UTC"), ("MTOOLS_SKIP_CHECK", "1")]);
        command
    }
}

/// The first sector: the code that starts the active partition, and the table with that one.
fn boot_record(code: &[u8]) -> Result<Vec<u8>> {
    const CODE: usize = 440;
    ensure!(code.len() <= CODE, "the boot record's code has {} bytes, and {CODE} is the most", code.len());
    let mut sector = code.to_vec();
    sector.resize(CODE, 0);
    sector.extend(SERIAL.to_le_bytes());
    sector.extend([0, 0]);
    // Active; FAT16 by block address; cylinders, heads and sectors say "too large to tell".
    sector.extend([0x80, 0xfe, 0xff, 0xff, 0x0e, 0xfe, 0xff, 0xff]);
    sector.extend(u32::try_from(PARTITION / SECTOR)?.to_le_bytes());
    sector.extend(u32::try_from((SIZE - PARTITION) / SECTOR)?.to_le_bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    Ok(sector)
}

fn run(command: &mut Command) -> Result<()> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(std::process::Stdio::null()).output().with_context(|| format!("run {shown}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} ended with {}; {}", output.status, said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_boot_record_is_one_sector_with_its_mark() {
        let sector = super::boot_record(&[0xfa; 440]).unwrap_or_default();
        assert_eq!(sector.len(), 512);
        assert_eq!(sector[510..], [0x55, 0xaa]);
        assert!(super::boot_record(&[0; 441]).is_err());
    }
}
