//! An urgent reboot behind many reimages that wait, while every slot that it does not have to itself is busy.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::figure::{Figure, Target};
use super::super::{BenchError, Report};
use super::ask::Times;
use super::reimage::Tokens;
use super::stage::Stage;
use crate::api::Phase;

/// How much later BMCs answer, so that slots are held.
const SLOW: Duration = Duration::from_millis(500);

/// Fills the queue, asks, and lets the queue drain.
pub(super) async fn measure(stage: &Stage<'_>) -> Result<Report, BenchError> {
    let (aside, waiting): (Vec<String>, Vec<String>) =
        stage.bmcs.names().into_iter().partition(|name| name.ends_with('0'));
    let waiting: Vec<String> = waiting.into_iter().take(stage.order.queued as usize).collect();
    // Those that are asked for urgently answer at once.
    for digit in '1'..='9' {
        stage.bmcs.slow(&format!("*{digit}"), SLOW).await?;
    }
    let mut tokens = Tokens::new(stage).await?;
    tokens.give(stage, waiting.clone()).await?;
    let limit = Duration::from_mins(1) + Duration::from_millis(200) * stage.order.queued;
    stage
        .seen
        .until("be queued", &waiting, limit, |_, view| view.current && view.job.is_some() || view.settled())
        .await?;
    let queued = || stage.seen.count(|view| view.phase == Some(Phase::Queued)) as f64;
    let (before, mut busy) = (queued(), Vec::new());
    let mut times = Times::default();
    for number in 0..stage.order.samples as usize {
        let Some(name) = aside.get(number % aside.len().max(1)) else { break };
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..200))).await;
        busy.push(stage.worker_metric("autobuild_worker_slots", "state=\"busy\"").await?);
        let spec = json!({ "rebootToken": format!("urgent-{number}"), "priority": "Urgent" });
        times.ask(stage, name, &spec).await?;
    }
    let after = queued();
    stage.bmcs.quick().await?;
    let begun = Instant::now();
    let limit = Duration::from_mins(2) + Duration::from_millis(200) * stage.order.queued;
    stage.seen.until("be reimaged", &waiting, limit, |name, view| tokens.is_through(name, view)).await?;
    stage.seen.until("be rebooted", &aside, limit, |_, view| view.settled()).await?;
    let mut report = Report { faults: tokens.faults(stage).await?, ..Report::default() };
    report.figures.extend(times.figures("urgent reboot", Some(Target::AtMost(500.0)), None));
    report.figures.extend([
        Figure::new("urgent reboot: reimages queued at its start", before, "jobs"),
        Figure::new("urgent reboot: reimages queued at its end", after, "jobs"),
        Figure::new("urgent reboot: slots busy, median", super::super::figure::median(&busy), "slots"),
        Figure::new("urgent reboot: until the rest was done", begun.elapsed().as_secs_f64(), "s"),
    ]);
    Ok(report)
}
