//! What processes cost, read from `/proc`: memory, processor time, threads, open files.
#![expect(clippy::disallowed_methods, reason = "processor time is set against the time that passed")]

use std::time::Instant;

use procfs::process::Process;

use super::super::figure::Figure;

const MIB: f64 = 1024.0;

/// A process that is watched.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// What it is called in figures.
    pub name: String,
    /// Its process id.
    pub pid: i32,
}

/// What a process costs at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Resident memory, in MiB.
    pub resident: f64,
    /// The most that it ever was, in MiB.
    pub peak: f64,
    /// Processor time since its start, in seconds.
    pub cpu: f64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets.
    pub files: usize,
}

/// Reads what a process costs; `None`: it is gone, or belongs to somebody else.
pub(super) fn cost(pid: i32) -> Option<Cost> {
    let process = Process::new(pid).ok()?;
    let (stat, status) = (process.stat().ok()?, process.status().ok()?);
    Some(Cost {
        resident: status.vmrss? as f64 / MIB,
        peak: status.vmhwm? as f64 / MIB,
        cpu: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        threads: status.threads,
        files: process.fd_count().unwrap_or(0),
    })
}

/// Processes from one moment on.
#[derive(Debug)]
pub(super) struct Meters {
    begun: Instant,
    all: Vec<(Watched, f64)>,
}

impl Meters {
    /// From now on.
    pub(super) fn start(watched: &[Watched]) -> Self {
        let all = watched.iter().filter_map(|one| Some((one.clone(), cost(one.pid)?.cpu))).collect();
        Self { begun: Instant::now(), all }
    }

    /// What each costs: its memory now, and the processors that it used since then.
    pub(super) fn figures(&self, during: &str) -> Vec<Figure> {
        let seconds = self.begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut figures = Vec::new();
        for (Watched { name, pid }, before) in &self.all {
            let Some(now) = cost(*pid) else { continue };
            figures.push(Figure::new(format!("{during}: {name}, memory"), now.resident, "MiB"));
            let used = (now.cpu - before) / seconds;
            figures.push(Figure::new(format!("{during}: {name}, processors"), used, "cores"));
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something_and_one_that_is_not_there_has_no_cost() {
        let own = cost(std::process::id() as i32).unwrap_or_default();
        assert!(
            own.resident > 0.1 && own.peak >= own.resident && own.threads > 0 && own.files > 2,
            "{own:?}"
        );
        assert!(cost(i32::MAX).is_none());
    }
}
