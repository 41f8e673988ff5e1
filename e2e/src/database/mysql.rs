//! MySQL 9. A `mysqld` on `PATH` is used if it is MySQL; otherwise Debian unstable's packages are unpacked into the
//! user's cache and run from there with their own loader, which needs no chroot and disturbs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::server::{Program, as_root, run, version};
use crate::wait::say;
use crate::{packages, paths};

/// MySQL's server.
pub(super) fn program() -> Result<Program> {
    if let Some((file, version)) = on_path() {
        let mut args = vec!["--no-defaults".to_owned()];
        args.extend(as_root());
        return Ok(Program { file, args, version });
    }
    let dir = unpacked()?;
    let (triplet, loader) = match std::env::consts::ARCH {
        "x86_64" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        other => bail!("no unpacked MySQL for {other}: put a MySQL 9 mysqld on PATH or set DATABASE_URL"),
    };
    let libraries = dir.join("usr/lib").join(triplet);
    let file = libraries.join(loader);
    let mut args = vec![
        "--library-path".to_owned(),
        format!("{}:{}", libraries.display(), dir.join("usr/lib/mysql/private").display()),
        dir.join("usr/sbin/mysqld").display().to_string(),
    ];
    let version = version(&file, &args)?;
    args.extend(["--no-defaults".to_owned(), format!("--basedir={}", dir.join("usr").display())]);
    args.extend(as_root());
    Ok(Program { file, args, version })
}

/// A server that is installed, with its version.
fn on_path() -> Option<(PathBuf, String)> {
    let file = paths::program("mysqld")?;
    let version = version(&file, &[]).ok()?;
    // Debian's MariaDB installs a link of this name.
    (!version.contains("MariaDB")).then_some((file, version))
}

/// Makes an empty data directory.
pub(super) fn initialise(program: &Program, data: &Path) -> Result<()> {
    run(Command::new(&program.file)
        .args(&program.args)
        .arg(format!("--datadir={}", data.display()))
        .args(["--initialize-insecure", "--innodb-redo-log-capacity=16M"]))
}

/// Looks for the server.
pub(super) fn find() -> Result<()> {
    if on_path().is_some() { Ok(()) } else { unpacked().map(drop) }
}

/// The folder with the unpacked packages.
fn unpacked() -> Result<PathBuf> {
    let dir = folder()?;
    ensure!(dir.is_dir(), packages::mysql_is_missing());
    Ok(dir)
}

fn folder() -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("mysql-{}", std::env::consts::ARCH)))
}

/// Unpacks the packages. Whoever calls it is the only one.
pub(super) fn unpack(mmdebstrap: &Path) -> Result<()> {
    let dir = folder()?;
    let unfinished = dir.with_extension("new");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    say(format!("unpacking MySQL from Debian unstable into {} (400 MB, once)", dir.display()));
    let mut command = Command::new(mmdebstrap);
    // A mirror that is kept at one day has signatures that are past their date.
    command.args(["--variant=extract", "--aptopt=Acquire::Check-Valid-Until \"false\""]);
    command.arg("--include=mysql-server-core,mysql-client-core").arg("sid").arg(&unfinished);
    command.args(debian_mirror());
    run(&mut command).context("unpack MySQL; or put a MySQL 9 mysqld on PATH, or set DATABASE_URL")?;
    std::fs::rename(&unfinished, &dir)?;
    Ok(())
}

/// The mirror from which this machine takes its own Debian packages, by its apt sources; none if it is no Debian.
fn debian_mirror() -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?.trim_matches('"');
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(
        std::fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .find_map(|text| mirror_for(&text, codename))
}

/// The first URI in one file of apt sources (either format) that serves the suite `codename`, component `main`.
fn mirror_for(text: &str, codename: &str) -> Option<String> {
    let one_line = text.lines().find_map(|line| {
        let line = line.trim().strip_prefix("deb ")?;
        let line = line.split_once(']').map_or(line, |(_, rest)| rest);
        let mut words = line.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        (suite == codename && words.any(|word| word == "main")).then(|| uri.to_owned())
    });
    one_line.or_else(|| {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
            let has = |name: &str, word: &str| {
                field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word))
            };
            let wanted = has("Types:", "deb") && has("Suites:", codename) && has("Components:", "main");
            wanted.then(|| field("URIs:")?.split_whitespace().next().map(str::to_owned))?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::mirror_for;

    #[test]
    fn the_mirror_of_the_own_release_is_found_in_both_formats_of_apt_sources() {
        let list = "# comment\ndeb [arch=amd64] https://other.example.com/apt tools main\n\
                    deb http://mirror.example.com/debian trixie main contrib\n";
        assert_eq!(mirror_for(list, "trixie").as_deref(), Some("http://mirror.example.com/debian"));
        let stanzas = "Types: deb\nURIs: https://node.example.com\nSuites: nodistro\nComponents: main\n\n\
                       Types: deb\n# comment\nURIs: http://mirror.example.com/debian\nSuites: trixie trixie-updates\n\
                       Components: main\n";
        assert_eq!(mirror_for(stanzas, "trixie").as_deref(), Some("http://mirror.example.com/debian"));
        assert_eq!(mirror_for(stanzas, "forky"), None);
    }
}
