//! Three servers that keep together, of which one is written to: a Galera cluster of MariaDB, a group of MySQL's Group
//! Replication. Each test starts its own: what is done to it is done to nobody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row as _};

use super::{Engine, Server, galera, group};
use crate::process::Signal;
use crate::wait::{Look, say, wait_for};

/// How many nodes a cluster has: one may be lost.
pub const NODES: usize = 3;

/// How long a node may take to join, with everything copied to it, on a busy machine.
pub(super) const JOINED: Duration = Duration::from_mins(3);
/// Longest time of one statement to a node that may hang.
const STATEMENT: Duration = Duration::from_secs(10);

/// A cluster that ends with this process.
#[derive(Debug)]
pub struct Cluster {
    engine: Engine,
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts one and waits until all of it has joined. The first node is the one to write to.
    pub async fn start(engine: Engine) -> Result<Self> {
        let begun = Instant::now();
        let nodes = match engine {
            Engine::MySql => group::start().await?,
            Engine::MariaDb => galera::start().await?,
        };
        say(format!("a cluster of {NODES} after {} s", begun.elapsed().as_secs()));
        Ok(Self { engine, nodes })
    }

    /// Where a node listens.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address()
    }

    /// The URL of a schema at one node, for a user with every right. It has the password in it.
    pub fn url(&self, node: usize, schema: &str) -> String {
        at(&self.nodes[node], schema)
    }

    /// The same at any address that leads to the nodes: they have the same users.
    pub fn url_at(&self, address: SocketAddr, schema: &str) -> Result<String> {
        let mut url = url::Url::parse(&self.url(0, schema))?;
        url.set_ip_host(address.ip()).ok().context("the URL takes no address")?;
        url.set_port(Some(address.port())).ok().context("the URL takes no port")?;
        Ok(url.to_string())
    }

    /// Runs statements at one node, one after the other on one connection.
    pub async fn run(&self, node: usize, statements: &[&str]) -> Result<()> {
        run(&self.nodes[node], statements).await
    }

    /// The first column of the first row that a node answers; `None`: no row, or NULL.
    pub async fn ask(&self, node: usize, statement: &str) -> Result<Option<String>> {
        ask(&self.nodes[node], statement).await
    }

    /// SIGKILL.
    pub async fn kill(&self, node: usize) -> Result<()> {
        say(format!("killing node {node}"));
        self.nodes[node].process().kill().await?;
        Ok(())
    }

    /// SIGSTOP: it hangs, and whoever is connected to it too.
    pub fn freeze(&self, node: usize) -> Result<()> {
        say(format!("freezing node {node}"));
        self.nodes[node].process().signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self, node: usize) -> Result<()> {
        say(format!("waking node {node}"));
        self.nodes[node].process().signal(Signal::CONT)
    }

    /// Starts a node again that has ended, and waits until it has everything. Another node is there.
    pub async fn rejoin(&mut self, node: usize) -> Result<()> {
        say(format!("starting node {node} again"));
        self.nodes[node].start_again()?;
        match self.engine {
            Engine::MySql => group::join(&self.nodes[node]).await,
            Engine::MariaDb => galera::joined(&self.nodes[node]).await,
        }
    }

    /// The same for a node that lost everything: it gets all from another one.
    pub async fn join_empty(&mut self, node: usize) -> Result<()> {
        say(format!("starting node {node} with nothing"));
        match self.engine {
            Engine::MySql => group::join_empty(&mut self.nodes[node]).await,
            Engine::MariaDb => galera::join_empty(&mut self.nodes[node]).await,
        }
    }

    /// Makes the cluster of one node that runs, where the majority is gone for good.
    pub async fn force(&self, node: usize) -> Result<()> {
        say(format!("forcing node {node} to be the cluster"));
        match self.engine {
            Engine::MySql => group::force(&self.nodes[node]).await,
            Engine::MariaDb => galera::force(&self.nodes[node]).await,
        }
    }

    /// Writes so much at one node that the others are seconds behind. Schema `bulk` is there.
    pub async fn outrun(&self, node: usize) -> Result<()> {
        self.run(
            node,
            &[
                "CREATE TABLE IF NOT EXISTS bulk.digit (one INT PRIMARY KEY)",
                "INSERT IGNORE INTO bulk.digit VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
                "CREATE TABLE IF NOT EXISTS bulk.rows_of (id BIGINT PRIMARY KEY AUTO_INCREMENT, text CHAR(200))",
                "DELETE FROM bulk.rows_of",
                "INSERT INTO bulk.rows_of (text) SELECT 'x' FROM bulk.digit a, bulk.digit b, bulk.digit c, bulk.digit d, bulk.digit e",
            ],
        )
        .await
    }

    /// Waits until a node has found that others are gone.
    pub async fn until_missed(&self, node: usize) -> Result<()> {
        let all = match self.engine {
            Engine::MySql => group::ALL_ARE_THERE,
            Engine::MariaDb => galera::ALL_ARE_THERE,
        };
        let server = &self.nodes[node];
        wait_for(&format!("{} to find that others are gone", server.address()), JOINED, async || {
            // Without its majority a node answers nothing else.
            let seen = ask(server, all).await;
            let missed = seen.as_ref().map_or(true, |said| said.as_deref() != Some("1"));
            Ok(if missed { Look::Holds(()) } else { Look::NotYet(format!("{seen:?}")) })
        })
        .await
    }

    /// Waits until a node that runs is a member again, as a person or an operator has it come back.
    pub async fn come_back(&self, node: usize) -> Result<()> {
        match self.engine {
            Engine::MySql => group::come_back(&self.nodes[node]).await,
            Engine::MariaDb => galera::joined(&self.nodes[node]).await,
        }
    }

    /// Makes the cluster anew from one node alone that was stopped, with what that one has. The others do not run.
    pub async fn begin_again(&mut self, node: usize) -> Result<()> {
        say(format!("beginning again with node {node}"));
        match self.engine {
            Engine::MySql => {
                self.nodes[node].start_again()?;
                group::begin(&self.nodes[node]).await
            }
            Engine::MariaDb => galera::begin_again(&mut self.nodes[node]).await,
        }
    }

    /// SIGTERM and the end of a node.
    pub async fn stop(&self, node: usize) -> Result<()> {
        say(format!("stopping node {node}"));
        self.nodes[node].process().stop(Duration::from_mins(1)).await?;
        Ok(())
    }

    /// Makes another node the one to write to. In a Galera cluster each node can be written to: there the address alone says which.
    pub async fn switch(&self, node: usize) -> Result<()> {
        match self.engine {
            Engine::MySql => group::set_primary(&self.nodes[node]).await,
            Engine::MariaDb => Ok(()),
        }
    }

    /// Which node a group has elected, by one that answers; in a Galera cluster the first that has a quorum.
    pub async fn writer(&self, except: &[usize]) -> Result<usize> {
        for node in (0..self.nodes.len()).filter(|node| !except.contains(node)) {
            let writes = match self.engine {
                Engine::MySql => group::is_primary(&self.nodes[node]).await,
                Engine::MariaDb => galera::is_synced(&self.nodes[node]).await,
            };
            if writes.unwrap_or(false) {
                return Ok(node);
            }
        }
        bail!("no node can be written to")
    }
}

pub(super) fn at(server: &Server, schema: &str) -> String {
    server.url().replacen("/?", &format!("/{schema}?"), 1)
}

pub(super) async fn run(server: &Server, statements: &[&str]) -> Result<()> {
    let mut connection = connect(server).await?;
    for statement in statements {
        // Never with a password in the message.
        let what: String = statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        connection.execute(AssertSqlSafe((*statement).to_owned())).await.context(what)?;
    }
    connection.close().await.ok();
    Ok(())
}

pub(super) async fn ask(server: &Server, statement: &str) -> Result<Option<String>> {
    let look = async {
        let mut connection = connect(server).await?;
        let row = connection.fetch_optional(AssertSqlSafe(statement.to_owned())).await?;
        connection.close().await.ok();
        row.map(|row| row.try_get::<Option<String>, _>(0)).transpose()
    };
    let row = tokio::time::timeout(STATEMENT, look).await.context("a node hangs")?;
    Ok(row?.flatten())
}

async fn connect(server: &Server) -> sqlx::Result<MySqlConnection> {
    MySqlConnection::connect(&server.url()).await
}

/// Waits until a node answers that; at once an error when it has ended.
pub(super) async fn until(server: &Server, what: &str, statement: &str, wanted: &str) -> Result<()> {
    let what = format!("{} {what}", server.address());
    server
        .process()
        .wait_ready(&what, JOINED, async || {
            Ok(match ask(server, statement).await? {
                Some(said) if said == wanted => Look::Holds(()),
                said => Look::NotYet(format!("{said:?}")),
            })
        })
        .await
}

/// Repeats what a cluster refuses while its members change.
pub(super) async fn insist(server: &Server, what: &str, statements: &[&str]) -> Result<()> {
    wait_for(&format!("{} {what}", server.address()), JOINED, async || {
        Ok(match run(server, statements).await {
            Ok(()) => Look::Holds(()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        })
    })
    .await
}
