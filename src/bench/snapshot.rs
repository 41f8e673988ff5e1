//! What an open snapshot elsewhere costs: while it is held the server cannot throw away what was deleted, so that the
//! front of the queue fills with rows that are no more.

use super::enqueuer::Idle;
use super::figure::{Figure, Target, median};
use super::ground::Ground;
use super::plot::{Line, Plot};
use super::rounds::Both;
use super::{Bench, BenchError, Report};
use crate::queue::measure::Snapshot;

/// Enqueues, claims and ends with a snapshot held from the start, and compares the end with the beginning.
pub(super) async fn measure(bench: &Bench, ground: &Ground) -> Result<Report, BenchError> {
    ground.top_up(bench.plan.backlog).await?;
    let (steps, step) = (bench.plan.snapshot_steps, bench.plan.snapshot_step);
    // The first step warms up.
    let bar = bench.progress.bar("an open snapshot elsewhere", u64::from(steps) + 1);
    let snapshot = Snapshot::open(&ground.scratch).await?;
    let idle = Idle::of(ground, bench.plan.servers / 4).await?;
    let mut both = Both::start(bench, ground, &idle, true).await?;
    let load = std::mem::take(&mut both.load);
    let rates = load.series(step, steps + 1, &both.ended, || bar.advance(1)).await?;
    both.leave().await?;
    snapshot.close().await?;
    bar.end();
    let rates = rates.get(1..).unwrap_or_default();
    let part = (rates.len() / 10).clamp(1, 6);
    let start = median(rates.get(..part).unwrap_or_default());
    let end = median(rates.get(rates.len() - part.min(rates.len())..).unwrap_or_default());
    let seconds = step.as_secs_f64() * f64::from(steps);
    let after = format!("after {} s", (seconds - step.as_secs_f64() * part as f64).round());
    Ok(Report {
        figures: vec![
            Figure::new("under an open snapshot, at its start", start, "jobs/s"),
            Figure::new(format!("under an open snapshot, {after}"), end, "jobs/s"),
            Figure::new(
                format!("under an open snapshot, {after} / at its start"),
                end / start.max(1.0),
                "ratio",
            )
            .held_against(Target::AtLeast(0.7)),
        ],
        plots: vec![Plot {
            file: "snapshot",
            title: "Jobs enqueued and ended while a snapshot is held open",
            x: "seconds since the snapshot was opened",
            y: "jobs per second",
            lines: vec![Line {
                name: "ended",
                points: rates
                    .iter()
                    .enumerate()
                    .map(|(at, rate)| ((at + 1) as f64 * step.as_secs_f64(), *rate))
                    .collect(),
            }],
        }],
        ..Report::default()
    })
}
