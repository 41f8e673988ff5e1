//! What a database is, line by line, before anything is installed: `autobuild check-database`. The checks are those of whoever
//! connects and of `migrate`; here each of them is told, whatever the one before has found.

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection as _, MySqlConnection};

use super::facts::{Facts, Finding};
use super::writer::{self, Cluster, Writer};
use super::{Demand, QueueError, Verdict, address, connection, schema};
use crate::queue::DatabaseAddress;

/// How many connections have to lead to one server: a balancer with three in turns is seen by them.
const CONNECTIONS: usize = 4;

/// Looks at a database and changes nothing that is there: what migrations do is tried with a table of its own, which goes again.
pub async fn check_database(
    address: impl Into<DatabaseAddress>,
    demand: Demand,
) -> Result<Vec<Finding>, QueueError> {
    let address = address.into();
    let options = address.options()?;
    let mut found = Vec::new();
    if let Err(error) = look(&options, demand, &mut found).await {
        found.push(Finding::fail("server", error.to_string()));
    }
    Ok(found)
}

async fn look(
    options: &MySqlConnectOptions,
    demand: Demand,
    found: &mut Vec<Finding>,
) -> Result<(), QueueError> {
    let mut all = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        all.push(connection::single(options).await?);
    }
    let first = &mut all[0];
    let (server, writer) = connection::writer(first).await?;
    found.push(Finding::ok("server", format!("{} {}", server.engine.as_str(), server.version)));
    found.push(Finding::ok("kind", kind(writer)));
    found.extend(writer.warning().map(|warning| Finding::warn("rights", warning)));
    let fits = match writer.admit(first).await {
        Ok(node) => {
            found.push(Finding::ok("writer", format!("{node} takes writes")));
            true
        }
        Err(error) => {
            found.push(Finding::fail("writer", error.words()));
            false
        }
    };
    let leads = lead_to_one(&mut all, writer).await?;
    let leads_to_one = leads.verdict == Verdict::Ok;
    found.push(leads);
    let first = &mut all[0];
    let facts = Facts::read(first, writer).await?;
    found.extend(facts.findings());
    found.push(connection::keeps_settings(first).await.map_or_else(
        |error| Finding::fail("session", error.words()),
        |()| Finding::ok("session", "what a connection sets is kept"),
    ));
    found.push(tls(first, writer, options).await?);
    found.extend(facts.limits(demand));
    if fits && leads_to_one {
        let [first, second, ..] = &mut all[..] else { return Ok(()) };
        found.extend(tried(first, second, options).await);
    } else {
        found.push(Finding::warn("rights", "not tried, before the lines above are mended"));
    }
    for one in all {
        one.close().await.ok();
    }
    Ok(())
}

fn kind(writer: Writer) -> &'static str {
    match writer.cluster {
        Cluster::Single => "one server, with replicas or without",
        Cluster::Group { .. } => "a member of a group (MySQL Group Replication)",
        Cluster::Galera => "a node of a Galera cluster",
    }
}

async fn lead_to_one(all: &mut [MySqlConnection], writer: Writer) -> Result<Finding, QueueError> {
    let mut nodes = Vec::with_capacity(all.len());
    for one in all {
        nodes.push(writer.node(one).await?);
    }
    for node in &nodes {
        if let Err(error) = writer::one_writer(&nodes[0], node) {
            return Ok(Finding::fail("address", error.to_string()));
        }
    }
    Ok(Finding::ok("address", format!("{} connections lead to one server", nodes.len())))
}

async fn tls(
    connection: &mut MySqlConnection,
    writer: Writer,
    options: &MySqlConnectOptions,
) -> Result<Finding, QueueError> {
    let version = writer.tls(connection).await?;
    let is_encrypted = !version.is_empty();
    Ok(match address::warning(options) {
        Some(warning) => Finding::warn("TLS", warning),
        None if is_encrypted => Finding::ok("TLS", version),
        None => Finding::ok("TLS", "not encrypted, and it does not leave this machine"),
    })
}

/// What is tried with a table of its own.
async fn tried(
    first: &mut MySqlConnection,
    second: &mut MySqlConnection,
    options: &MySqlConnectOptions,
) -> Vec<Finding> {
    let rights = match schema::try_rights(first, Some(second)).await {
        Ok(()) => Finding::ok(
            "rights",
            "this user may do what `autobuild migrate` does, and locked rows are skipped",
        ),
        Err(error) => Finding::fail(
            "rights",
            format!(
                "{error}; to the user that migrates: GRANT ALL PRIVILEGES ON {}.* TO it",
                options.get_database().unwrap_or_default()
            ),
        ),
    };
    let schema = match schema::verify(options).await {
        Ok(()) => Finding::ok("schema", "it serves this release"),
        Err(_) if schema::is_empty(first).await => {
            Finding::ok("schema", "there are no tables yet: run `autobuild migrate`")
        }
        Err(error) => Finding::warn("schema", error.to_string()),
    };
    vec![rights, schema]
}
