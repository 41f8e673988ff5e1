//! What `make up` started, by the notes that detached processes leave beside their logs ([`process::note`]), so that
//! `make down` stops that and nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::database::SOCKET_LINK;
use crate::process::started_at;
use crate::wait::{say, wait_until};

/// How long each may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);

/// One process that was started; it may have ended since.
#[derive(Debug, Clone)]
pub(super) struct Started {
    /// Its short name.
    pub(super) name: String,
    pid: u32,
    /// From `/proc`: the id alone may be another process by now.
    since: u64,
}

impl Started {
    /// Whether it still runs.
    pub(super) fn alive(&self) -> bool {
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

/// Everything that was started in `dir`, in the order of the starts.
pub(super) fn all(dir: &Path) -> Result<Vec<Started>> {
    let mut found = Vec::new();
    for part in subfolders(dir) {
        let Ok(entries) = std::fs::read_dir(part.join("logs")) else { continue };
        for entry in entries.flatten() {
            let file = entry.path();
            if file.extension().is_some_and(|extension| extension == "pid") {
                found.push(read(&file)?);
            }
        }
    }
    found.sort_by_key(|one| one.since);
    Ok(found)
}

fn subfolders(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|one| one.path()).collect())
        .unwrap_or_default()
}

fn read(file: &Path) -> Result<Started> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let (pid, since) =
        text.trim().split_once(' ').with_context(|| format!("{} is no note", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Started { name, pid: pid.parse()?, since: since.parse()? })
}

/// Stops them, the last started first: SIGTERM, and SIGKILL for one that does not end in time. Returns the names of
/// those that ran.
pub(super) async fn stop(dir: &Path) -> Result<Vec<String>> {
    let mut stopped = Vec::new();
    for one in all(dir)?.into_iter().rev().filter(Started::alive) {
        say(format!("stopping {}", one.name));
        one.signal(Signal::TERM);
        let what = format!("the end of {}", one.name);
        if wait_until(&what, GRACE, || async { Ok(!one.alive()) }).await.is_err() {
            say(format!("{} did not end within {} s of SIGTERM: killing it", one.name, GRACE.as_secs()));
            one.signal(Signal::KILL);
            wait_until(&what, GRACE, || async { Ok(!one.alive()) }).await?;
        }
        stopped.push(one.name);
    }
    for part in subfolders(dir) {
        if let Ok(socket) = std::fs::read_link(part.join(SOCKET_LINK)) {
            let _ = std::fs::remove_dir_all(socket);
        }
    }
    Ok(stopped)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::{all, stop};
    use crate::process::{Lifetime, Process, Spec};

    fn spec(dir: &std::path::Path, name: &str) -> Spec {
        Spec {
            name: name.to_owned(),
            program: "sleep".into(),
            args: vec!["600".to_owned()],
            env: Vec::new(),
            log_dir: dir.join("part/logs"),
            lifetime: Lifetime::Detached,
        }
    }

    #[tokio::test]
    async fn what_was_started_is_stopped_and_a_process_that_took_over_an_id_is_not() {
        let dir = crate::paths::private("started").unwrap();
        let ours = Process::start(spec(&dir, "ours")).unwrap();
        let other = Process::start(spec(&dir, "other")).unwrap();
        // As if the id had been given to another process since.
        std::fs::write(crate::process::note(other.log()), format!("{} 1\n", other.pid())).unwrap();
        assert_eq!(stop(&dir).await.unwrap(), ["ours"]);
        assert!(ours.ended().unwrap().is_some());
        assert!(other.ended().unwrap().is_none());
        other.kill().await.unwrap();
        assert!(all(&dir).unwrap().iter().all(|one| !one.alive()));
    }
}
