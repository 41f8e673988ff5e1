//! What kind of server a database is, and whether it is the one that is written to. Row locks and share locks do not reach from
//! one member of a cluster to the other, so there is one writer, and each connection is asked for it.

use std::collections::HashMap;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::{Engine, QueueError};

/// How servers keep together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// One server, with or without replicas.
    Single,
    /// MySQL Group Replication. `states`: whether this user may read the members' states, which takes a grant.
    Group {
        /// Whether `performance_schema.replication_group_members` can be read.
        states: bool,
    },
    /// A Galera cluster.
    Galera,
}

/// What a connection is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) engine: Engine,
    pub(super) cluster: Cluster,
}

/// What tells one server from another where words are needed: its name in its cluster, or its host and port.
pub(super) type Node = String;

const EPOCH: &str = "(SELECT value FROM meta WHERE name = 'epoch') AS epoch, \
    (SELECT value FROM meta WHERE name = 'histories') AS histories";

/// The names under which a server says that it takes no writes: `super_read_only` between an election and the hand-over,
/// `innodb_read_only` at readers of Aurora (by its documentation `read_only` is 0 there).
const MYSQL_READ_ONLY: &str = "CONCAT_WS(' and ', IF(@@read_only, 'read_only', NULL), \
    IF(@@super_read_only, 'super_read_only', NULL), IF(@@innodb_read_only, 'innodb_read_only', NULL)) AS read_only";
const MARIADB_READ_ONLY: &str = "CONCAT_WS(' and ', IF(CAST(@@read_only AS CHAR) IN ('0', 'OFF'), NULL, 'read_only'), \
    IF(@@innodb_read_only, 'innodb_read_only', NULL)) AS read_only";

/// Readable without a grant.
const SINGLE_PRIMARY: &str = "(SELECT VARIABLE_VALUE FROM performance_schema.global_variables \
    WHERE VARIABLE_NAME = 'group_replication_single_primary_mode') AS single_primary";
const MEMBER: &str = "(SELECT CONCAT(MEMBER_STATE, ' ', MEMBER_ROLE) FROM performance_schema.replication_group_members \
    WHERE MEMBER_ID = @@server_uuid) AS member";

impl Engine {
    /// Where settings and counters of the server are read, without a grant. Both compare names without regard to case.
    const fn counters(self) -> &'static str {
        match self {
            Self::MySql => "performance_schema",
            Self::MariaDb => "information_schema",
        }
    }
}

/// What a node of a Galera cluster tells, whichever engine has it.
fn galera(engine: Engine) -> String {
    let of = |name: &str, column: &str| {
        format!(
            "(SELECT VARIABLE_VALUE FROM {}.global_status WHERE VARIABLE_NAME = '{name}') AS {column}",
            engine.counters()
        )
    };
    let cluster = of("wsrep_cluster_state_uuid", "cluster");
    let (committed, component) =
        (of("wsrep_last_committed", "committed"), of("wsrep_cluster_status", "component"));
    format!("{cluster}, {committed}, {component}")
}

impl Writer {
    /// Asks a server what it is.
    pub(super) async fn of(connection: &mut MySqlConnection, engine: Engine) -> Result<Self, QueueError> {
        let text = format!(
            "SELECT LOWER(VARIABLE_NAME) AS name, CAST(VARIABLE_VALUE AS CHAR) AS value FROM {}.global_variables \
             WHERE VARIABLE_NAME IN ('group_replication_group_name', 'pxc_strict_mode', 'wsrep_on', 'wsrep_provider')",
            engine.counters()
        );
        let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&mut *connection).await?;
        let mut settings = HashMap::with_capacity(rows.len());
        for row in rows {
            let value: Option<String> = row.try_get("value")?;
            settings.insert(row.try_get("name")?, value.unwrap_or_default());
        }
        let cluster = match kind(&settings)? {
            Kind::Single => Cluster::Single,
            Kind::Galera => Cluster::Galera,
            Kind::Group => {
                let read = sqlx::raw_sql(
                    "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE FALSE",
                )
                .fetch_one(&mut *connection)
                .await;
                Cluster::Group { states: read.is_ok() }
            }
        };
        Ok(Self { engine, cluster })
    }

    /// The statement that reads history and writer in one round trip: `epoch`, `histories`, `server`, `node`, `read_only`, and what
    /// [`Self::unfit`] looks at.
    pub(super) fn statement(self) -> String {
        format!("SELECT {EPOCH}, {}", self.columns())
    }

    /// The same, and a node of a Galera cluster waits until it has what any node has committed, as a node that lags, or that was
    /// frozen, has not. Statements after that wait for nothing.
    pub(super) fn causal_statement(self) -> String {
        format!("SET SESSION wsrep_sync_wait = 3; {}; SET SESSION wsrep_sync_wait = 0", self.statement())
    }

    /// Whether it is a node of a Galera cluster.
    pub(super) fn is_galera(self) -> bool {
        self.cluster == Cluster::Galera
    }

    /// Refuses a server that nothing may be written to, also where it has no tables yet; returns its name.
    pub(super) async fn admit(self, connection: &mut MySqlConnection) -> Result<Node, QueueError> {
        let row = self.row(connection).await?;
        self.unfit(&row)?.map_or_else(|| Ok(row.try_get("node")?), Err)
    }

    /// Which server a connection leads to.
    pub(super) async fn node(self, connection: &mut MySqlConnection) -> Result<Node, QueueError> {
        Ok(self.row(connection).await?.try_get("node")?)
    }

    /// Which version of TLS a connection speaks; empty: none.
    pub(super) async fn tls(self, connection: &mut MySqlConnection) -> Result<String, QueueError> {
        let row = sqlx::raw_sql("SHOW SESSION STATUS LIKE 'Ssl_version'").fetch_optional(connection).await?;
        Ok(row.map(|row| row.try_get(1)).transpose()?.unwrap_or_default())
    }

    async fn row(self, connection: &mut MySqlConnection) -> Result<MySqlRow, QueueError> {
        let statement = format!("SELECT {}", self.columns());
        Ok(sqlx::raw_sql(AssertSqlSafe(statement)).fetch_one(connection).await?)
    }

    fn columns(self) -> String {
        let (server, read_only) = match self.engine {
            Engine::MySql => ("CAST(@@server_uuid AS CHAR)", MYSQL_READ_ONLY),
            Engine::MariaDb => ("CAST(@@server_id AS CHAR)", MARIADB_READ_ONLY),
        };
        let node = match self.cluster {
            Cluster::Galera => "CAST(@@wsrep_node_name AS CHAR)",
            Cluster::Single | Cluster::Group { .. } => "CONCAT(@@hostname, ':', @@port)",
        };
        let of_server = format!("{server} AS server, {node} AS node, {read_only}");
        let of_cluster = match self.cluster {
            Cluster::Single => String::new(),
            Cluster::Galera => format!(", {}", galera(self.engine)),
            Cluster::Group { states: false } => format!(", {SINGLE_PRIMARY}"),
            Cluster::Group { states: true } => format!(", {SINGLE_PRIMARY}, {MEMBER}"),
        };
        format!("{of_server}{of_cluster}")
    }

    /// Why nothing may be written there.
    pub(super) fn unfit(self, row: &MySqlRow) -> Result<Option<QueueError>, sqlx::Error> {
        let told = Told {
            read_only: row.try_get("read_only")?,
            single_primary: match self.cluster {
                Cluster::Group { .. } => row.try_get("single_primary")?,
                Cluster::Single | Cluster::Galera => None,
            },
            member: match self.cluster {
                Cluster::Group { states: true } => Member::of(row.try_get("member")?),
                Cluster::Group { states: false } | Cluster::Single | Cluster::Galera => Member::NotAsked,
            },
            component: match self.cluster {
                Cluster::Galera => row.try_get("component")?,
                Cluster::Group { .. } | Cluster::Single => None,
            },
        };
        Ok(told.unfit())
    }

    /// What is not recognised for lack of a right.
    pub(super) fn warning(self) -> Option<String> {
        (self.cluster == Cluster::Group { states: false }).then(|| {
            "this user may not read performance_schema.replication_group_members: a former primary that restarted alone, and lacks \
             the group's last commits, would not be recognised; GRANT SELECT ON performance_schema.replication_group_members TO it"
                .to_owned()
        })
    }
}

/// What a server told of its part in its cluster.
struct Told {
    read_only: String,
    single_primary: Option<String>,
    member: Member,
    /// `wsrep_cluster_status`.
    component: Option<String>,
}

/// The state and the role of a member of a group.
enum Member {
    /// It is in no group, or its state cannot be read.
    NotAsked,
    /// The group knows no such member.
    Unknown,
    /// Both, with a blank between.
    Is(String),
}

impl Member {
    fn of(told: Option<String>) -> Self {
        told.map_or(Self::Unknown, |says| Self::Is(says.trim_end().to_owned()))
    }
}

impl Told {
    fn unfit(&self) -> Option<QueueError> {
        if self.single_primary.as_deref().is_some_and(|value| value != "ON" && value != "1") {
            return Some(QueueError::Unfit(
                "the group has several writers (group_replication_single_primary_mode = OFF), and row locks do not reach from one to \
                 the other: SELECT group_replication_switch_to_single_primary_mode()"
                    .to_owned(),
            ));
        }
        let other = match &self.member {
            Member::NotAsked => None,
            Member::Unknown => Some("no member"),
            Member::Is(says) => (says != "ONLINE PRIMARY").then_some(says.as_str()),
        };
        if let Some(says) = other {
            return Some(QueueError::Unavailable(format!(
                "it is {says} of its replication group, and ONLINE PRIMARY is needed: let --database-url lead to the primary; a \
                 former primary that restarted alone may lack the group's last commits: START GROUP_REPLICATION there"
            )));
        }
        if let Some(component) = self.component.as_deref().filter(|component| *component != "Primary") {
            return Some(QueueError::Unavailable(format!(
                "it is not in the primary component of its cluster (wsrep_cluster_status = {component}): has the cluster lost its \
                 majority? Let --database-url lead to a node that has it"
            )));
        }
        (!self.read_only.is_empty()).then(|| {
            QueueError::Unavailable(format!(
                "it is read-only ({}): a replica that was not promoted; promote it, or let --database-url lead to the primary",
                self.read_only
            ))
        })
    }
}

/// What settings say of a server, whatever its version calls itself: Galera is a part of MariaDB, of Percona XtraDB Cluster, and of
/// builds of MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Group,
    Galera,
}

fn kind(settings: &HashMap<String, String>) -> Result<Kind, QueueError> {
    let get = |name: &str| settings.get(name).map_or("", String::as_str);
    strict(get("pxc_strict_mode"))?;
    // Percona XtraDB Cluster has `wsrep_on` without a cluster too: the library is what makes one.
    let is_on = get("wsrep_on").eq_ignore_ascii_case("ON") || get("wsrep_on") == "1";
    let has_library = !matches!(get("wsrep_provider"), "" | "none");
    if is_on && has_library {
        return Ok(Kind::Galera);
    }
    Ok(if get("group_replication_group_name").is_empty() { Kind::Single } else { Kind::Group })
}

/// Percona XtraDB Cluster refuses what its cluster does not spread; `migrate` takes such a lock.
fn strict(mode: &str) -> Result<(), QueueError> {
    match mode {
        "ENFORCING" | "MASTER" => Err(QueueError::Unfit(format!(
            "pxc_strict_mode is {mode}: Percona XtraDB Cluster then refuses GET_LOCK, which keeps two migrations apart; \
             SET GLOBAL pxc_strict_mode = 'PERMISSIVE' on each node, and let --database-url lead to one of them"
        ))),
        _ => Ok(()),
    }
}

/// Two connections that were opened one after the other lead to one server, or nothing is safe.
pub(super) fn one_writer(first: &Node, second: &Node) -> Result<(), QueueError> {
    if first == second {
        return Ok(());
    }
    Err(QueueError::Unfit(format!(
        "--database-url leads to several nodes ({first}, {second}): row locks do not reach from one to the other; let it lead to one \
         writer (the read-write port of MySQL Router, the Service of the primary, HAProxy with backup servers)"
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_to_that_is_the_one_writer_of_its_cluster() {
        let some = |text: &str| Some(text.to_owned());
        let is = |text: &str| Member::Is(text.to_owned());
        let primary = || Some("Primary".to_owned());
        for component in [None, primary(), Some("non-Primary".to_owned())] {
            let fits = component.is_none() || component == primary();
            let told =
                Told { read_only: String::new(), single_primary: None, member: Member::NotAsked, component };
            let unfit = told.unfit();
            assert!(
                unfit.is_none() == fits && unfit.is_none_or(|error| error.to_string().contains("majority"))
            );
        }
        for (read_only, single_primary, member, class, said) in [
            ("", None, Member::NotAsked, "", ""),
            ("super_read_only", None, Member::NotAsked, "unavailable", "read-only (super_read_only)"),
            ("read_only and innodb_read_only", None, Member::NotAsked, "unavailable", "innodb_read_only"),
            ("", some("ON"), Member::NotAsked, "", ""),
            ("", some("ON"), is("ONLINE PRIMARY"), "", ""),
            ("", some("OFF"), is("ONLINE PRIMARY"), "unfit", "switch_to_single_primary_mode"),
            ("super_read_only", some("ON"), is("ONLINE SECONDARY"), "unavailable", "ONLINE SECONDARY"),
            ("", some("ON"), is("OFFLINE "), "unavailable", "START GROUP_REPLICATION"),
            ("", some("ON"), Member::Unknown, "unavailable", "no member"),
        ] {
            let told = Told { read_only: read_only.to_owned(), single_primary, member, component: None };
            let unfit = told.unfit();
            assert_eq!(unfit.as_ref().map_or("", |error| error.class()), class, "{read_only}");
            assert!(unfit.map_or_else(String::new, |error| error.to_string()).contains(said), "{said}");
        }
    }

    #[test]
    fn galera_is_recognised_by_its_settings_whatever_the_server_calls_itself() {
        const LIBRARY: (&str, &str) = ("wsrep_provider", "/usr/lib/galera4/libgalera_smm.so");
        for (settings, is) in [
            (&[][..], Kind::Single),
            (&[("group_replication_group_name", "0a0b")], Kind::Group),
            (&[("group_replication_group_name", "")], Kind::Single),
            (&[("wsrep_on", "ON"), LIBRARY], Kind::Galera),
            (&[("wsrep_on", "ON"), LIBRARY, ("pxc_strict_mode", "PERMISSIVE")], Kind::Galera),
            (&[("wsrep_on", "1"), LIBRARY, ("pxc_strict_mode", "DISABLED")], Kind::Galera),
            // Started without its library it is one server.
            (
                &[("wsrep_on", "ON"), ("wsrep_provider", "none"), ("pxc_strict_mode", "PERMISSIVE")],
                Kind::Single,
            ),
            (&[("wsrep_on", "OFF"), LIBRARY], Kind::Single),
        ] {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            assert_eq!(kind(&settings.collect()).unwrap(), is);
        }
        let strict = [("pxc_strict_mode".to_owned(), "ENFORCING".to_owned())];
        assert!(kind(&strict.into()).is_err());
    }

    #[test]
    fn a_percona_cluster_in_strict_mode_is_refused_with_the_statement_that_mends_it() {
        for mode in ["", "DISABLED", "PERMISSIVE"] {
            assert!(strict(mode).is_ok(), "{mode}");
        }
        for mode in ["ENFORCING", "MASTER"] {
            let said = strict(mode).unwrap_err().to_string();
            assert!(said.contains("GET_LOCK") && said.contains("PERMISSIVE"), "{said}");
        }
    }

    #[test]
    fn an_address_that_leads_to_several_nodes_is_refused_with_their_names() {
        let of = |name: &str| name.to_owned();
        assert!(one_writer(&of("n1"), &of("n1")).is_ok());
        let error = one_writer(&of("n1"), &of("n2")).unwrap_err();
        assert!(matches!(&error, QueueError::Unfit(said) if said.contains("(n1, n2)")), "{error}");
    }
}
