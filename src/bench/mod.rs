//! `autobuild bench`: `fleet` measures all of it together (`fleet`); `queue`, which is the rest: what the queue does per second on a given database, and how long a job waits.
//!
//! Everything is measured in one run: the raw limit of the server and each figure in turn, so that a ratio compares
//! neighbours in time. Every job is accounted for at the end.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

mod backlog;
mod enqueuer;
mod figure;
mod fleet;
mod ground;
mod jobs;
mod ledger;
#[cfg(feature = "peer-apalis")]
mod peer;
mod plan;
mod plot;
mod progress;
mod rounds;
mod snapshot;
mod urgent;
mod window;
mod worker;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::job::ServerUid;
use crate::queue::measure::Laboratory;
use crate::queue::{Engine, Enqueued, Queue, QueueError};
use figure::{Figure, Target};
pub use fleet::{Fleet, Scenario, fleet};
use ground::{Ground, Layout};
use ledger::Faults;
use plan::Plan;
pub use plan::{Depth, Part};
use plot::Plot;
use progress::Progress;

/// Another queue, to race with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// `apalis-mysql` of crates.io; on MySQL only.
    Apalis,
}

/// What to measure and where to.
#[derive(Debug, Clone)]
pub struct Order {
    /// The database server; the database that it names is not used.
    pub database_url: String,
    /// How long.
    pub depth: Depth,
    /// Only these parts; empty: all.
    pub only: Vec<Part>,
    /// Race this peer too.
    pub peer: Option<Peer>,
    /// Length of each window of a throughput figure, in seconds.
    pub seconds: Option<u32>,
    /// Write the figures into this file.
    pub json: Option<PathBuf>,
    /// Write plots into this folder.
    pub plots: Option<PathBuf>,
}

/// Why there are no figures, or none to rely on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The database.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A task ended badly.
    #[error("a part of the benchmark broke: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// An enqueue for a server that nobody else decides for.
    #[error("the enqueue for server {uid} was refused ({refused:?}) although its version was read before")]
    Refused {
        /// The server.
        uid: ServerUid,
        /// The answer.
        refused: Enqueued,
    },
    /// The peer is not in this program.
    #[error(
        "--peer apalis: this program was built without it; build one with `cargo build --release --features peer-apalis`"
    )]
    NoPeer,
    /// The peer cannot make its tables there.
    #[error("--peer apalis: its tables can be made on MySQL only, and this server is MariaDB")]
    PeerNeedsMySql,
    /// Asked to stop.
    #[error(
        "asked to end: what was not measured yet has no figures, and what the benchmark made is taken away"
    )]
    Interrupted,
    /// A file cannot be written.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A process of the benchmark.
    #[error("{name}: {why}")]
    Process {
        /// Which.
        name: String,
        /// What it did.
        why: String,
    },
    /// A call of a process of the benchmark.
    #[error("{url}: {why}")]
    Call {
        /// What was called.
        url: String,
        /// Why it failed.
        why: String,
    },
    /// The API server.
    #[error("the API server did not {what}: {why}")]
    Cluster {
        /// What was asked.
        what: String,
        /// Why it failed.
        why: String,
    },
    /// Something did not happen in time.
    #[error("{left} servers did not {what} within {seconds} s, such as {first}: {shown}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// How many are left.
        left: usize,
        /// One of them.
        first: String,
        /// What it shows.
        shown: String,
    },
    /// What the benchmark made is still there.
    #[error("the benchmark could not take away what it made ({why}): delete {what}")]
    Left {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// Safety broke.
    #[error(
        "{lost} jobs lost, {doubled} doubled, {two_at_once} servers with two at once: the figures count for nothing"
    )]
    Unsafe {
        /// Lost jobs.
        lost: u64,
        /// Doubled jobs.
        doubled: u64,
        /// Overlapping claims.
        two_at_once: u64,
    },
}

/// One run.
#[derive(Debug)]
struct Bench {
    plan: Plan,
    laboratory: Laboratory,
    engine: Engine,
    progress: Progress,
}

/// What a part found.
#[derive(Debug, Default)]
struct Report {
    figures: Vec<Figure>,
    plots: Vec<Plot>,
    faults: Faults,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.plots.extend(other.plots);
        self.faults = self.faults.plus(other.faults);
    }
}

/// Measures, prints the table, writes the files. Drops its schemas whatever happens.
pub async fn queue(order: Order, stop: CancellationToken) -> Result<(), BenchError> {
    if order.peer.is_some() && !cfg!(feature = "peer-apalis") {
        return Err(BenchError::NoPeer);
    }
    let laboratory = Laboratory::new(&order.database_url)?;
    let progress = Progress::new();
    let settings = laboratory.settings().await?;
    let probe = Queue::connect(laboratory.schema().await?.url(), 2).await;
    let engine = match &probe {
        Ok(queue) => queue.server().engine,
        // Its schema is dropped below.
        Err(_) => Engine::MySql,
    };
    let bench =
        Bench { plan: Plan::new(order.depth, &order.only, order.seconds), laboratory, engine, progress };
    let measured = match probe {
        Ok(queue) => {
            queue.close().await;
            tokio::select! {
                measured = bench.measure(order.peer) => measured,
                () = stop.cancelled() => Err(BenchError::Interrupted),
            }
        }
        Err(error) => Err(error.into()),
    };
    bench.progress.say("dropping the schemas of the benchmark");
    bench.laboratory.drop_all().await?;
    let report = measured?;
    print(&settings, &report.figures);
    end(&report, order.json, order.plots)
}

/// Writes the files; an error where safety broke.
fn end(report: &Report, json: Option<PathBuf>, plots: Option<PathBuf>) -> Result<(), BenchError> {
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.figures).unwrap_or_default();
        std::fs::write(&file, text + "\n").map_err(|source| BenchError::Write { file, source })?;
    }
    if let Some(folder) = plots {
        plot::write(&folder, &report.plots, &report.figures)?;
    }
    let Faults { lost, doubled, two_at_once } = report.faults;
    if report.faults.none() { Ok(()) } else { Err(BenchError::Unsafe { lost, doubled, two_at_once }) }
}

impl Bench {
    async fn measure(&self, peer: Option<Peer>) -> Result<Report, BenchError> {
        if peer.is_some() && self.engine == Engine::MariaDb {
            return Err(BenchError::PeerNeedsMySql);
        }
        let mut report = Report::default();
        if self.plan.needs_ground() {
            let layout = Layout { servers: self.plan.servers, jobs: self.plan.backlog, readings: true };
            let ground = Ground::lay(self, "the schema of the throughput figures", layout).await?;
            report.figures.extend(rounds::measure(self, &ground).await?);
            if self.plan.wants(Part::Urgent) {
                report.add(urgent::measure(self, &ground).await?);
            }
            #[cfg(feature = "peer-apalis")]
            if peer.is_some() {
                report.add(peer::measure(self, &ground).await?);
            }
            if self.plan.wants(Part::Snapshot) {
                report.add(snapshot::measure(self, &ground).await?);
            }
            report.faults = report.faults.plus(ground.faults().await?);
        }
        // Last: until the server has cleaned up after the snapshot is none of a claim's business.
        if self.plan.wants(Part::Backlog) {
            report.add(backlog::measure(self).await?);
        }
        for (name, count) in [
            ("lost", report.faults.lost),
            ("doubled", report.faults.doubled),
            ("two at once", report.faults.two_at_once),
        ] {
            report.figures.push(Figure::new(name, count as f64, "jobs").held_against(Target::AtMost(0.0)));
        }
        Ok(report)
    }
}

#[expect(clippy::print_stdout, reason = "printing is what this subcommand is for")]
fn print(settings: &[(String, String)], figures: &[Figure]) {
    if cfg!(debug_assertions) {
        println!("This is a debug build: its figures say little.\n");
    }
    for (name, value) in settings {
        println!("{name} = {value}");
    }
    println!("\n{}", figure::table(figures));
}
