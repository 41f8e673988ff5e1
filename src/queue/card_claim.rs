//! One network card, one `Server`: what boots is found by the address of its card, so a session is opened only for a card of
//! the claimed machine.
//!
//! What a BMC tells of its machine counts. Where it tells nothing, as over IPMI, the card that spec names is claimed until
//! a BMC tells that another machine has it. The first BMC that tells of a card has it: one that tells of another machine's
//! cards gets none of them.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::marks;
use super::state;
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError};
use crate::api::Mac;
use crate::job::ServerUid;

/// Whose machine has the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardOwner {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who says that a machine has a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Its BMC.
    Told,
    /// `spec.bootMACAddress`.
    Wished,
}

/// Whose a card is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardClaim {
    /// Nobody's.
    Free,
    /// The asking server's.
    Own,
    /// Another one's.
    Another {
        /// Its name, only where it lives in the same namespace.
        holder: Option<String>,
    },
}

/// The key of a card in `bmc_claim`.
pub(super) fn key(mac: &str) -> String {
    format!("mac:{mac}")
}

/// A claim as it stands.
struct Held {
    host: String,
    proven: bool,
    owner: CardOwner,
}

/// The claims of these cards; under lock in the order of their keys, as the primary key is read, or as they stand.
async fn claims(
    connection: &mut MySqlConnection,
    hosts: &[String],
    lock: &'static str,
) -> Result<Vec<Held>, QueueError> {
    if hosts.is_empty() {
        return Ok(Vec::new());
    }
    let text = format!(
        "SELECT host, server_uid, namespace, name, proven FROM bmc_claim FORCE INDEX (PRIMARY) WHERE host IN ({}) \
         AND bmc_system = ''{lock}",
        marks(hosts.len())
    );
    let mut query = sqlx::query(AssertSqlSafe(text));
    for host in hosts {
        query = query.bind(host);
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(Held {
                host: row.try_get("host")?,
                proven: row.try_get::<i64, _>("proven")? != 0,
                owner: CardOwner {
                    uid: ServerUid(row.try_get("server_uid")?),
                    namespace: row.try_get("namespace")?,
                    name: row.try_get("name")?,
                },
            })
        })
        .collect()
}

/// The cards that are claimed for a server, and by whose word.
async fn own(connection: &mut MySqlConnection, uid: &ServerUid) -> Result<Vec<(String, bool)>, QueueError> {
    let rows = sqlx::query(
        "SELECT host, proven FROM bmc_claim FORCE INDEX (server_uid) WHERE server_uid = ? AND host LIKE 'mac:%'",
    )
    .bind(uid.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("host")?, row.try_get::<i64, _>("proven")? != 0))).collect()
}

/// Makes exactly these cards, as far as nobody else has them, those of the server.
struct ClaimCards {
    who: CardOwner,
    hosts: Vec<String>,
    proof: Proof,
}

impl Transaction for ClaimCards {
    type Output = ();
    const NAME: &'static str = "claim_cards";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<()>, QueueError> {
        let uid = &self.who.uid;
        // Nobody lets the server go meanwhile.
        if state::lock(connection, uid).await?.is_none() {
            return Ok(Ending::Rollback(()));
        }
        let before = own(connection, uid).await?;
        // What spec names says nothing of the cards that a BMC told of.
        let is_old = |(host, proven): &(String, bool)| {
            !self.hosts.contains(host) && (self.proof == Proof::Told || !proven)
        };
        let old: Vec<String> = before.into_iter().filter(is_old).map(|(host, _)| host).collect();
        let mut all: Vec<String> = self.hosts.iter().chain(&old).cloned().collect();
        all.sort_unstable();
        let found = claims(connection, &all, " FOR UPDATE").await?;
        for host in &all {
            let claim = found.iter().find(|claim| claim.host == *host);
            match claim {
                _ if old.contains(host) => self.leave(connection, host).await?,
                None => self.insert(connection, host).await?,
                Some(claim) if self.proof == Proof::Told && !claim.proven => {
                    self.take(connection, host).await?;
                }
                Some(_) => {}
            }
        }
        Ok(Ending::Commit(()))
    }
}

impl ClaimCards {
    async fn leave(&self, connection: &mut MySqlConnection, host: &str) -> Result<(), QueueError> {
        sqlx::query("DELETE FROM bmc_claim WHERE host = ? AND bmc_system = '' AND server_uid = ?")
            .bind(host)
            .bind(self.who.uid.as_str())
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn insert(&self, connection: &mut MySqlConnection, host: &str) -> Result<(), QueueError> {
        let inserted = sqlx::query(
            "INSERT INTO bmc_claim (host, bmc_system, server_uid, namespace, name, proven) VALUES (?, '', ?, ?, ?, ?)",
        )
        .bind(host)
        .bind(self.who.uid.as_str())
        .bind(&self.who.namespace)
        .bind(&self.who.name)
        .bind(self.proof == Proof::Told)
        .execute(connection)
        .await
        .map_err(QueueError::from);
        match inserted {
            // Somebody was faster: the transaction is repeated and sees who.
            Err(QueueError::Duplicate(_)) => Err(QueueError::Conflict { code: 1062 }),
            other => other.map(|_| ()),
        }
    }

    async fn take(&self, connection: &mut MySqlConnection, host: &str) -> Result<(), QueueError> {
        sqlx::query(
            "UPDATE bmc_claim SET server_uid = ?, namespace = ?, name = ?, proven = 1 WHERE host = ? AND bmc_system = ''",
        )
        .bind(self.who.uid.as_str())
        .bind(&self.who.namespace)
        .bind(&self.who.name)
        .bind(host)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Queue {
    /// Claims the cards that a BMC tells of, in place of those that it told of before; of a card that another BMC told of
    /// first nothing changes. A BMC that tells of none says nothing: what was claimed stays. For a server with a live job
    /// that is the caller's: nobody releases its claims meanwhile.
    pub async fn claim_cards(&self, who: CardOwner, told: &[Mac]) -> Result<(), QueueError> {
        if told.is_empty() {
            return Ok(());
        }
        let hosts: Vec<String> = told.iter().map(|mac| key(&mac.with_colons())).collect();
        // The common case costs one read, or two where somebody else has one of them.
        let mut connection = self.pool().acquire().await?;
        let held = own(&mut connection, &who.uid).await?;
        let nothing_old = held.iter().all(|(host, proven)| *proven && hosts.contains(host));
        let new: Vec<String> =
            hosts.iter().filter(|host| !held.iter().any(|(held, _)| held == *host)).cloned().collect();
        let others = claims(&mut connection, &new, "").await?;
        drop(connection);
        let taken = others.iter().filter(|claim| claim.proven).count();
        if nothing_old && taken == new.len() {
            return Ok(());
        }
        self.transact(ClaimCards { who, hosts, proof: Proof::Told }).await
    }

    /// Claims the card that spec names for a machine whose BMC tells of none, in place of the one that it named before.
    /// Says whose it is then.
    pub async fn claim_wished_card(&self, who: CardOwner, mac: &Mac) -> Result<CardClaim, QueueError> {
        let hosts = vec![key(&mac.with_colons())];
        self.transact(ClaimCards { who: who.clone(), hosts, proof: Proof::Wished }).await?;
        self.card_claim(&who, &mac.with_colons()).await
    }

    /// Whose a card is.
    pub async fn card_claim(&self, who: &CardOwner, mac: &str) -> Result<CardClaim, QueueError> {
        let mut connection = self.pool().acquire().await?;
        let found = claims(&mut connection, &[key(mac)], "").await?;
        Ok(match found.into_iter().next() {
            None => CardClaim::Free,
            Some(claim) if claim.owner.uid == who.uid => CardClaim::Own,
            Some(claim) => CardClaim::Another {
                // A holder in another namespace is nobody's business.
                holder: (claim.owner.namespace == who.namespace).then_some(claim.owner.name),
            },
        })
    }
}
