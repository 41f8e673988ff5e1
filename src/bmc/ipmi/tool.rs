//! `ipmitool` as a child process: no shell, an environment of its own, the password in neither the arguments nor any
//! log, a limited time and a limited output.
#![expect(clippy::disallowed_methods, reason = "the one place that starts ipmitool, which has a deadline")]

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use super::suite::Suite;

/// The program, looked up in `PATH`.
pub(super) const PROGRAM: &str = "ipmitool";
/// What each of its two outputs may have: a whole FRU has a few thousand bytes.
const OUTPUT_MAX: u64 = 64 * 1024;

/// Where to, and with which login.
pub(super) struct Tool {
    /// What is started, and its first arguments; something else than [`PROGRAM`] only in tests.
    pub(super) program: (&'static str, &'static [&'static str]),
    pub(super) username: String,
    pub(super) password: SecretString,
}

/// How often a packet is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packets {
    /// Until an answer comes, for a while.
    Repeated,
    /// Each once; an answer is waited for so long.
    Once(Duration),
}

/// What it wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why there is no output.
#[derive(Debug)]
pub(super) enum NoOutput {
    /// It is not installed.
    Missing,
    /// It could not be started.
    NotStarted(io::Error),
    /// Its output could not be read.
    Broken(io::Error),
    /// It took too long, and was killed.
    Late,
    /// It wrote too much, and was killed.
    TooMuch,
}

impl std::fmt::Debug for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tool")
    }
}

impl Tool {
    /// Runs it once, to its end or until `by`.
    pub(super) async fn run(
        &self,
        peer: SocketAddr,
        suite: Suite,
        packets: Packets,
        verb: &[&str],
        by: Instant,
    ) -> Result<Output, NoOutput> {
        let (program, first) = self.program;
        let mut command = Command::new(program);
        command
            .args(first)
            .args(arguments(peer, &self.username, suite, packets))
            .args(verb)
            .env_clear()
            .env("LC_ALL", "C")
            .env("IPMI_PASSWORD", self.password.expose_secret())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Whoever stops waiting for it ends it.
            .kill_on_drop(true);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NoOutput::Missing,
            _ => NoOutput::NotStarted(error),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let read = timeout_at(by, async {
            let (stdout, stderr) = tokio::try_join!(text(stdout), text(stderr))?;
            // Its exit status tells nothing: ipmitool ends with 0 after some refusals too.
            child.wait().await.map_err(NoOutput::Broken)?;
            Ok(Output { stdout, stderr })
        })
        .await;
        let read = read.unwrap_or(Err(NoOutput::Late));
        if read.is_err() {
            // An error here means that it has ended already.
            let _ = child.kill().await;
        }
        read
    }
}

async fn text(pipe: Option<impl AsyncRead + Unpin>) -> Result<String, NoOutput> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let read = pipe.take(OUTPUT_MAX + 1).read_to_end(&mut bytes).await;
        if read.map_err(NoOutput::Broken)? as u64 > OUTPUT_MAX {
            return Err(NoOutput::TooMuch);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// All arguments but the verb.
fn arguments(peer: SocketAddr, username: &str, suite: Suite, packets: Packets) -> Vec<OsString> {
    let (sent, seconds) = match packets {
        Packets::Repeated => (3, 2),
        Packets::Once(wait) => (1, wait.as_secs().max(1)),
    };
    // Verbose, because it tells a wrong password apart from silence only then. Operator is all that is needed.
    let fixed = ["-v", "-I", "lanplus", "-L", "OPERATOR", "-E"].map(OsString::from);
    let told = [
        ("-H", peer.ip().to_string()),
        ("-p", peer.port().to_string()),
        ("-U", username.to_owned()),
        ("-C", suite.id().to_string()),
        ("-R", sent.to_string()),
        ("-N", seconds.to_string()),
    ];
    fixed.into_iter().chain(told.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()])).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_hold_no_password_and_a_change_is_sent_once() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 623));
        let all = arguments(peer, "root", Suite::Sha256, Packets::Once(Duration::from_secs(5)));
        let all: Vec<_> = all.iter().map(|text| text.to_string_lossy()).collect();
        let expected = "-v -I lanplus -L OPERATOR -E -H 192.0.2.1 -p 623 -U root -C 17 -R 1 -N 5";
        assert_eq!(all.join(" "), expected);
    }

    fn tool(program: &'static str, first: &'static [&'static str]) -> Tool {
        Tool { program: (program, first), username: "root".to_owned(), password: "canary".to_owned().into() }
    }

    async fn run(script: &'static [&'static str], patience: Duration) -> Result<Output, NoOutput> {
        tool("sh", script)
            .run(PEER, Suite::Sha1, Packets::Repeated, &["mc", "guid"], Instant::now() + patience)
            .await
    }

    const LONG: Duration = Duration::from_mins(1);
    const PEER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 623);

    #[test]
    fn nothing_shows_the_password() {
        assert!(!format!("{:?}", tool(PROGRAM, &[])).contains("canary"));
    }

    #[tokio::test]
    async fn the_password_is_in_an_environment_with_little_else_and_in_no_argument() {
        let output = run(&["-c", "env; echo \"arguments $*\" >&2", "sh"], LONG).await.unwrap();
        assert!(output.stdout.lines().any(|line| line == "IPMI_PASSWORD=canary"), "{output:?}");
        // The shell adds the last three.
        let known = ["IPMI_PASSWORD", "LC_ALL", "PATH", "PWD", "SHLVL", "_"];
        for line in output.stdout.lines() {
            assert!(known.contains(&line.split('=').next().unwrap_or_default()), "{line}");
        }
        assert!(output.stderr.ends_with("-C 3 -R 3 -N 2 mc guid\n"), "{output:?}");
        assert!(!output.stderr.contains("canary"));
    }

    #[tokio::test]
    async fn what_takes_too_long_or_writes_too_much_is_ended() {
        let late = run(&["-c", "exec sleep 1000"], Duration::from_millis(50)).await;
        assert!(matches!(late, Err(NoOutput::Late)), "{late:?}");
        let much = run(&["-c", "exec yes"], LONG).await;
        assert!(matches!(much, Err(NoOutput::TooMuch)), "{much:?}");
        let much = run(&["-c", "exec yes >&2"], LONG).await;
        assert!(matches!(much, Err(NoOutput::TooMuch)), "{much:?}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_installed_is_missing() {
        let none = tool("no-such-ipmitool", &[]);
        let none = none.run(PEER, Suite::Sha1, Packets::Repeated, &[], Instant::now() + LONG).await;
        assert!(matches!(none, Err(NoOutput::Missing)), "{none:?}");
    }
}
