//! MariaDB, from Debian's `mariadb-server-core`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::server::{Program, as_root, run, version};
use crate::{packages, paths};

/// MariaDB's server.
pub(super) fn program() -> Result<Program> {
    let file = packages::MARIADBD.find()?;
    let version = version(&file, &[])?;
    let mut args = vec!["--no-defaults".to_owned()];
    args.extend(as_root());
    Ok(Program { file, args, version })
}

/// Makes an empty data directory.
pub(super) fn initialise(data: &Path) -> Result<()> {
    let install = packages::MARIADB_INSTALL_DB.find()?;
    // A server that starts takes away what looks like a temporary table in its folder for those, whoever made it.
    let temporary = paths::short()?;
    run(Command::new(install)
        .env("TMPDIR", temporary.path())
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(as_root())
        .arg(format!("--datadir={}", data.display())))
}
