//! What a benchmark needs of a database beyond the queue itself: schemas of its own, the raw limit of the server, rows
//! in bulk, an open snapshot, and counts by which every job is accounted for.
//!
//! Nothing else uses it: it writes rows past the protocol, into schemas that it made and drops again.

#[cfg(feature = "peer-apalis")]
mod apalis;
mod audit;
mod bulk;
mod raw;
mod snapshot;

use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, Row as _};
use url::Url;

use super::{DatabaseAddress, QueueError, connection, schema};
#[cfg(feature = "peer-apalis")]
pub use apalis::Apalis;
pub use audit::{Accounts, Versions};
pub use bulk::{Bulk, KnownServer, Laid};
pub use raw::RawLimit;
pub use snapshot::Snapshot;

/// What every schema of a benchmark is called at its start: one that a killed benchmark left behind is found by it.
pub const SCHEMA_PREFIX: &str = "autobuild_bench_";

/// The settings of a server that decide what a figure means; either engine has most of them.
const SETTINGS: &str = "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', \
     'sync_binlog', 'log_bin', 'binlog_format', 'transaction_isolation', 'tx_isolation', 'innodb_buffer_pool_size', \
     'innodb_redo_log_capacity', 'innodb_log_file_size', 'innodb_flush_method', 'innodb_doublewrite', \
     'max_connections')";

/// A database server, and the schemas that were made on it for a benchmark.
#[derive(Debug)]
pub struct Laboratory {
    url: Url,
    made: Mutex<Vec<String>>,
}

/// One schema of a benchmark, brought to this release's version.
#[derive(Debug, Clone)]
pub struct Scratch {
    url: String,
}

impl Laboratory {
    /// A server. The database that the URL names is not used and may be absent. Does not connect yet.
    pub fn new(url: &str) -> Result<Self, QueueError> {
        let parsed = Url::parse(url).map_err(|_| QueueError::Url("it cannot be parsed".to_owned()))?;
        let laboratory = Self { url: parsed, made: Mutex::new(Vec::new()) };
        DatabaseAddress::from(&laboratory.url_of(SCHEMA_PREFIX)).options()?;
        Ok(laboratory)
    }

    fn url_of(&self, schema: &str) -> String {
        let mut url = self.url.clone();
        url.set_path(schema);
        url.to_string()
    }

    /// A connection that is in no schema.
    async fn connect(&self) -> Result<MySqlConnection, QueueError> {
        let options = MySqlConnectOptions::from_str(&self.url_of(""))
            .map_err(|_| QueueError::Url("it cannot be parsed".to_owned()))?;
        connection::single(&options.disable_statement_logging()).await
    }

    /// The settings of the server, by name; the isolation is that of the queue's own connections.
    pub async fn settings(&self) -> Result<Vec<(String, String)>, QueueError> {
        let mut connection = self.connect().await?;
        let rows = sqlx::raw_sql(SETTINGS).fetch_all(&mut connection).await?;
        connection.close().await.ok();
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Makes a schema of a random name, migrated.
    pub async fn schema(&self) -> Result<Scratch, QueueError> {
        let scratch = self.empty_schema().await?;
        schema::migrate(scratch.url(), false).await?;
        Ok(scratch)
    }

    /// Makes a schema of a random name, without tables.
    pub async fn empty_schema(&self) -> Result<Scratch, QueueError> {
        let name = format!("{SCHEMA_PREFIX}{:012x}", rand::random::<u64>() >> 16);
        let mut connection = self.connect().await?;
        // Noted first: a creation whose answer is lost is dropped all the same.
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        let create = format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
        connection.close().await.ok();
        Ok(Scratch { url: self.url_of(&name) })
    }

    /// Drops every schema that was made.
    pub async fn drop_all(&self) -> Result<(), QueueError> {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        if made.is_empty() {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        for name in made {
            let drop = format!("DROP DATABASE IF EXISTS `{name}`");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await?;
        }
        connection.close().await.ok();
        Ok(())
    }
}

impl Scratch {
    /// The URL of the schema, for [`super::Queue::connect`]. It has the password in it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection that the server keeps although it may be idle for an hour.
    async fn connect(&self) -> Result<MySqlConnection, QueueError> {
        // What is written in bulk is slow, and no news.
        let options = DatabaseAddress::from(&self.url).options()?.disable_statement_logging();
        let mut connection = connection::single(&options).await?;
        sqlx::raw_sql("SET SESSION wait_timeout = 3600").execute(&mut connection).await?;
        Ok(connection)
    }
}
