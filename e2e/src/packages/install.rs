//! The one step that installs what is missing, before anything runs.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::{
    BUSYBOX, CARGO_DENY, COMPLETE, DEBCONF, DNSMASQ, FAKETIME, GALERA, IGNITION, INITRAMFS_TOOLS, IPMI_SIM,
    IPMITOOL, Installed, KERNEL, MARIADB_INSTALL_DB, MARIADBD, MMDEBSTRAP, MTOOLS, NETWORK_MANAGER, Need,
    POPT, PYKICKSTART, PYTHON, Package, Python, QEMU, RSYNC, SUSHY, SYSLINUX, WSREP_SCRIPTS,
};
use crate::database::{self, Engine};
use crate::wait::say;
use crate::{given, paths};

/// What is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// Every test and drill
    Tests,
    /// `make up`, `make demo` and `make bench-fleet`
    Stack,
    /// `make bench`
    Bench,
    /// `make check`
    Check,
}

impl Purpose {
    fn needs(self) -> Result<Vec<Need>> {
        let engines = match self {
            Self::Tests => {
                let mut needs = [Engine::MySql, Engine::MariaDb].map(of_engine).concat();
                needs.extend([IPMI_SIM, IPMITOOL, DNSMASQ, QEMU, DEBCONF, FAKETIME].map(Need::Installed));
                needs.extend([KERNEL, BUSYBOX, MTOOLS, SYSLINUX, IGNITION].map(Need::Unpacked));
                needs.extend([INITRAMFS_TOOLS, NETWORK_MANAGER].map(Need::Unpacked));
                needs.extend([GALERA, WSREP_SCRIPTS, RSYNC, POPT].map(Need::Unpacked));
                needs.extend([SUSHY, PYKICKSTART].map(Need::Python));
                return Ok(needs);
            }
            Self::Check => return Ok(vec![Need::Python(CARGO_DENY)]),
            Self::Stack | Self::Bench if given::database_url().is_some() => Vec::new(),
            Self::Bench if std::env::var_os("DB").is_none() => Engine::ALL.to_vec(),
            Self::Stack | Self::Bench => vec![Engine::from_env()?],
        };
        Ok(engines.into_iter().flat_map(of_engine).collect())
    }
}

fn of_engine(engine: Engine) -> Vec<Need> {
    match engine {
        Engine::MySql => vec![Need::MySql],
        Engine::MariaDb => [MARIADBD, MARIADB_INSTALL_DB].map(Need::Installed).to_vec(),
    }
}

/// Installs what is missing for a purpose. Two at once do it once.
pub fn install(purpose: Purpose) -> Result<()> {
    let needs = purpose.needs()?;
    if missing(&needs).is_empty() {
        return Ok(());
    }
    let _only_one = lock(&paths::cache()?.join("packages.lock"))?;
    // Whoever was waited for may have installed it.
    all(&missing(&needs), &Apt::new())
}

fn missing(needs: &[Need]) -> Vec<Need> {
    needs.iter().copied().filter(|need| need.is_missing()).collect()
}

fn all(missing: &[Need], apt: &Apt) -> Result<()> {
    debian(&to_install(missing), apt)?;
    for need in missing {
        match need {
            Need::Installed(one) => drop(one.find()?),
            Need::Unpacked(one) => unpack(*one, apt)?,
            Need::Python(one) => python(*one, apt)?,
            Need::MySql => database::unpack_mysql(&MMDEBSTRAP.find()?)?,
        }
    }
    Ok(())
}

/// What has to be installed, also for what is then made with it.
fn to_install(missing: &[Need]) -> Vec<Installed> {
    let mut all: Vec<Installed> = missing
        .iter()
        .filter_map(|need| match need {
            Need::Installed(one) => Some(*one),
            Need::Unpacked(_) => None,
            Need::Python(_) => Some(PYTHON),
            Need::MySql => Some(MMDEBSTRAP),
        })
        .filter(|one| one.find().is_err())
        .collect();
    all.dedup();
    all
}

fn debian(missing: &[Installed], apt: &Apt) -> Result<()> {
    let mut packages: Vec<&str> = missing.iter().flat_map(|one| one.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let files: Vec<&str> = missing.iter().map(|one| one.file).collect();
    let packages_said = packages.join(", ");
    say(format!("missing: {}; installing the Debian packages {packages_said}", files.join(", ")));
    apt.install(&packages)
}

/// The lock of this user's installations. It says who has it.
fn lock(file: &Path) -> Result<File> {
    let mut lock = File::options().create(true).truncate(false).read(true).write(true).open(file)?;
    if lock.try_lock().is_err() {
        let mut holder = String::new();
        lock.read_to_string(&mut holder)?;
        say(format!("waiting for {}, which installs packages", holder.trim()));
        lock.lock().with_context(|| format!("wait for {}", file.display()))?;
    }
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "process {} ({})", std::process::id(), paths::root().display())?;
    Ok(lock)
}

fn unpack(package: Package, apt: &Apt) -> Result<()> {
    let dir = package.dir()?;
    say(format!("{} is missing: unpacking the Debian package into {}", package.name, dir.display()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let root = dir.join("root");
    std::fs::create_dir_all(&root)?;
    let download = || {
        let name = if package.stands_for_another { behind(package.name)? } else { package.name.to_owned() };
        run(Command::new("apt-get").args(["download", "-qq", &name]).current_dir(&dir))
    };
    if let Err(error) = download() {
        say(format!("asking for the newest list of packages, because of: {error:#}"));
        apt.update()?;
        download()?;
    }
    let file = std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded nothing into {}", dir.display()))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
    let version = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::fs::remove_file(&file)?;
    std::fs::write(dir.join(COMPLETE), &version)?;
    Ok(())
}

/// The one package that an empty package stands for.
fn behind(package: &str) -> Result<String> {
    let told = run(Command::new("apt-cache").args(["depends", "--important", package]))?;
    let depends = told.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(depends.with_context(|| format!("{package} depends on nothing: {told}"))?.to_owned())
}

fn python(wanted: Python, apt: &Apt) -> Result<()> {
    let dir = wanted.dir()?;
    let exact = format!("{}=={}", wanted.package, wanted.version);
    say(format!("installing {exact} from PyPI into {}", dir.display()));
    let python = PYTHON.find()?;
    let venv = || run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&dir));
    if let Err(error) = venv() {
        // Debian's python3 comes without it.
        say(format!("installing the Debian package python3-venv, because of: {error:#}"));
        apt.install(&["python3-venv"])?;
        venv()?;
    }
    // Digests are taken from a file alone.
    let file = dir.join("requirements.txt");
    let digests: Vec<String> =
        wanted.sha256.iter().map(|digest| format!(" --hash=sha256:{digest}")).collect();
    std::fs::write(&file, format!("{exact}{}\n", digests.concat()))?;
    let mut pip = Command::new(dir.join("bin/python"));
    run(pip.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&file))?;
    std::fs::write(dir.join(COMPLETE), &exact)?;
    Ok(())
}

/// Runs a command to its end; the error has what it wrote.
fn run(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(std::process::Stdio::null()).output().with_context(|| format!("run {shown}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} ended with {}; {}", output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn two_installations_at_once_are_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lock");
        let first = lock(&file).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let file = file.clone();
            move || {
                let lock = lock(&file).unwrap();
                sender.send(()).unwrap();
                lock
            }
        });
        assert!(receiver.try_recv().is_err());
        assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("process {}", std::process::id())));
        drop(first);
        receiver.recv().unwrap();
        drop(second.join().unwrap());
    }

    #[test]
    fn everything_that_any_purpose_needs_is_there_for_tests() {
        let tests = Purpose::Tests.needs().unwrap();
        for purpose in [Purpose::Stack, Purpose::Bench] {
            assert!(purpose.needs().unwrap().iter().all(|need| tests.contains(need)));
        }
    }
}
