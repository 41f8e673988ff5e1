//! What can go wrong with the database, in the classes that decide what to do about it.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

/// An error of the queue. The message never holds the database URL or a password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// `--database-url` cannot be used.
    #[error("--database-url: {0}; expected mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(String),
    /// The server or its schema cannot be used; a person must do something.
    #[error("{0}")]
    Unfit(String),
    /// The database does not answer, or refused the connection.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// The database answers, and tells another history than the one that is worked in.
    #[error("{0}")]
    AnotherHistory(String),
    /// The database has no space left for what is written; it goes on once there is some.
    #[error("the database has no space left: {0}; make room, and everything goes on by itself")]
    Full(String),
    /// The COMMIT was sent and no answer came.
    #[error("the connection was lost while a transaction was committed")]
    CommitUnknown,
    /// The database gave up on the transaction: deadlock, lock wait, snapshot conflict. Worth another try.
    #[error("the database gave the transaction up ({code})")]
    Conflict {
        /// The server's error number.
        code: u16,
    },
    /// A `NOWAIT` lock was not free: the caller tries again.
    #[error("the row is busy")]
    Busy,
    /// A row holds something that this release does not understand.
    #[error("{table} row {key}: column {column} holds {value:?}, which this release does not know")]
    UnknownContent {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
        /// The column.
        column: &'static str,
        /// What was found there, shortened.
        value: String,
    },
    /// A key exists already.
    #[error("the key exists already: {0}")]
    Duplicate(String),
    /// Any other answer of the database.
    #[error("the database refused a statement: {0}")]
    Refused(String),
    /// A transaction's task panicked.
    #[error("a database transaction panicked: {0}")]
    Panicked(String),
}

/// Lock wait time-out, and a failed `NOWAIT` on MariaDB.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// A failed `NOWAIT` on MySQL.
const LOCK_NOWAIT: u16 = 3572;

impl QueueError {
    /// Whether the whole transaction is worth another try at once.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. }
                | Self::Unavailable(_)
                | Self::AnotherHistory(_)
                | Self::Full(_)
                | Self::CommitUnknown
        )
    }

    /// A short name for the metric label.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Unfit(_) => "unfit",
            Self::Unavailable(_) => "unavailable",
            Self::AnotherHistory(_) => "another_history",
            Self::Full(_) => "full",
            Self::CommitUnknown => "commit_unknown",
            Self::Conflict { .. } => "conflict",
            Self::Busy => "busy",
            Self::UnknownContent { .. } => "unknown_content",
            Self::Duplicate(_) => "duplicate",
            Self::Refused(_) => "refused",
            Self::Panicked(_) => "panicked",
        }
    }

    /// The error of a `NOWAIT` statement: a lock that is not free is [`Self::Busy`].
    pub(super) fn nowait(error: sqlx::Error) -> Self {
        match number(&error) {
            Some(LOCK_WAIT_TIMEOUT | LOCK_NOWAIT) => Self::Busy,
            _ => Self::from(error),
        }
    }

    /// A column that does not hold what it should.
    pub(super) fn unknown(table: &'static str, key: &str, column: &'static str, value: &str) -> Self {
        Self::UnknownContent { table, key: key.to_string(), column, value: value.chars().take(80).collect() }
    }
}

/// The server's error number.
fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// Whether a statement named a table that does not exist.
pub(super) fn is_no_table(error: &sqlx::Error) -> bool {
    number(error) == Some(1146)
}

impl From<sqlx::Error> for QueueError {
    fn from(error: sqlx::Error) -> Self {
        let Some(code) = number(&error) else {
            return match error {
                sqlx::Error::Configuration(cause) => Self::Url(cause.to_string()),
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnNotFound(_) => {
                    Self::Unfit(format!("the database's tables are not those of this release: {error}"))
                }
                other => Self::Unavailable(other.to_string()),
            };
        };
        let message = error.as_database_error().map(DatabaseError::message).unwrap_or_default().to_owned();
        match code {
            // Deadlock, lock wait, snapshot conflict (MariaDB), NOWAIT.
            1213 | LOCK_WAIT_TIMEOUT | 1020 | LOCK_NOWAIT => Self::Conflict { code },
            1062 => Self::Duplicate(message),
            // Gone away and lost; read-only or super-read-only server, a wrong one after a failover; too many
            // connections; shutting down.
            2006 | 2013 | 1290 | 1792 | 1836 | 1040 | 1053 | 1927 | 3024 | 1152 | 1158 | 1159 | 1160
            | 1161 | 4031 => Self::Unavailable(format!("{message} ({code})")),
            // All places for prepared statements are taken. The connection is closed for it, which gives its own back.
            1461 => Self::Unavailable(format!("{message} ({code}); raise max_prepared_stmt_count")),
            // Disk full: the server waits for space or refuses; either way it is not for ever.
            1021 | 1114 | 3675 => Self::Full(format!("{message} ({code})")),
            1045 => Self::Unfit(format!(
                "{message} ({code}); check the user, its rights and the database's name in --database-url; where the password was \
                 changed, write the new one: --database-url-file is read again, --database-url needs a restart"
            )),
            1044 | 1049 | 1142 | 1143 | 1227 => Self::Unfit(format!(
                "{message} ({code}); check the user, its rights and the database's name in --database-url"
            )),
            1054 | 1146 => Self::Unfit(format!(
                "{message} ({code}); run `autobuild migrate` of this release against this database"
            )),
            _ => Self::Refused(format!("{message} ({code})")),
        }
    }
}

/// Whether a connection that gave this error must not be used again.
pub(super) fn poisons_connection(error: &QueueError) -> bool {
    matches!(error, QueueError::Unavailable(_) | QueueError::AnotherHistory(_) | QueueError::CommitUnknown)
}
