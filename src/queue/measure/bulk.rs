//! Rows in bulk, as registering and enqueueing one by one would have left them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::super::inventory::parts;
use super::super::{NewJob, PlaceInQueue};
use super::{QueueError, Scratch};
use crate::job::{HandledTokens, Reading, ServerUid, Visibility, order_key};

/// Where the jobs of a bulk insert wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laid {
    /// Enqueued and never started.
    Queued,
    /// Started before and parked until then, milliseconds since the Unix epoch.
    Parked {
        /// The wake time.
        until_ms: i64,
    },
}

impl Laid {
    const fn place(self) -> PlaceInQueue {
        match self {
            Self::Queued => PlaceInQueue::Queued,
            Self::Parked { .. } => PlaceInQueue::Parked,
        }
    }

    fn ord(self, job: &NewJob) -> i64 {
        match self {
            Self::Queued => order_key(job.lane, job.id.unix_ms()),
            Self::Parked { until_ms } => until_ms,
        }
    }
}

/// A server as the controller knows it once it has shown everything in status.
#[derive(Debug, Clone)]
pub struct KnownServer {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its last good reading.
    pub reading: Option<Reading>,
}

/// One connection for bulk writes. Rows that come in the order of their table's key are written fastest.
#[derive(Debug)]
pub struct Bulk {
    connection: MySqlConnection,
}

impl Scratch {
    /// A connection for bulk writes.
    pub async fn bulk(&self) -> Result<Bulk, QueueError> {
        Ok(Bulk { connection: self.connect().await? })
    }
}

impl Bulk {
    async fn run(&mut self, text: String) -> Result<(), QueueError> {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Inserts rows of `server_state`, at version 1, and of `inventory`.
    pub async fn servers(&mut self, servers: &[KnownServer]) -> Result<(), QueueError> {
        let handled = quoted(&serde_json::to_string(&HandledTokens::default()).unwrap_or_default());
        let mut text = "INSERT INTO server_state (server_uid, namespace, name, version, reading, inventory_hash, handled) \
                        VALUES "
            .to_owned();
        let mut inventories = String::new();
        for (at, server) in servers.iter().enumerate() {
            let parts = server.reading.as_ref().map(parts);
            let (power, hash) = parts.as_ref().map_or(("NULL".to_owned(), "NULL".to_owned()), |parts| {
                (quoted(&parts.power), parts.inventory_hash.to_string())
            });
            let uid = quoted(server.uid.as_str());
            let _ = write!(
                text,
                "{}({uid},{},{},1,{power},{hash},{handled})",
                comma(at),
                quoted(&server.namespace),
                quoted(&server.name),
            );
            if let Some(parts) = parts {
                let before = if inventories.is_empty() { "" } else { "," };
                let _ = write!(inventories, "{before}({uid},{})", quoted(&parts.inventory));
            }
        }
        self.run(text).await?;
        if inventories.is_empty() {
            return Ok(());
        }
        self.run(format!("INSERT INTO inventory (server_uid, content) VALUES {inventories}")).await
    }

    /// Inserts rows of `job`.
    pub async fn jobs(&mut self, jobs: &[NewJob], laid: Laid) -> Result<(), QueueError> {
        let mut text = "INSERT INTO job (server_uid, id, namespace, name, site, shard, action, lane, order_ms, q_state, \
             q_ord, intent, cause, quiet, step, checkpoint, requester, enqueued_at_ms, started_at_ms) VALUES "
            .to_owned();
        for (at, job) in jobs.iter().enumerate() {
            let order_ms = job.id.unix_ms();
            let started = match laid {
                Laid::Queued => "NULL".to_owned(),
                Laid::Parked { .. } => order_ms.to_string(),
            };
            let _ = write!(
                text,
                "{}({},{},{},{},{},{},{},{},{order_ms},{},{},{},{},{},{},'',{},{order_ms},{started})",
                comma(at),
                quoted(job.uid.as_str()),
                job.id.0,
                quoted(&job.namespace),
                quoted(&job.name),
                quoted(&job.site),
                job.shard.0,
                quoted(job.action.as_str()),
                job.lane.number(),
                laid.place().code(),
                laid.ord(job),
                quoted(&job.intent.0),
                quoted(&job.cause.whole),
                u8::from(job.visibility == Visibility::Quiet),
                quoted(job.step.as_str()),
                quoted(&job.requester),
            );
        }
        self.run(text).await
    }

    /// Inserts rows of `queue`.
    pub async fn places(&mut self, jobs: &[NewJob], laid: Laid) -> Result<(), QueueError> {
        let mut text = "INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES ".to_owned();
        for (at, job) in jobs.iter().enumerate() {
            let _ = write!(
                text,
                "{}({},{},{},{},{},{})",
                comma(at),
                quoted(&job.site),
                job.shard.0,
                laid.place().code(),
                laid.ord(job),
                job.id.0,
                quoted(job.uid.as_str()),
            );
        }
        self.run(text).await
    }

    /// Removes parked jobs that were laid so and that nobody touched.
    pub async fn unpark(&mut self, jobs: &[NewJob], until_ms: i64) -> Result<(), QueueError> {
        let mut uids = String::new();
        let mut places = BTreeSet::new();
        for (at, job) in jobs.iter().enumerate() {
            let _ = write!(uids, "{}{}", comma(at), quoted(job.uid.as_str()));
            places.insert((&job.site, job.shard));
        }
        let parked = PlaceInQueue::Parked.code();
        for (site, shard) in places {
            let site = quoted(site);
            self.run(format!(
                "DELETE FROM queue WHERE site = {site} AND shard = {} AND state = {parked} AND ord = {until_ms}",
                shard.0
            ))
            .await?;
        }
        self.run(format!("DELETE FROM job WHERE server_uid IN ({uids})")).await
    }
}

fn comma(at: usize) -> &'static str {
    if at == 0 { "" } else { "," }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
