//! Which history a database tells. After a failover that lost commits, or a restore, the same address answers with
//! another past: nothing that was known of it may be continued.
//!
//! Signs of another history, each enough by itself:
//!
//! | sign | comes from |
//! |---|---|
//! | the own worker row is missing or older than what was confirmed | lost commits |
//! | `meta.epoch` differs | `migrate --new-epoch` after a restore, or an empty database in place of the old one |
//! | `@@server_uuid` differs (MySQL), `@@server_id` differs (MariaDB) | another server answers |
//!
//! Equal values prove nothing on MariaDB (`server_id` is 1 by default), but servers that replicate from each other have
//! different ones.
//!
//! A worker that starts knows no history that it could compare with, so `meta` keeps what was last seen: row `history`
//! is the server, and behind a blank a random mark while the quiet time is not over for everybody. Whoever finds another
//! history sets a new mark; whoever enters while there is one waits the whole quiet time on its own monotonic clock, and
//! then takes away the mark that it saw. Row `quiet_ms` is the longest time that any of the workers needs.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{MySqlConnection, Row};
use tokio::sync::Notify;

use super::{Engine, QueueError};

/// What tells one history from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    epoch: String,
    server: String,
}

impl History {
    /// Reads it from the server behind a connection. A server that takes no writes is not the one to work with.
    pub(super) async fn read(connection: &mut MySqlConnection, engine: Engine) -> Result<Self, QueueError> {
        let statement = match engine {
            Engine::MySql => {
                "SELECT (SELECT value FROM meta WHERE name = 'epoch') AS epoch, CAST(@@server_uuid AS CHAR) AS server, \
                 CAST(@@read_only AS CHAR) AS read_only"
            }
            Engine::MariaDb => {
                "SELECT (SELECT value FROM meta WHERE name = 'epoch') AS epoch, CAST(@@server_id AS CHAR) AS server, \
                 CAST(@@read_only AS CHAR) AS read_only"
            }
        };
        let row = sqlx::query(statement).fetch_one(connection).await?;
        let read_only: String = row.try_get("read_only")?;
        if !matches!(read_only.as_str(), "0" | "OFF") {
            return Err(QueueError::Unavailable(
                "it is read-only: a replica that was not promoted; promote it, or let --database-url lead to the primary"
                    .to_owned(),
            ));
        }
        let epoch: Option<String> = row.try_get("epoch")?;
        let no_epoch =
            || QueueError::Unfit("the table meta has no epoch; run `autobuild migrate`".to_owned());
        Ok(Self { epoch: epoch.ok_or_else(no_epoch)?, server: row.try_get("server")? })
    }
}

/// The history that this process works in. Every connection of its pool is compared with it.
#[derive(Debug)]
pub(super) struct Present {
    state: Mutex<State>,
    another: Notify,
}

#[derive(Debug)]
struct State {
    history: History,
    since: Instant,
    /// Why the last connection was refused that was opened.
    refused: Option<String>,
}

impl Present {
    pub(super) fn new(history: History) -> Self {
        let state = State { history, since: Instant::now(), refused: None };
        Self { state: Mutex::new(state), another: Notify::new() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is(&self, history: &History) -> bool {
        self.with(|state| state.history == *history)
    }

    /// Works in `history` from now on; whether that is another one than before. Connections that were opened before
    /// are not used again.
    pub(super) fn adopt(&self, history: History) -> bool {
        self.with(|state| {
            state.refused = None;
            let another = state.history != history;
            if another {
                (state.history, state.since) = (history, Instant::now());
            }
            another
        })
    }

    /// Whether a connection of that age was opened in the present history.
    pub(super) fn covers(&self, age: Duration) -> bool {
        self.with(|state| age <= state.since.elapsed())
    }

    /// Refuses a connection that was just opened to a server of another history.
    pub(super) async fn admit(
        &self,
        connection: &mut MySqlConnection,
        engine: Engine,
    ) -> Result<(), sqlx::Error> {
        let refusal = match History::read(connection, engine).await {
            Ok(found) if self.is(&found) => None,
            Ok(_) => {
                self.another.notify_waiters();
                Some("its history is another one than before".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        self.with(|state| state.refused.clone_from(&refusal));
        refusal.map_or(Ok(()), |why| Err(sqlx::Error::Protocol(why)))
    }

    /// The error of an acquire: where every connection was refused, it says why.
    pub(super) fn explain(&self, error: sqlx::Error) -> QueueError {
        let refused = self.with(|state| state.refused.clone());
        match (error, refused) {
            (sqlx::Error::PoolTimedOut, Some(why)) => QueueError::Unavailable(why),
            (error, _) => QueueError::from(error),
        }
    }

    /// Waits until a connection was refused because its history is another one.
    pub(super) async fn another_seen(&self) {
        self.another.notified().await;
    }
}

/// How a worker enters a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Whether it knows that the history is another one than before.
    pub(super) lost: bool,
    /// The longer of one lease and the longest settle time, by its own settings.
    pub(super) quiet: Duration,
}

/// The time in which a worker claims nothing, and the row of `meta` that goes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) time: Duration,
    row: String,
}

/// The row `history`: the server, and the mark of a quiet time that is not over.
fn parse(row: &str) -> (&str, Option<&str>) {
    row.split_once(' ').map_or((row, None), |(server, mark)| (server, Some(mark)))
}

fn new_mark() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// What `migrate` writes: nothing was seen yet, and after a restore everybody is quiet first.
pub(super) fn first_row(restored: bool) -> String {
    if restored { format!(" {}", new_mark()) } else { String::new() }
}

/// Compares what `meta` says of the server that was last seen with the one that answers; in the transaction in which a
/// worker enters the registry. `Some`: it has to be quiet first.
pub(super) async fn enter(
    connection: &mut MySqlConnection,
    found: &History,
    entry: Entry,
) -> Result<Option<Quiet>, QueueError> {
    let rows = sqlx::query("SELECT name, value FROM meta WHERE name IN ('history', 'quiet_ms') FOR UPDATE")
        .fetch_all(&mut *connection)
        .await?;
    let (mut history, mut quiet_ms) = (None, None);
    for row in rows {
        let value: String = row.try_get("value")?;
        match row.try_get::<String, _>("name")?.as_str() {
            "history" => history = Some(value),
            _ => quiet_ms = value.parse::<u64>().ok(),
        }
    }
    let before = history.as_deref().unwrap_or_default();
    let (server, mark) = parse(before);
    let another = entry.lost || (!server.is_empty() && server != found.server);
    let mark = if another { Some(new_mark()) } else { mark.map(str::to_owned) };
    let now = match &mark {
        Some(mark) => format!("{} {mark}", found.server),
        None => found.server.clone(),
    };
    let own_ms = u64::try_from(entry.quiet.as_millis()).unwrap_or(u64::MAX);
    let others: Option<i64> =
        sqlx::query_scalar("SELECT heartbeat FROM worker LIMIT 1").fetch_optional(&mut *connection).await?;
    // What workers of an earlier time needed goes with the last of them.
    let forgotten = mark.is_none() && others.is_none();
    let longest_ms = quiet_ms.filter(|_| !forgotten).unwrap_or(0).max(own_ms);
    if history.as_deref() != Some(now.as_str()) {
        write(connection, "history", &now).await?;
    }
    if quiet_ms != Some(longest_ms) {
        write(connection, "quiet_ms", &longest_ms.to_string()).await?;
    }
    Ok(mark.map(|_| Quiet { time: Duration::from_millis(longest_ms), row: now }))
}

async fn write(connection: &mut MySqlConnection, name: &str, value: &str) -> Result<(), QueueError> {
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

    fn history(epoch: &str, server: &str) -> History {
        History { epoch: epoch.to_owned(), server: server.to_owned() }
    }

    #[test]
    fn a_row_names_the_server_and_the_mark_of_a_quiet_time() {
        assert_eq!(parse("uuid"), ("uuid", None));
        assert_eq!(parse("uuid 7f"), ("uuid", Some("7f")));
        assert_eq!(parse(&first_row(false)), ("", None));
        let restored = first_row(true);
        assert!(matches!(parse(&restored), ("", Some(mark)) if mark.len() == 16));
    }

    #[test]
    fn connections_of_the_history_before_are_not_used_again() {
        let present = Present::new(history("e", "1"));
        assert!(!present.adopt(history("e", "1")));
        assert!(present.covers(Duration::ZERO));
        assert!(present.adopt(history("e", "2")) && present.adopt(history("f", "2")));
        assert!(!present.covers(Duration::from_hours(1)));
        assert!(present.is(&history("f", "2")) && !present.is(&history("e", "2")));
    }
}
