//! A primary and its asynchronous replica, which can lag and be promoted.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row};

use super::{Durability, Engine, Server, Special};
use crate::paths;
use crate::process::Lifetime;
use crate::wait::say;

/// How long a replica may take to have everything.
const CAUGHT_UP_S: u32 = 60;

/// Two servers of one engine, always started here: whatever `DATABASE_URL` names is not to be failed over.
#[derive(Debug)]
pub struct Pair {
    engine: Engine,
    primary: Server,
    replica: Server,
}

impl Pair {
    /// Starts both, empty, the replica read-only and following the primary.
    pub async fn start(engine: Engine) -> Result<Self> {
        let (primary, replica) = tokio::try_join!(server(engine, 11), server(engine, 12))?;
        let pair = Self { engine, primary, replica };
        let password = uuid::Uuid::new_v4().simple().to_string();
        // Nothing of what stands in the log before this may reach the replica: it has users of its own.
        run(
            &pair.primary,
            &[
                format!("CREATE USER 'replica'@'127.0.0.1' IDENTIFIED BY '{password}'"),
                "GRANT REPLICATION SLAVE ON *.* TO 'replica'@'127.0.0.1'".to_owned(),
            ],
        )
        .await?;
        let (file, position) = pair.position().await?;
        let port = pair.primary.port();
        let follow = match engine {
            Engine::MySql => [
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'replica', \
                     SOURCE_PASSWORD = '{password}', SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {position}, \
                     SOURCE_CONNECT_RETRY = 1, GET_SOURCE_PUBLIC_KEY = 1"
                ),
                "START REPLICA".to_owned(),
                "SET GLOBAL super_read_only = ON".to_owned(),
            ],
            Engine::MariaDb => [
                format!(
                    "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'replica', \
                     MASTER_PASSWORD = '{password}', MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {position}, \
                     MASTER_CONNECT_RETRY = 1"
                ),
                "START SLAVE".to_owned(),
                "SET GLOBAL read_only = ON".to_owned(),
            ],
        };
        run(&pair.replica, &follow).await?;
        Ok(pair)
    }

    /// Makes a schema and a user who may do everything in it and nothing beside, on both servers; returns the URL for
    /// an address that leads to either of them.
    pub async fn create_schema(&self, name: &str, address: SocketAddr) -> Result<String> {
        let password = uuid::Uuid::new_v4().simple().to_string();
        run(
            &self.primary,
            &[
                format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
                format!("CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY '{password}'"),
                format!("GRANT ALL PRIVILEGES ON `{name}`.* TO '{name}'@'127.0.0.1'"),
            ],
        )
        .await?;
        self.caught_up().await?;
        Ok(format!("mysql://{name}:{password}@{address}/{name}?ssl-mode=disabled"))
    }

    /// Where the primary listens.
    pub fn primary(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.primary.port()))
    }

    /// Where the replica listens.
    pub fn replica(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.replica.port()))
    }

    /// The end of the primary's log: it grows with everything that is written.
    pub async fn position(&self) -> Result<(String, u64)> {
        let statement = match self.engine {
            Engine::MySql => "SHOW BINARY LOG STATUS",
            Engine::MariaDb => "SHOW MASTER STATUS",
        };
        let mut connection = connect(&self.primary).await?;
        let row = connection.fetch_one(statement).await?;
        let position =
            row.try_get::<u64, _>("Position").or_else(|_| row.try_get::<u32, _>("Position").map(u64::from));
        Ok((row.try_get("File")?, position?))
    }

    /// Waits until the replica has everything that the primary has now.
    pub async fn caught_up(&self) -> Result<()> {
        let (file, position) = self.position().await?;
        let wait = match self.engine {
            Engine::MySql => "SOURCE_POS_WAIT",
            Engine::MariaDb => "MASTER_POS_WAIT",
        };
        let mut connection = connect(&self.replica).await?;
        let statement = format!("SELECT CAST({wait}('{file}', {position}, {CAUGHT_UP_S}) AS SIGNED)");
        let waited: Option<i64> =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut connection).await?;
        match waited {
            Some(events) if events >= 0 => Ok(()),
            other => bail!("the replica did not catch up ({other:?}); see its log in {}", self.log()),
        }
    }

    /// The replica goes on to receive, and applies nothing any more: what is committed from now on is lost with the
    /// primary.
    pub async fn lag(&self) -> Result<()> {
        let stop = match self.engine {
            Engine::MySql => "STOP REPLICA SQL_THREAD",
            Engine::MariaDb => "STOP SLAVE SQL_THREAD",
        };
        run(&self.replica, &[stop.to_owned()]).await
    }

    /// SIGKILL for the primary.
    pub async fn kill_primary(&self) -> Result<()> {
        say("killing the primary");
        self.primary.process().kill().await?;
        Ok(())
    }

    /// The replica takes writes from now on, without what it had not applied.
    pub async fn promote(&self) -> Result<()> {
        say("promoting the replica");
        let statements: &[&str] = match self.engine {
            Engine::MySql => &[
                "STOP REPLICA",
                "RESET REPLICA ALL",
                "SET GLOBAL super_read_only = OFF",
                "SET GLOBAL read_only = OFF",
            ],
            Engine::MariaDb => &["STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = OFF"],
        };
        let statements: Vec<String> = statements.iter().map(|text| (*text).to_owned()).collect();
        run(&self.replica, &statements).await
    }

    fn log(&self) -> String {
        self.replica.process().log().display().to_string()
    }
}

async fn server(engine: Engine, id: u32) -> Result<Server> {
    let dir = paths::private(&format!("{}-{id}", engine.as_str()))?;
    let mut args = ["--log-bin=binlog", "--relay-log=relay", "--binlog-format=ROW", "--sync-binlog=0"]
        .map(str::to_owned)
        .to_vec();
    args.push(format!("--server-id={id}"));
    args.push(match engine {
        Engine::MySql => "--log-replica-updates=ON".to_owned(),
        Engine::MariaDb => "--log-slave-updates=ON".to_owned(),
    });
    let special = Special { args, env: Vec::new() };
    Server::start_with(&dir, engine, Durability::Relaxed, Lifetime::WithParent, special).await
}

async fn connect(server: &Server) -> Result<MySqlConnection> {
    MySqlConnection::connect(&server.url()).await.context("connect to one of a pair")
}

async fn run(server: &Server, statements: &[String]) -> Result<()> {
    let mut connection = connect(server).await?;
    for statement in statements {
        // Never with a password in the message.
        let what: String = statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        connection.execute(AssertSqlSafe(statement.clone())).await.context(what)?;
    }
    // What stays behind a server that is killed is killed with it.
    tokio::time::timeout(Duration::from_secs(5), connection.close()).await.ok();
    Ok(())
}
