//! The raw limit: single-row updates by primary key, each a transaction of its own. It is the work of sysbench's
//! `oltp_update_index`: one prepared statement that adds 1 to an indexed column of a random row of 100,000.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, MySqlConnection};
use tokio::task::JoinSet;

use super::{QueueError, Scratch};

/// Rows of the table.
const ROWS: u32 = 100_000;
/// Rows of one insert.
const CHUNK: u32 = 1_000;

const TABLE: &str = "CREATE TABLE raw (id INT NOT NULL, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, \
     PRIMARY KEY (id), KEY k (k)) ENGINE = InnoDB";

/// The table and the connections.
#[derive(Debug)]
pub struct RawLimit {
    idle: Vec<MySqlConnection>,
}

impl RawLimit {
    /// Makes the table in its own schema, and opens `connections`.
    pub async fn prepare(scratch: &Scratch, connections: usize) -> Result<Self, QueueError> {
        let mut first = scratch.connect().await?;
        sqlx::raw_sql(TABLE).execute(&mut first).await?;
        let (c, pad) = ("c".repeat(119), "p".repeat(59));
        for chunk in 0..ROWS / CHUNK {
            let mut text = "INSERT INTO raw (id, k, c, pad) VALUES ".to_owned();
            for at in 0..CHUNK {
                let id = chunk * CHUNK + at + 1;
                let comma = if at == 0 { "" } else { "," };
                let k = rand::random_range(1..=ROWS);
                let _ = write!(text, "{comma}({id},{k},'{c}','{pad}')");
            }
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut first).await?;
        }
        let mut idle = vec![first];
        while idle.len() < connections {
            idle.push(scratch.connect().await?);
        }
        Ok(Self { idle })
    }

    /// Transactions per second of `connections` at once, over `window` after `warm_up`.
    pub async fn rate(
        &mut self,
        connections: usize,
        warm_up: Duration,
        window: Duration,
    ) -> Result<f64, QueueError> {
        let from = Instant::now() + warm_up;
        let until = from + window;
        let count = Arc::new(AtomicU64::new(0));
        let mut updates = JoinSet::new();
        for connection in self.idle.drain(..connections.min(self.idle.len())) {
            updates.spawn(update(connection, from, until, Arc::clone(&count)));
        }
        while let Some(ended) = updates.join_next().await {
            self.idle.push(ended.map_err(|error| QueueError::Panicked(error.to_string()))??);
        }
        Ok(count.load(Ordering::Relaxed) as f64 / window.as_secs_f64())
    }
}

async fn update(
    mut connection: MySqlConnection,
    from: Instant,
    until: Instant,
    count: Arc<AtomicU64>,
) -> Result<MySqlConnection, QueueError> {
    loop {
        sqlx::query("UPDATE raw SET k = k + 1 WHERE id = ?")
            .bind(rand::random_range(1..=ROWS))
            .execute(&mut connection)
            .await?;
        let now = Instant::now();
        if now >= until {
            return Ok(connection);
        }
        if now >= from {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
