//! `autobuild bench fleet`: what all of it together does on a given cluster and database, with emulated machines.
//!
//! The processes are this program's own subcommands, started on loopback: controller, workers, boot service, emulator. The
//! benchmark plays the user and watches status; when a BMC was asked and how often a disk was written to, the emulator's log
//! says.

mod ask;
mod bmcs;
mod children;
mod cluster;
mod crash;
mod create;
mod files;
mod http;
mod memory;
mod meters;
mod pace;
mod power;
mod raw;
mod reimage;
mod seen;
mod stage;
mod urgent;

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::figure::{Figure, Target};
use super::ledger::Faults;
use super::progress::Progress;
use super::{BenchError, Report, end, print};
use crate::queue::measure::Laboratory;
use cluster::Cluster;
use stage::Stage;

/// A part of the benchmark. `create` runs whatever is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scenario {
    /// Servers are created until they are Ready.
    Create,
    /// One change at a time on an idle fleet.
    Idle,
    /// All are powered off, and on again.
    Power,
    /// Reimages, with the power of one server switched beside them.
    Reimage,
    /// Urgent reboots behind reimages that wait.
    Urgent,
    /// A worker is killed with installations in its hands.
    Crash,
    /// Installations that hang.
    Memory,
}

/// What to measure, and on what.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The database server; the database that it names is not used.
    pub database_url: String,
    /// Servers, each with an emulated machine.
    pub servers: u32,
    /// Reimages in all.
    pub reimages: u32,
    /// Installations in flight at once at most.
    pub parallel: u32,
    /// Reimages that wait while urgent reboots are asked for.
    pub queued: u32,
    /// Installations in the hands of the worker that is killed.
    pub in_flight: u32,
    /// Changes on an idle fleet.
    pub samples: u32,
    /// Worker processes.
    pub workers: u32,
    /// Slots of each.
    pub slots: u32,
    /// Reconciles at once.
    pub concurrency: u32,
    /// Only these parts; empty: all.
    pub only: BTreeSet<Scenario>,
    /// More processes whose cost is told: name and process id.
    pub watched: Vec<(String, i32)>,
    /// Write the figures into this file.
    pub json: Option<PathBuf>,
    /// Write plots into this folder.
    pub plots: Option<PathBuf>,
    /// Keep the logs of the processes in this folder.
    pub logs: Option<PathBuf>,
}

impl Fleet {
    fn wants(&self, part: Scenario) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures, prints the table, writes the files. Ends its processes and takes away what it made, whatever happens.
#[expect(clippy::disallowed_types, reason = "the client is handed on")]
pub async fn fleet(order: Fleet, client: kube::Client, stop: CancellationToken) -> Result<(), BenchError> {
    let progress = Progress::new();
    let laboratory = Laboratory::new(&order.database_url)?;
    let settings = laboratory.settings().await?;
    let scratch =
        tempfile::tempdir().map_err(|source| BenchError::Write { file: std::env::temp_dir(), source })?;
    if let Some(logs) = &order.logs {
        std::fs::create_dir_all(logs).map_err(|source| BenchError::Write { file: logs.clone(), source })?;
    }
    progress.say("making a schema and namespaces");
    let schema = laboratory.schema().await;
    let cluster = Cluster::prepare(client).await;
    let mut report = Report::default();
    let measured = match (&schema, &cluster) {
        (Ok(schema), Ok(cluster)) => {
            let measuring = measured(&order, cluster, schema, (scratch.path(), &progress), &mut report);
            tokio::select! {
                measured = measuring => measured,
                () = stop.cancelled() => Err(BenchError::Interrupted),
            }
        }
        _ => Ok(()),
    };
    progress.say("taking away what the benchmark made");
    let left = match &cluster {
        Ok(cluster) => cluster.end().await,
        Err(_) => Ok(()),
    };
    laboratory.drop_all().await?;
    schema?;
    cluster?;
    // What was measured before an error counts.
    if !report.figures.is_empty() {
        print(&settings, &report.figures);
    }
    measured?;
    left.map_err(|error| BenchError::Left { what: stage::left_behind(), why: error.to_string() })?;
    end(&report, order.json, order.plots)
}

async fn measured(
    order: &Fleet,
    cluster: &Cluster,
    schema: &crate::queue::measure::Scratch,
    (folder, progress): (&std::path::Path, &Progress),
    report: &mut Report,
) -> Result<(), BenchError> {
    progress.say("starting the processes");
    let mut stage = Stage::open(order, cluster, schema, folder).await?;
    let result = scenarios(&mut stage, progress, report).await;
    // A process that has ended is the better explanation.
    let alive = stage.check();
    stage.close().await;
    match (result, alive) {
        (Err(error @ BenchError::Unsafe { .. }), _) => Err(error),
        (Err(_), Err(ended)) => Err(ended),
        (result, _) => result,
    }
}

async fn scenarios(
    stage: &mut Stage<'_>,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), BenchError> {
    let order = stage.order;
    let wants = |part: Scenario, line: String| {
        let wanted = order.wants(part);
        if wanted {
            progress.say(&line);
        }
        wanted
    };
    progress.say(&format!("creating {} servers", order.servers));
    report.add(create::measure(stage).await?);
    if wants(Scenario::Idle, format!("{} changes on the idle fleet", order.samples)) {
        report.figures.extend(ask::idle(stage, order.samples).await?);
    }
    if wants(Scenario::Power, "powering all off, and on".into()) {
        report.add(power::measure(stage).await?);
    }
    if wants(Scenario::Reimage, format!("{} reimages", order.reimages)) {
        report.add(reimage::measure(stage).await?);
    }
    if wants(Scenario::Urgent, format!("urgent reboots behind {} reimages", order.queued)) {
        report.add(urgent::measure(stage).await?);
    }
    if wants(Scenario::Crash, format!("killing a worker with {} installs", order.in_flight)) {
        report.add(crash::measure(stage).await?);
    }
    if wants(Scenario::Memory, format!("{} installs that hang", order.servers)) {
        report.add(memory::measure(stage).await?);
    }
    for (name, count) in [("lost", report.faults.lost), ("doubled", report.faults.doubled)] {
        report.figures.push(Figure::new(name, count as f64, "changes").held_against(Target::AtMost(0.0)));
    }
    Ok(())
}

/// Compares how often something was done with how often it was to be done, machine by machine.
fn tally(counts: impl Iterator<Item = (u64, u64)>) -> Faults {
    let mut faults = Faults::default();
    for (done, wanted) in counts {
        faults.lost += wanted.saturating_sub(done);
        faults.doubled += done.saturating_sub(wanted);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_done_is_lost_and_what_was_done_again_is_doubled() {
        let faults = tally([(1, 1), (0, 1), (3, 1), (0, 0)].into_iter());
        assert_eq!((faults.lost, faults.doubled), (1, 2));
    }
}
