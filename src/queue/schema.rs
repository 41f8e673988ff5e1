//! The schema: run by `autobuild migrate`, verified by everybody else.
//!
//! Two kinds of migration, so that there is a way back from an upgrade. One that *expands* adds tables, columns and
//! indexes which older releases need not know: those go on, and start again, beside it. One that *contracts* takes away
//! what no release uses any more, a release later: it ends the service to older ones. Each kind is recorded in a table of its
//! own. A release compares the newest contraction with its own, and needs its own expansions; newer ones are none of its business.

use std::sync::LazyLock;

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::error::is_no_table;
use super::facts::Facts;
use super::migrating::Turn;
use super::{DatabaseAddress, QueueError, connection, history, writer};
use crate::shard::DEFAULT_SHARDS;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The first releases knew one table, and no schema but their own: what they have counts as contracted.
const FIRST_SCHEMA: i64 = 13;

/// How the name of a migration that contracts begins, behind its number.
const CONTRACTS: &str = "contract ";

/// What a migration does to releases that do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They go on.
    Expands,
    /// They are served no more.
    Contracts,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Contracts, Self::Expands];

    fn of(migration: &Migration) -> Self {
        let contracts = migration.version <= FIRST_SCHEMA || migration.description.starts_with(CONTRACTS);
        if contracts { Self::Contracts } else { Self::Expands }
    }

    /// Where it is recorded. The first releases look into the first one alone.
    const fn table(self) -> &'static str {
        match self {
            Self::Contracts => "_sqlx_migrations",
            Self::Expands => "schema_expansion",
        }
    }

    fn migrator(self) -> &'static Migrator {
        static EACH: LazyLock<[Migrator; 2]> = LazyLock::new(|| Kind::ALL.map(Kind::made));
        match self {
            Self::Contracts => &EACH[0],
            Self::Expands => &EACH[1],
        }
    }

    fn made(self) -> Migrator {
        let own = MIGRATIONS.iter().filter(|migration| Self::of(migration) == self);
        let mut migrator = Migrator::with_migrations(own.cloned().collect());
        migrator.dangerous_set_table_name(self.table());
        // Expansions of a newer release stay where an older one is back.
        migrator.set_ignore_missing(self == Self::Expands);
        migrator
    }

    /// The newest one that this release knows.
    fn newest(self) -> i64 {
        self.migrator().iter().map(|migration| migration.version).max().unwrap_or(0)
    }
}

/// What `migrate` found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The newest version of the schema that this release knows.
    pub version: i64,
    /// The oldest release that the schema serves, by the version of its schema.
    pub serves_from: i64,
    /// The epoch of the database: random, another one after a restore.
    pub epoch: String,
}

/// Brings the schema to this release's version. `new_epoch`: the database was restored from a backup; workers then
/// end their incarnation and the controller derives every job again.
pub async fn migrate(address: impl Into<DatabaseAddress>, new_epoch: bool) -> Result<Migrated, QueueError> {
    let options = address.into().options()?;
    let mut connection = connection::single(&options).await?;
    // Nothing is migrated half way: what stands in the way is found before the first statement.
    let (_, writer) = connection::writer(&mut connection).await?;
    let node = writer.admit(&mut connection).await?;
    let mut second = connection::single(&options).await?;
    writer::one_writer(&node, &writer.node(&mut second).await?)?;
    Facts::read(&mut connection, writer).await?.admit()?;
    connection::keeps_settings(&mut connection).await?;
    try_rights(&mut connection, Some(&mut second)).await?;
    second.close().await.ok();
    alone(&mut connection).await?;
    let turn = if writer.is_galera() { Some(Turn::take(&mut connection, &options).await?) } else { None };
    let written = write(&mut connection, turn.as_ref(), new_epoch).await;
    if let Some(turn) = turn {
        turn.end(&options).await;
    }
    written?;
    connection.close().await.ok();
    // Read back by another connection: what is there was committed.
    let mut connection = connection::single(&options).await?;
    let epoch: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'epoch'")
        .fetch_optional(&mut connection)
        .await?;
    connection.close().await.ok();
    let lost = || {
        QueueError::Unfit(
            "what was written to the table meta is not there for another connection: the server took it and did not commit it; look \
             at what stands between, such as a proxy that sends reads to a replica"
                .to_owned(),
        )
    };
    let epoch = epoch.ok_or_else(lost)?;
    Ok(Migrated { version: newest(), serves_from: Kind::Contracts.newest(), epoch })
}

/// Everything that `migrate` changes.
async fn write(
    connection: &mut MySqlConnection,
    turn: Option<&Turn>,
    new_epoch: bool,
) -> Result<(), QueueError> {
    run(connection, turn).await?;
    let random = format!("{:032x}", rand::random::<u128>());
    let keep = "INSERT INTO meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE name = name";
    let replace =
        "INSERT INTO meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)";
    let chosen = if new_epoch { replace } else { keep };
    // First what makes everybody quiet who enters, and wait for the controller, then what ends the incarnations of those who are there.
    sqlx::query(chosen).bind("history").bind(history::first_row(new_epoch)).execute(&mut *connection).await?;
    sqlx::query(chosen)
        .bind("histories")
        .bind(history::first_number(new_epoch))
        .execute(&mut *connection)
        .await?;
    sqlx::query(chosen).bind("epoch").bind(random).execute(&mut *connection).await?;
    sqlx::query(keep).bind("shards").bind(DEFAULT_SHARDS.to_string()).execute(&mut *connection).await?;
    Ok(())
}

fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// What a migration may do, each once, with a table that goes again. Its primary key is what groups and clusters ask for.
const RIGHTS: [&str; 6] = [
    "CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, note VARCHAR(8) NULL)",
    "ALTER TABLE {table} ADD COLUMN more BIGINT NULL, ADD INDEX note (note)",
    "INSERT INTO {table} (id) VALUES (1)",
    "UPDATE {table} SET more = 2",
    "DELETE FROM {table}",
    "DROP TABLE {table}",
];

/// Whether this user may do what migrations do, and whether another connection skips a row that is locked. Several may ask at
/// once, each with a table of its own.
pub(super) async fn try_rights(
    connection: &mut MySqlConnection,
    mut other: Option<&mut MySqlConnection>,
) -> Result<(), QueueError> {
    let table = format!("autobuild_rights_{:016x}", rand::random::<u64>());
    for statement in RIGHTS {
        let statement = statement.replace("{table}", &table);
        let tried = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await;
        if let Err(error) = tried.map_err(QueueError::from) {
            drop_table(connection, &table).await;
            return Err(QueueError::Unfit(format!(
                "`{statement}` was tried first and refused, before anything was migrated: {error}"
            )));
        }
        if statement.starts_with("UPDATE")
            && let Some(other) = other.take()
        {
            let row = format!("FROM {table} WHERE id = 1");
            let skips = connection::skips_locked_rows(connection, other, &row).await;
            if let Err(error) = skips {
                drop_table(connection, &table).await;
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn drop_table(connection: &mut MySqlConnection, table: &str) {
    let drop = format!("DROP TABLE IF EXISTS {table}");
    let _ = sqlx::raw_sql(AssertSqlSafe(drop)).execute(connection).await;
}

/// Whether nothing was migrated yet.
pub(super) async fn is_empty(connection: &mut MySqlConnection) -> bool {
    let text = "SELECT 1 FROM _sqlx_migrations LIMIT 1";
    sqlx::raw_sql(text).fetch_optional(connection).await.is_err_and(|error| is_no_table(&error))
}

/// Longest time that another one who migrates is waited for, in seconds.
const ANOTHER_S: u32 = 300;

/// Waits until nobody else migrates this database at this server; as long as the connection lives, nobody does. The lock that
/// the migrations themselves take has no time-out, which MariaDB takes for none at all.
async fn alone(connection: &mut MySqlConnection) -> Result<(), QueueError> {
    let text = format!(
        "SELECT GET_LOCK(CONCAT('autobuild_migrate_', LEFT(SHA2(DATABASE(), 256), 32)), {ANOTHER_S})"
    );
    let taken: Option<i64> = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await?;
    if taken == Some(1) {
        return Ok(());
    }
    Err(QueueError::Unavailable(format!(
        "another `autobuild migrate` has run for {ANOTHER_S} s: see what it does"
    )))
}

/// How often a migration is tried that the server gives up for another one's sake.
const TRIES: u32 = 5;

/// Runs both kinds in the order of their numbers.
async fn run(connection: &mut MySqlConnection, turn: Option<&Turn>) -> Result<(), QueueError> {
    for migration in MIGRATIONS.iter() {
        let migrator = Kind::of(migration).migrator();
        let mut tried = 0;
        loop {
            if let Some(turn) = turn {
                turn.holds(&mut *connection).await?;
            }
            tried += 1;
            match migrator.run_to(migration.version, &mut *connection).await {
                Ok(()) => break,
                Err(MigrateError::VersionMissing(found)) => return Err(contracted(found)),
                Err(MigrateError::Dirty(version)) => return Err(half_done(version)),
                Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                    match QueueError::from(error) {
                        QueueError::Conflict { .. } if tried < TRIES => {}
                        error => {
                            return Err(QueueError::Unfit(format!(
                                "migration {}: {error}",
                                migration.version
                            )));
                        }
                    }
                }
                Err(error) => return Err(QueueError::Unfit(format!("migration: {error}"))),
            }
        }
    }
    Ok(())
}

fn half_done(version: i64) -> QueueError {
    QueueError::Unfit(format!(
        "migration {version} of the database failed midway; repair it (operating.md, \"A migration that stopped half way\") and run \
         `autobuild migrate`"
    ))
}

fn contracted(found: i64) -> QueueError {
    QueueError::Unfit(format!(
        "the database's schema is version {found}, which serves no release older than itself; this release knows it up to {}: \
         use a newer release",
        newest()
    ))
}

/// Refuses a database whose schema does not serve this release, or lacks something that it needs.
pub(super) async fn verify(options: &MySqlConnectOptions) -> Result<(), QueueError> {
    let mut connection = connection::single(options).await?;
    let found = found(&mut connection).await;
    connection.close().await.ok();
    let (contraction, expansion) = found?;
    if contraction > Kind::Contracts.newest() {
        return Err(contracted(contraction));
    }
    if contraction < Kind::Contracts.newest() || expansion < Kind::Expands.newest() {
        return Err(QueueError::Unfit(format!(
            "the database's schema is version {}, this release needs {}; run `autobuild migrate`",
            contraction.max(expansion),
            newest()
        )));
    }
    Ok(())
}

/// The newest contraction and the newest expansion that were run.
async fn found(connection: &mut MySqlConnection) -> Result<(i64, i64), QueueError> {
    Ok((newest_in(connection, Kind::Contracts).await?, newest_in(connection, Kind::Expands).await?))
}

async fn newest_in(connection: &mut MySqlConnection, kind: Kind) -> Result<i64, QueueError> {
    let text = format!("SELECT version, success FROM {}", kind.table());
    let rows = match sqlx::query(AssertSqlSafe(text)).fetch_all(connection).await {
        // The schema of a release from before there were expansions.
        Err(error) if kind == Kind::Expands && is_no_table(&error) => Vec::new(),
        rows => rows?,
    };
    let mut newest = 0;
    for row in rows {
        let version: i64 = row.try_get("version")?;
        if !row.try_get::<bool, _>("success")? {
            return Err(half_done(version));
        }
        newest = newest.max(version);
    }
    Ok(newest)
}

pub(super) async fn shards(pool: &MySqlPool) -> Result<u16, QueueError> {
    let text: String =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'shards'").fetch_one(pool).await?;
    match text.parse() {
        Ok(shards) if shards > 0 => Ok(shards),
        _ => Err(QueueError::unknown("meta", "shards", "value", &text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expands_takes_nothing_away() {
        let mut expansions = 0;
        for migration in MIGRATIONS.iter().filter(|migration| Kind::of(migration) == Kind::Expands) {
            expansions += 1;
            let lines = migration.sql.as_str().lines().filter(|line| !line.starts_with("--"));
            let text = lines.collect::<Vec<_>>().join("\n").to_uppercase();
            for word in ["DROP ", "MODIFY ", "CHANGE ", "RENAME ", "DELETE ", "UPDATE ", "TRUNCATE "] {
                assert!(!text.contains(word), "migration {} has {word}", migration.version);
            }
            // What the release before inserts names none of them.
            let columns =
                text.split("ADD COLUMN").skip(1).filter_map(|column| column.split([',', ';']).next());
            for column in columns {
                let is_optional = !column.contains("NOT NULL") || column.contains("DEFAULT");
                assert!(is_optional, "migration {}: {column}", migration.version);
            }
        }
        assert!(expansions > 0);
    }

    #[test]
    fn the_first_releases_find_their_schema_and_no_other() {
        assert_eq!(Kind::Contracts.newest(), FIRST_SCHEMA);
        assert_eq!(Kind::Expands.newest(), newest());
    }
}
