//! What one worker process needs while very many installations are in flight: hosts that hang in mid-install.

use std::time::Duration;

use serde_json::json;

use super::super::figure::{Figure, Target};
use super::super::{BenchError, Report};
use super::meters::cost;
use super::reimage::Tokens;
use super::stage::{Stage, WorkerShape};
use crate::job::{JobState, Step};

/// Once all wait: what was needed on the way is let go.
const REST: Duration = Duration::from_secs(5);

/// The last part: these installations never end.
pub(super) async fn measure(stage: &mut Stage<'_>) -> Result<Report, BenchError> {
    let names = stage.bmcs.names();
    let shape = WorkerShape { slots: stage.order.slots, installs: stage.order.servers };
    stage.replace_workers(&[shape]).await?;
    stage.bmcs.hosts(&json!({ "kind": "Hang", "at_percent": 50 })).await?;
    let before = stage.workers.first().and_then(|worker| cost(worker.pid())).unwrap_or_default();
    let mut tokens = Tokens::new(stage).await?;
    tokens.give(stage, names.clone()).await?;
    let limit = Duration::from_mins(2) + Duration::from_millis(300) * stage.order.servers;
    let waits = |_: &str, view: &super::seen::View| {
        view.job.is_some_and(|(state, step)| state == JobState::Waiting && step == Step::AwaitInstall)
    };
    stage.seen.until("be in mid-install", &names, limit, waits).await?;
    tokio::time::sleep(REST).await;
    let after = stage.workers.first().and_then(|worker| cost(worker.pid())).unwrap_or_default();
    let mut report = Report { faults: tokens.faults(stage).await?, ..Report::default() };
    let peak = Figure::new("installs in flight: the worker's memory, at its peak", after.peak, "MiB");
    report.figures.extend([
        Figure::new("installs in flight in one worker", names.len() as f64, "installs"),
        peak.held_against(Target::AtMost(400.0)),
        Figure::new("installs in flight: the worker's memory", after.resident, "MiB"),
        Figure::new("installs in flight: the worker's memory before", before.resident, "MiB"),
        Figure::new("installs in flight: the worker's threads", after.threads as f64, "threads"),
        Figure::new("installs in flight: the worker's open files and sockets", after.files as f64, "files"),
    ]);
    stage.bmcs.usual_hosts().await?;
    Ok(report)
}
