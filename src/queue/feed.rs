//! The feed: which servers changed since the controller last showed them.

use sqlx::Row;

use super::{Queue, QueueError};
use crate::job::ServerUid;

/// A server whose status may have to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The newest version, to be acknowledged once it was shown.
    pub version: i64,
}

/// Where the next page of the feed begins. A row that cannot be shown does not hide those behind it: a reader goes
/// on to the end and then starts again from [`FeedCursor::default`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedCursor {
    changed_at_ms: i64,
    uid: String,
}

impl Queue {
    /// The next page of the feed, the longest waiting first, and where the page after it begins (`None`: this was the
    /// last one). Bounded by the size of the fleet, whoever reads it or not.
    pub async fn feed(
        &self,
        after: &FeedCursor,
        page: u16,
    ) -> Result<(Vec<Changed>, Option<FeedCursor>), QueueError> {
        let rows = sqlx::query(
            "SELECT server_uid, namespace, name, version, changed_at_ms FROM server_state FORCE INDEX (changed_at_ms) \
             WHERE changed_at_ms >= ? AND (changed_at_ms > ? OR server_uid > ?) \
             ORDER BY changed_at_ms, server_uid LIMIT ?",
        )
        .bind(after.changed_at_ms)
        .bind(after.changed_at_ms)
        .bind(&after.uid)
        .bind(u64::from(page))
        .fetch_all(self.pool())
        .await?;
        let mut next = None;
        let mut changed = Vec::with_capacity(rows.len());
        for row in &rows {
            let uid: String = row.try_get("server_uid")?;
            next = Some(FeedCursor { changed_at_ms: row.try_get("changed_at_ms")?, uid: uid.clone() });
            changed.push(Changed {
                uid: ServerUid(uid),
                namespace: row.try_get("namespace")?,
                name: row.try_get("name")?,
                version: row.try_get("version")?,
            });
        }
        Ok(if changed.len() < usize::from(page) { (changed, None) } else { (changed, next) })
    }

    /// Takes a server out of the feed if nothing changed since `version`. Only after an accepted status patch, or
    /// when a live read of the status equals what would be written.
    pub async fn acknowledge(&self, uid: &ServerUid, version: i64) -> Result<bool, QueueError> {
        let done =
            sqlx::query("UPDATE server_state SET changed_at_ms = NULL WHERE server_uid = ? AND version = ?")
                .bind(uid.as_str())
                .bind(version)
                .execute(self.pool())
                .await?;
        Ok(done.rows_affected() == 1)
    }
}
