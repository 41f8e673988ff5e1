//! Permits: how many jobs of a class are in flight. A permit's row is the last that a transaction locks.

use std::collections::BTreeMap;

use sqlx::{MySqlConnection, Row};

use super::row::JobRow;
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError};
use crate::job::PermitClass;

/// The permits of one class at one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    /// What they are for.
    pub class: PermitClass,
    /// How many there are.
    pub cap: u32,
    /// How many jobs hold one.
    pub used: u32,
}

impl Permits {
    /// How many are left.
    pub fn left(&self) -> u32 {
        self.cap.saturating_sub(self.used)
    }
}

/// Takes so many permits; `false`: there are not so many left, and nothing was taken.
pub(super) async fn take(
    connection: &mut MySqlConnection,
    site: &str,
    class: PermitClass,
    count: usize,
) -> Result<bool, QueueError> {
    let taken =
        sqlx::query("UPDATE permit SET used = used + ? WHERE site = ? AND class = ? AND used + ? <= cap")
            .bind(count as i64)
            .bind(site)
            .bind(class.as_str())
            .bind(count as i64)
            .execute(connection)
            .await?;
    Ok(taken.rows_affected() == 1)
}

/// Gives back the permits that these jobs held until this transaction.
pub(super) async fn give_back(
    connection: &mut MySqlConnection,
    jobs: impl Iterator<Item = &JobRow>,
) -> Result<(), QueueError> {
    let mut counts: BTreeMap<(&str, PermitClass), i64> = BTreeMap::new();
    for job in jobs {
        if let Some(class) = job.permit() {
            *counts.entry((&job.site, class)).or_default() += 1;
        }
    }
    for ((site, class), count) in counts {
        give_back_some(connection, site, class.as_str(), count).await?;
    }
    Ok(())
}

/// Gives back permits of a class, named as it stands in a row.
pub(super) async fn give_back_some(
    connection: &mut MySqlConnection,
    site: &str,
    class: &str,
    count: i64,
) -> Result<(), QueueError> {
    sqlx::query("UPDATE permit SET used = GREATEST(used - ?, 0) WHERE site = ? AND class = ?")
        .bind(count)
        .bind(site)
        .bind(class)
        .execute(connection)
        .await?;
    Ok(())
}

struct Repair {
    site: String,
    class: PermitClass,
}

impl Transaction for Repair {
    type Output = i64;
    const NAME: &'static str = "repair_permits";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<i64>, QueueError> {
        // Under this lock the count stands still: whoever takes or gives back comes here last.
        let used: Option<i64> =
            sqlx::query_scalar("SELECT used FROM permit WHERE site = ? AND class = ? FOR UPDATE")
                .bind(&self.site)
                .bind(self.class.as_str())
                .fetch_optional(&mut *connection)
                .await?;
        let Some(used) = used else { return Ok(Ending::Rollback(0)) };
        let held: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM job WHERE site = ? AND permit_class = ? AND permit_held = 1",
        )
        .bind(&self.site)
        .bind(self.class.as_str())
        .fetch_one(&mut *connection)
        .await?;
        if held == used {
            return Ok(Ending::Rollback(0));
        }
        sqlx::query("UPDATE permit SET used = ? WHERE site = ? AND class = ?")
            .bind(held)
            .bind(&self.site)
            .bind(self.class.as_str())
            .execute(connection)
            .await?;
        Ok(Ending::Commit(held - used))
    }
}

impl Queue {
    /// Says how many jobs of a class may be in flight at a site. Jobs in flight beyond a smaller number end first.
    pub async fn set_permits(&self, site: &str, class: PermitClass, cap: u32) -> Result<(), QueueError> {
        sqlx::query(
            "INSERT INTO permit (site, class, cap) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE cap = VALUES(cap)",
        )
        .bind(site)
        .bind(class.as_str())
        .bind(i64::from(cap))
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The permits of a site. A class without a row has none.
    pub async fn permits(&self, site: &str) -> Result<Vec<Permits>, QueueError> {
        let rows = sqlx::query("SELECT class, cap, used FROM permit WHERE site = ?")
            .bind(site)
            .fetch_all(self.pool())
            .await?;
        let mut permits = Vec::with_capacity(rows.len());
        for row in &rows {
            // A class of another release is that one's business.
            let Some(class) = PermitClass::parse(&row.try_get::<String, _>("class")?) else { continue };
            let (cap, used): (i64, i64) = (row.try_get("cap")?, row.try_get("used")?);
            permits.push(Permits { class, cap: cap.max(0) as u32, used: used.max(0) as u32 });
        }
        Ok(permits)
    }

    /// Counts the permits that are really held, and corrects the number in use; returns by how much it was wrong. Reads
    /// every live job: for a sweep, not for every minute.
    pub async fn repair_permits(&self, site: &str, class: PermitClass) -> Result<i64, QueueError> {
        self.transact(Repair { site: site.to_owned(), class }).await
    }
}
