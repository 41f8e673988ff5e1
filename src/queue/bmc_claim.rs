//! One BMC, one `Server`: claims by name, by resolved address and by hardware identity, and their release.

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::machine::{self, MachineKey, Met};
use super::many::{filled, marks};
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, now_ms};
use crate::api::Reason;
use crate::job::{ClaimRefusal, ServerUid};

/// What is claimed. `system` is the path of the system; empty means the whole host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BmcKey {
    /// `name:HOST:PORT`, `addr:IP:PORT` or `hw:IDENTITY`.
    pub host: String,
    /// The system's path behind that host.
    pub system: String,
}

/// Who claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its normalised BMC address, for which a refusal holds.
    pub address: String,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcClaimed {
    /// The BMC is this server's.
    Granted,
    /// It is another one's; the refusal is stored, and its end wakes this server.
    Refused(ClaimRefusal),
    /// The server has no `server_state` row.
    Unknown,
}

struct ClaimBmc {
    who: Claimant,
    keys: Vec<BmcKey>,
    /// The machine that answered; `None`: an address is claimed, or the machine tells nothing of itself.
    machine: Option<MachineKey>,
    by_address: bool,
}

impl Transaction for ClaimBmc {
    type Output = BmcClaimed;
    const NAME: &'static str = "claim_bmc";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<BmcClaimed>, QueueError> {
        let Some(mut locked) = state::lock(connection, &self.who.uid).await? else {
            return Ok(Ending::Rollback(BmcClaimed::Unknown));
        };
        // Before the claims, in lock order. Its own holder is named first where there is one.
        let met = match &self.machine {
            Some(machine) => machine::meet(connection, &self.who.uid, machine, &mut locked).await?,
            None => Met::Known,
        };
        let mut missing = Vec::new();
        let mut disproven = Vec::new();
        let is_known = self.answers_as_claimed(connection).await?;
        for key in &self.keys {
            match holder(connection, key, &self.who.uid).await? {
                Holder::Nobody => missing.push(key),
                Holder::Claimant => {}
                // At this address answers the machine of this server, whoever was reached there before.
                Holder::Another { .. } if is_known && key.host.starts_with("addr:") => {
                    disproven.push(key);
                    missing.push(key);
                }
                Holder::Another { namespace, name } => {
                    let refusal = ClaimRefusal {
                        reason: if key.host.starts_with("hw:") {
                            Reason::IdentityConflict
                        } else {
                            Reason::BMCClaimed
                        },
                        // A holder in another namespace is nobody's business.
                        holder: (namespace == self.who.namespace).then_some(name),
                        address: self.who.address.clone(),
                        machine: None,
                    };
                    return self.refuse(connection, refusal, Some(&key.host)).await;
                }
            }
        }
        if let Met::Ended(machine) = met {
            let (address, reason) = (self.who.address.clone(), Reason::MachineDecommissioned);
            let refusal = ClaimRefusal { reason, holder: None, address, machine: Some(machine) };
            return self.refuse(connection, refusal, None).await;
        }
        for key in disproven {
            take_away(connection, key, &self.who.uid).await?;
        }
        for key in missing {
            self.insert(connection, key).await?;
        }
        if self.by_address && locked.claimed_address.get().as_ref() != Some(&self.who.address) {
            // Also where it has claimed this one before: what it was claimed for meanwhile it has to let go of, and it does so
            // once it was let in here.
            locked.read_nothing(&self.who.uid)?;
        }
        let claimed = self.by_address.then(|| self.who.address.clone());
        let met_first = self.machine.is_some() && locked.changed().next().is_some();
        let changed =
            locked.refusal.is_set() || claimed.is_some() && *locked.claimed_address.get() != claimed;
        if changed || met_first {
            locked.refusal.set(None);
            if claimed.is_some() {
                locked.claimed_address.set(claimed);
            }
            state::write(connection, &self.who.uid, locked, Tell::Controller).await?;
            remember_host(connection, &self.who.uid, None).await?;
        }
        Ok(Ending::Commit(BmcClaimed::Granted))
    }
}

impl ClaimBmc {
    /// Stores a refusal, and nothing else of what was found.
    async fn refuse(
        &self,
        connection: &mut MySqlConnection,
        refusal: ClaimRefusal,
        host: Option<&str>,
    ) -> Result<Ending<BmcClaimed>, QueueError> {
        let uid = &self.who.uid;
        let Some(mut locked) = state::lock(connection, uid).await? else {
            return Ok(Ending::Rollback(BmcClaimed::Unknown));
        };
        if self.by_address {
            // What spec named before it names no more.
            locked.claimed_address.set(None);
            leave(connection, uid, &[]).await?;
        }
        if locked.refusal.get(uid)?.as_ref() != Some(&refusal) {
            locked.refusal.set(Some(&refusal));
            state::write(connection, uid, locked, Tell::Controller).await?;
            remember_host(connection, uid, host).await?;
        }
        Ok(Ending::Commit(BmcClaimed::Refused(refusal)))
    }

    /// Whether the machine that answers is claimed for this server already.
    async fn answers_as_claimed(&self, connection: &mut MySqlConnection) -> Result<bool, QueueError> {
        let Some(machine) = &self.machine else { return Ok(false) };
        let holder: Option<String> =
            sqlx::query_scalar("SELECT server_uid FROM bmc_claim WHERE host = ? AND bmc_system = ''")
                .bind(&machine.identity)
                .fetch_optional(connection)
                .await?;
        Ok(holder.as_deref() == Some(self.who.uid.as_str()))
    }

    async fn insert(&self, connection: &mut MySqlConnection, key: &BmcKey) -> Result<(), QueueError> {
        let inserted = sqlx::query(
            "INSERT INTO bmc_claim (host, bmc_system, server_uid, namespace, name) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&key.host)
        .bind(&key.system)
        .bind(self.who.uid.as_str())
        .bind(&self.who.namespace)
        .bind(&self.who.name)
        .execute(connection)
        .await
        .map_err(QueueError::from);
        match inserted {
            // Somebody was faster: the transaction is repeated and sees who.
            Err(QueueError::Duplicate(_)) => Err(QueueError::Conflict { code: 1062 }),
            other => other.map(|_| ()),
        }
    }
}

enum Holder {
    Nobody,
    Claimant,
    Another { namespace: String, name: String },
}

/// Who holds `key`: the whole host and each of its systems exclude each other.
async fn holder(
    connection: &mut MySqlConnection,
    key: &BmcKey,
    uid: &ServerUid,
) -> Result<Holder, QueueError> {
    let rows = sqlx::query(
        "SELECT bmc_system, server_uid, namespace, name FROM bmc_claim WHERE host = ? ORDER BY bmc_system FOR UPDATE",
    )
    .bind(&key.host)
    .fetch_all(connection)
    .await?;
    judge(&rows, key, uid)
}

/// What the claims of a key's host say about it.
fn judge<'a>(
    rows: impl IntoIterator<Item = &'a MySqlRow>,
    key: &BmcKey,
    uid: &ServerUid,
) -> Result<Holder, QueueError> {
    let mut found = Holder::Nobody;
    for row in rows {
        let system: String = row.try_get("bmc_system")?;
        let overlaps = system == key.system || system.is_empty() || key.system.is_empty();
        if row.try_get::<String, _>("server_uid")? == uid.as_str() {
            if system == key.system {
                found = Holder::Claimant;
            }
        } else if overlaps {
            return Ok(Holder::Another { namespace: row.try_get("namespace")?, name: row.try_get("name")? });
        }
    }
    Ok(found)
}

/// Ends the claims of others on what `key` names.
async fn take_away(
    connection: &mut MySqlConnection,
    key: &BmcKey,
    uid: &ServerUid,
) -> Result<(), QueueError> {
    sqlx::query(
        "DELETE FROM bmc_claim WHERE host = ? AND (bmc_system = ? OR bmc_system = '' OR ? = '') AND server_uid <> ?",
    )
    .bind(&key.host)
    .bind(&key.system)
    .bind(&key.system)
    .bind(uid.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// The addresses, by text and as they were resolved, that are claimed for a server beside these.
async fn old_addresses(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    keep: &[BmcKey],
) -> Result<Vec<BmcKey>, QueueError> {
    let rows = sqlx::query(
        "SELECT host, bmc_system FROM bmc_claim FORCE INDEX (server_uid) WHERE server_uid = ? \
         AND (host LIKE 'name:%' OR host LIKE 'addr:%')",
    )
    .bind(uid.as_str())
    .fetch_all(connection)
    .await?;
    let mut old = Vec::new();
    for row in &rows {
        let key = BmcKey { host: row.try_get("host")?, system: row.try_get("bmc_system")? };
        if !keep.contains(&key) {
            old.push(key);
        }
    }
    old.sort();
    Ok(old)
}

/// Lets go of the addresses of a server beside these; returns them.
async fn leave(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    keep: &[BmcKey],
) -> Result<Vec<BmcKey>, QueueError> {
    let old = old_addresses(connection, uid, keep).await?;
    for key in &old {
        sqlx::query("DELETE FROM bmc_claim WHERE host = ? AND bmc_system = ? AND server_uid = ?")
            .bind(&key.host)
            .bind(&key.system)
            .bind(uid.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(old)
}

struct LeaveAddresses {
    uid: ServerUid,
    keep: Vec<BmcKey>,
}

impl Transaction for LeaveAddresses {
    type Output = Vec<BmcKey>;
    const NAME: &'static str = "leave_addresses";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: Pass,
    ) -> Result<Ending<Vec<BmcKey>>, QueueError> {
        if state::lock(connection, &self.uid).await?.is_none() {
            return Ok(Ending::Rollback(Vec::new()));
        }
        Ok(Ending::Commit(leave(connection, &self.uid, &self.keep).await?))
    }
}

async fn remember_host(
    connection: &mut MySqlConnection,
    uid: &ServerUid,
    host: Option<&str>,
) -> Result<(), QueueError> {
    sqlx::query("UPDATE server_state SET refused_host = ? WHERE server_uid = ?")
        .bind(host)
        .bind(uid.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Nothing of the server is left but its history.
    Released,
    /// A job of it is still live: nothing was changed.
    StillLive,
}

struct Release {
    uid: ServerUid,
}

/// Those who were refused because of `uid`, by a plain read: they are locked together with the row of `uid`, before
/// its claims.
async fn refused_by(connection: &mut MySqlConnection, uid: &ServerUid) -> Result<Vec<String>, QueueError> {
    let rows = sqlx::query_scalar(
        "SELECT server_state.server_uid FROM bmc_claim JOIN server_state ON server_state.refused_host = bmc_claim.host \
         WHERE bmc_claim.server_uid = ? AND server_state.server_uid <> bmc_claim.server_uid",
    )
    .bind(uid.as_str())
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn forgive(connection: &mut MySqlConnection, uid: &str) -> Result<(), QueueError> {
    sqlx::query(concat!(
        "UPDATE server_state SET version = version + 1, changed_at_ms = COALESCE(changed_at_ms, ",
        now_ms!(),
        "), refusal = NULL, refused_host = NULL WHERE server_uid = ?"
    ))
    .bind(uid)
    .execute(connection)
    .await?;
    Ok(())
}

impl Transaction for Release {
    type Output = Released;
    const NAME: &'static str = "release";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<Released>, QueueError> {
        // The state row first keeps enqueues out: theirs fails on it when this is through. A job that is being
        // enqueued right now makes this wait, and is seen.
        let known = state::lock(connection, &self.uid).await?;
        let live: Option<i64> = sqlx::query_scalar("SELECT id FROM job WHERE server_uid = ?")
            .bind(self.uid.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        if live.is_some() {
            return Ok(Ending::Rollback(Released::StillLive));
        }
        if known.is_some() {
            for statement in [
                "DELETE FROM server_state WHERE server_uid = ?",
                "DELETE FROM inventory WHERE server_uid = ?",
                "DELETE FROM handled_token WHERE server_uid = ?",
            ] {
                sqlx::query(statement).bind(self.uid.as_str()).execute(&mut *connection).await?;
            }
        }
        for refused in refused_by(connection, &self.uid).await? {
            forgive(connection, &refused).await?;
        }
        let rows = sqlx::query(
            "SELECT host, bmc_system FROM bmc_claim WHERE server_uid = ? ORDER BY host, bmc_system",
        )
        .bind(self.uid.as_str())
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            sqlx::query("DELETE FROM bmc_claim WHERE host = ? AND bmc_system = ? AND server_uid = ?")
                .bind(row.try_get::<String, _>("host")?)
                .bind(row.try_get::<String, _>("bmc_system")?)
                .bind(self.uid.as_str())
                .execute(&mut *connection)
                .await?;
        }
        Ok(Ending::Commit(Released::Released))
    }
}

impl Queue {
    /// Claims what a `Server` says its BMC is, by the normalised address in `who`. The first claim wins. A server that is refused
    /// lets go of what its spec named before; one that is granted does so once it was let in there
    /// ([`Queue::leave_addresses`]).
    pub async fn claim_address(&self, who: Claimant, key: BmcKey) -> Result<BmcClaimed, QueueError> {
        let before = old_addresses(&mut *self.pool().acquire().await?, &who.uid, &[]).await?;
        let claimed =
            self.transact(ClaimBmc { who, keys: vec![key], machine: None, by_address: true }).await?;
        if matches!(claimed, BmcClaimed::Refused(_)) {
            self.wake_refused(&before).await?;
        }
        Ok(claimed)
    }

    /// Lets go of the addresses that are claimed for a server beside these, and wakes who was refused because of them: the BMC
    /// at these let the server in. For a server with a live job that is the caller's.
    pub async fn leave_addresses(&self, uid: &ServerUid, keep: Vec<BmcKey>) -> Result<(), QueueError> {
        // The common case costs one read.
        if old_addresses(&mut *self.pool().acquire().await?, uid, &keep).await?.is_empty() {
            return Ok(());
        }
        let left = self.transact(LeaveAddresses { uid: uid.clone(), keep }).await?;
        self.wake_refused(&left).await
    }

    /// Has those look again who were refused because of these. Who is missed here is found by
    /// [`Queue::forgive_orphans`].
    async fn wake_refused(&self, keys: &[BmcKey]) -> Result<(), QueueError> {
        let mut connection = self.pool().acquire().await?;
        for key in keys {
            let refused: Vec<String> =
                sqlx::query_scalar("SELECT server_uid FROM server_state WHERE refused_host = ?")
                    .bind(&key.host)
                    .fetch_all(&mut *connection)
                    .await?;
            for uid in refused {
                forgive(&mut connection, &uid).await?;
            }
        }
        Ok(())
    }

    /// Claims what the BMC turned out to be: its resolved address and its machine's identity (among the keys). What is
    /// recorded of the machine is what the server knows of it from then on. No request that changes
    /// the machine may be sent before this was granted. For a server with a live job that is the caller's: nobody
    /// releases its claims meanwhile.
    pub async fn claim_identity(
        &self,
        who: Claimant,
        mut keys: Vec<BmcKey>,
        machine: Option<MachineKey>,
    ) -> Result<BmcClaimed, QueueError> {
        keys.sort();
        // The common case costs one read.
        if self.holds(&who.uid, &keys, machine.as_ref()).await? {
            return Ok(BmcClaimed::Granted);
        }
        self.transact(ClaimBmc { who, keys, machine, by_address: false }).await
    }

    /// Whether all of this is claimed for a server that was not refused and knows its machine.
    async fn holds(
        &self,
        uid: &ServerUid,
        keys: &[BmcKey],
        machine: Option<&MachineKey>,
    ) -> Result<bool, QueueError> {
        let hosts: Vec<&str> = keys.iter().map(|key| key.host.as_str()).collect();
        let Some(hosts) = filled(&hosts).next() else { return Ok(false) };
        let text = format!(
            "SELECT bmc_claim.host, bmc_claim.bmc_system, bmc_claim.server_uid, bmc_claim.namespace, bmc_claim.name, \
             server_state.machine FROM server_state JOIN bmc_claim FORCE INDEX (PRIMARY) ON bmc_claim.host IN ({}) \
             WHERE server_state.server_uid = ? AND server_state.refusal IS NULL",
            marks(hosts.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for host in hosts {
            query = query.bind(host);
        }
        let rows = query.bind(uid.as_str()).fetch_all(self.pool()).await?;
        if let Some(machine) = machine {
            for row in &rows {
                if row.try_get::<Option<String>, _>("machine")?.as_ref() != Some(&machine.identity) {
                    return Ok(false);
                }
            }
        }
        for key in keys {
            let mut of_host = Vec::with_capacity(1);
            for row in &rows {
                if row.try_get::<String, _>("host")? == key.host {
                    of_host.push(row);
                }
            }
            if !matches!(judge(of_host, key, uid)?, Holder::Claimant) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets a server that has no live job: its state and its claims go in one transaction, which also wakes those
    /// who were refused because of it. One that is being refused at this very moment is found by the next call of
    /// [`Queue::forgive_orphans`].
    pub async fn release(&self, uid: &ServerUid) -> Result<Released, QueueError> {
        self.transact(Release { uid: uid.clone() }).await
    }

    /// Wakes up to `at_most` servers whose refusal names a host that nobody claims any more; returns how many. Called
    /// now and then by the leading controller.
    pub async fn forgive_orphans(&self, at_most: u32) -> Result<u32, QueueError> {
        let orphans: Vec<String> = sqlx::query_scalar(
            "SELECT server_uid FROM server_state WHERE refused_host > '' \
             AND NOT EXISTS (SELECT 1 FROM bmc_claim WHERE bmc_claim.host = server_state.refused_host) LIMIT ?",
        )
        .bind(at_most)
        .fetch_all(self.pool())
        .await?;
        let mut connection = self.pool().acquire().await?;
        for uid in &orphans {
            forgive(&mut connection, uid).await?;
        }
        Ok(orphans.len() as u32)
    }
}
