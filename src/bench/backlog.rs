//! Whether a claim takes longer the more jobs wait: one claim beside each backlog in turn, at a rate far below what the
//! server could do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::figure::{Figure, Target, quantile};
use super::ground::{Ground, Layout};
use super::plot::{Line, Plot};
use super::window::Count;
use super::worker::{Fetcher, LOWER_SHARE, Process, shards_of};
use super::{Bench, BenchError, Report, jobs};
use crate::job::{Lane, ServerUid};
use crate::queue::measure::Versions;
use crate::queue::{Enqueued, Front, Room};

/// Between two claims.
const PACE: Duration = Duration::from_millis(5);
/// Workers beside each backlog, which claim in turn.
const WORKERS: usize = 4;

/// One backlog and those who claim from it.
struct Beside {
    size: u64,
    ground: Ground,
    process: Process,
    fetchers: Vec<(Fetcher, Front)>,
    versions: Versions,
    claims_ms: Vec<f64>,
}

/// Measures claims beside all backlogs of the plan.
pub(super) async fn measure(bench: &Bench) -> Result<Report, BenchError> {
    let mut all = Vec::new();
    for size in &bench.plan.backlogs {
        all.push(Beside::lay(bench, *size).await?);
    }
    let bar = bench.progress.bar("claims beside backlogs", bench.plan.backlog_time.as_secs());
    let begun = Instant::now();
    let (mut turn, mut shown) = (0, 0);
    while begun.elapsed() < bench.plan.backlog_time {
        for beside in &mut all {
            let next = tokio::time::sleep(PACE);
            beside.claim(turn).await?;
            next.await;
        }
        turn += 1;
        let seconds = begun.elapsed().as_secs();
        bar.advance(seconds - shown);
        shown = seconds;
    }
    bar.end();
    let mut report = figures(&all);
    for beside in all {
        // They keep connections.
        drop(beside.fetchers);
        beside.process.leave().await?;
        report.faults = report.faults.plus(beside.ground.faults().await?);
    }
    Ok(report)
}

fn figures(all: &[Beside]) -> Report {
    let mut report = Report::default();
    let mut lines = BTreeMap::from([("p50", Vec::new()), ("p99", Vec::new())]);
    for beside in all {
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let ms = quantile(&beside.claims_ms, share);
            let title = format!("claim {name} beside {} waiting jobs", grouped(beside.size));
            report.figures.push(Figure::new(title, ms, "ms"));
            lines.entry(name).or_default().push(((beside.size as f64).log10(), ms));
        }
    }
    if let [least, .., most] = all {
        let ratio = quantile(&most.claims_ms, 0.5) / quantile(&least.claims_ms, 0.5).max(f64::MIN_POSITIVE);
        let name = format!("claim p50 beside {} / beside {}", grouped(most.size), grouped(least.size));
        report.figures.push(Figure::new(name, ratio, "ratio").held_against(Target::AtMost(1.3)));
    }
    report.plots.push(Plot {
        file: "backlog",
        title: "Time of one claim beside a growing backlog",
        x: "waiting jobs, as a power of ten",
        y: "milliseconds",
        lines: lines.into_iter().map(|(name, points)| Line { name, points }).collect(),
    });
    report
}

/// `1000000` as `1M`.
fn grouped(size: u64) -> String {
    match size {
        size if size >= 1_000_000 && size.is_multiple_of(1_000_000) => format!("{}M", size / 1_000_000),
        size if size >= 1_000 && size.is_multiple_of(1_000) => format!("{}k", size / 1_000),
        size => size.to_string(),
    }
}

impl Beside {
    async fn lay(bench: &Bench, size: u64) -> Result<Self, BenchError> {
        let layout = Layout { servers: size, jobs: size, readings: false };
        let ground = Ground::lay(bench, &format!("a backlog of {}", grouped(size)), layout).await?;
        let process = Process::join(&ground, 2).await?;
        let fetchers = (0..WORKERS)
            .map(|number| {
                let fetcher = process.fetcher(&ground, shards_of(number, WORKERS), &Count::default());
                let front = Front::new(fetcher.served.clone(), LOWER_SHARE);
                (fetcher, front)
            })
            .collect();
        let versions = Versions::of(&ground.scratch).await?;
        Ok(Self { size, ground, process, fetchers, versions, claims_ms: Vec::new() })
    }

    /// One claim, which is timed. Its job is ended and another one enqueued in its place, which is not.
    async fn claim(&mut self, turn: usize) -> Result<(), BenchError> {
        let Some((fetcher, front)) = self.fetchers.get_mut(turn % WORKERS) else { return Ok(()) };
        let begun = Instant::now();
        let claims = self.process.queue.fetch(front, fetcher.me, Room { any: 1, urgent: 0 }).await?;
        let took = begun.elapsed();
        // The first one of each opens connections and prepares statements.
        if turn >= WORKERS && !claims.is_empty() {
            self.claims_ms.push(took.as_secs_f64() * 1_000.0);
        }
        for claim in claims {
            let uid = claim.uid().clone();
            fetcher.take(&claim);
            fetcher.clone().end(claim).await?;
            replace(&self.process, &self.ground, &mut self.versions, uid).await?;
        }
        Ok(())
    }
}

async fn replace(
    process: &Process,
    ground: &Ground,
    versions: &mut Versions,
    uid: ServerUid,
) -> Result<(), BenchError> {
    for (uid, version) in versions.read(&[uid]).await? {
        match process.queue.enqueue(jobs::job(&uid, jobs::next_id(), Lane::Low), version).await? {
            Enqueued::Accepted => ground.ledger.accepted(1),
            refused => return Err(BenchError::Refused { uid, refused }),
        }
    }
    Ok(())
}
