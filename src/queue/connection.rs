//! Connections: every one is set up alike, and the server is checked before it is used.

use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use super::QueueError;
use super::facts::Facts;
use super::history::{Asked, History, Told};
use super::present::Present;
use super::writer::{self, Writer};

/// What every connection sets, in one round trip, whatever the server's global settings are. READ COMMITTED takes no gap locks;
/// the short time-outs let go of the locks of a client that was cut off in mid-transaction (the defaults of both engines keep
/// them for hours). The rest pins what the meaning of a statement hangs on, whatever somebody set for the whole server: with
/// `autocommit`, `completion_type` or `sql_safe_updates` otherwise a whole installation stood still. MariaDB leaves out comments with
/// a version from 50700 to 99999, MySQL those with an M.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; \
    SET sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', time_zone = '+00:00', \
    autocommit = 1, completion_type = 'NO_CHAIN', sql_safe_updates = 0, sql_select_limit = 18446744073709551615, sql_big_selects = 1, \
    foreign_key_checks = 1, unique_checks = 1, default_storage_engine = 'InnoDB', lock_wait_timeout = 3600, \
    /*!80000 max_execution_time = 0, */ /*M! max_statement_time = 0, idle_transaction_timeout = 0, */ \
    innodb_lock_wait_timeout = 3, wait_timeout = 15, net_read_timeout = 30, net_write_timeout = 60, \
    NAMES utf8mb4 COLLATE utf8mb4_bin";

/// A connection that was idle for longer is asked whether it is alive.
const ASKED: Duration = Duration::from_secs(1);

/// Longest time that a connection lies idle in a pool; below `wait_timeout`.
const IDLE: Duration = Duration::from_secs(10);

/// A pool of at most `size` connections, all of them to servers of the present history. Does not connect yet.
pub(super) fn pool(
    options: MySqlConnectOptions,
    size: u32,
    writer: Writer,
    present: &Arc<Present>,
) -> MySqlPool {
    let (opened, kept) = (Arc::clone(present), Arc::clone(present));
    MySqlPoolOptions::new()
        .max_connections(size)
        .idle_timeout(IDLE)
        .acquire_timeout(Duration::from_secs(5))
        .after_connect(move |connection, _| {
            let present = Arc::clone(&opened);
            Box::pin(async move {
                set_up(connection).await?;
                present.admit(connection, writer).await
            })
        })
        // Asking each time whether it is alive costs as much as a statement.
        .test_before_acquire(false)
        .before_acquire(move |connection, about| {
            let covers = kept.covers(about.age);
            Box::pin(async move {
                if covers && about.idle_for > ASKED {
                    connection.ping().await?;
                }
                Ok(covers)
            })
        })
        .connect_lazy_with(options)
}

/// One connection of its own, set up like the pool's.
pub(super) async fn single(options: &MySqlConnectOptions) -> Result<MySqlConnection, QueueError> {
    let mut connection = MySqlConnection::connect_with(options).await?;
    set_up(&mut connection).await?;
    Ok(connection)
}

async fn set_up(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection.execute(SESSION).await?;
    Ok(())
}

/// Which engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MySQL 8.0.1 or newer.
    MySql,
    /// MariaDB 10.6 or newer.
    MariaDb,
}

impl Engine {
    /// The engine's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }
}

/// The server behind a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The engine.
    pub engine: Engine,
    /// What `VERSION()` says.
    pub version: String,
}

/// What a check of the server found.
pub(super) struct Checked {
    pub(super) server: ServerInfo,
    pub(super) writer: Writer,
    pub(super) told: Told,
    /// Settings that can lose a commit.
    pub(super) warnings: Vec<String>,
}

/// What answers, and how its writer is told.
pub(super) async fn writer(connection: &mut MySqlConnection) -> Result<(ServerInfo, Writer), QueueError> {
    let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut *connection).await?;
    let comment: String =
        sqlx::query_scalar("SELECT CAST(@@version_comment AS CHAR)").fetch_one(&mut *connection).await?;
    if let Some(unfit) = unfit(&version, &comment) {
        return Err(QueueError::Unfit(unfit));
    }
    let engine = if version.contains("MariaDB") { Engine::MariaDb } else { Engine::MySql };
    let writer = Writer::of(connection, engine).await?;
    Ok((ServerInfo { engine, version }, writer))
}

/// Servers that speak the protocol of MySQL and do not keep what the queue needs of it.
fn unfit(version: &str, comment: &str) -> Option<String> {
    let says = |word: &str| {
        version.to_ascii_lowercase().contains(word) || comment.to_ascii_lowercase().contains(word)
    };
    let lacks = if says("tidb") {
        "it has no SKIP LOCKED"
    } else if says("vitess") || says("planetscale") {
        "it spreads a transaction over shards, and knows neither the locks nor the session settings of one server"
    } else {
        return None;
    };
    Some(format!("the server is {version} ({comment}): {lacks}; use MySQL 8.0.1+ or MariaDB 10.6+"))
}

/// Reads what the server is and refuses one on which the protocol would not be safe.
pub(super) async fn check(options: &MySqlConnectOptions) -> Result<Checked, QueueError> {
    let mut first = single(options).await?;
    let mut second = single(options).await?;
    let (ServerInfo { engine, version }, writer) = writer(&mut first).await?;
    let told = History::read(&mut first, writer, Asked::First).await?;
    writer::one_writer(&told.node, &History::read(&mut second, writer, Asked::First).await?.node)?;
    // First, because a wrong binary log refuses the locks as well.
    let mut warnings = Facts::read(&mut first, writer).await?.admit()?;
    keeps_settings(&mut first).await?;
    warnings.extend(writer.warning());
    let epoch = "FROM meta WHERE name = 'epoch'";
    if !skips_locked_rows(&mut first, &mut second, epoch).await? {
        return Err(QueueError::Unfit("the table meta has no epoch; run `autobuild migrate`".to_owned()));
    }
    first.close().await.ok();
    second.close().await.ok();
    Ok(Checked { server: ServerInfo { engine, version }, writer, told, warnings })
}

/// Locks a row with one connection and proves that the other one skips it; `false`: there is no such row.
pub(super) async fn skips_locked_rows(
    first: &mut MySqlConnection,
    second: &mut MySqlConnection,
    row: &str,
) -> Result<bool, QueueError> {
    let mut holder = first.begin().await?;
    let text = format!("SELECT 1 {row} FOR UPDATE");
    let held = holder.fetch_optional(AssertSqlSafe(text)).await?;
    if held.is_none() {
        return Ok(false);
    }
    let mut other = second.begin().await?;
    let text = format!("SELECT 1 {row} FOR UPDATE SKIP LOCKED");
    let seen = other.fetch_optional(AssertSqlSafe(text)).await.map_err(QueueError::from).map_err(
        |error| match error {
            QueueError::Refused(cause) => QueueError::Unfit(format!(
                "the server does not know SKIP LOCKED ({cause}); use MySQL 8.0.1+ or MariaDB 10.6+"
            )),
            other => other,
        },
    )?;
    other.rollback().await?;
    holder.rollback().await?;
    // Every replica checks at its start, so another one may hold the row: only a row that is held here and was
    // still given out is proof against the server.
    if seen.is_some() {
        return Err(QueueError::Unfit(
            "the server hands out rows that are locked in spite of SKIP LOCKED; use MySQL 8.0.1+ or MariaDB 10.6+"
                .to_owned(),
        ));
    }
    Ok(true)
}

/// Whether a session has what was set for it: something between may take it back, such as a proxy that shares connections.
pub(super) async fn keeps_settings(connection: &mut MySqlConnection) -> Result<(), QueueError> {
    let text = "SELECT CONCAT_WS(' ', IF(@@SESSION.autocommit, 1, 0), @@SESSION.completion_type, IF(@@SESSION.sql_safe_updates, 1, 0))";
    let kept: String = sqlx::query_scalar(text).fetch_one(connection).await?;
    if kept == "1 NO_CHAIN 0" {
        return Ok(());
    }
    Err(QueueError::Unfit(format!(
        "a session does not keep what it sets (autocommit, completion_type, sql_safe_updates are {kept}, and were set to 1 NO_CHAIN 0): \
         let --database-url lead to the server itself, or have the proxy give each client a connection of its own"
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::unfit;

    #[test]
    fn servers_that_only_speak_the_protocol_are_refused_with_what_they_lack() {
        for (version, comment, lacks) in [
            ("8.0.11-TiDB-v8.5.0", "TiDB Server (Apache License 2.0)", Some("SKIP LOCKED")),
            ("8.0.30-Vitess", "Version: 21.0.0", Some("over shards")),
            ("8.0.34-PlanetScale", "", Some("over shards")),
            ("9.7.0", "MySQL Community Server - GPL", None),
            ("10.11.14-MariaDB-0+deb12u2", "Debian 12", None),
        ] {
            let said = unfit(version, comment);
            assert_eq!(said.is_some(), lacks.is_some(), "{said:?}");
            assert!(lacks.is_none_or(|lacks| said.unwrap().contains(lacks)));
        }
    }
}
