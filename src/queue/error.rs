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
    /// The COMMIT was sent, and no answer came that says what became of it.
    #[error("whether a transaction was committed is not known: {0}")]
    CommitUnknown(String),
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

/// What an answer of the server with a number means, where it comes before the COMMIT. Closed: a number that is not in
/// [`answers`] is a refusal of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// The server took the transaction back: deadlock, lock wait, certification, snapshot.
    Conflict,
    /// A key exists already.
    Duplicate,
    /// This server serves nobody now, or not this connection any more.
    Unavailable,
    /// The same; a person can mend it.
    UnavailableUntil(&'static str),
    /// No space is left.
    Full,
    /// A person must do something.
    Unfit(&'static str),
    /// The statement is refused, by a setting.
    TooLarge(&'static str),
    /// It says what it means in words alone.
    ByItsWords,
}

/// Lock wait time-out, and a failed `NOWAIT` on MariaDB.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// A failed `NOWAIT` on MySQL.
const LOCK_NOWAIT: u16 = 3572;
/// Galera could not certify the transaction, has lost its quorum, or the transaction is too large for it.
const ERROR_DURING_COMMIT: u16 = 1180;
/// The server has no number of its own for it.
const UNKNOWN_ERROR: u16 = 1105;

const RIGHTS: &str = "check the user, its rights and the database's name in --database-url";
const LOGIN: &str = "check the user, its rights and the database's name in --database-url; where the password was changed, write \
                     the new one: --database-url-file is read again, --database-url needs a restart";
const MIGRATE: &str = "run `autobuild migrate` of this release against this database";

/// The closed classification. Numbers and names are those of the servers' own lists: MySQL 9.7 Error Message Reference, MariaDB
/// Error Codes; what members of a cluster answer was seen on Group Replication of MySQL 9.7.4 and on Galera 26.4.23.
const fn answers(code: u16) -> Option<Means> {
    Some(match code {
        // ER_LOCK_DEADLOCK (Galera: certification failed too), ER_CHECKREAD (snapshot, MariaDB), ER_TRANSACTION_ROLLBACK_DURING_COMMIT
        // (certification failed in the group).
        1213 | LOCK_WAIT_TIMEOUT | 1020 | LOCK_NOWAIT | 3101 => Means::Conflict,
        1062 => Means::Duplicate,
        // ER_SERVER_SHUTDOWN, ER_QUERY_INTERRUPTED, ER_ABORTING_CONNECTION, ER_NEW_ABORTING_CONNECTION, ER_SESSION_WAS_KILLED,
        // ER_CONNECTION_KILLED, ER_TOO_MANY_CONCURRENT_TRXS; the client's own CR_SERVER_GONE_ERROR and CR_SERVER_LOST; network reads and writes of the server; a statement that took too long
        // (ER_QUERY_TIMEOUT, ER_STATEMENT_TIMEOUT); ER_CLIENT_INTERACTION_TIMEOUT.
        1053 | 1317 | 1637 | 1152 | 1184 | 3169 | 1927 | 2006 | 2013 | 1158 | 1159 | 1160 | 1161 | 3024 | 1969 | 4031
        // Read-only, or about to be: ER_OPTION_PREVENTS_STATEMENT, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE,
        // ER_CANT_UPDATE_WITH_READLOCK.
        | 1290 | 1792 | 1836 | 1223
        // A member that serves nobody: ER_SERVER_OFFLINE_MODE, ER_SERVER_ISNT_AVAILABLE, and what Group Replication answers while its
        // view changes.
        | 3032 | 3168 | 3796 | 3797 | 3798 | 3799 => Means::Unavailable,
        // ER_UNKNOWN_COM_ERROR: what a node of a Galera cluster answers without its quorum.
        1047 => Means::UnavailableUntil("has the cluster lost its majority?"),
        // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS.
        1040 | 1203 => Means::UnavailableUntil("raise max_connections, or what the user may have of them"),
        // ER_USER_LIMIT_REACHED.
        1226 => Means::UnavailableUntil("take the limit per hour, or of connections, away from the user"),
        // ER_MAX_PREPARED_STMT_COUNT_REACHED. The connection is closed for it, which gives its own places back.
        1461 => Means::UnavailableUntil("raise max_prepared_stmt_count"),
        // ER_LOCK_TABLE_FULL, ER_OUTOFMEMORY, ER_OUT_OF_SORTMEMORY, ER_OUT_OF_RESOURCES.
        1206 | 1037 | 1038 | 1041 => Means::UnavailableUntil("give the server more memory (innodb_buffer_pool_size)"),
        // The disk is full: the server waits for space or refuses; either way it is not for ever.
        1021 | 1114 | 3675 => Means::Full,
        // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_MUST_CHANGE_PASSWORD, ER_MUST_CHANGE_PASSWORD_LOGIN,
        // ER_ACCOUNT_HAS_BEEN_LOCKED.
        1045 | 1698 | 1820 | 1862 | 3118 => Means::Unfit(LOGIN),
        // ER_HOST_IS_BLOCKED, ER_HOST_NOT_PRIVILEGED.
        1129 | 1130 => Means::Unfit(
            "let the user log in from this host; where it was blocked, TRUNCATE TABLE performance_schema.host_cache (MySQL) or FLUSH HOSTS \
             (MariaDB)",
        ),
        1044 | 1049 | 1142 | 1143 | 1227 => Means::Unfit(RIGHTS),
        1054 | 1146 => Means::Unfit(MIGRATE),
        // ER_SECURE_TRANSPORT_REQUIRED.
        3159 => Means::Unfit("the server wants TLS: add ?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE to --database-url"),
        // ER_BEFORE_DML_VALIDATION_ERROR: a table that Group Replication does not take.
        3098 => Means::Unfit(
            "the group refuses to write to this table: every table has to be InnoDB with a primary key, and the group needs one writer \
             (group_replication_single_primary_mode = ON)",
        ),
        // ER_TRANS_CACHE_FULL, ER_NET_PACKET_TOO_LARGE, ER_STMT_CACHE_FULL.
        1197 | 1705 => Means::TooLarge("raise max_binlog_cache_size and max_binlog_stmt_cache_size"),
        1153 => Means::TooLarge("raise max_allowed_packet"),
        ERROR_DURING_COMMIT | UNKNOWN_ERROR => Means::ByItsWords,
        _ => return None,
    })
}

/// What a server says in words alone: Galera's limits of a transaction, and that it has lost its cluster.
fn by_its_words(code: u16, message: &str) -> Option<Means> {
    let says = |word: &str| message.to_ascii_lowercase().contains(word);
    if says("wsrep_max_ws_") || says("maximum writeset size") {
        return Some(Means::TooLarge("raise wsrep_max_ws_rows and wsrep_max_ws_size"));
    }
    (code == ERROR_DURING_COMMIT).then_some(Means::Conflict)
}

impl QueueError {
    /// Whether the whole transaction is worth another try at once.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. }
                | Self::Unavailable(_)
                | Self::AnotherHistory(_)
                | Self::Full(_)
                | Self::CommitUnknown(_)
        )
    }

    /// What it says where it is known that the database is meant.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Unavailable(said) | Self::Unfit(said) => said.clone(),
            other => other.to_string(),
        }
    }

    /// A short name for the metric label.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Unfit(_) => "unfit",
            Self::Unavailable(_) => "unavailable",
            Self::AnotherHistory(_) => "another_history",
            Self::Full(_) => "full",
            Self::CommitUnknown(_) => "commit_unknown",
            Self::Conflict { .. } => "conflict",
            Self::Busy => "busy",
            Self::UnknownContent { .. } => "unknown_content",
            Self::Duplicate(_) => "duplicate",
            Self::Refused(_) => "refused",
            Self::Panicked(_) => "panicked",
        }
    }

    /// What an answer with a number means, where it comes before the COMMIT.
    fn answered(code: u16, message: &str) -> Self {
        let means = match answers(code) {
            Some(Means::ByItsWords) => by_its_words(code, message),
            means => means,
        };
        let said = format!("{message} ({code})");
        match means {
            Some(Means::Conflict) => Self::Conflict { code },
            Some(Means::Duplicate) => Self::Duplicate(message.to_owned()),
            Some(Means::Unavailable) => Self::Unavailable(said),
            Some(Means::UnavailableUntil(remedy)) => Self::Unavailable(format!("{said}; {remedy}")),
            Some(Means::Full) => Self::Full(said),
            Some(Means::Unfit(remedy)) => Self::Unfit(format!("{said}; {remedy}")),
            Some(Means::TooLarge(remedy)) => Self::Refused(format!("{said}; {remedy}")),
            Some(Means::ByItsWords) | None => Self::Refused(said),
        }
    }

    /// The error of a COMMIT. That the server took the transaction back is certain of a conflict alone: Group Replication's 3100
    /// was seen on transactions that the whole group then had, and nobody knows what else a server calls an error after it has
    /// sent a transaction to others.
    pub(super) fn at_commit(error: sqlx::Error) -> Self {
        match number(&error) {
            // Lock wait time-outs come before a COMMIT; at one they are those of a cluster.
            Some(code @ (1213 | 3101)) => Self::Conflict { code },
            _ => Self::CommitUnknown(Self::from(error).to_string()),
        }
    }

    /// The error of a read that waits until a node of a Galera cluster has everything: a time-out says that it is cut off.
    pub(super) fn at_causal_read(error: sqlx::Error) -> Self {
        match number(&error) {
            Some(LOCK_WAIT_TIMEOUT) => Self::Unavailable(
                "the node is cut off from its cluster: it did not get what the others have committed (wsrep_sync_wait, 1205); has the \
                 cluster lost its majority?"
                    .to_owned(),
            ),
            _ => Self::from(error),
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
        let message = error.as_database_error().map(DatabaseError::message).unwrap_or_default();
        Self::answered(code, message)
    }
}

/// Whether a connection that gave this error must not be used again.
pub(super) const fn poisons_connection(error: &QueueError) -> bool {
    matches!(
        error,
        QueueError::Unavailable(_)
            | QueueError::AnotherHistory(_)
            | QueueError::CommitUnknown(_)
            | QueueError::Unfit(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_one_thing_and_what_can_be_mended_names_its_remedy() {
        for (code, message, class, said) in [
            (1213, "Deadlock found", "conflict", "1213"),
            (3101, "Plugin instructed the server to rollback", "conflict", "3101"),
            (1180, "Got error 6 \"No such device or address\" during COMMIT", "conflict", "1180"),
            (1180, "wsrep_max_ws_rows exceeded", "refused", "wsrep_max_ws_rows"),
            (1105, "Maximum writeset size exceeded", "refused", "wsrep_max_ws_size"),
            (1105, "Unknown error", "refused", "1105"),
            (1047, "WSREP has not yet prepared node for application use", "unavailable", "lost its majority"),
            (1317, "Query execution was interrupted", "unavailable", "1317"),
            (3798, "…", "unavailable", "3798"),
            (1226, "User has exceeded", "unavailable", "limit"),
            (1114, "The table is full", "full", "1114"),
            (3159, "Connections using insecure transport are prohibited", "unfit", "the server wants TLS"),
            (3098, "The table does not comply", "unfit", "primary key"),
            (1045, "Access denied", "unfit", "--database-url-file"),
            (1146, "Table doesn't exist", "unfit", "autobuild migrate"),
            (1197, "Multi-statement transaction required more", "refused", "max_binlog_cache_size"),
            (1064, "You have an error", "refused", "1064"),
        ] {
            let error = QueueError::answered(code, message);
            assert_eq!(error.class(), class, "{code} {message}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
