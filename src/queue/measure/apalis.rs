//! A peer: `apalis-mysql`, as its documentation says to use it, on the same server. Its tables are its own.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use apalis::prelude::{BoxDynError, WorkerBuilder, WorkerBuilderExt as _};
use apalis_mysql::{Config, MySqlPool, MySqlStorage};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use tokio::task::JoinSet;

use super::{QueueError, Scratch};

/// Its queue.
const QUEUE: &str = "bench";
/// Workers, tasks of each at once, and tasks that each takes at once: the fastest of those that were tried.
const WORKERS: u32 = 4;
const TASKS: usize = 16;
const BUFFER: usize = 100;
/// Rows of one insert.
const CHUNK: u64 = 1_000;

/// Its tables, with tasks in them.
#[derive(Debug)]
pub struct Apalis {
    pool: MySqlPool,
    look: MySqlConnection,
}

fn refused(error: impl std::fmt::Display) -> QueueError {
    QueueError::Refused(format!("apalis: {error}"))
}

impl Apalis {
    /// Makes the tables in a schema of its own, with `backlog` waiting tasks. Works on MySQL alone.
    pub async fn prepare(scratch: &Scratch, backlog: u64) -> Result<Self, QueueError> {
        let pool = MySqlPool::connect(scratch.url()).await.map_err(refused)?;
        MySqlStorage::setup(&pool).await.map_err(refused)?;
        let mut look = scratch.connect().await?;
        for first in (0..backlog).step_by(CHUNK as usize) {
            let mut text =
                "INSERT INTO jobs (job, id, job_type, run_at, priority, metadata) VALUES ".to_owned();
            for number in first..backlog.min(first + CHUNK) {
                let comma = if number == first { "" } else { "," };
                // 26 digits are a ULID too.
                let _ = write!(
                    text,
                    "{comma}('{number}','{number:026}','{QUEUE}',CURRENT_TIMESTAMP - INTERVAL 1 HOUR,0,'{{}}')"
                );
            }
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut look).await?;
        }
        Ok(Self { pool, look })
    }

    /// Tasks per second that were done and acknowledged, over `window` after `warm_up`.
    pub async fn rate(mut self, warm_up: Duration, window: Duration) -> Result<f64, QueueError> {
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            workers.spawn(work(self.pool.clone(), format!("bench-{number}")));
        }
        tokio::time::sleep(warm_up).await;
        let (begun, before) = (Instant::now(), self.done().await?);
        tokio::time::sleep(window).await;
        let done = self.done().await? - before;
        let seconds = begun.elapsed().as_secs_f64();
        workers.shutdown().await;
        self.pool.close().await;
        self.look.close().await.ok();
        Ok(done as f64 / seconds)
    }

    async fn done(&mut self) -> Result<i64, QueueError> {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM jobs WHERE status = 'Done'");
        Ok(count.fetch_one(&mut self.look).await?)
    }
}

/// A worker whose tasks do nothing. One that ends with an error begins again.
async fn work(pool: MySqlPool, name: String) -> Infallible {
    let config = Config::new(QUEUE).set_buffer_size(BUFFER);
    loop {
        let storage = MySqlStorage::new_with_config(&pool, &config);
        let worker = WorkerBuilder::new(&name).backend(storage).concurrency(TASKS).build(nothing);
        if let Err(error) = worker.run().await {
            tracing::debug!(worker = name, %error, "a worker of the peer ended");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn nothing(_task: u64) -> Result<(), BoxDynError> {
    Ok(())
}
