//! A worker that dies with many installations in its hands, and the other one that goes on with them.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::figure::{Figure, Target, quantile};
use super::super::{BenchError, Report};
use super::reimage::Tokens;
use super::stage::{Stage, WorkerShape};

/// The lease of workers, by their default.
const LEASE: Duration = Duration::from_secs(10);
/// How much later BMCs answer, so that the jobs are in slots.
const SLOW: Duration = Duration::from_secs(3);
/// Slots of one worker at most.
const MOST_SLOTS: u32 = 2_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long the worker may take until all are in its hands.
const PATIENCE: Duration = Duration::from_mins(1);

/// Has a worker take many, kills it, and sees when each is gone on with.
pub(super) async fn measure(stage: &mut Stage<'_>) -> Result<Report, BenchError> {
    let count = stage.order.in_flight.min(stage.order.servers);
    let shape = WorkerShape { slots: (count + count / 8 + 2).min(MOST_SLOTS), installs: count.max(1) };
    stage.replace_workers(&[shape]).await?;
    let names: Vec<String> = stage.bmcs.names().into_iter().take(count as usize).collect();
    stage.bmcs.slow("*", SLOW).await?;
    let mut tokens = Tokens::new(stage).await?;
    tokens.give(stage, names.clone()).await?;
    let wanted = f64::from(count.min(shape.slots)) * 0.9;
    let since = Instant::now();
    while stage.worker_metric("autobuild_worker_slots", "state=\"busy\"").await? < wanted
        && since.elapsed() < PATIENCE
    {
        tokio::time::sleep(LOOK).await;
    }
    stage.add_worker(shape).await?;
    let victim = stage.workers.remove(0);
    let dead = format!("/{}", victim.pid());
    victim.kill().await;
    let killed = Instant::now();
    let held = stage.held(&dead).await?;
    let taken = taken_over(stage, &held, killed).await?;
    stage.bmcs.quick().await?;
    let limit = Duration::from_mins(2) + Duration::from_millis(200) * count;
    stage.seen.until("be reimaged", &names, limit, |name, view| tokens.is_through(name, view)).await?;
    let done = killed.elapsed();
    let mut asked = Vec::new();
    for name in &held {
        let later = stage.bmcs.asked_since(name, killed).await?;
        if let Some(first) = later.iter().find(|asked| !asked.worker.ends_with(&dead)) {
            asked.push(first.at.saturating_duration_since(killed).as_secs_f64());
        }
    }
    let mut report = Report { faults: tokens.faults(stage).await?, ..Report::default() };
    let bound = Target::AtMost((LEASE + Duration::from_secs(5)).as_secs_f64());
    report.figures.extend([
        Figure::new("worker killed: jobs in its hands", held.len() as f64, "jobs"),
        Figure::new("worker killed: taken over, p50", quantile(&taken, 0.5), "s"),
        Figure::new("worker killed: taken over, p99", quantile(&taken, 0.99), "s").held_against(bound),
        // One whose request may still be on its way is left alone for its settle time.
        Figure::new("worker killed: first BMC request of the next, p50", quantile(&asked, 0.5), "s"),
        Figure::new("worker killed: first BMC request of the next, p99", quantile(&asked, 0.99), "s"),
        Figure::new("worker killed: all done", done.as_secs_f64(), "s"),
    ]);
    Ok(report)
}

/// When each job was in the hands of the other worker, in seconds.
async fn taken_over(stage: &Stage<'_>, held: &[String], killed: Instant) -> Result<Vec<f64>, BenchError> {
    let heirs: Vec<String> = stage.workers.iter().map(|worker| format!("/{}", worker.pid())).collect();
    let mut left: BTreeSet<&String> = held.iter().collect();
    let mut taken = Vec::new();
    while !left.is_empty() {
        for heir in &heirs {
            let theirs: BTreeSet<String> = stage.held(heir).await?.into_iter().collect();
            let seconds = killed.elapsed().as_secs_f64();
            let before = left.len();
            left.retain(|name| !theirs.contains(*name));
            taken.extend(std::iter::repeat_n(seconds, before - left.len()));
        }
        if killed.elapsed() > PATIENCE {
            return Err(BenchError::Late {
                what: "be taken over".into(),
                seconds: PATIENCE.as_secs(),
                left: left.len(),
                first: left.first().map(|name| (*name).clone()).unwrap_or_default(),
                shown: "its job names no owner that lives".into(),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(taken)
}
