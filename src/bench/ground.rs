//! One schema with servers and jobs in it, and its books.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::jobs;
use super::ledger::{Faults, Ledger};
use super::progress::Bar;
use super::{Bench, BenchError};
use crate::job::{JobId, Lane, ServerUid};
use crate::queue::NewJob;
use crate::queue::measure::{KnownServer, Laid, Scratch};

/// Rows of one insert.
const CHUNK: usize = 1_000;
/// The jobs that are laid by the thousand were enqueued over this time before the benchmark, in milliseconds.
const AGE_MS: i64 = 3_600_000;

/// A schema and its books.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub scratch: Scratch,
    pub ledger: Arc<Ledger>,
}

/// What a schema begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Servers that are known.
    pub servers: u64,
    /// How many of them have a job waiting, in lane `Low`.
    pub jobs: u64,
    /// Whether those that report a reading have one already.
    pub readings: bool,
}

impl Ground {
    /// Makes a schema and fills it.
    pub(super) async fn lay(bench: &Bench, name: &str, layout: Layout) -> Result<Self, BenchError> {
        let ground = Self { scratch: bench.laboratory.schema().await?, ledger: Arc::default() };
        let bar = bench.progress.bar(&format!("filling {name}"), layout.servers + 2 * layout.jobs);
        // In the order of each table's key: pages are filled one after the other.
        let mut by_uid: Vec<(ServerUid, u64)> =
            (0..layout.servers).map(|number| (jobs::uid(number), number)).collect();
        by_uid.sort_unstable();
        let by_uid: Vec<u64> = by_uid.into_iter().map(|(_, number)| number).collect();
        let first_ms = jobs::now_ms() - 2 * AGE_MS;
        let make = |number: u64| {
            let after_ms = i64::try_from(number).unwrap_or(0) * AGE_MS / layout.jobs.max(1) as i64;
            jobs::job(&jobs::uid(number), JobId::new(first_ms + after_ms, number), Lane::Low)
        };
        let with_job: Vec<u64> = by_uid.iter().copied().filter(|number| *number < layout.jobs).collect();
        tokio::try_join!(
            ground.servers(&by_uid, layout.readings, &bar),
            ground.jobs(&with_job, make, Laid::Queued, &bar),
            ground.places(layout.jobs, make, &bar),
        )?;
        ground.ledger.accepted(layout.jobs);
        bar.end();
        Ok(ground)
    }

    async fn servers(&self, numbers: &[u64], readings: bool, bar: &Bar) -> Result<(), BenchError> {
        let mut bulk = self.scratch.bulk().await?;
        for chunk in numbers.chunks(CHUNK) {
            let rows: Vec<KnownServer> = chunk.iter().map(|number| jobs::known(*number, readings)).collect();
            bulk.servers(&rows).await?;
            bar.advance(rows.len() as u64);
        }
        Ok(())
    }

    async fn jobs(
        &self,
        numbers: &[u64],
        make: impl Fn(u64) -> NewJob,
        laid: Laid,
        bar: &Bar,
    ) -> Result<(), BenchError> {
        let mut bulk = self.scratch.bulk().await?;
        for chunk in numbers.chunks(CHUNK) {
            let rows: Vec<NewJob> = chunk.iter().map(|number| make(*number)).collect();
            bulk.jobs(&rows, laid).await?;
            bar.advance(rows.len() as u64);
        }
        Ok(())
    }

    async fn places(&self, count: u64, make: impl Fn(u64) -> NewJob, bar: &Bar) -> Result<(), BenchError> {
        let mut bulk = self.scratch.bulk().await?;
        // One shard after the other, each in the order of enqueueing; a shard is a digit of the uid.
        let mut by_shard = vec![Vec::new(); jobs::all_shards().count()];
        for number in 0..count {
            let shard = usize::from(make(number).shard.0);
            if let Some(numbers) = by_shard.get_mut(shard) {
                numbers.push(number);
            }
        }
        for chunk in by_shard.concat().chunks(CHUNK) {
            let rows: Vec<NewJob> = chunk.iter().map(|number| make(*number)).collect();
            bulk.places(&rows, Laid::Queued).await?;
            bar.advance(rows.len() as u64);
        }
        Ok(())
    }

    /// Lays jobs for servers that have none, until at least `wanted` wait or no server is left. In bulk, with ids of
    /// now: they wait behind all others.
    pub(super) async fn top_up(&self, wanted: u64) -> Result<(), BenchError> {
        let there = self.scratch.waiting().await?;
        self.add(wanted.saturating_sub(there), Laid::Queued).await?;
        Ok(())
    }

    /// Lays up to `count` jobs for servers that have none.
    pub(super) async fn add(&self, count: u64, laid: Laid) -> Result<Vec<NewJob>, BenchError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let idle: BTreeSet<(ServerUid, i64)> = self.scratch.idle_servers(count).await?.into_iter().collect();
        let rows: Vec<NewJob> =
            idle.iter().map(|(uid, _)| jobs::job(uid, jobs::next_id(), Lane::Low)).collect();
        let (mut first, mut second) = (self.scratch.bulk().await?, self.scratch.bulk().await?);
        for chunk in rows.chunks(CHUNK) {
            tokio::try_join!(first.jobs(chunk, laid), second.places(chunk, laid))?;
        }
        self.ledger.accepted(rows.len() as u64);
        Ok(rows)
    }

    /// Takes parked jobs out again.
    pub(super) async fn unpark(&self, parked: &[NewJob], until_ms: i64) -> Result<(), BenchError> {
        let mut bulk = self.scratch.bulk().await?;
        for chunk in parked.chunks(CHUNK) {
            bulk.unpark(chunk, until_ms).await?;
        }
        self.ledger.removed(parked.len() as u64);
        Ok(())
    }

    /// Accounts for every job; nothing may be under way.
    pub(super) async fn faults(&self) -> Result<Faults, BenchError> {
        Ok(self.ledger.faults(self.scratch.accounts().await?))
    }
}
