//! Which history a database tells. After a failover that lost commits, or a restore, the same address answers with
//! another past: nothing that was known of it may be continued.
//!
//! Signs of another history, each enough by itself:
//!
//! | sign | comes from |
//! |---|---|
//! | the own worker row is missing or older than what was confirmed | lost commits |
//! | `meta.epoch` differs | `migrate --new-epoch` after a restore, or an empty database in place of the old one |
//! | `@@server_uuid` differs (MySQL), `@@server_id` differs (MariaDB), `wsrep_cluster_state_uuid` differs (Galera) | another server answers |
//! | `wsrep_last_committed` went back (Galera) | a cluster that was begun again without its last commits |
//! | the number of histories in `meta` differs | a worker found another history, of which others may have seen no sign |
//!
//! Equal values prove nothing on MariaDB (`server_id` is 1 by default), but servers that replicate from each other have
//! different ones. A node of a Galera cluster may lag behind the one before: the first read of a connection waits until it has
//! everything (`wsrep_sync_wait`), and what a node says without that is compared with nothing.
//!
//! A worker that starts knows no history that it could compare with, so `meta` keeps what was last seen: row `history`
//! is the server, and behind a blank a random mark while the quiet time is not over for everybody. Whoever finds another
//! history sets a new mark; whoever enters while there is one waits the whole quiet time on its own monotonic clock, and
//! then takes away the mark that it saw. Row `history_cluster` is the Galera cluster of that server, of which the release before
//! knows nothing. Row `quiet_ms` is the longest time that any of the workers needs.
//!
//! Row `histories` counts them. The first who finds another one raises the number, and puts a random mark behind it that
//! stays until the controller has derived every job again: nobody claims before. Whoever finds the same change later
//! sees a number that is higher than the one it worked in, and raises it not again: what runs by then goes on.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::QueueError;
use super::identity::Identity;
use super::present::Present;
use super::writer::{Node, Writer};

/// What tells one history from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    epoch: String,
    server: Identity,
    number: u64,
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, epoch {}, history {}", self.server, self.epoch, self.number)
    }
}

/// The mark of a history in which not every job was derived again yet: the whole row `histories`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underived(pub(super) String);

impl Underived {
    #[cfg(test)]
    pub(crate) fn of(row: &str) -> Self {
        Self(row.to_owned())
    }

    fn read(row: &str) -> Option<Self> {
        parse(row).1.map(|_| Self(row.to_owned()))
    }

    /// The row without the mark.
    pub(super) fn derived(&self) -> &str {
        parse(&self.0).0
    }
}

/// What a server tells of itself.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) history: History,
    pub(super) underived: Option<Underived>,
    /// Which server it is, for people.
    pub(super) node: Node,
    /// How much a Galera cluster has committed, by a causal read.
    pub(super) committed: Option<u64>,
    /// Whether that is less than it was.
    pub(super) went_back: bool,
}

/// How a connection is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// For the first time: a node of a Galera cluster waits until it has what any node has committed.
    First,
    /// It was asked before.
    Again,
}

#[cfg(test)]
impl Told {
    pub(super) fn of(history: History, committed: Option<u64>) -> Self {
        Self { history, underived: None, node: "a".to_owned(), committed, went_back: false }
    }
}

impl History {
    #[cfg(test)]
    pub(super) fn of(epoch: &str, server: &str) -> Self {
        Self { epoch: epoch.to_owned(), server: Identity::of(server, None), number: 0 }
    }

    /// Reads it from the server behind a connection. A server that is not the one writer is not the one to work with.
    pub(super) async fn read(
        connection: &mut MySqlConnection,
        writer: Writer,
        asked: Asked,
    ) -> Result<Told, QueueError> {
        let is_causal = asked == Asked::First && writer.is_galera();
        let statement = if is_causal { writer.causal_statement() } else { writer.statement() };
        // Every connection asks this first: it is not prepared, which would be another round trip.
        let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(connection).await;
        let rows =
            rows.map_err(|error| if is_causal { QueueError::at_causal_read(error) } else { error.into() })?;
        let row = rows.first().ok_or_else(|| QueueError::Unavailable("no row says what it is".to_owned()))?;
        let row = &row;
        if let Some(unfit) = writer.unfit(row)? {
            return Err(unfit);
        }
        let epoch: Option<String> = row.try_get("epoch")?;
        let no_epoch =
            || QueueError::Unfit("the table meta has no epoch; run `autobuild migrate`".to_owned());
        let histories: Option<String> = row.try_get("histories")?;
        let histories = histories.unwrap_or_default();
        let history = Self {
            epoch: epoch.ok_or_else(no_epoch)?,
            server: Identity::read(row, writer.is_galera())?,
            number: number(&histories),
        };
        let committed: Option<String> = if is_causal { row.try_get("committed")? } else { None };
        Ok(Told {
            history,
            underived: Underived::read(&histories),
            node: row.try_get("node")?,
            committed: committed.and_then(|number| number.parse().ok()),
            went_back: false,
        })
    }
}

/// How a worker enters a history.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Whether the history is, or may be, another one than before.
    pub(super) lost: bool,
    /// The history that it worked in, where it is certain that the present one does not go on from there.
    pub(super) worked_in: Option<History>,
    /// The longer of one lease and the longest settle time, by its own settings.
    pub(super) quiet: Duration,
}

/// The time in which a worker claims nothing, and the row of `meta` that goes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) time: Duration,
    row: String,
}

/// What a worker entered.
pub(super) struct Entered {
    /// `Some`: it has to be quiet first.
    pub(super) quiet: Option<Quiet>,
    pub(super) told: Told,
}

/// A row `history` or `histories`: the server or the number, and the mark of what is not over.
fn parse(row: &str) -> (&str, Option<&str>) {
    row.split_once(' ').map_or((row, None), |(server, mark)| (server, Some(mark)))
}

/// The number in a row `histories`; a database of an earlier release has no such row.
fn number(row: &str) -> u64 {
    parse(row).0.parse().unwrap_or(0)
}

fn new_mark() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// What `migrate` writes: nothing was seen yet, and after a restore everybody is quiet first.
pub(super) fn first_row(restored: bool) -> String {
    if restored { format!(" {}", new_mark()) } else { String::new() }
}

/// The row `histories` that `migrate` writes: what was restored has to be derived again.
pub(super) fn first_number(restored: bool) -> String {
    if restored { format!("1 {}", new_mark()) } else { "0".to_owned() }
}

/// Whether others have found the change of history since, on this very server: then nothing of what they did is lost.
fn is_known(worked_in: &History, found: &History, was_seen_last: bool) -> bool {
    found.epoch == worked_in.epoch && found.number > worked_in.number && was_seen_last
}

/// Compares what `meta` says of the server that was last seen with the one that answers; in the transaction in which a
/// worker enters the registry.
pub(super) async fn enter(
    connection: &mut MySqlConnection,
    found: Told,
    entry: Entry,
) -> Result<Entered, QueueError> {
    let Told { history: mut found, node, committed, .. } = found;
    let rows = sqlx::query(
        "SELECT name, value FROM meta FORCE INDEX (PRIMARY) WHERE name IN ('histories', 'history', 'history_cluster', 'quiet_ms') \
         FOR UPDATE",
    )
    .fetch_all(&mut *connection)
    .await?;
    let (mut history, mut quiet_ms, mut histories, mut cluster) = (None, None, String::new(), String::new());
    for row in rows {
        let value: String = row.try_get("value")?;
        match row.try_get::<String, _>("name")?.as_str() {
            "history" => history = Some(value),
            "histories" => histories = value,
            "history_cluster" => cluster = value,
            _ => quiet_ms = value.parse::<u64>().ok(),
        }
    }
    let before = history.as_deref().unwrap_or_default();
    let (server, mark) = parse(before);
    let was_seen_last = found.server.was_seen_last(server, &cluster);
    let another_server = was_seen_last == Some(false);
    found.number = number(&histories);
    let worked_in = entry.worked_in.filter(|before| !is_known(before, &found, was_seen_last == Some(true)));
    if another_server || worked_in.is_some() {
        found.number = worked_in.map_or(0, |before| before.number).max(found.number).saturating_add(1);
        histories = format!("{} {}", found.number, new_mark());
        write(connection, "histories", &histories).await?;
    }
    let another = entry.lost || another_server;
    let mark = if another { Some(new_mark()) } else { mark.map(str::to_owned) };
    let now = match &mark {
        Some(mark) => format!("{} {mark}", found.server.id()),
        None => found.server.id().to_owned(),
    };
    let own_ms = u64::try_from(entry.quiet.as_millis()).unwrap_or(u64::MAX);
    let others: Option<i64> =
        sqlx::query_scalar("SELECT MIN(incarnation) FROM worker").fetch_one(&mut *connection).await?;
    // What workers of an earlier time needed goes with the last of them.
    let forgotten = mark.is_none() && others.is_none();
    let longest_ms = quiet_ms.filter(|_| !forgotten).unwrap_or(0).max(own_ms);
    if history.as_deref() != Some(now.as_str()) {
        write(connection, "history", &now).await?;
    }
    if let Some(row) = found.server.cluster_row().filter(|row| *row != cluster) {
        write(connection, "history_cluster", &row).await?;
    }
    if quiet_ms != Some(longest_ms) {
        write(connection, "quiet_ms", &longest_ms.to_string()).await?;
    }
    let quiet = mark.map(|_| Quiet { time: Duration::from_millis(longest_ms), row: now });
    let told =
        Told { history: found, underived: Underived::read(&histories), node, committed, went_back: false };
    Ok(Entered { quiet, told })
}

/// The name of the present history, which no other one has; `Some` where what the database says may have a machine erased: a
/// worker has entered the history that is worked in, everything was derived again since, and who followed to it by itself has
/// given those who live the time to find it too.
pub(super) async fn derived(
    connection: &mut MySqlConnection,
    present: &Present,
) -> Result<Option<String>, QueueError> {
    let rows = sqlx::query(
        "SELECT name, value FROM meta FORCE INDEX (PRIMARY) \
         WHERE name IN ('epoch', 'histories', 'history', 'history_cluster', 'quiet_ms')",
    )
    .fetch_all(connection)
    .await?;
    let mut meta = HashMap::new();
    for row in rows {
        meta.insert(row.try_get::<String, _>("name")?, row.try_get::<String, _>("value")?);
    }
    let read = |name| meta.get(name).map(String::as_str).unwrap_or_default();
    let holds = holds(&read, &present.history().server, present.followed());
    Ok(holds.then(|| format!("{} {}", read("epoch"), number(read("histories")))))
}

fn holds<'a>(meta: &impl Fn(&'static str) -> &'a str, server: &Identity, followed: Option<Duration>) -> bool {
    let quiet = Duration::from_millis(meta("quiet_ms").parse().unwrap_or_default());
    Underived::read(meta("histories")).is_none()
        && server.was_seen_last(parse(meta("history")).0, meta("history_cluster")) == Some(true)
        && followed.is_none_or(|since| since >= quiet)
}

pub(super) async fn write(
    connection: &mut MySqlConnection,
    name: &str,
    value: &str,
) -> Result<(), QueueError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

/// The quiet time that was waited for is over for everybody, unless another one has begun since.
pub(super) async fn end_quiet(connection: &mut MySqlConnection, quiet: &Quiet) -> Result<(), QueueError> {
    sqlx::query("UPDATE meta SET value = ? WHERE name = 'history' AND value = ?")
        .bind(parse(&quiet.row).0)
        .bind(&quiet.row)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_the_number_and_the_mark_of_what_is_to_be_derived() {
        for (row, counted, underived) in [("", 0, false), ("0", 0, false), ("7", 7, false), ("7 ab", 7, true)]
        {
            let mark = Underived::read(row);
            assert_eq!((number(row), mark.is_some()), (counted, underived), "{row:?}");
            assert!(mark.is_none_or(|mark| mark.derived() == "7"));
        }
        assert!(
            Underived::read(&first_number(true)).is_some() && Underived::read(&first_number(false)).is_none()
        );
    }

    #[test]
    fn only_a_higher_number_on_the_server_that_others_saw_tells_that_they_found_the_change_before() {
        let at = |epoch: &str, server: &str, number| History { number, ..History::of(epoch, server) };
        let before = at("e", "1", 5);
        for (found, seen_last, known) in [
            (at("e", "2", 6), "2", true),
            (at("e", "2", 6), "1", false),
            (at("e", "2", 5), "2", false),
            (at("e", "2", 4), "2", false),
            (at("f", "2", 6), "2", false),
        ] {
            let was_seen_last = found.server.was_seen_last(seen_last, "") == Some(true);
            assert_eq!(is_known(&before, &found, was_seen_last), known, "{found:?}");
        }
    }

    #[test]
    fn nothing_is_handed_out_before_a_worker_has_entered_the_history_and_it_was_derived() {
        let quiet = Duration::from_secs(3);
        for (histories, history, followed, derived) in [
            ("0", "1", None, true),
            ("0", "1 ab", None, true),
            ("2", "1", Some(quiet), true),
            ("2 ab", "1", None, false),
            ("0", "", None, false),
            ("0", " ab", None, false),
            ("0", "2", None, false),
            ("0", "1", Some(Duration::from_secs(2)), false),
        ] {
            let meta = |name| match name {
                "histories" => histories,
                "history" => history,
                "history_cluster" => "",
                _ => "3000",
            };
            assert_eq!(
                holds(&meta, &Identity::of("1", None), followed),
                derived,
                "{histories:?} {history:?} {followed:?}"
            );
        }
    }

    #[test]
    fn a_row_names_the_server_and_the_mark_of_a_quiet_time() {
        assert_eq!(parse("uuid"), ("uuid", None));
        assert_eq!(parse("uuid 7f"), ("uuid", Some("7f")));
        assert_eq!(parse(&first_row(false)), ("", None));
        let restored = first_row(true);
        assert!(matches!(parse(&restored), ("", Some(mark)) if mark.len() == 16));
    }
}
