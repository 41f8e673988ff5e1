//! The values of tokens that were ever handled, by their hashes: `server_state.handled` has only the last ones.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{groups, times};
use super::state_row::Locked;
use super::{Queue, QueueError};
use crate::job::{ServerUid, TokenValue};

/// Remembers these values of a server's tokens.
pub(super) async fn remember(
    connection: &mut MySqlConnection,
    values: &[(&ServerUid, &TokenValue)],
) -> Result<(), QueueError> {
    for group in groups(values) {
        let text = format!(
            "INSERT INTO handled_token (server_uid, kind, hash) VALUES {} ON DUPLICATE KEY UPDATE hash = VALUES(hash)",
            times("(?, ?, ?)", group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for (uid, token) in group {
            query = query.bind(uid.as_str()).bind(token.kind.field()).bind(token.hash());
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes what the locked rows, which were just written, remember and forget.
pub(super) async fn write_all(
    connection: &mut MySqlConnection,
    rows: &[(&ServerUid, &Locked)],
) -> Result<(), QueueError> {
    let mut news: Vec<(&ServerUid, &TokenValue)> =
        rows.iter().flat_map(|(uid, locked)| locked.remembered().iter().map(|token| (*uid, token))).collect();
    // In lock order.
    news.sort_by_key(|(uid, token)| (*uid, token.kind.field(), token.hash()));
    remember(connection, &news).await?;
    for (uid, locked) in rows {
        for token in locked.given_back() {
            sqlx::query("DELETE FROM handled_token WHERE server_uid = ? AND kind = ? AND hash = ?")
                .bind(uid.as_str())
                .bind(token.kind.field())
                .bind(token.hash())
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

impl Queue {
    /// Which of these values were ever handled for a server, however long ago.
    pub async fn handled_ever(
        &self,
        uid: &ServerUid,
        asked: &[TokenValue],
    ) -> Result<Vec<TokenValue>, QueueError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let one = "(server_uid = ? AND kind = ? AND hash = ?)";
        let text = format!(
            "SELECT kind, hash FROM handled_token FORCE INDEX (PRIMARY) WHERE {}",
            times(one, asked.len(), " OR ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for token in asked {
            query = query.bind(uid.as_str()).bind(token.kind.field()).bind(token.hash());
        }
        let mut found: HashSet<(String, i64)> = HashSet::new();
        for row in query.fetch_all(self.pool()).await? {
            found.insert((row.try_get("kind")?, row.try_get("hash")?));
        }
        let is_found = |token: &&TokenValue| found.contains(&(token.kind.field().to_owned(), token.hash()));
        Ok(asked.iter().filter(is_found).cloned().collect())
    }
}
