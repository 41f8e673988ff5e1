//! One BMC, one `Server`: claims by name, by resolved address and by hardware identity.

use std::net::SocketAddr;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::machine::{self, MachineKey, Met};
use super::many::{filled, marks};
use super::release::forgive;
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError};
use crate::api::Reason;
use crate::api::bmc_address::BmcAddress;
use crate::job::{ClaimRefusal, ReadThrough, ServerUid};

/// What is claimed. `system` is the path of the system; empty means the whole host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BmcKey {
    /// `name:HOST:PORT`, `addr:IP:PORT` or `hw:IDENTITY`.
    pub host: String,
    /// The system's path behind that host.
    pub system: String,
}

impl BmcKey {
    /// The key of an address as spec has it.
    pub fn named(address: &BmcAddress) -> Self {
        let key = address.claim_key();
        Self { host: format!("name:{}", key.host), system: key.system }
    }

    /// The key of an address that a name leads to.
    pub fn resolved(peer: SocketAddr, system: String) -> Self {
        Self { host: format!("addr:{peer}"), system }
    }
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
    /// The request for a look that was read with the object, which a refusal answers; `None`: it was not read.
    pub asked: Option<String>,
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

/// Which names of a BMC are claimed, and by what right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// Its address, as spec has it: nobody was let in there yet.
    Spec,
    /// None yet: the first byte is about to be sent to these addresses. Nothing is claimed.
    Contact,
    /// The login was taken, and the machine has told what it is.
    LetIn,
}

struct ClaimBmc {
    who: Claimant,
    keys: Vec<BmcKey>,
    /// The machine that answered; `None`: nobody was let in yet, or the machine tells nothing of itself.
    machine: Option<MachineKey>,
    right: Right,
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
            let Claims { ours, others } = claims(connection, key, &self.who.uid).await?;
            for other in others {
                if self.yields(connection, key, &other, is_known).await? {
                    disproven.push(key);
                    continue;
                }
                let refusal = ClaimRefusal {
                    reason: if key.host.starts_with("hw:") {
                        Reason::IdentityConflict
                    } else {
                        Reason::BMCClaimed
                    },
                    // A holder in another namespace is nobody's business.
                    holder: (other.namespace == self.who.namespace).then_some(other.name),
                    address: self.who.address.clone(),
                    machine: None,
                };
                return self.refuse(connection, refusal, Some(&key.host)).await;
            }
            if !ours {
                missing.push(key);
            }
        }
        if self.right == Right::Contact {
            return Ok(Ending::Rollback(BmcClaimed::Granted));
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
        let by_spec = self.right == Right::Spec;
        let before = locked.claimed_address.get().clone();
        if by_spec && before.as_ref() != Some(&self.who.address) {
            if let Some(before) = before.filter(|_| !locked.was_let_in()) {
                // Nobody was let in there, and by now it is no address of this server.
                self.give_up(connection, &before).await?;
            }
            // Also where it has claimed this one before: what it was claimed for meanwhile it has to let go of, and it does so
            // once it was let in here.
            locked.read_nothing(&self.who.uid)?;
        }
        let claimed = by_spec.then(|| self.who.address.clone());
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
    /// Whether what another server has of `key` is no bar to this one.
    async fn yields(
        &self,
        connection: &mut MySqlConnection,
        key: &BmcKey,
        other: &Other,
        is_known: bool,
    ) -> Result<bool, QueueError> {
        if key.host.starts_with("addr:") {
            // At this address answers the machine of this server, whoever was reached there before.
            return Ok(is_known);
        }
        if !key.host.starts_with("name:") {
            return Ok(false);
        }
        // An address that somebody wrote down keeps it for nobody: whoever is let in there has it. Within a namespace it is most
        // often one object too many, which is told at once.
        let is_told = self.right == Right::Spec && other.namespace == self.who.namespace;
        Ok(!is_told && !was_let_in(connection, other).await?)
    }

    /// Ends the claim of an address by its text.
    async fn give_up(&self, connection: &mut MySqlConnection, address: &str) -> Result<(), QueueError> {
        let Ok(address) = BmcAddress::parse(address) else { return Ok(()) };
        let key = BmcKey::named(&address);
        sqlx::query("DELETE FROM bmc_claim WHERE host = ? AND bmc_system = ? AND server_uid = ?")
            .bind(&key.host)
            .bind(&key.system)
            .bind(self.who.uid.as_str())
            .execute(connection)
            .await?;
        Ok(())
    }

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
        if self.right == Right::Spec {
            // What spec named before it names no more.
            locked.claimed_address.set(None);
            leave(connection, uid, &[]).await?;
        }
        let is_other = locked.refusal.get(uid)?.as_ref() != Some(&refusal);
        // Asked again by a person: here is the answer.
        let is_answer = locked.heed(uid, self.who.asked.as_deref())?;
        if is_other || is_answer || locked.changed().next().is_some() {
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

/// What stands in the claims of a key.
struct Claims {
    /// Whether it is claimed for the server that asks.
    ours: bool,
    others: Vec<Other>,
}

/// A claim of another server on what a key names.
struct Other {
    key: BmcKey,
    uid: String,
    namespace: String,
    name: String,
}

/// Who holds `key`: the whole host and each of its systems exclude each other.
async fn claims(
    connection: &mut MySqlConnection,
    key: &BmcKey,
    uid: &ServerUid,
) -> Result<Claims, QueueError> {
    let rows = sqlx::query(
        "SELECT host, bmc_system, server_uid, namespace, name FROM bmc_claim WHERE host = ? ORDER BY bmc_system FOR UPDATE",
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
) -> Result<Claims, QueueError> {
    let mut found = Claims { ours: false, others: Vec::new() };
    for row in rows {
        let system: String = row.try_get("bmc_system")?;
        let holder: String = row.try_get("server_uid")?;
        let overlaps = system == key.system || system.is_empty() || key.system.is_empty();
        if holder == uid.as_str() {
            found.ours |= system == key.system;
        } else if overlaps {
            found.others.push(Other {
                key: BmcKey { host: row.try_get("host")?, system },
                uid: holder,
                namespace: row.try_get("namespace")?,
                name: row.try_get("name")?,
            });
        }
    }
    Ok(found)
}

/// Whether the holder of a claim by text was let in there since it claimed it. What it held before its present address it
/// was let in at: without that it was given up.
async fn was_let_in(connection: &mut MySqlConnection, other: &Other) -> Result<bool, QueueError> {
    let row = sqlx::query(
        "SELECT claimed_address, reading IS NOT NULL AS was_read, COALESCE(read_through, '') AS read_through \
         FROM server_state WHERE server_uid = ?",
    )
    .bind(&other.uid)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(false) };
    if row.try_get::<i64, _>("was_read")? == 0 {
        return Ok(false);
    }
    let claimed: Option<String> = row.try_get("claimed_address")?;
    let is_present = claimed.is_some_and(|claimed| {
        BmcAddress::parse(&claimed).is_ok_and(|address| BmcKey::named(&address) == other.key)
    });
    let nothing = ReadThrough::nothing().0;
    Ok(!is_present || row.try_get::<String, _>("read_through")? != nothing)
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

impl Queue {
    /// Claims what a `Server` says its BMC is, by the normalised address in `who`. It is kept for nobody in another namespace
    /// before somebody was let in there; within a namespace the first claim wins. A server that is refused
    /// lets go of what its spec named before; one that is granted does so once it was let in there
    /// ([`Queue::leave_addresses`]).
    pub async fn claim_address(&self, who: Claimant, key: BmcKey) -> Result<BmcClaimed, QueueError> {
        let before = old_addresses(&mut *self.pool().acquire().await?, &who.uid, &[]).await?;
        let claimed =
            self.transact(ClaimBmc { who, keys: vec![key], machine: None, right: Right::Spec }).await?;
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

    /// Claims what the BMC turned out to be: its address as spec has it and as it was resolved, and its machine's identity (among
    /// the keys). What is
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
        self.transact(ClaimBmc { who, keys, machine, right: Right::LetIn }).await
    }

    /// Before the first byte is sent to a BMC at which this server was not let in yet: whether another one was, at one of the
    /// addresses to which its name leads, whatever name that was. Claims nothing.
    pub async fn may_contact(&self, who: Claimant, mut keys: Vec<BmcKey>) -> Result<BmcClaimed, QueueError> {
        keys.sort();
        let hosts: Vec<&str> = keys.iter().map(|key| key.host.as_str()).collect();
        let mut is_free = true;
        for hosts in filled(&hosts) {
            let text = format!(
                "SELECT host, bmc_system, server_uid, namespace, name FROM bmc_claim FORCE INDEX (PRIMARY) WHERE host IN ({})",
                marks(hosts.len())
            );
            let mut query = sqlx::query(AssertSqlSafe(text));
            for host in hosts {
                query = query.bind(host);
            }
            let rows = query.fetch_all(self.pool()).await?;
            for key in &keys {
                let mut of_host = Vec::new();
                for row in &rows {
                    if row.try_get::<String, _>("host")? == key.host {
                        of_host.push(row);
                    }
                }
                is_free &= judge(of_host, key, &who.uid)?.others.is_empty();
            }
        }
        // The common case costs one read.
        if is_free {
            return Ok(BmcClaimed::Granted);
        }
        self.transact(ClaimBmc { who, keys, machine: None, right: Right::Contact }).await
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
            let Claims { ours, others } = judge(of_host, key, uid)?;
            if !ours || !others.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
