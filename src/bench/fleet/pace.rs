//! What the processes did meanwhile: jobs and status patches per second, and what the API server was asked for each server,
//! as their own metrics count them.

use std::time::{Duration, Instant};

use super::super::BenchError;
use super::super::figure::Figure;
use super::super::plot::{Line, Plot};
use super::stage::Stage;

/// Points of a curve at most.
const POINTS: usize = 400;

/// Counts at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    jobs: f64,
    patches: f64,
    reconciles: f64,
    /// `None`: this user may not read the API server's metrics.
    requests: Option<f64>,
}

impl Pace {
    /// From now on.
    pub(super) async fn start(stage: &Stage<'_>) -> Result<Self, BenchError> {
        Ok(Self {
            jobs: stage.worker_metric("autobuild_jobs_total", "").await?,
            patches: stage.controller.metric("autobuild_status_patches_total", "result=\"written\"").await?,
            reconciles: stage.controller.metric("controller_runtime_reconcile_total", "").await?,
            requests: stage.cluster.requests().await,
        })
    }

    /// Status patches per second since then.
    pub(super) async fn patch_rate(&self, stage: &Stage<'_>, took: Duration) -> Result<f64, BenchError> {
        let now = Self::start(stage).await?;
        Ok((now.patches - self.patches) / took.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// Rates since then, in which so many servers were done.
    pub(super) async fn figures(
        &self,
        stage: &Stage<'_>,
        during: &str,
        took: Duration,
        done: usize,
    ) -> Result<Vec<Figure>, BenchError> {
        let now = Self::start(stage).await?;
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        let rate = |after: f64, before: f64| (after - before) / seconds;
        let mut figures = vec![
            Figure::new(format!("{during}: jobs"), rate(now.jobs, self.jobs), "jobs/s"),
            Figure::new(format!("{during}: status writes"), rate(now.patches, self.patches), "writes/s"),
            Figure::new(
                format!("{during}: reconciles"),
                rate(now.reconciles, self.reconciles),
                "reconciles/s",
            ),
        ];
        if let (Some(after), Some(before)) = (now.requests, self.requests) {
            let each = (after - before) / done.max(1) as f64;
            figures.push(Figure::new(
                format!("{during}: requests to the API server"),
                each,
                "requests/server",
            ));
        }
        Ok(figures)
    }
}

/// How many were done when.
pub(super) fn curve(
    file: &'static str,
    title: &'static str,
    begun: Instant,
    ends: impl Iterator<Item = Instant>,
) -> Plot {
    let mut seconds: Vec<f64> = ends.map(|at| at.saturating_duration_since(begun).as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let step = seconds.len().div_ceil(POINTS).max(1);
    let points = seconds.iter().enumerate().skip(step - 1).step_by(step);
    let points = points.map(|(at, seconds)| (*seconds, (at + 1) as f64)).collect();
    Plot { file, title, x: "seconds", y: "servers", lines: vec![Line { name: "done", points }] }
}
