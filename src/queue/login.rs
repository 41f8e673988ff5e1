//! Logins: refused credentials stop after two tries for each BMC and content of the Secret, across processes, before a
//! BMC locks its account.
//!
//! Not for ever: BMCs refuse right passwords while they start, while their directory is away, or while somebody else has
//! locked the account. What logged in before is tried again at long intervals, each time once for all who share it; and
//! everything is, once, by a person's word.

use std::collections::BTreeSet;

use sqlx::{MySqlConnection, Row};

use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, now_ms};
use crate::api::Reason;
use crate::job::{JobId, ServerUid};

/// Tries after which a content is not tried again.
const TRIES: i64 = 2;

/// Longest text kept of what a BMC said, in characters.
const SAID: usize = 512;

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

/// A BMC by where it answers, and for whom a login is tried there: what never logged in is tried a few times at one address,
/// whatever names lead there and whatever user names and passwords are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginPeer {
    /// Every `ip:port` that may be connected to: a name that leads elsewhere as well is no way round.
    pub addresses: Vec<String>,
    /// The namespace of the server.
    pub namespace: String,
}

/// Whether a login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginLeave {
    /// Yes; how it ended is to be recorded.
    Granted,
    /// The same for a content that never logged in: the try is counted at the addresses of its BMC, and given back by
    /// [`Queue::give_back_try`] where it was not refused.
    Counted,
    /// Not now: others are trying this content.
    Later,
    /// No: the BMC refused this content.
    Stopped,
    /// Not now: as many contents that never logged in were refused at this address as are tried in a while.
    PeerStopped {
        /// From when on it may be tried, milliseconds since the Unix epoch.
        from_ms: i64,
        /// The database's clock.
        now_ms: i64,
    },
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

/// A content that a BMC refused as often as it is tried by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLogin {
    /// How often, since it last logged in.
    pub failures: i64,
    /// Since when, milliseconds since the Unix epoch; `None`: an earlier release saw it first.
    pub since_ms: Option<i64>,
    /// When it is tried again by itself; `None`: it never logged in, and is not.
    pub next_try_ms: Option<i64>,
    /// What the BMC said first, without any secret; empty: that is not known.
    pub said: String,
    /// The database's clock.
    pub now_ms: i64,
}

/// Tries of contents that never logged in, at one address and for one namespace, in [`PEER_WINDOW_MS`]: three contents, each
/// [`TRIES`] times.
const PEER_TRIES: i64 = 6;
/// The same for all namespaces together: one of them alone keeps nobody else from trying.
const PEER_TRIES_OF_ALL: i64 = 12;
/// What a try counts for, in milliseconds: longer than the time after which BMCs forget refused logins.
const PEER_WINDOW_MS: i64 = 900_000;

struct Begin {
    key: LoginKey,
    peer: Option<LoginPeer>,
    word: Option<String>,
}

impl LoginPeer {
    /// The rows that its tries are counted in, with the bound of each, in lock order. In place of a hash they have the namespace,
    /// or nothing for all of them.
    fn rows(&self) -> Vec<(LoginKey, i64)> {
        let addresses: BTreeSet<&String> = self.addresses.iter().collect();
        let of = |address: &String, whose: &str| LoginKey {
            bmc: format!("peer:{address}"),
            secret_hash: whose.to_owned(),
        };
        let rows = addresses.into_iter().map(|address| {
            [(of(address, ""), PEER_TRIES_OF_ALL), (of(address, &self.namespace), PEER_TRIES)]
        });
        rows.flatten().collect()
    }

    /// Counts a try before it is made; `Some`: none is left before then.
    async fn count(&self, connection: &mut MySqlConnection, now_ms: i64) -> Result<Option<i64>, QueueError> {
        for (row, bound) in self.rows() {
            let (tries, since_ms) = lock(connection, &row).await?;
            let is_over = since_ms.is_none_or(|since| now_ms - since >= PEER_WINDOW_MS);
            if !is_over && tries >= bound {
                return Ok(since_ms.map(|since| since + PEER_WINDOW_MS));
            }
            sqlx::query(
                "UPDATE login SET failures = ?, refused_since_ms = ? WHERE bmc = ? AND secret_hash = ?",
            )
            .bind(if is_over { 1 } else { tries + 1 })
            .bind(since_ms.filter(|_| !is_over).unwrap_or(now_ms))
            .bind(&row.bmc)
            .bind(&row.secret_hash)
            .execute(&mut *connection)
            .await?;
        }
        Ok(None)
    }
}

/// Locks the row of an address; how many tries it has, and since when.
async fn lock(connection: &mut MySqlConnection, row: &LoginKey) -> Result<(i64, Option<i64>), QueueError> {
    sqlx::query("INSERT INTO login (bmc, secret_hash) VALUES (?, ?) ON DUPLICATE KEY UPDATE bmc = bmc")
        .bind(&row.bmc)
        .bind(&row.secret_hash)
        .execute(&mut *connection)
        .await?;
    let found = sqlx::query(
        "SELECT failures, refused_since_ms FROM login WHERE bmc = ? AND secret_hash = ? FOR UPDATE",
    )
    .bind(&row.bmc)
    .bind(&row.secret_hash)
    .fetch_one(connection)
    .await?;
    Ok((found.try_get("failures")?, found.try_get("refused_since_ms")?))
}

impl Transaction for Begin {
    type Output = LoginLeave;
    const NAME: &'static str = "login_begin";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<LoginLeave>, QueueError> {
        let Self { key, peer, word } = self;
        sqlx::query("INSERT INTO login (bmc, secret_hash) VALUES (?, ?) ON DUPLICATE KEY UPDATE bmc = bmc")
            .bind(&key.bmc)
            .bind(&key.secret_hash)
            .execute(&mut *connection)
            .await?;
        let row = sqlx::query(concat!(
            "SELECT failures, pending, pending_at_ms, succeeded, next_try_ms, word, ",
            now_ms!(),
            " AS now_ms FROM login WHERE bmc = ? AND secret_hash = ? FOR UPDATE"
        ))
        .bind(&key.bmc)
        .bind(&key.secret_hash)
        .fetch_one(&mut *connection)
        .await?;
        let failures: i64 = row.try_get("failures")?;
        let now_ms: i64 = row.try_get("now_ms")?;
        let has_logged_in = row.try_get::<i64, _>("succeeded")? != 0;
        let unproven = peer.as_ref().filter(|_| !has_logged_in);
        let granted = if unproven.is_some() { LoginLeave::Counted } else { LoginLeave::Granted };
        if failures >= TRIES {
            let known_word: Option<String> = row.try_get("word")?;
            let asked = word.is_some() && *word != known_word;
            let due = has_logged_in && now_ms >= row.try_get::<i64, _>("next_try_ms")?;
            if !asked && !due {
                return Ok(Ending::Rollback(LoginLeave::Stopped));
            }
            if let Some(peer) = unproven
                && let Some(from_ms) = peer.count(connection, now_ms).await?
            {
                return Ok(Ending::Rollback(LoginLeave::PeerStopped { from_ms, now_ms }));
            }
            // One try, whoever makes it: all others wait for the next one.
            sqlx::query(
                "UPDATE login SET word = COALESCE(?, word), next_try_ms = ? WHERE bmc = ? AND secret_hash = ?",
            )
            .bind(word.as_ref().filter(|_| asked))
            .bind(now_ms + pause_ms(failures + 1))
            .bind(&key.bmc)
            .bind(&key.secret_hash)
            .execute(connection)
            .await?;
            return Ok(Ending::Commit(granted));
        }
        // What logged in once is counted only after a refusal: a fleet behind one BMC does not wait in line.
        if has_logged_in && failures == 0 {
            return Ok(Ending::Rollback(LoginLeave::Granted));
        }
        let forgotten = now_ms - row.try_get::<i64, _>("pending_at_ms")? > PENDING_MS;
        let pending: i64 = if forgotten { 0 } else { row.try_get("pending")? };
        if failures + pending >= TRIES {
            return Ok(Ending::Rollback(LoginLeave::Later));
        }
        if let Some(peer) = unproven
            && let Some(from_ms) = peer.count(connection, now_ms).await?
        {
            return Ok(Ending::Rollback(LoginLeave::PeerStopped { from_ms, now_ms }));
        }
        sqlx::query("UPDATE login SET pending = ?, pending_at_ms = ? WHERE bmc = ? AND secret_hash = ?")
            .bind(pending + 1)
            .bind(now_ms)
            .bind(&key.bmc)
            .bind(&key.secret_hash)
            .execute(connection)
            .await?;
        Ok(Ending::Commit(granted))
    }
}

/// How long a content that logged in before is left alone once it was refused so often: longer than the time after which
/// BMCs forget refused logins and unlock an account (most within 5 to 15 minutes), and never more than an hour.
const fn pause_ms(failures: i64) -> i64 {
    match failures {
        ..=TRIES => 900_000,
        3 => 1_800_000,
        _ => 3_600_000,
    }
}

impl Queue {
    /// Asks for leave to log in; counts the try before it is made where this content never logged in.
    pub async fn begin_login(&self, key: LoginKey) -> Result<LoginLeave, QueueError> {
        self.begin_login_by(key, None, None).await
    }

    /// The same for a login at `peer`, and where a person asks for a try: a new `word` is leave for one try more of this content,
    /// whatever was refused before.
    pub async fn begin_login_by(
        &self,
        key: LoginKey,
        peer: Option<LoginPeer>,
        word: Option<String>,
    ) -> Result<LoginLeave, QueueError> {
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
            _ => self.transact(Begin { key, peer, word }).await,
        }
    }

    /// Records how a login ended. A success that is known already writes nothing.
    pub async fn end_login(&self, key: &LoginKey, end: LoginEnd) -> Result<(), QueueError> {
        let statement = match end {
            LoginEnd::Accepted => {
                "UPDATE login SET succeeded = 1, failures = 0, pending = 0, refused_since_ms = NULL, said = NULL, \
                 next_try_ms = 0 WHERE bmc = ? AND secret_hash = ? AND (succeeded = 0 OR failures > 0)"
            }
            LoginEnd::Refused => return self.login_refused(key, "").await,
            LoginEnd::Unanswered => {
                concat!(
                    "UPDATE login SET pending = GREATEST(pending - 1, 0), \
                     next_try_ms = IF(failures >= 2, LEAST(next_try_ms, ",
                    now_ms!(),
                    " + 60000), next_try_ms) WHERE bmc = ? AND secret_hash = ? AND (pending > 0 OR failures >= 2)"
                )
            }
        };
        let ended = sqlx::query(statement).bind(&key.bmc).bind(&key.secret_hash).execute(self.pool()).await?;
        if end == LoginEnd::Accepted && ended.rows_affected() > 0 {
            self.wake_refused_logins(&key.bmc).await?;
        }
        Ok(())
    }

    /// A login that was refused at this BMC is let in again: those who wait for it there try theirs, and those who were told
    /// of it are looked at. Which content each of them has nobody here knows: one that is still refused costs no login.
    async fn wake_refused_logins(&self, bmc: &str) -> Result<(), QueueError> {
        let rows = sqlx::query(
            "SELECT server_state.server_uid, job.id FROM bmc_claim FORCE INDEX (PRIMARY) \
             JOIN server_state FORCE INDEX (PRIMARY) ON server_state.server_uid = bmc_claim.server_uid \
             LEFT JOIN job FORCE INDEX (PRIMARY) ON job.server_uid = bmc_claim.server_uid AND job.reason = ? \
             WHERE bmc_claim.host = ? AND (job.id IS NOT NULL OR server_state.unanswered LIKE ?)",
        )
        .bind(Reason::CredentialsInvalid.as_str())
        .bind(format!("name:{bmc}"))
        .bind(format!("%\"{}\"%", Reason::CredentialsInvalid.as_str()))
        .fetch_all(self.pool())
        .await?;
        for row in rows {
            let uid = ServerUid(row.try_get("server_uid")?);
            match row.try_get::<Option<i64>, _>("id")? {
                Some(id) => match self.signal(&uid, JobId(id)).await {
                    // Its row is being written: what keeps it then looks again by itself, at the latest when its pause is over.
                    Err(QueueError::Busy) => {}
                    signalled => drop(signalled?),
                },
                // A look is due at once.
                None => {
                    sqlx::query(concat!(
                        "UPDATE server_state SET last_try_ms = NULL, version = version + 1, \
                         changed_at_ms = COALESCE(changed_at_ms, ",
                        now_ms!(),
                        ") WHERE server_uid = ?"
                    ))
                    .bind(uid.as_str())
                    .execute(self.pool())
                    .await?;
                }
            }
        }
        Ok(())
    }

    /// Gives back a try that was [`LoginLeave::Counted`] and not refused.
    pub async fn give_back_try(&self, peer: &LoginPeer) -> Result<(), QueueError> {
        for (row, _) in peer.rows() {
            sqlx::query(
                "UPDATE login SET failures = failures - 1 WHERE bmc = ? AND secret_hash = ? AND failures > 0",
            )
            .bind(&row.bmc)
            .bind(&row.secret_hash)
            .execute(self.pool())
            .await?;
        }
        Ok(())
    }

    /// Records that the BMC refused a login, and what it said, of which the first is kept.
    pub async fn login_refused(&self, key: &LoginKey, said: &str) -> Result<(), QueueError> {
        let said: String = said.chars().take(SAID).collect();
        // MySQL and MariaDB assign from left to right: the pause is by how often it was refused before.
        sqlx::query(concat!(
            "UPDATE login SET next_try_ms = ",
            now_ms!(),
            " + CASE WHEN failures < 2 THEN 900000 WHEN failures = 2 THEN 1800000 ELSE 3600000 END, \
             refused_since_ms = COALESCE(refused_since_ms, ",
            now_ms!(),
            "), said = COALESCE(said, NULLIF(?, '')), failures = failures + 1, pending = GREATEST(pending - 1, 0) \
             WHERE bmc = ? AND secret_hash = ?"
        ))
        .bind(said)
        .bind(&key.bmc)
        .bind(&key.secret_hash)
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// What is known of a content that is stopped; `None`: it is not.
    pub async fn refused_login(&self, key: &LoginKey) -> Result<Option<RefusedLogin>, QueueError> {
        let row = sqlx::query(concat!(
            "SELECT failures, succeeded, refused_since_ms, next_try_ms, said, ",
            now_ms!(),
            " AS now_ms FROM login WHERE bmc = ? AND secret_hash = ? AND failures >= ?"
        ))
        .bind(&key.bmc)
        .bind(&key.secret_hash)
        .bind(TRIES)
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let has_logged_in = row.try_get::<i64, _>("succeeded")? != 0;
        Ok(Some(RefusedLogin {
            failures: row.try_get("failures")?,
            since_ms: row.try_get("refused_since_ms")?,
            next_try_ms: if has_logged_in { Some(row.try_get("next_try_ms")?) } else { None },
            said: row.try_get::<Option<String>, _>("said")?.unwrap_or_default(),
            now_ms: row.try_get("now_ms")?,
        }))
    }
}
