//! How long an urgent job waits while a worker is busy with a long backlog of lower lanes: from the call that enqueues it
//! to the start of its handler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::enqueuer::Idle;
use super::figure::{Figure, Target, quantile};
use super::ground::Ground;
use super::plot::{Line, Plot};
use super::window::{Count, Load};
use super::worker::{self, Fetcher, Process};
use super::{Bench, BenchError, Report, jobs};
use crate::job::{JobId, Lane};
use crate::queue::{Claim, Engine, Enqueued, Front, Queue, Room};

/// Slots of the worker, and how many of them only urgent jobs may use: the defaults of `autobuild worker`.
const SLOTS: u32 = 16;
const RESERVED: u32 = 1;
/// How long every job takes.
const JOB: Duration = Duration::from_millis(5);
/// A fetcher that found nothing looks again after this at the latest.
const IDLE: Duration = Duration::from_millis(100);
/// Between two urgent jobs: up to twice as long, at random.
const PAUSE: Duration = Duration::from_millis(25);

/// When each urgent job was asked for, and how long those waited that have begun.
#[derive(Debug, Default)]
struct Waits {
    asked: Mutex<HashMap<JobId, Instant>>,
    waited_ms: Mutex<Vec<f64>>,
}

impl Waits {
    fn ask(&self, id: JobId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
    }

    fn begin(&self, id: JobId) {
        let since = self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(since) = since {
            let ms = since.elapsed().as_secs_f64() * 1_000.0;
            self.waited_ms.lock().unwrap_or_else(PoisonError::into_inner).push(ms);
        }
    }

    fn all_ms(&self) -> Vec<f64> {
        self.waited_ms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Measures the waits beside the backlog of the plan.
pub(super) async fn measure(bench: &Bench, ground: &Ground) -> Result<Report, BenchError> {
    ground.top_up(bench.plan.backlog).await?;
    let backlog = ground.scratch.waiting().await?;
    let idle = Idle::of(ground, 100_000).await?;
    let process = Process::join(ground, 16).await?;
    let controller = Queue::connect(ground.scratch.url(), 2).await?;
    let (mut load, ended, waits) = (Load::default(), Count::default(), Arc::new(Waits::default()));
    let fetcher = process.fetcher(ground, jobs::all_shards().collect(), &ended);
    load.add(work(fetcher, Arc::clone(&waits), load.stop()));
    load.add(ask(controller.clone(), ground.clone(), idle, Arc::clone(&waits), load.stop()));
    let bar = bench.progress.bar("urgent jobs beside a busy lane", 1);
    load.run_until(Instant::now() + bench.plan.urgent_time).await?;
    load.end().await?;
    bar.end();
    controller.close().await;
    process.leave().await?;
    Ok(figures(bench.engine, &waits.all_ms(), backlog))
}

fn figures(engine: Engine, waits: &[f64], backlog: u64) -> Report {
    let bound = match engine {
        Engine::MariaDb => 10.0,
        Engine::MySql => 20.0,
    };
    let points = (0..=100).map(|percent| {
        let share = f64::from(percent) / 100.0;
        (f64::from(percent), quantile(waits, share))
    });
    Report {
        figures: vec![
            Figure::new("low jobs that wait beside the urgent ones", backlog as f64, "jobs"),
            Figure::new("urgent job, enqueue to start, p50", quantile(waits, 0.5), "ms"),
            Figure::new("urgent job, enqueue to start, p99", quantile(waits, 0.99), "ms")
                .held_against(Target::AtMost(bound)),
        ],
        plots: vec![Plot {
            file: "urgent",
            title: "Urgent jobs beside a busy lane: from enqueue to start",
            x: "percent of the jobs",
            y: "milliseconds",
            lines: vec![Line { name: "wait", points: points.collect() }],
        }],
        ..Report::default()
    }
}

/// A worker with slots that are always full.
async fn work(fetcher: Fetcher, waits: Arc<Waits>, stop: CancellationToken) -> Result<(), BenchError> {
    let mut front = Front::new(fetcher.served.clone(), worker::LOWER_SHARE);
    let mut running: JoinSet<Result<(), BenchError>> = JoinSet::new();
    while !stop.is_cancelled() {
        while let Some(ended) = running.try_join_next() {
            ended??;
        }
        let free = SLOTS.saturating_sub(running.len() as u32);
        let room = Room { any: free.saturating_sub(RESERVED), urgent: free.min(RESERVED) };
        let claims = match free {
            0 => Vec::new(),
            _ => fetcher.queue.fetch(&mut front, fetcher.me, room).await?,
        };
        if claims.is_empty() {
            tokio::select! {
                Some(ended) = running.join_next() => ended??,
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        for claim in claims {
            fetcher.take(&claim);
            running.spawn(handle(fetcher.clone(), claim, Arc::clone(&waits)));
        }
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn handle(fetcher: Fetcher, claim: Claim, waits: Arc<Waits>) -> Result<(), BenchError> {
    waits.begin(claim.job().id);
    tokio::time::sleep(JOB).await;
    fetcher.end(claim).await
}

/// Enqueues urgent jobs, one after the other.
async fn ask(
    queue: Queue,
    ground: Ground,
    idle: Idle,
    waits: Arc<Waits>,
    stop: CancellationToken,
) -> Result<(), BenchError> {
    while !stop.is_cancelled() {
        let Some((uid, version)) = idle.take() else { return Ok(()) };
        let job = jobs::job(&uid, jobs::next_id(), Lane::Urgent);
        waits.ask(job.id);
        match queue.enqueue(job, version).await? {
            Enqueued::Accepted => ground.ledger.accepted(1),
            refused => return Err(BenchError::Refused { uid, refused }),
        }
        tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.0..2.0))).await;
    }
    Ok(())
}
