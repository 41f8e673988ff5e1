//! A real MySQL or MariaDB server of one's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::{Connection as _, MySqlConnection};

/// Which server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MySQL 9, unpacked by `e2e/provision.sh`, or a `mysqld` on the path.
    MySql,
    /// MariaDB from Debian.
    MariaDb,
}

impl Engine {
    /// The engine's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

/// A running server with a private data directory. Killed and removed when dropped.
#[derive(Debug)]
pub struct Database {
    engine: Engine,
    directory: tempfile::TempDir,
    port: u16,
    child: Child,
}

const START_LIMIT: Duration = Duration::from_mins(1);

impl Database {
    /// Starts a server and waits until it answers as the engine that was asked for.
    pub async fn start(engine: Engine) -> anyhow::Result<Self> {
        let root = crate::target_dir().join("e2e");
        std::fs::create_dir_all(&root)?;
        let directory = tempfile::Builder::new().prefix(engine.as_str()).tempdir_in(&root)?;
        let data = directory.path().join("data");
        initialise(engine, &data, directory.path())?;
        let port = free_port()?;
        let child = server(engine, directory.path(), port).spawn().with_context(|| missing(engine))?;
        let mut database = Self { engine, directory, port, child };
        database.wait().await?;
        Ok(database)
    }

    /// The address of a schema of this server.
    pub fn url(&self, schema: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{schema}?ssl-mode=disabled", self.port)
    }

    /// Creates an empty schema and returns its address.
    pub async fn create_schema(&self, schema: &str) -> anyhow::Result<String> {
        let mut connection = MySqlConnection::connect(&self.url("mysql")).await?;
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "CREATE DATABASE {schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        )))
        .execute(&mut connection)
        .await?;
        connection.close().await?;
        Ok(self.url(schema))
    }

    /// Kills the server as a power failure would (SIGKILL).
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts the killed server again on the same data and port.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = server(self.engine, self.directory.path(), self.port).spawn()?;
        self.wait().await
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            if let Ok(mut connection) = MySqlConnection::connect(&self.url("mysql")).await {
                let version: String =
                    sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut connection).await?;
                let is_mariadb = version.contains("MariaDB");
                if is_mariadb != (self.engine == Engine::MariaDb) {
                    bail!("asked for {}, but {version} answers", self.engine.as_str());
                }
                tracing::info!(engine = self.engine.as_str(), version, port = self.port, "database is up");
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.engine.as_str(), log_tail(self.directory.path()));
            }
            if begun.elapsed() > START_LIMIT {
                bail!(
                    "{} did not answer in time:\n{}",
                    self.engine.as_str(),
                    log_tail(self.directory.path())
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn log_tail(directory: &Path) -> String {
    let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn missing(engine: Engine) -> String {
    format!("{} cannot be started: run e2e/provision.sh", engine.as_str())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where `e2e/provision.sh` unpacked MySQL.
fn unpacked_mysql() -> PathBuf {
    let directory = |name| std::env::var_os(name).map(PathBuf::from);
    let home = || directory("HOME").unwrap_or_default().join(".cache");
    let cache = directory("AUTOBUILD_CACHE")
        .unwrap_or_else(|| directory("XDG_CACHE_HOME").unwrap_or_else(home).join("autobuild"));
    cache.join("mysql")
}

/// The server's command: MySQL is run by its own dynamic loader, so that it needs no root and no container.
fn binary(engine: Engine) -> Command {
    match engine {
        Engine::MariaDb => Command::new("/usr/sbin/mariadbd"),
        Engine::MySql => {
            let root = unpacked_mysql();
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
            let private = root.join("usr/lib/mysql/private");
            command.arg("--library-path").arg(format!("{}:{}", libraries.display(), private.display()));
            command.arg(root.join("usr/sbin/mysqld")).arg("--no-defaults");
            command.arg(format!("--basedir={}", root.join("usr").display()));
            command
        }
    }
}

fn user() -> Option<&'static str> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    root.then_some("--user=root")
}

fn initialise(engine: Engine, data: &Path, directory: &Path) -> anyhow::Result<()> {
    let log = std::fs::File::create(directory.join("log"))?;
    let mut command = match engine {
        Engine::MySql => {
            let mut command = binary(engine);
            command.arg("--initialize-insecure").arg(format!("--datadir={}", data.display())).args(user());
            command
        }
        Engine::MariaDb => {
            let mut command = Command::new("mariadb-install-db");
            command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            command.arg(format!("--datadir={}", data.display())).args(user());
            command
        }
    };
    let status = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .status()
        .with_context(|| missing(engine))?;
    if !status.success() {
        bail!("{} could not set up its data directory:\n{}", engine.as_str(), log_tail(directory));
    }
    Ok(())
}

fn server(engine: Engine, directory: &Path, port: u16) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log"));
    let mut command = binary(engine);
    if engine == Engine::MariaDb {
        command.arg("--no-defaults");
    }
    command
        .arg(format!("--datadir={}", directory.join("data").display()))
        .arg(format!("--port={port}"))
        .arg("--bind-address=127.0.0.1")
        // Relative to the data directory: the path of a socket is limited to about a hundred bytes.
        .arg("--socket=s")
        .arg(format!("--pid-file={}", directory.join("pid").display()))
        .arg("--max-connections=400")
        .args(user());
    if engine == Engine::MySql {
        command.args(["--mysqlx=OFF", "--secure-file-priv=NULL"]);
    }
    command.stdin(Stdio::null());
    if let Ok(log) = log {
        if let Ok(copy) = log.try_clone() {
            command.stdout(copy);
        }
        command.stderr(log);
    }
    command
}
