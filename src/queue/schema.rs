//! The schema: run by `autobuild migrate`, verified by everybody else.

use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sqlx::{Connection, Row};

use super::{QueueError, connection, history};
use crate::shard::DEFAULT_SHARDS;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// What `migrate` found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The newest version of the schema.
    pub version: i64,
    /// The epoch of the database: random, another one after a restore.
    pub epoch: String,
}

/// Brings the schema to this release's version. `new_epoch`: the database was restored from a backup; workers then
/// end their incarnation and the controller derives every job again.
pub async fn migrate(url: &str, new_epoch: bool) -> Result<Migrated, QueueError> {
    let options = connection::options(url)?;
    let mut connection = connection::single(&options).await?;
    MIGRATIONS
        .run(&mut connection)
        .await
        .map_err(|error| QueueError::Unfit(format!("migration: {error}")))?;
    let random = format!("{:032x}", rand::random::<u128>());
    let keep = "INSERT INTO meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE name = name";
    let replace =
        "INSERT INTO meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)";
    let chosen = if new_epoch { replace } else { keep };
    // First what makes everybody quiet who enters, and wait for the controller, then what ends the incarnations of those who are there.
    sqlx::query(chosen).bind("history").bind(history::first_row(new_epoch)).execute(&mut connection).await?;
    sqlx::query(chosen)
        .bind("histories")
        .bind(history::first_number(new_epoch))
        .execute(&mut connection)
        .await?;
    sqlx::query(chosen).bind("epoch").bind(random).execute(&mut connection).await?;
    sqlx::query(keep).bind("shards").bind(DEFAULT_SHARDS.to_string()).execute(&mut connection).await?;
    let epoch =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'epoch'").fetch_one(&mut connection).await?;
    connection.close().await.ok();
    Ok(Migrated { version: newest(), epoch })
}

fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Refuses a database whose schema is not exactly this release's.
pub(super) async fn verify(options: &MySqlConnectOptions) -> Result<(), QueueError> {
    let mut connection = connection::single(options).await?;
    let rows =
        sqlx::query("SELECT version, success FROM _sqlx_migrations").fetch_all(&mut connection).await?;
    connection.close().await.ok();
    let mut found = 0;
    for row in rows {
        let version: i64 = row.try_get("version")?;
        if !row.try_get::<bool, _>("success")? {
            return Err(QueueError::Unfit(format!(
                "migration {version} of the database failed midway; repair it and run `autobuild migrate`"
            )));
        }
        found = found.max(version);
    }
    match found.cmp(&newest()) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(QueueError::Unfit(format!(
            "the database's schema is version {found}, this release needs {}; run `autobuild migrate`",
            newest()
        ))),
        std::cmp::Ordering::Greater => Err(QueueError::Unfit(format!(
            "the database's schema is version {found}, newer than this release's {}; use a newer release",
            newest()
        ))),
    }
}

pub(super) async fn shards(pool: &MySqlPool) -> Result<u16, QueueError> {
    let text: String =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'shards'").fetch_one(pool).await?;
    match text.parse() {
        Ok(shards) if shards > 0 => Ok(shards),
        _ => Err(QueueError::unknown("meta", "shards", "value", &text)),
    }
}
