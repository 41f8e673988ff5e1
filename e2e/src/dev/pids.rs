//! What `make up` started, kept in a file, so that `make down` stops that and nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::process::{Process, started_at};
use crate::wait::{say, wait_until};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Started {
    name: String,
    pid: u32,
    /// From `/proc`: the id alone may be another process by the time of `make down`.
    since: u64,
}

impl Started {
    fn alive(&self) -> bool {
        started_at(self.pid) == Some(self.since)
    }

    fn signal(&self, signal: Signal) {
        if self.alive()
            && let Some(pid) = Pid::from_raw(self.pid as i32)
        {
            // It may end between the check and the signal: that is what we want anyway.
            let _ = kill_process(pid, signal);
        }
    }
}

/// The file of processes of one stack.
#[derive(Debug, Clone)]
pub(super) struct Pids {
    file: PathBuf,
}

impl Pids {
    pub(super) fn of(dir: &Path) -> Self {
        Self { file: dir.join("pids.json") }
    }

    fn read(&self) -> Result<Vec<Started>> {
        match std::fs::read(&self.file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("read {}", self.file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("read {}", self.file.display())),
        }
    }

    /// Remembers a process that was just started.
    pub(super) fn add(&self, process: &Process) -> Result<()> {
        let mut all = self.read()?;
        let Some(since) = started_at(process.pid()) else { return Ok(()) };
        all.push(Started { name: process.name().to_owned(), pid: process.pid(), since });
        std::fs::write(&self.file, serde_json::to_vec_pretty(&all)?)?;
        Ok(())
    }

    /// The names of those that still run.
    pub(super) fn alive(&self) -> Result<Vec<String>> {
        Ok(self.read()?.into_iter().filter(Started::alive).map(|started| started.name).collect())
    }

    /// Stops them, the last started first: SIGTERM, and SIGKILL for one that does not end within `grace`.
    pub(super) async fn stop(&self, grace: Duration) -> Result<()> {
        for started in self.read()?.iter().rev().filter(|started| started.alive()) {
            say(format!("stopping {}", started.name));
            started.signal(Signal::TERM);
            let what = format!("the end of {}", started.name);
            if wait_until(&what, grace, || async { Ok(!started.alive()) }).await.is_err() {
                say(format!(
                    "{} did not end within {} s of SIGTERM: killing it",
                    started.name,
                    grace.as_secs()
                ));
                started.signal(Signal::KILL);
                wait_until(&what, Duration::from_secs(20), || async { Ok(!started.alive()) }).await?;
            }
        }
        if self.file.exists() {
            std::fs::remove_file(&self.file)?;
        }
        Ok(())
    }
}
