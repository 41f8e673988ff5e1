//! AutoBuild's own processes, started from the program that measures, and ended with it.
#![expect(clippy::disallowed_methods, reason = "processes are started here, and waited for")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::super::BenchError;
use super::http;

/// How long a process may take until it is ready.
const START: Duration = Duration::from_mins(2);
/// How long it may take to end when asked to.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How much of a log an error shows.
const TAIL: usize = 1_500;

/// Where children leave their files, and what they get from the environment.
#[derive(Debug, Clone)]
pub(super) struct Nursery {
    pub folder: PathBuf,
    /// Where their logs go.
    pub logs: PathBuf,
    /// Variables on top of the inherited ones; passwords are handed over here and on no command line.
    pub env: Vec<(&'static str, String)>,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    process: tokio::process::Child,
    pid: i32,
    log: PathBuf,
    /// `host:port` of its `/metrics`, or of the emulator's control interface.
    address: String,
}

impl Nursery {
    /// Starts a subcommand that takes `--listen` and `--listen-file`, and waits for its port.
    pub(super) async fn start(&self, name: &str, args: &[String]) -> Result<Child, BenchError> {
        let failed = |why: String| BenchError::Process { name: name.to_owned(), why };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let log = self.logs.join(format!("{name}.log"));
        let listen_file = self.folder.join(format!("{name}.listen"));
        // There only where a process of that name ran before.
        let _ = std::fs::remove_file(&listen_file);
        let out = std::fs::File::options().create(true).append(true).open(&log);
        let out = out.map_err(|source| BenchError::Write { file: log.clone(), source })?;
        let err = out.try_clone().map_err(|source| BenchError::Write { file: log.clone(), source })?;
        let mut command = Command::new(program);
        command.args(args).args(["--listen", "127.0.0.1:0", "--listen-file"]).arg(&listen_file);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        // Ctrl-C on the terminal is for this process, which ends its children in order.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::null()).stdout(out).stderr(err);
        let process = command.spawn().map_err(|error| failed(error.to_string()))?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let mut child = Child { name: name.to_owned(), process, pid, log, address: String::new() };
        let since = Instant::now();
        loop {
            child.check()?;
            let bound = std::fs::read_to_string(&listen_file).unwrap_or_default();
            if !bound.trim().is_empty() {
                bound.trim().clone_into(&mut child.address);
                return Ok(child);
            }
            child.has_time(since, "it bound no port")?;
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Child {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// `host:port` of what it serves.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Fails where it has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("it ended ({status})"))),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    fn failed(&self, why: &str) -> BenchError {
        let why = format!("{why}; its log ends with:\n{}", tail(&self.log));
        BenchError::Process { name: self.name.clone(), why }
    }

    fn has_time(&self, since: Instant, left: &str) -> Result<(), BenchError> {
        if since.elapsed() < START {
            return Ok(());
        }
        Err(self.failed(&format!("{left} within {} s", START.as_secs())))
    }

    /// Waits until `/readyz` says so.
    pub(super) async fn ready(&mut self) -> Result<(), BenchError> {
        let since = Instant::now();
        let url = format!("http://{}/readyz", self.address);
        loop {
            self.check()?;
            let said = http::text(&url).await;
            if said.is_ok() {
                return Ok(());
            }
            self.has_time(since, "it was not ready")?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The sum of a metric over all label sets that contain `labels` as text, such as `result="written"`.
    pub(super) async fn metric(&self, name: &str, labels: &str) -> Result<f64, BenchError> {
        let page = http::text(&format!("http://{}/metrics", self.address)).await?;
        Ok(sum(&page, name, labels))
    }

    /// Asks it to end, and sees to it that it does.
    pub(super) async fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        if tokio::time::timeout(GRACE, self.process.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends it at once, as a crash does.
    pub(super) async fn kill(mut self) {
        // One that has ended already is what was wanted.
        let _ = self.process.kill().await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if self.process.id().is_none() {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
}

/// The sum of a metric in a page of the Prometheus text format.
pub(super) fn sum(page: &str, name: &str, labels: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, set) = series.split_once('{').unwrap_or((series, ""));
        (found == name && set.contains(labels)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_metric_is_summed_over_the_label_sets_that_are_meant() {
        let page = "# HELP a_total x\na_total{r=\"x\",q=\"1\"} 2\na_total{r=\"x\",q=\"2\"} 3\na_total{r=\"y\"} 4\nb 7\n";
        assert_eq!((sum(page, "a_total", "r=\"x\""), sum(page, "a_total", "")), (5.0, 9.0));
        assert_eq!((sum(page, "b", ""), sum(page, "c", "")), (7.0, 0.0));
    }
}
