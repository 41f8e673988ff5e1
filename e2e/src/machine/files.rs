//! What a machine boots and installs, made once.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::disk_image::Maker;
use super::initramfs::{BUTTON, Content, DRIVERS, pack};
use crate::fleet::hex;
use crate::packages::{self, Unpacked};
use crate::paths;
use crate::wait::say;

const INSTALLER: &str = include_str!("installer.sh");
const SYSTEM: &str = include_str!("system.sh");

/// What the files follow from, besides packages: with another recipe they are made again.
const RECIPE: [&str; 6] = [
    INSTALLER,
    SYSTEM,
    include_str!("dhcp.sh"),
    include_str!("initramfs.rs"),
    include_str!("disk_image.rs"),
    include_str!("files.rs"),
];

/// A system that can be installed; it says on the serial console which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The first.
    One,
    /// Another one.
    Two,
}

impl Release {
    /// Every release.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "release-one",
            Self::Two => "release-two",
        }
    }

    /// What the installed system writes to the serial console when it runs.
    pub fn greeting(self) -> String {
        format!("system {} is up", self.as_str())
    }
}

/// The files, in the user's cache.
#[derive(Debug, Clone)]
pub struct MachineFiles {
    dir: PathBuf,
}

impl MachineFiles {
    /// Makes what is not there yet.
    pub fn need() -> Result<Self> {
        let sources = Sources::new()?;
        let cache = paths::cache()?;
        let dir = cache.join(format!("machine-{}", sources.key()));
        let lock = File::create(cache.join("machine.lock"))?;
        lock.lock().context("wait for another process that makes machines' files")?;
        if !dir.is_dir() {
            say(format!(
                "making the kernel, the installer and the disk images of machines in {}",
                dir.display()
            ));
            let unfinished = cache.join("machine.new");
            if unfinished.exists() {
                std::fs::remove_dir_all(&unfinished)?;
            }
            make(&sources, &unfinished)?;
            std::fs::rename(&unfinished, &dir)?;
        }
        Ok(Self { dir })
    }

    /// The kernel of installers.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The initial RAM disk of installers: what writes an image, and what erases.
    pub fn installer(&self) -> PathBuf {
        self.dir.join("installer.img")
    }

    /// The image of an installed system.
    pub fn image(&self, release: Release) -> PathBuf {
        self.dir.join(format!("{}.raw", release.as_str()))
    }

    /// All of them.
    pub fn all(&self) -> Vec<PathBuf> {
        let images = Release::ALL.into_iter().map(|release| self.image(release));
        [self.kernel(), self.installer()].into_iter().chain(images).collect()
    }
}

/// Makes all files in a folder that is not there yet, whatever the cache has.
pub fn build(dir: &Path) -> Result<MachineFiles> {
    make(&Sources::new()?, dir)?;
    Ok(MachineFiles { dir: dir.to_owned() })
}

struct Sources {
    kernel: Unpacked,
    busybox: Unpacked,
    maker: Maker,
}

impl Sources {
    fn new() -> Result<Self> {
        ensure!(std::env::consts::ARCH == "x86_64", "machines are made from packages of x86_64 only");
        Ok(Self {
            kernel: packages::KERNEL.find()?,
            busybox: packages::BUSYBOX.find()?,
            maker: Maker::new()?,
        })
    }

    fn key(&self) -> String {
        let mut hash = Sha256::new();
        let packages = [self.kernel.version.as_str(), &self.busybox.version];
        for part in packages.into_iter().chain(self.maker.versions()).chain(RECIPE) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex(&hash.finalize()[..8])
    }
}

fn make(sources: &Sources, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let files = MachineFiles { dir: dir.to_owned() };
    let boot = sources.kernel.root.join("boot");
    let kernel = std::fs::read_dir(&boot)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("there is no kernel in {}", boot.display()))?;
    std::fs::copy(&kernel, files.kernel())?;
    let busybox = sources.busybox.root.join("bin/busybox");
    let modules = sources.kernel.root.join("lib/modules");
    let pack = |load: &[&str], init, release| {
        pack(&Content { busybox: &busybox, modules: &modules, load, init, release })
    };
    std::fs::write(files.installer(), pack(&DRIVERS, INSTALLER, "installer")?)?;
    let drivers = [DRIVERS.as_slice(), &BUTTON].concat();
    for release in Release::ALL {
        let initrd = dir.join("initrd");
        std::fs::write(&initrd, pack(&drivers, SYSTEM, release.as_str())?)?;
        sources.maker.make(&files.image(release), &files.kernel(), &initrd)?;
        std::fs::remove_file(&initrd)?;
    }
    Ok(())
}
