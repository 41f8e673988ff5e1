//! A reading in two parts: the power, which changes with every other job, and the inventory, which hardly ever does.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::QueueError;
use super::many::{groups, times};
use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};
use crate::job::{Reading, ServerUid};

/// Column `reading` of `server_state`.
#[derive(Debug, Serialize, Deserialize)]
struct Power {
    power: PowerState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_reset_time: Option<String>,
}

/// Column `content` of `inventory`.
#[derive(Debug, Serialize, Deserialize)]
struct Inventory {
    identity: HardwareIdentity,
    hardware: Hardware,
}

/// A reading as it is stored.
#[derive(Debug)]
pub(super) struct Parts {
    pub power: String,
    pub inventory: String,
    pub inventory_hash: i64,
}

/// Plain data always serialises; the empty text that stands for the impossible case does not parse and is noticed.
pub(super) fn parts(reading: &Reading) -> Parts {
    let power = Power { power: reading.power, last_reset_time: reading.last_reset_time.clone() };
    let inventory = Inventory { identity: reading.identity.clone(), hardware: reading.hardware.clone() };
    let inventory = serde_json::to_string(&inventory).unwrap_or_default();
    let digest = Sha256::digest(inventory.as_bytes());
    Parts {
        power: serde_json::to_string(&power).unwrap_or_default(),
        inventory_hash: i64::from_be_bytes(std::array::from_fn(|byte| digest[byte])),
        inventory,
    }
}

/// The reading of a server from both columns; `None`: there was none yet.
pub(super) fn reading(
    uid: &str,
    power: Option<&str>,
    inventory: Option<&str>,
) -> Result<Option<Reading>, QueueError> {
    let (Some(power), Some(inventory)) = (power, inventory) else { return Ok(None) };
    let Power { power, last_reset_time } = serde_json::from_str(power)
        .map_err(|_| QueueError::unknown("server_state", uid, "reading", power))?;
    let Inventory { identity, hardware } = serde_json::from_str(inventory)
        .map_err(|_| QueueError::unknown("inventory", uid, "content", inventory))?;
    Ok(Some(Reading { power, identity, hardware, last_reset_time }))
}

/// Writes the inventories of servers whose `server_state` is locked.
pub(super) async fn write_all(
    connection: &mut MySqlConnection,
    rows: &[(&ServerUid, &str)],
) -> Result<(), QueueError> {
    for group in groups(rows) {
        let text = format!(
            "INSERT INTO inventory (server_uid, content) VALUES {} ON DUPLICATE KEY UPDATE content = VALUES(content)",
            times("(?, ?)", group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for (uid, content) in group {
            query = query.bind(uid.as_str()).bind(*content);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
