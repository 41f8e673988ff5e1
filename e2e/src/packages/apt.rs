//! `apt-get`, and waiting for whoever else runs it.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wait::say;

/// How apt-get begins to say that it was refused a lock of its own. `update` does not wait for one, whatever it is told.
const REFUSED: &str = "E: Could not get lock ";

/// The program, and how long it is waited for.
#[derive(Debug)]
pub(super) struct Apt {
    program: OsString,
    /// How long somebody else may have it.
    patience: Duration,
    /// How long between two tries.
    pause: Duration,
}

impl Apt {
    pub(super) fn new() -> Self {
        Self { program: "apt-get".into(), patience: Duration::from_mins(30), pause: Duration::from_secs(2) }
    }

    /// Asks for the newest lists, and installs.
    pub(super) fn install(&self, packages: &[&str]) -> Result<()> {
        self.run(&["update", "-qq"])?;
        let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
        install.extend(packages);
        self.run(&install)
    }

    /// Asks for the newest lists.
    pub(super) fn update(&self) -> Result<()> {
        self.run(&["update", "-qq"])
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        let start = Instant::now();
        let mut told = String::new();
        loop {
            let output = self.command(args).output().context("run apt-get (as root or with sudo)")?;
            if output.status.success() {
                return Ok(());
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            let refused = errors.lines().find_map(|line| line.strip_prefix(REFUSED));
            let Some(refused) = refused.filter(|_| start.elapsed() < self.patience) else {
                bail!(
                    "apt-get {} failed ({}); install the packages by hand and try again\n{errors}",
                    args.join(" "),
                    output.status,
                );
            };
            // Once for each holder: apt names its process.
            if refused != told {
                say(format!("waiting for another apt-get, which has the lock {refused}"));
                refused.clone_into(&mut told);
            }
            std::thread::sleep(self.pause);
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = if rustix::process::geteuid().is_root() {
            Command::new(&self.program)
        } else {
            let mut command = Command::new("sudo");
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]).arg(&self.program);
            command
        };
        // Its words are looked at.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.args(args).stdin(Stdio::null());
        command
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    /// An apt-get that is refused, in the words of the real one, as often as there are lines in `refusals`.
    fn fake(dir: &Path, refusals: usize, patience: Duration) -> Apt {
        let program = dir.join("apt-get");
        let script = format!(
            "#!/bin/sh\ncd {} || exit 1\necho \"$*\" >> asked\nif [ $(wc -l < asked) -le {refusals} ]; then\n\
             echo 'E: Could not get lock /lists/lock. It is held by process 7 (apt-get)' >&2\n\
             echo 'E: Unable to lock directory /lists/' >&2\nexit 100\nfi\n",
            dir.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Apt { program: program.into(), patience, pause: Duration::from_millis(1) }
    }

    #[test]
    fn somebody_elses_apt_get_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), 3, Duration::from_mins(1)).install(&["one", "two"]).unwrap();
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
        let install = "install -y -qq --no-install-recommends one two";
        let expected = ["update -qq"; 4].into_iter().chain([install]);
        assert!(asked.lines().eq(expected), "{asked}");
    }

    #[test]
    fn who_holds_the_lock_for_ever_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = fake(dir.path(), 3, Duration::ZERO).update().unwrap_err().to_string();
        assert!(error.contains("held by process 7 (apt-get)"), "{error}");
    }
}
