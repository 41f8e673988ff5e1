//! The race against a peer, at two backlogs: its rate, and ours beside the larger one just before and after it.

use std::time::Duration;

use super::figure::{Figure, Target};
use super::ground::Ground;
use super::{Bench, BenchError, Report, rounds};
use crate::queue::measure::Apalis;

/// Before a peer's rate counts.
const WARM_UP: Duration = Duration::from_secs(2);

/// Races `apalis-mysql`.
pub(super) async fn measure(bench: &Bench, ground: &Ground) -> Result<Report, BenchError> {
    let mut report = Report::default();
    for backlog in bench.plan.peer_backlogs {
        bench.progress.say(&format!("the peer, at a backlog of {backlog}"));
        let peer = Apalis::prepare(&bench.laboratory.empty_schema().await?, backlog).await?;
        ground.top_up(backlog).await?;
        let before = rounds::batched(bench, ground).await?;
        let theirs = peer.rate(WARM_UP, bench.plan.peer_time).await?;
        ground.top_up(backlog).await?;
        let after = rounds::batched(bench, ground).await?;
        let ours = f64::midpoint(before, after);
        report.figures.push(Figure::new(format!("apalis-mysql at a backlog of {backlog}"), theirs, "jobs/s"));
        report.figures.push(Figure::new(
            format!("batched path beside it, at {backlog} or more"),
            ours,
            "jobs/s",
        ));
        if theirs <= 0.0 {
            // It was through with its backlog before it was counted.
            continue;
        }
        let ratio = Figure::new(format!("batched path / apalis-mysql at {backlog}"), ours / theirs, "ratio");
        report.figures.push(if Some(&backlog) == bench.plan.peer_backlogs.last() {
            ratio.held_against(Target::AtLeast(100.0))
        } else {
            ratio
        });
    }
    Ok(report)
}
