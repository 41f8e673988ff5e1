//! Missing packages: installed on first need, with a line that says so.

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
