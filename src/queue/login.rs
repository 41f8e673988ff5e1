//! Logins: wrong credentials stop after two tries for each BMC and content of the Secret, across processes, before a
//! BMC locks its account.

use sqlx::{MySqlConnection, Row};

use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, now_ms};

/// Tries after which a content is not tried again.
const TRIES: i64 = 2;

/// A try whose end nobody recorded counts for this long (its process died in between).
const PENDING_MS: i64 = 300_000;

/// One content of a Secret at one BMC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoginKey {
    /// The normalised `host:port`.
    pub bmc: String,
    /// The keyed hash of the user name and the password, in hexadecimal.
    pub secret_hash: String,
}

/// Whether a login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginLeave {
    /// Yes; how it ended is to be recorded.
    Granted,
    /// Not now: others are trying this content.
    Later,
    /// No: the BMC refused this content.
    Stopped,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginEnd {
    /// The BMC let us in.
    Accepted,
    /// The BMC answered 401 or 403.
    Refused,
    /// The BMC did not say.
    Unanswered,
}

struct Begin(LoginKey);

impl Transaction for Begin {
    type Output = LoginLeave;
    const NAME: &'static str = "login_begin";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<LoginLeave>, QueueError> {
        let Self(key) = self;
        sqlx::query("INSERT INTO login (bmc, secret_hash) VALUES (?, ?) ON DUPLICATE KEY UPDATE bmc = bmc")
            .bind(&key.bmc)
            .bind(&key.secret_hash)
            .execute(&mut *connection)
            .await?;
        let row = sqlx::query(concat!(
            "SELECT failures, pending, pending_at_ms, succeeded, ",
            now_ms!(),
            " AS now_ms FROM login WHERE bmc = ? AND secret_hash = ? FOR UPDATE"
        ))
        .bind(&key.bmc)
        .bind(&key.secret_hash)
        .fetch_one(&mut *connection)
        .await?;
        let failures: i64 = row.try_get("failures")?;
        let now_ms: i64 = row.try_get("now_ms")?;
        if failures >= TRIES {
            return Ok(Ending::Rollback(LoginLeave::Stopped));
        }
        // What logged in once is counted only after a refusal: a fleet behind one BMC does not wait in line.
        if row.try_get::<i64, _>("succeeded")? != 0 {
            return Ok(Ending::Rollback(LoginLeave::Granted));
        }
        let forgotten = now_ms - row.try_get::<i64, _>("pending_at_ms")? > PENDING_MS;
        let pending: i64 = if forgotten { 0 } else { row.try_get("pending")? };
        if failures + pending >= TRIES {
            return Ok(Ending::Rollback(LoginLeave::Later));
        }
        sqlx::query("UPDATE login SET pending = ?, pending_at_ms = ? WHERE bmc = ? AND secret_hash = ?")
            .bind(pending + 1)
            .bind(now_ms)
            .bind(&key.bmc)
            .bind(&key.secret_hash)
            .execute(connection)
            .await?;
        Ok(Ending::Commit(LoginLeave::Granted))
    }
}

impl Queue {
    /// Asks for leave to log in; counts the try before it is made where this content never logged in.
    pub async fn begin_login(&self, key: LoginKey) -> Result<LoginLeave, QueueError> {
        let known: Option<(i64, i64)> = sqlx::query_as(
            "SELECT CAST(succeeded AS SIGNED), CAST(failures AS SIGNED) FROM login WHERE bmc = ? AND secret_hash = ?",
        )
        .bind(&key.bmc)
        .bind(&key.secret_hash)
        .fetch_optional(self.pool())
        .await?;
        match known {
            // The common case costs one read.
            Some((1, 0)) => Ok(LoginLeave::Granted),
            _ => self.transact(Begin(key)).await,
        }
    }

    /// Records how a login ended. A success that is known already writes nothing.
    pub async fn end_login(&self, key: &LoginKey, end: LoginEnd) -> Result<(), QueueError> {
        let statement = match end {
            LoginEnd::Accepted => {
                "UPDATE login SET succeeded = 1, failures = 0, pending = 0 WHERE bmc = ? AND secret_hash = ? \
                 AND (succeeded = 0 OR failures > 0)"
            }
            LoginEnd::Refused => {
                "UPDATE login SET failures = failures + 1, pending = GREATEST(pending - 1, 0) \
                 WHERE bmc = ? AND secret_hash = ?"
            }
            LoginEnd::Unanswered => {
                "UPDATE login SET pending = GREATEST(pending - 1, 0) WHERE bmc = ? AND secret_hash = ? AND pending > 0"
            }
        };
        sqlx::query(statement).bind(&key.bmc).bind(&key.secret_hash).execute(self.pool()).await?;
        Ok(())
    }
}
