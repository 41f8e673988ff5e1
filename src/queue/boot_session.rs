//! Boot sessions: what a machine boots while a job installs it, and what it tells on the way.
//!
//! A session is published with the first request of its job and goes with the job's row, whoever deletes that. It serves
//! only while that row lives without a cancel mark. What a machine tells is written together with the signal that wakes the
//! job, so that neither is lost without the other.

use std::sync::Arc;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::cancel::{insert_woken, lock, signal};
use super::many::{filled, marks};
use super::present::Present;
use super::row::JobRow;
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, card_claim, history, now_ms};
use crate::job::{BootEvidence, BootPurpose, Event, InstallProgress, JobId, ServerUid, Step};

/// A session that is about to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBootSession {
    /// The MAC address that boots: lower case, colons.
    pub mac: String,
    /// The name of the `OSImage`.
    pub image: String,
    /// The digest of its spec.
    pub digest: String,
    /// What it boots for.
    pub purpose: BootPurpose,
    /// The SHA-256 (hexadecimal) of the token by which a BMC reads the medium; `None`: the machine boots from the network.
    pub media_hash: Option<String>,
}

/// A session that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSession {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The job that published it: a later job of the same server has a session of its own.
    pub job: JobId,
    /// What boots.
    pub what: NewBootSession,
    /// When the BMC first read the medium, milliseconds since the Unix epoch.
    pub media_read_at_ms: Option<i64>,
    /// Which objects, in which version, its first script was given with.
    pub data_version: Option<String>,
}

/// What there is for a MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtMac {
    /// Nobody knows it.
    Unknown,
    /// It belongs to a known machine that has nothing to boot.
    Idle,
    /// A session.
    Armed(Box<BootSession>),
    /// It belongs to the machine of a session that waits for another card.
    OtherCard(Box<BootSession>),
}

/// What a machine tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallHome {
    /// Its script was handed out, or where its session is, with a token of this SHA-256 (hexadecimal): from now on this token counts alone, and its
    /// disks hold nobody knows what.
    ScriptFetched {
        /// The hash.
        token_hash: String,
        /// Which objects, in which version, it was given with: a SHA-256 (hexadecimal). Another one than with the first script is
        /// refused.
        data_version: String,
    },
    /// Its installer runs.
    Booted,
    /// How far it is.
    Progress(InstallProgress),
    /// Its installer gave up.
    Failed {
        /// In its own words, at most 256 characters.
        reason: String,
    },
    /// The boot service cannot give it what its image names, now or later.
    NotServed {
        /// Why, at most 512 characters.
        why: String,
    },
    /// The installed system runs. Ends the session.
    Installed,
    /// Another card of the machine asked for a script.
    OtherCard {
        /// Its address: lower case, colons.
        mac: String,
    },
    /// Another machine asked with the address of the session's card, or reported with its token.
    OtherMachine {
        /// What it said of itself, at most 512 characters.
        said: String,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is in the database.
    Recorded,
    /// The session serves no more: nothing was changed.
    Refused,
    /// The database tells another history than before, and nobody has derived every job again yet: nothing was changed.
    Underived,
    /// Its script was given in another history, which may have seen the end of it: nothing was changed.
    GivenBefore,
}

/// Between two tellings of progress, milliseconds: each is a write of status.
const PROGRESS_PAUSE_MS: i64 = 5_000;

struct Call {
    uid: ServerUid,
    job: JobId,
    /// The token that the machine showed; a script is fetched without one.
    token_hash: Option<String>,
    what: CallHome,
    present: Arc<Present>,
}

impl Transaction for Call {
    type Output = Heard;
    const NAME: &'static str = "call_home";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Heard>, QueueError> {
        let Some(job) = lock(connection, &self.uid, self.job).await? else {
            return Ok(Ending::Rollback(Heard::Refused));
        };
        if job.live.cancel.is_some() {
            return Ok(Ending::Rollback(Heard::Refused));
        }
        let row = sqlx::query(concat!(
            "SELECT installed_at_ms, told_at_ms, fetched_at_ms, token_hash, data_version, given_in, other_card, \
             other_machine, ",
            now_ms!(),
            " AS now_ms FROM boot_session WHERE server_uid = ? AND job_id = ? FOR UPDATE"
        ))
        .bind(self.uid.as_str())
        .bind(self.job.0)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(Ending::Rollback(Heard::Refused)) };
        let newest: Option<String> = row.try_get("token_hash")?;
        let showed_another = self.token_hash.is_some() && newest != self.token_hash;
        if showed_another || row.try_get::<Option<i64>, _>("installed_at_ms")?.is_some() {
            return Ok(Ending::Rollback(Heard::Refused));
        }
        let mut history = None;
        if let CallHome::ScriptFetched { data_version, .. } = &self.what {
            history = history::derived(connection, &self.present).await?;
            let Some(now) = &history else { return Ok(Ending::Rollback(Heard::Underived)) };
            let given_in: Option<String> = row.try_get("given_in")?;
            if given_in.is_some_and(|before| before != *now) {
                return Ok(Ending::Rollback(Heard::GivenBefore));
            }
            // Another process of the release before has given it.
            let was_given = row.try_get::<Option<i64>, _>("fetched_at_ms")?.is_some();
            history = history.filter(|_| !was_given);
            let first: Option<String> = row.try_get("data_version")?;
            if first.is_some_and(|first| first != *data_version) {
                return Ok(Ending::Rollback(Heard::Refused));
            }
        }
        let met = match &self.what {
            CallHome::OtherCard { mac } => Some((row.try_get::<Option<String>, _>("other_card")?, mac)),
            CallHome::OtherMachine { said } => {
                Some((row.try_get::<Option<String>, _>("other_machine")?, said))
            }
            _ => None,
        };
        // A machine that is started over and over tells the same each time.
        if met.is_some_and(|(before, now)| before.as_ref() == Some(now)) {
            return Ok(Ending::Rollback(Heard::Recorded));
        }
        let (now_ms, told): (i64, Option<i64>) = (row.try_get("now_ms")?, row.try_get("told_at_ms")?);
        let wakes = !matches!(self.what, CallHome::Booted | CallHome::Progress(_));
        let tells = wakes || told.is_none_or(|told| now_ms - told >= PROGRESS_PAUSE_MS);
        if wakes {
            signal(connection, &job).await?;
        }
        self.write(connection, now_ms, tells, history.as_deref()).await?;
        match &self.what {
            // Whatever was on the disks may be overwritten from now on.
            CallHome::ScriptFetched { .. } => {
                if let Some(mut locked) = state::lock(connection, &self.uid).await? {
                    locked.happened(&self.uid, &Event::ScriptGiven)?;
                    state::write(connection, &self.uid, locked, Tell::Controller).await?;
                }
            }
            _ if tells => state::touch(connection, &self.uid, Tell::Controller).await?,
            _ => {}
        }
        if wakes {
            insert_woken(connection, &job).await?;
        }
        Ok(Ending::Commit(Heard::Recorded))
    }
}

struct MediumRead {
    media_hash: String,
    present: Arc<Present>,
}

impl Transaction for MediumRead {
    type Output = Heard;
    const NAME: &'static str = "medium_read";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Heard>, QueueError> {
        if history::derived(connection, &self.present).await?.is_none() {
            return Ok(Ending::Rollback(Heard::Underived));
        }
        let read = sqlx::query(concat!(
            "UPDATE boot_session SET media_read_at_ms = ",
            now_ms!(),
            " WHERE media_hash = ? AND media_read_at_ms IS NULL"
        ))
        .bind(&self.media_hash)
        .execute(&mut *connection)
        .await?;
        if read.rows_affected() == 0 {
            return Ok(Ending::Rollback(Heard::Recorded));
        }
        // The session is locked. Who stores the request that starts the machine locks it too, in a later step than these.
        let job = sqlx::query(
            "SELECT job.server_uid, job.step FROM boot_session JOIN job ON job.server_uid = boot_session.server_uid \
             AND job.id = boot_session.job_id WHERE boot_session.media_hash = ?",
        )
        .bind(&self.media_hash)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(job) = job else { return Ok(Ending::Commit(Heard::Recorded)) };
        let step: String = job.try_get("step")?;
        if matches!(Step::parse(&step), Some(Step::SetBootOverride | Step::Off)) {
            return Ok(Ending::Commit(Heard::Recorded));
        }
        let uid = ServerUid(job.try_get("server_uid")?);
        if let Some(mut locked) = state::lock(connection, &uid).await? {
            locked.happened(&uid, &Event::MediumRead)?;
            state::write(connection, &uid, locked, Tell::Controller).await?;
        }
        Ok(Ending::Commit(Heard::Recorded))
    }
}

impl Call {
    async fn write(
        &self,
        connection: &mut MySqlConnection,
        now_ms: i64,
        tells: bool,
        history: Option<&str>,
    ) -> Result<(), QueueError> {
        if let CallHome::OtherMachine { said } = &self.what {
            // No sign of life of this one.
            sqlx::query("UPDATE boot_session SET other_machine = ? WHERE server_uid = ?")
                .bind(said)
                .bind(self.uid.as_str())
                .execute(connection)
                .await?;
            return Ok(());
        }
        let sets = match &self.what {
            CallHome::ScriptFetched { .. } => {
                ", token_hash = ?, data_version = ?, given_in = COALESCE(given_in, ?), fetched_at_ms = COALESCE(fetched_at_ms, heard_at_ms), percent = NULL, line = NULL, \
                 failed = NULL, not_served = NULL, other_card = NULL, other_card_at_ms = NULL, other_machine = NULL"
            }
            CallHome::OtherCard { .. } => {
                ", other_card = ?, other_card_at_ms = COALESCE(other_card_at_ms, heard_at_ms)"
            }
            CallHome::Booted => "",
            CallHome::Progress(_) => ", percent = ?, line = ?",
            CallHome::Failed { .. } => ", failed = ?",
            CallHome::NotServed { .. } => ", not_served = ?",
            CallHome::Installed => ", installed_at_ms = heard_at_ms",
            CallHome::OtherMachine { .. } => return Ok(()),
        };
        // MySQL and MariaDB assign from left to right: what follows sees the new heard_at_ms.
        let text = format!(
            "UPDATE boot_session SET heard_at_ms = ?, told_at_ms = IF(?, heard_at_ms, told_at_ms){sets} WHERE server_uid = ?"
        );
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(now_ms).bind(tells);
        query = match &self.what {
            CallHome::ScriptFetched { token_hash, data_version } => {
                query.bind(token_hash).bind(data_version).bind(history)
            }
            CallHome::Progress(told) => query.bind(told.percent).bind(&told.line),
            CallHome::Failed { reason: text }
            | CallHome::NotServed { why: text }
            | CallHome::OtherCard { mac: text } => query.bind(text),
            CallHome::Booted | CallHome::Installed | CallHome::OtherMachine { .. } => query,
        };
        query.bind(self.uid.as_str()).execute(connection).await?;
        Ok(())
    }
}

/// Publishes the session of a locked job in place of an earlier one of it, and of one that somebody else has for a card that
/// is not his. [`QueueError::Duplicate`]: the card is claimed for another server, or boots another machine right now.
pub(super) async fn publish(
    connection: &mut MySqlConnection,
    job: &JobRow,
    session: &NewBootSession,
) -> Result<(), QueueError> {
    let holder: Option<String> =
        sqlx::query_scalar("SELECT server_uid FROM bmc_claim WHERE host = ? AND bmc_system = ''")
            .bind(card_claim::key(&session.mac))
            .fetch_optional(&mut *connection)
            .await?;
    match holder {
        Some(holder) if holder == job.uid.as_str() => {
            sqlx::query("DELETE FROM boot_session WHERE mac = ?")
                .bind(&session.mac)
                .execute(&mut *connection)
                .await?;
        }
        Some(_) => return Err(QueueError::Duplicate("bmc_claim".to_owned())),
        None => {}
    }
    sqlx::query("DELETE FROM boot_session WHERE server_uid = ?")
        .bind(job.uid.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO boot_session (server_uid, job_id, namespace, name, mac, image, digest, purpose, media_hash) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(job.uid.as_str())
    .bind(job.live.id.0)
    .bind(&job.namespace)
    .bind(&job.name)
    .bind(&session.mac)
    .bind(&session.image)
    .bind(&session.digest)
    .bind(session.purpose.as_str())
    .bind(&session.media_hash)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the sessions of jobs whose rows are gone, given in lock order.
pub(super) async fn revoke_all(connection: &mut MySqlConnection, uids: &[&str]) -> Result<(), QueueError> {
    for group in filled(uids) {
        let text = format!(
            "DELETE boot_session FROM boot_session FORCE INDEX (PRIMARY) WHERE server_uid IN ({})",
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The progress of a row that was joined with `boot_session`.
pub(super) fn progress(row: &MySqlRow) -> Result<Option<InstallProgress>, QueueError> {
    let percent: Option<i32> = row.try_get("percent")?;
    let line: Option<String> = row.try_get("line")?;
    Ok(percent.map(|percent| InstallProgress {
        percent: percent.clamp(0, 100) as u8,
        line: line.unwrap_or_default(),
    }))
}

fn session(row: &MySqlRow) -> Result<BootSession, QueueError> {
    let uid: String = row.try_get("server_uid")?;
    let text: String = row.try_get("purpose")?;
    let purpose = BootPurpose::parse(&text)
        .ok_or_else(|| QueueError::unknown("boot_session", &uid, "purpose", &text))?;
    Ok(BootSession {
        uid: ServerUid(uid),
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        job: JobId(row.try_get("job_id")?),
        what: NewBootSession {
            mac: row.try_get("mac")?,
            image: row.try_get("image")?,
            digest: row.try_get("digest")?,
            purpose,
            media_hash: row.try_get("media_hash")?,
        },
        media_read_at_ms: row.try_get("media_read_at_ms")?,
        data_version: row.try_get("data_version")?,
    })
}

/// A session that serves: its job's row lives without a cancel mark, and its machine is not installed yet.
macro_rules! serving {
    ($condition:literal) => {
        concat!(
            "SELECT boot_session.* FROM boot_session JOIN job ON job.server_uid = boot_session.server_uid \
             AND job.id = boot_session.job_id AND job.cancel IS NULL WHERE boot_session.installed_at_ms IS NULL AND ",
            $condition
        )
    };
}

impl Queue {
    /// What a machine with this MAC address (lower case, colons) shall boot. A session that is not for a card of its server's
    /// machine serves nobody.
    pub async fn boot_at_mac(&self, mac: &str) -> Result<AtMac, QueueError> {
        let claimed: Option<String> =
            sqlx::query_scalar("SELECT server_uid FROM bmc_claim WHERE host = ? AND bmc_system = ''")
                .bind(card_claim::key(mac))
                .fetch_optional(self.pool())
                .await?;
        let row = sqlx::query(serving!("boot_session.mac = ?")).bind(mac).fetch_optional(self.pool()).await?;
        let session = row.as_ref().map(session).transpose()?;
        // A session of an older release has no claim.
        if let Some(session) = session
            && claimed.as_ref().is_none_or(|uid| uid == session.uid.as_str())
        {
            return Ok(AtMac::Armed(Box::new(session)));
        }
        if let Some(uid) = claimed {
            let other =
                sqlx::query(serving!("boot_session.server_uid = ?")).bind(uid).fetch_optional(self.pool());
            return Ok(match other.await? {
                Some(row) => AtMac::OtherCard(Box::new(self::session(&row)?)),
                None => AtMac::Idle,
            });
        }
        let known: Option<String> =
            sqlx::query_scalar("SELECT server_uid FROM server_state WHERE boot_mac = ? LIMIT 1")
                .bind(mac)
                .fetch_optional(self.pool())
                .await?;
        Ok(if known.is_some() { AtMac::Idle } else { AtMac::Unknown })
    }

    /// The session whose newest token has this SHA-256 (hexadecimal).
    pub async fn boot_by_token(&self, token_hash: &str) -> Result<Option<BootSession>, QueueError> {
        let row = sqlx::query(serving!("boot_session.token_hash = ?"))
            .bind(token_hash)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(session).transpose()
    }

    /// The session whose medium is read by the token of this SHA-256 (hexadecimal).
    pub async fn boot_by_media(&self, media_hash: &str) -> Result<Option<BootSession>, QueueError> {
        let row = sqlx::query(serving!("boot_session.media_hash = ?"))
            .bind(media_hash)
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(session).transpose()
    }

    /// Sessions that have a medium, `limit` of them at most. Their jobs may be about to stop.
    pub async fn boot_media(&self, limit: u32) -> Result<Vec<BootSession>, QueueError> {
        let rows = sqlx::query(
            "SELECT * FROM boot_session FORCE INDEX (media_hash) WHERE media_hash IS NOT NULL AND installed_at_ms IS NULL LIMIT ?",
        )
        .bind(limit)
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(session).collect()
    }

    /// Records that a BMC reads the medium by the token of this SHA-256; only the first time is kept. If its machine was
    /// started before, nobody knows from then on what is on its disks: it is recorded before a byte is given.
    pub async fn media_read(&self, media_hash: &str) -> Result<Heard, QueueError> {
        let present = Arc::clone(&self.inner.present);
        self.transact(MediumRead { media_hash: media_hash.to_owned(), present }).await
    }

    /// Records what a machine tells, and wakes its job where that is worth it. `token_hash`: the one by which the session
    /// was found; `None` for the fetch of a script, and for what the boot service says itself. [`QueueError::Busy`]: try again.
    pub async fn call_home(
        &self,
        uid: &ServerUid,
        job: JobId,
        token_hash: Option<&str>,
        what: CallHome,
    ) -> Result<Heard, QueueError> {
        let token_hash = token_hash.map(str::to_owned);
        let present = Arc::clone(&self.inner.present);
        self.transact(Call { uid: uid.clone(), job, token_hash, what, present }).await
    }

    /// What the machine of a job told; `None`: the job has published no session.
    pub async fn boot_evidence(
        &self,
        uid: &ServerUid,
        job: JobId,
    ) -> Result<Option<BootEvidence>, QueueError> {
        let row = sqlx::query("SELECT * FROM boot_session WHERE server_uid = ? AND job_id = ?")
            .bind(uid.as_str())
            .bind(job.0)
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(BootEvidence {
            job,
            media_read_at_ms: row.try_get("media_read_at_ms")?,
            fetched_at_ms: row.try_get("fetched_at_ms")?,
            heard_at_ms: row.try_get("heard_at_ms")?,
            progress: progress(&row)?,
            failed: row.try_get("failed")?,
            not_served: row.try_get("not_served")?,
            installed_at_ms: row.try_get("installed_at_ms")?,
            other_card: row.try_get("other_card")?,
            other_card_at_ms: row.try_get("other_card_at_ms")?,
            other_machine: row.try_get("other_machine")?,
        }))
    }

    /// Ends the session of a job that undoes what it began: its machine gets nothing more.
    pub async fn revoke_boot(&self, uid: &ServerUid, job: JobId) -> Result<(), QueueError> {
        sqlx::query("DELETE FROM boot_session WHERE server_uid = ? AND job_id = ?")
            .bind(uid.as_str())
            .bind(job.0)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
