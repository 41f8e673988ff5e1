//! Tasks that run side by side, and how much they do in a window of time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::BenchError;

/// How long a window lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Before it is counted: connections are opened, caches filled.
    pub warm_up: Duration,
    /// What is counted.
    pub window: Duration,
}

/// Counts of what was done.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<AtomicU64>);

impl Count {
    /// One more.
    pub(super) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tasks of one measurement; they end when `stop` is cancelled and what they hold is done.
#[derive(Debug, Default)]
pub(super) struct Load {
    tasks: JoinSet<Result<(), BenchError>>,
    stop: CancellationToken,
}

impl Load {
    /// Tells the tasks to end.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// One more task.
    pub(super) fn add(&mut self, task: impl Future<Output = Result<(), BenchError>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Lets the tasks run. An error of one ends the measurement.
    pub(super) async fn run_until(&mut self, until: Instant) -> Result<(), BenchError> {
        loop {
            tokio::select! {
                () = sleep_until(until.into()) => return Ok(()),
                Some(ended) = self.tasks.join_next() => ended??,
            }
        }
    }

    /// Ends the tasks in good order.
    pub(super) async fn end(mut self) -> Result<(), BenchError> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// How much of each count was done per second of the window; then ends the tasks.
    pub(super) async fn rates<const N: usize>(
        mut self,
        span: Span,
        counts: [&Count; N],
    ) -> Result<[f64; N], BenchError> {
        self.run_until(Instant::now() + span.warm_up).await?;
        let (begun, before) = (Instant::now(), counts.map(Count::now));
        self.run_until(begun + span.window).await?;
        let (seconds, after) = (begun.elapsed().as_secs_f64(), counts.map(Count::now));
        self.end().await?;
        Ok(std::array::from_fn(|at| (after[at] - before[at]) as f64 / seconds))
    }

    /// How much was done in each second, for `seconds` of them; then ends the tasks.
    pub(super) async fn series(
        mut self,
        step: Duration,
        steps: u32,
        count: &Count,
        each: impl Fn(),
    ) -> Result<Vec<f64>, BenchError> {
        let mut rates = Vec::new();
        let begun = Instant::now();
        for number in 1..=steps {
            let (at, before) = (Instant::now(), count.now());
            self.run_until(begun + step * number).await?;
            rates.push((count.now() - before) as f64 / at.elapsed().as_secs_f64());
            each();
        }
        self.end().await?;
        Ok(rates)
    }
}
