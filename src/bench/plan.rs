//! How much is measured and for how long.

use std::collections::BTreeSet;
use std::time::Duration;

use super::enqueuer::Enqueuers;
use super::window::Span;
use super::worker::Crew;

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Part {
    /// Enqueueing alone.
    Enqueue,
    /// One job at a time with 16 connections.
    Single,
    /// One job at a time with 64 claimers.
    Claimers,
    /// Claims and ends in batches.
    Batched,
    /// Enqueueing and ending at the same time.
    Together,
    /// The batched path beside parked jobs.
    Parked,
    /// Claims beside backlogs of growing size.
    Backlog,
    /// Urgent jobs that come while lower lanes are busy.
    Urgent,
    /// An open snapshot elsewhere.
    Snapshot,
}

/// How long a benchmark takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Some minutes; figures that are worth something.
    Whole,
    /// Half a minute; shows that it works.
    Quick,
}

/// The sizes of everything.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    parts: BTreeSet<Part>,
    /// Rounds of the throughput figures.
    pub rounds: u32,
    /// One window of a throughput figure.
    pub span: Span,
    /// One window of the raw limit.
    pub raw_span: Span,
    /// Servers of the schema of the throughput figures.
    pub servers: u64,
    /// Jobs that wait before each window of it.
    pub backlog: u64,
    /// Parked jobs.
    pub parked: u64,
    /// The batched path.
    pub crew: Crew,
    /// Those who enqueue.
    pub enqueuers: Enqueuers,
    /// Backlogs that claims are compared between, growing.
    pub backlogs: Vec<u64>,
    /// How long they are.
    pub backlog_time: Duration,
    /// How long urgent jobs are enqueued.
    pub urgent_time: Duration,
    /// Steps of the series under an open snapshot.
    pub snapshot_steps: u32,
    /// One step.
    pub snapshot_step: Duration,
    #[cfg(feature = "peer-apalis")]
    /// How long a peer runs at each backlog.
    pub peer_time: Duration,
    #[cfg(feature = "peer-apalis")]
    /// The backlogs of a peer.
    pub peer_backlogs: [u64; 2],
}

impl Plan {
    /// The plan of a depth. `parts`: only these, if any are named; `seconds`: another length of each window.
    pub(super) fn new(depth: Depth, parts: &[Part], seconds: Option<u32>) -> Self {
        let mut plan = match depth {
            Depth::Whole => Self::whole(),
            Depth::Quick => Self::quick(),
        };
        plan.parts = parts.iter().copied().collect();
        if let Some(seconds) = seconds {
            plan.span.window = Duration::from_secs(u64::from(seconds));
        }
        plan
    }

    /// Whether a part is measured.
    pub(super) fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    /// Whether any part needs the schema of the throughput figures.
    pub(super) fn needs_ground(&self) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| *part != Part::Backlog)
    }

    fn whole() -> Self {
        let seconds = Duration::from_secs;
        Self {
            parts: BTreeSet::new(),
            rounds: 5,
            span: Span { warm_up: Duration::from_millis(500), window: seconds(2) },
            raw_span: Span { warm_up: Duration::from_millis(200), window: seconds(1) },
            servers: 400_000,
            backlog: 200_000,
            parked: 10_000,
            crew: Crew { processes: 2, connections: 8, slots: 800 },
            enqueuers: Enqueuers { callers: 256, connections: 8 },
            backlogs: vec![1_000, 10_000, 100_000, 1_000_000],
            backlog_time: seconds(30),
            urgent_time: seconds(20),
            snapshot_steps: 66,
            snapshot_step: seconds(1),
            #[cfg(feature = "peer-apalis")]
            peer_time: seconds(20),
            #[cfg(feature = "peer-apalis")]
            peer_backlogs: [20_000, 200_000],
        }
    }

    fn quick() -> Self {
        let ms = Duration::from_millis;
        Self {
            rounds: 1,
            span: Span { warm_up: ms(100), window: ms(300) },
            raw_span: Span { warm_up: ms(50), window: ms(100) },
            servers: 12_000,
            backlog: 6_000,
            parked: 500,
            crew: Crew { processes: 2, connections: 4, slots: 100 },
            enqueuers: Enqueuers { callers: 64, connections: 4 },
            backlogs: vec![100, 2_000],
            backlog_time: ms(1_000),
            urgent_time: ms(1_000),
            snapshot_steps: 12,
            snapshot_step: ms(150),
            #[cfg(feature = "peer-apalis")]
            peer_time: ms(1_000),
            #[cfg(feature = "peer-apalis")]
            peer_backlogs: [2_000, 4_000],
            ..Self::whole()
        }
    }
}
