//! One child process: its log file, its signals, its end.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
pub use rustix::process::Signal;

use crate::wait::{Look, wait_for};

/// How long a child lives if nobody stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// At most as long as this process, whatever ends it: the kernel kills the child.
    WithParent,
    /// On its own, as after `make up`. It leaves a note of itself beside its log: [`note`].
    Detached,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Short name for messages and the log file, such as `worker-1`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables on top of the inherited environment.
    pub env: Vec<(String, String)>,
    /// Where `NAME.log` goes, with standard output and standard error.
    pub log_dir: PathBuf,
    /// How long it lives if nobody stops it.
    pub lifetime: Lifetime,
}

/// A running (or ended) child. Killed when dropped, unless detached.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts it. The log file is appended to, so that a restart keeps the story before it.
    pub fn start(spec: Spec) -> Result<Self> {
        std::fs::create_dir_all(&spec.log_dir).with_context(|| format!("make {}", spec.log_dir.display()))?;
        let log = spec.log_dir.join(format!("{}.log", spec.name));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open the log {}", log.display()))?;
        let mut command = match spec.lifetime {
            Lifetime::WithParent => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(&spec.program);
                command
            }
            Lifetime::Detached => Command::new(&spec.program),
        };
        // Ctrl-C on the terminal is for the process that started it, which ends its children in order.
        command.process_group(0);
        command.args(&spec.args).envs(spec.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child =
            spawn(command).with_context(|| format!("start {} ({})", spec.name, spec.program.display()))?;
        let pid = child.id();
        if spec.lifetime == Lifetime::Detached
            && let Some(since) = started_at(pid)
        {
            let file = note(&log);
            std::fs::write(&file, format!("{pid} {since}\n"))
                .with_context(|| format!("note {} in {}", spec.name, file.display()))?;
        }
        Ok(Self { spec, child: Mutex::new(child), pid, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name as given.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it was started from; start it again with [`Process::start`].
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its exit status, or nothing while it runs.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        let mut child =
            self.child.lock().map_err(|_| anyhow!("a thread panicked while it held {}", self.spec.name))?;
        Ok(child.try_wait()?)
    }

    /// Sends a signal. Fails when it has ended (its id may be another process by then).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended already ({status})", self.spec.name);
        }
        let pid = rustix::process::Pid::from_raw(self.pid as i32).context("a process id of zero")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal {}", self.spec.name))
    }

    /// Waits for the end.
    pub async fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        wait_for(&format!("the end of {}", self.spec.name), timeout, async || {
            Ok(self.ended()?.map_or_else(|| Look::NotYet(format!("pid {} runs", self.pid)), Look::Holds))
        })
        .await
    }

    /// SIGTERM, then the end within `grace`, else SIGKILL.
    pub async fn stop(&self, grace: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        if let Ok(status) = self.wait(grace).await {
            return Ok(status);
        }
        crate::wait::say(format!(
            "{} did not end within {} s of SIGTERM: killing it",
            self.name(),
            grace.as_secs()
        ));
        self.kill().await
    }

    /// SIGKILL and the end.
    pub async fn kill(&self) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.wait(Duration::from_secs(30)).await
    }

    /// The last lines of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Waits until `look` says that it is ready; gives up at once when the process ends, and in every failure
    /// with the tail of its log.
    pub async fn wait_ready<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl AsyncFnMut() -> Result<Look<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut said = start;
        loop {
            let seen = match look().await {
                Ok(Look::Holds(value)) => return Ok(value),
                Ok(Look::NotYet(seen)) => seen,
                Err(error) => format!("{error:#}"),
            };
            let why = match self.ended()? {
                Some(status) => format!("it ended ({status})"),
                None if start.elapsed() > timeout => format!("not within {} s", timeout.as_secs()),
                None => {
                    if said.elapsed() > Duration::from_secs(5) {
                        said = Instant::now();
                        crate::wait::say(format!("still waiting for {what}: {seen}"));
                    }
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    continue;
                }
            };
            bail!(
                "{}: {what}: {why}; last seen: {seen}\n--- {} ---\n{}",
                self.name(),
                self.log.display(),
                self.log_tail()
            );
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.spec.lifetime == Lifetime::Detached {
            return;
        }
        if let Ok(child) = self.child.get_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The note of a detached process, beside its log: its id and when it started, which together name it for good.
pub fn note(log: &Path) -> PathBuf {
    log.with_extension("pid")
}

type Request = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a child from a thread that lives as long as this process. The kernel's "kill with the parent" looks at the
/// thread that started the child, and a test's thread ends long before the process does.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = receiver.recv() {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    spawner
        .lock()
        .map_err(|_| anyhow!("a thread panicked while it started a process"))?
        .send((command, answer))
        .context("the thread that starts processes is gone")?;
    Ok(child.recv().context("the thread that starts processes is gone")??)
}

/// When a process started, in clock ticks since boot (`/proc/PID/stat`, field 22): together with the id it names
/// one process for good. Nothing if there is no such process, or only its remains.
pub fn started_at(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may contain blanks and parentheses: fields are counted after the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
