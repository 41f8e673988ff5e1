//! One table of what settings of a server mean for the queue: read by whoever connects, by `migrate`, and by `check-database`.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::QueueError;
use super::connection::Engine;
use super::many::MOST;
use super::writer::{Cluster, Writer};

/// What a check makes of what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Ok,
    /// It works, and something can be lost or slow.
    Warn,
    /// Nothing is started and nothing migrated before it is mended.
    Fail,
}

impl Verdict {
    /// As it stands at the beginning of a line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One line of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is made of it.
    pub verdict: Verdict,
    /// What it is about.
    pub about: &'static str,
    /// What was found, and its remedy.
    pub says: String,
}

impl Finding {
    pub(super) fn ok(about: &'static str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, about, says: says.into() }
    }

    pub(super) fn warn(about: &'static str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, about, says: says.into() }
    }

    pub(super) fn fail(about: &'static str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, about, says: says.into() }
    }
}

/// What the processes of an installation ask of the server together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// How many processes.
    pub processes: u32,
    /// Connections of the pool of each.
    pub connections: u32,
}

impl Demand {
    /// Beside its pool each has one for its heartbeat and one that looks where the address leads; a few are left for people.
    const fn connections(self) -> u32 {
        self.processes.saturating_mul(self.connections.saturating_add(2)).saturating_add(5)
    }

    const fn statements(self) -> u32 {
        self.processes.saturating_mul(self.connections).saturating_mul(super::address::STATEMENTS as u32)
    }
}

/// Settings that a check looks at.
const VARIABLES: [&str; 21] = [
    "autocommit",
    "binlog_format",
    "completion_type",
    "group_replication_consistency",
    "innodb_flush_log_at_trx_commit",
    "log_bin",
    "max_allowed_packet",
    "max_connections",
    "max_prepared_stmt_count",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_source_timeout",
    "rpl_semi_sync_source_wait_point",
    "sql_safe_updates",
    "sync_binlog",
    "transaction_read_only",
    "tx_read_only",
    "wsrep_max_ws_rows",
    "wsrep_max_ws_size",
];

const STATUS: [&str; 3] =
    ["rpl_semi_sync_master_status", "rpl_semi_sync_source_status", "wsrep_cluster_size"];

/// What was read of a server.
#[derive(Debug)]
pub(super) struct Facts {
    writer: Writer,
    /// Settings and counters by their name; what this engine or this installation does not have is not there.
    values: HashMap<String, String>,
}

/// A check: nothing, where it is about what the server does not have.
type Check = fn(&Facts) -> Vec<Finding>;

const CHECKS: [Check; 6] = [log_format, durable, semi_synchronous, group, galera, settings];

impl Facts {
    pub(super) async fn read(connection: &mut MySqlConnection, writer: Writer) -> Result<Self, QueueError> {
        let schema = match writer.engine {
            Engine::MySql => "performance_schema",
            Engine::MariaDb => "information_schema",
        };
        let part = |table: &str, names: &[&str]| {
            format!(
                "SELECT LOWER(VARIABLE_NAME) AS name, CAST(VARIABLE_VALUE AS CHAR) AS value FROM {schema}.{table} \
                 WHERE VARIABLE_NAME IN ('{}')",
                names.join("', '")
            )
        };
        let text =
            format!("{} UNION ALL {}", part("global_variables", &VARIABLES), part("global_status", &STATUS));
        let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(connection).await?;
        let mut values = HashMap::with_capacity(rows.len());
        for row in rows {
            let value: Option<String> = row.try_get("value")?;
            values.insert(row.try_get("name")?, value.unwrap_or_default());
        }
        Ok(Self { writer, values })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("ON") || value == "1")
    }

    /// Every line of the table.
    pub(super) fn findings(&self) -> Vec<Finding> {
        CHECKS.iter().flat_map(|check| check(self)).collect()
    }

    /// What can lose a commit; an error where the server does not fit.
    pub(super) fn admit(&self) -> Result<Vec<String>, QueueError> {
        let mut warnings = Vec::new();
        for finding in self.findings() {
            match finding.verdict {
                Verdict::Ok => {}
                Verdict::Warn => warnings.push(finding.says),
                Verdict::Fail => return Err(QueueError::Unfit(finding.says)),
            }
        }
        Ok(warnings)
    }

    /// Whether the server has place for so many processes.
    pub(super) fn limits(&self, demand: Demand) -> Vec<Finding> {
        const PACKET: u64 = 1 << 20;
        let about = "limits";
        let (wanted, statements) = (u64::from(demand.connections()), u64::from(demand.statements()));
        let mut found = Vec::new();
        let each = format!("{} processes with {} connections each", demand.processes, demand.connections);
        if let Some(most) = self.number("max_connections") {
            found.push(if most >= wanted {
                Finding::ok(about, format!("max_connections: {wanted} are needed for {each}, {most} are allowed"))
            } else {
                Finding::warn(
                    about,
                    format!("max_connections is {most}, and {each} need {wanted}: SET GLOBAL max_connections = {wanted}"),
                )
            });
        }
        if let Some(most) = self.number("max_prepared_stmt_count").filter(|most| *most < statements) {
            found.push(Finding::warn(
                about,
                format!(
                    "max_prepared_stmt_count is {most}, and {each} keep up to {statements}: SET GLOBAL max_prepared_stmt_count = \
                     {statements}"
                ),
            ));
        }
        if let Some(most) = self.number("max_allowed_packet").filter(|most| *most < PACKET) {
            found.push(Finding::warn(
                about,
                format!("max_allowed_packet is {most}: SET GLOBAL max_allowed_packet = 16777216"),
            ));
        }
        found
    }
}

const DURABILITY: &str = "durability";

fn log_format(facts: &Facts) -> Vec<Finding> {
    let by_statement =
        facts.get("binlog_format").is_some_and(|format| format.eq_ignore_ascii_case("STATEMENT"));
    let unfit = facts.is_on("log_bin") && by_statement;
    unfit
        .then(|| {
            Finding::fail(
                DURABILITY,
                "binlog_format is STATEMENT: READ COMMITTED transactions need ROW (or MIXED); SET GLOBAL binlog_format = 'ROW'",
            )
        })
        .into_iter()
        .collect()
}

fn durable(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(flush) = facts.get("innodb_flush_log_at_trx_commit").filter(|flush| *flush != "1") {
        found.push(Finding::warn(
            DURABILITY,
            format!(
                "innodb_flush_log_at_trx_commit is {flush}: a crash of the server can lose commits; SET GLOBAL \
                 innodb_flush_log_at_trx_commit = 1"
            ),
        ));
    }
    let sync = facts.get("sync_binlog").filter(|sync| *sync != "1");
    if let Some(sync) = sync.filter(|_| facts.is_on("log_bin") && facts.writer.engine == Engine::MySql) {
        found.push(Finding::warn(
            DURABILITY,
            format!("sync_binlog is {sync}: a failover can lose commits; SET GLOBAL sync_binlog = 1"),
        ));
    }
    if found.is_empty() {
        found.push(Finding::ok(DURABILITY, "a commit is on the disk before it is answered"));
    }
    found
}

/// The names that a plug-in of MySQL 8.0.26 or newer has, and those of before, which MariaDB has kept.
fn semi_synchronous(facts: &Facts) -> Vec<Finding> {
    /// The server's default: in less time than that a replica that is started anew makes it fall back.
    const SHORT_MS: u64 = 10_000;
    let mut found = Vec::new();
    for role in ["source", "master"] {
        let of = |what: &str| format!("rpl_semi_sync_{role}_{what}");
        if !facts.is_on(&of("enabled")) {
            continue;
        }
        if !facts.is_on(&of("status")) {
            found.push(Finding::warn(
                DURABILITY,
                format!(
                    "{} is OFF: semi-synchronous replication has fallen back to asynchronous, and a failover now can lose commits; \
                     see why no replica acknowledges (SHOW REPLICA STATUS)",
                    of("status")
                ),
            ));
        }
        let point = of("wait_point");
        if facts.get(&point).is_some_and(|point| point.eq_ignore_ascii_case("AFTER_COMMIT")) {
            found.push(Finding::warn(
                DURABILITY,
                format!(
                    "{point} is AFTER_COMMIT: a commit is seen before a replica has it, and a failover can lose it; SET GLOBAL {point} \
                     = 'AFTER_SYNC'"
                ),
            ));
        }
        let name = of("timeout");
        if let Some(ms) = facts.number(&name).filter(|ms| *ms < SHORT_MS) {
            found.push(Finding::warn(
                DURABILITY,
                format!(
                    "{name} is {ms} ms: after that time without a replica commits are asynchronous, and a failover can lose them; SET \
                     GLOBAL {name} = {SHORT_MS}, or more"
                ),
            ));
        }
    }
    found
}

fn group(facts: &Facts) -> Vec<Finding> {
    let consistency = facts.get("group_replication_consistency");
    let is_eventual = consistency.is_some_and(|value| value.eq_ignore_ascii_case("EVENTUAL"));
    let is_group = matches!(facts.writer.cluster, Cluster::Group { .. });
    (is_group && is_eventual)
        .then(|| {
            Finding::warn(
                DURABILITY,
                "group_replication_consistency is EVENTUAL: a new primary answers before it has what the one before committed; SET \
                 PERSIST group_replication_consistency = 'BEFORE_ON_PRIMARY_FAILOVER' on each member",
            )
        })
        .into_iter()
        .collect()
}

fn galera(facts: &Facts) -> Vec<Finding> {
    /// Rows that a batch of the queue writes at most.
    const ROWS: u64 = 8 * MOST as u64;
    const BYTES: u64 = 64 << 20;
    const MAJORITY: u64 = 3;
    if facts.writer.cluster != Cluster::Galera {
        return Vec::new();
    }
    let mut found = Vec::new();
    if let Some(rows) = facts.number("wsrep_max_ws_rows").filter(|rows| (1..ROWS).contains(rows)) {
        found.push(Finding::warn(
            "limits",
            format!(
                "wsrep_max_ws_rows is {rows}, and a transaction writes up to {ROWS} rows: SET GLOBAL wsrep_max_ws_rows = 0 on each node"
            ),
        ));
    }
    if let Some(bytes) = facts.number("wsrep_max_ws_size").filter(|bytes| *bytes < BYTES) {
        found.push(Finding::warn(
            "limits",
            format!("wsrep_max_ws_size is {bytes}: SET GLOBAL wsrep_max_ws_size = 2147483647 on each node"),
        ));
    }
    if let Some(size) = facts.number("wsrep_cluster_size").filter(|size| *size < MAJORITY) {
        found.push(Finding::warn(
            "kind",
            format!(
                "wsrep_cluster_size is {size}: with fewer than {MAJORITY} nodes the loss of one stops the others; start the others, or an \
                 arbitrator (garbd)"
            ),
        ));
    }
    found
}

/// Settings for the whole server that a connection sets for itself.
fn settings(facts: &Facts) -> Vec<Finding> {
    let usual = [
        ("autocommit", "ON"),
        ("completion_type", "NO_CHAIN"),
        ("sql_safe_updates", "OFF"),
        ("transaction_read_only", "OFF"),
        ("tx_read_only", "OFF"),
    ];
    let unusual: Vec<String> = usual
        .iter()
        .filter_map(|(name, usual)| Some((name, facts.get(name).filter(|value| value != usual)?)))
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let says = if unusual.is_empty() {
        "each connection sets what its statements depend on".to_owned()
    } else {
        format!("each connection sets what its statements depend on; the server has {}", unusual.join(", "))
    };
    vec![Finding::ok("session", says)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn facts(engine: Engine, cluster: Cluster, values: &[(&str, &str)]) -> Facts {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Facts { writer: Writer { engine, cluster }, values }
    }

    #[test]
    fn what_can_lose_a_commit_is_told_with_the_setting_that_mends_it() {
        let single = Cluster::Single;
        let member = Cluster::Group { states: true };
        for (engine, cluster, values, said) in [
            (
                Engine::MySql,
                single,
                &[("innodb_flush_log_at_trx_commit", "2")][..],
                "innodb_flush_log_at_trx_commit = 1",
            ),
            (Engine::MySql, single, &[("sync_binlog", "0"), ("log_bin", "ON")], "sync_binlog = 1"),
            (
                Engine::MySql,
                single,
                &[("rpl_semi_sync_source_enabled", "ON"), ("rpl_semi_sync_source_status", "OFF")],
                "fallen back to asynchronous",
            ),
            (
                Engine::MariaDb,
                single,
                &[
                    ("rpl_semi_sync_master_enabled", "ON"),
                    ("rpl_semi_sync_master_status", "ON"),
                    ("rpl_semi_sync_master_wait_point", "AFTER_COMMIT"),
                ],
                "rpl_semi_sync_master_wait_point = 'AFTER_SYNC'",
            ),
            (
                Engine::MySql,
                single,
                &[
                    ("rpl_semi_sync_source_enabled", "ON"),
                    ("rpl_semi_sync_source_status", "ON"),
                    ("rpl_semi_sync_source_timeout", "1000"),
                ],
                "rpl_semi_sync_source_timeout = 10000",
            ),
            (
                Engine::MySql,
                member,
                &[("group_replication_consistency", "EVENTUAL")],
                "BEFORE_ON_PRIMARY_FAILOVER",
            ),
            (Engine::MariaDb, Cluster::Galera, &[("wsrep_max_ws_rows", "100")], "wsrep_max_ws_rows = 0"),
            (Engine::MariaDb, Cluster::Galera, &[("wsrep_cluster_size", "2")], "garbd"),
        ] {
            let warnings = facts(engine, cluster, values).admit().unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains(said), "{warnings:?}: {said}");
        }
        // Of what it does not use, nothing is said.
        let unused = [
            ("group_replication_consistency", "EVENTUAL"),
            ("wsrep_max_ws_rows", "1"),
            ("rpl_semi_sync_source_enabled", "OFF"),
            ("rpl_semi_sync_source_status", "OFF"),
        ];
        assert_eq!(facts(Engine::MySql, single, &unused).admit().unwrap(), Vec::<String>::new());
        let log = [("log_bin", "ON"), ("binlog_format", "STATEMENT")];
        let refused = facts(Engine::MySql, single, &log).admit().unwrap_err();
        assert!(matches!(&refused, QueueError::Unfit(said) if said.contains("ROW")), "{refused}");
    }

    #[test]
    fn limits_are_compared_with_what_the_processes_need() {
        let facts = facts(
            Engine::MySql,
            Cluster::Single,
            &[
                ("max_connections", "151"),
                ("max_prepared_stmt_count", "16382"),
                ("max_allowed_packet", "65536"),
            ],
        );
        let said = |processes| {
            let found = facts.limits(Demand { processes, connections: 16 });
            found.into_iter().map(|one| (one.verdict, one.says)).collect::<Vec<_>>()
        };
        let few = said(6);
        assert_eq!((few.len(), few[0].0), (2, Verdict::Ok), "{few:?}");
        assert!(few[1].1.contains("max_allowed_packet = 16777216"), "{few:?}");
        let many = said(12);
        assert!(many[0].1.contains("max_connections = 221") && many[1].1.contains("= 19200"), "{many:?}");
    }
}
