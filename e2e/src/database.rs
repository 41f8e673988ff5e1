//! A real database: MySQL 9 or MariaDB, with a private data directory.
//!
//! `DATABASE_URL`, if set by the user, names the server to use ([`given`]). `DB=mariadb` chooses MariaDB, otherwise it is MySQL.

pub mod answers;
mod cluster;
mod galera;
mod group;
mod mariadb;
mod mysql;
mod replica;
mod server;
mod users;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, Executor, MySqlConnection, Row};

use crate::process::Lifetime;
use crate::wait::say;
use crate::{given, paths};
pub use cluster::{Cluster, NODES};
pub use replica::Pair;
pub use server::{SOCKET_LINK, Server, Special};
pub use users::Users;

/// Looks for MySQL's server.
pub(crate) fn find_mysql() -> Result<()> {
    mysql::find()
}

/// Unpacks MySQL's server.
pub(crate) fn unpack_mysql(mmdebstrap: &Path) -> Result<()> {
    mysql::unpack(mmdebstrap)
}

/// Which database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// MySQL 9.
    MySql,
    /// MariaDB 10.11 or what the system has.
    MariaDb,
}

impl Engine {
    /// Both: what every statement must work on.
    pub const ALL: [Self; 2] = [Self::MySql, Self::MariaDb];

    /// As `DB` says: `mysql` (also when it is not set) or `mariadb`.
    pub fn from_env() -> Result<Self> {
        match std::env::var("DB").unwrap_or_default().as_str() {
            "" | "mysql" => Ok(Self::MySql),
            "mariadb" => Ok(Self::MariaDb),
            other => bail!("DB is {other:?}; it is one of mysql, mariadb"),
        }
    }

    /// Lower-case name, as in `DB`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

/// How much a commit is worth when the machine loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The engine's own defaults: a commit is on the disk.
    Durable,
    /// As durable, with the memory and the log of a server that is there for this database. For measurements.
    Production,
    /// Survives the end of the process, however sudden, but not that of the machine. For tests.
    Relaxed,
}

/// A running database server, or one that the user named.
#[derive(Debug)]
pub struct Database {
    server: Option<Server>,
    options: MySqlConnectOptions,
    url: url::Url,
    version: String,
    engine: Engine,
}

impl Database {
    /// Starts one that ends with this process.
    pub async fn start(engine: Engine) -> Result<Self> {
        let dir = paths::private(engine.as_str())?;
        Self::start_in(&dir, engine, Durability::Relaxed, Lifetime::WithParent).await
    }

    /// The one of that engine that all tests of this process share; they keep apart by schema.
    pub async fn shared(engine: Engine) -> Result<&'static Self> {
        static MYSQL: tokio::sync::OnceCell<Database> = tokio::sync::OnceCell::const_new();
        static MARIADB: tokio::sync::OnceCell<Database> = tokio::sync::OnceCell::const_new();
        let cell = match engine {
            Engine::MySql => &MYSQL,
            Engine::MariaDb => &MARIADB,
        };
        cell.get_or_try_init(|| Self::start(engine)).await
    }

    /// Starts one that keeps everything in `dir`.
    pub async fn start_in(
        dir: &Path,
        engine: Engine,
        durability: Durability,
        lifetime: Lifetime,
    ) -> Result<Self> {
        if let Some(url) = given::database_url() {
            say("using the database of DATABASE_URL");
            return Self::connected(None, &url, engine).await;
        }
        let server = Server::start(dir, engine, durability, lifetime).await?;
        let url = server.url();
        Self::connected(Some(server), &url, engine).await
    }

    /// Starts one of this test's own, which ends with this process and is set up as the test wants it. It is never the
    /// one of `DATABASE_URL`.
    pub async fn special(name: &str, engine: Engine, special: Special) -> Result<Self> {
        let dir = paths::private(name)?;
        let server =
            Server::start_with(&dir, engine, Durability::Relaxed, Lifetime::WithParent, special).await?;
        let url = server.url();
        Self::connected(Some(server), &url, engine).await
    }

    async fn connected(server: Option<Server>, url: &str, wanted: Engine) -> Result<Self> {
        let options: MySqlConnectOptions = url.parse().context("DATABASE_URL is not a MySQL URL")?;
        let url = url::Url::parse(url).context("DATABASE_URL is not a URL")?;
        let mut connection =
            MySqlConnection::connect_with(&options).await.context("connect to the database")?;
        let version: String = connection.fetch_one("SELECT VERSION()").await?.try_get(0)?;
        let engine = if version.contains("MariaDB") { Engine::MariaDb } else { Engine::MySql };
        if server.is_some() && engine != wanted {
            bail!("the server that was started as {} says that it is {version}", wanted.as_str());
        }
        say(format!("database: {} {version}", engine.as_str()));
        Ok(Self { server, options, url, version, engine })
    }

    /// What answers, by its own `VERSION()`. With `DATABASE_URL` it may be another than was asked for.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Its own `VERSION()`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The URL of one schema, for `--database-url`. It has the password in it.
    pub fn url(&self, schema: &str) -> String {
        let mut url = self.url.clone();
        url.set_path(schema);
        url.to_string()
    }

    /// Makes a schema and returns its URL.
    pub async fn create_schema(&self, name: &str) -> Result<String> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            bail!("{name:?} is no name for a schema: letters, digits and _ only");
        }
        let mut connection = MySqlConnection::connect_with(&self.options).await?;
        let create = format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
        connection.execute(sqlx::AssertSqlSafe(create)).await?;
        Ok(self.url(name))
    }

    /// Makes a schema that no other test has and returns its URL.
    pub async fn unique_schema(&self, prefix: &str) -> Result<String> {
        self.create_schema(&format!("{prefix}_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])).await
    }

    /// Removes a schema that [`Database::create_schema`] made.
    pub async fn drop_schema(&self, name: &str) -> Result<()> {
        let mut connection = MySqlConnection::connect_with(&self.options).await?;
        let drop = format!("DROP DATABASE `{}`", name.replace('`', ""));
        connection.execute(sqlx::AssertSqlSafe(drop)).await?;
        Ok(())
    }

    /// The server's process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.server()?.process().pid())
    }

    /// The server's process.
    pub fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("this database was named by DATABASE_URL: the harness does not stop it")
    }

    /// Whether the harness started it, and so may stop it.
    pub fn is_own(&self) -> bool {
        self.server.is_some()
    }

    /// SIGTERM and the end.
    pub async fn stop(&mut self) -> Result<()> {
        self.server()?.process().stop(Duration::from_mins(1)).await?;
        Ok(())
    }

    /// SIGKILL and the end.
    pub async fn kill(&mut self) -> Result<()> {
        self.server()?.process().kill().await?;
        Ok(())
    }

    /// Ends it if it runs, and starts it again on the same data and the same port.
    pub async fn restart(&mut self) -> Result<()> {
        self.server()?;
        match &mut self.server {
            Some(server) => server.restart().await,
            None => Ok(()),
        }
    }
}

/// Where initialised, empty data directories lie; a copy of one starts faster than a new one.
fn template_dir(engine: Engine, version: &str) -> Result<PathBuf> {
    let version: String =
        version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    Ok(paths::under_target("database")?.join(format!("template-{}-{version}", engine.as_str())))
}
