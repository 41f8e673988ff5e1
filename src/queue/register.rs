//! First sight of a server: its `server_state` row.

use sqlx::MySqlConnection;

use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, now_ms};
use crate::job::{HandledTokens, ServerUid};

struct Register {
    uid: ServerUid,
    namespace: String,
    name: String,
    handled: String,
}

impl Transaction for Register {
    type Output = ();
    const NAME: &'static str = "register";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<()>, QueueError> {
        // A row that is there already is left alone: whoever made it first decided which tokens count as handled.
        sqlx::query(concat!(
            "INSERT INTO server_state (server_uid, namespace, name, version, changed_at_ms, handled) VALUES (?, ?, ?, 1, ",
            now_ms!(),
            ", ?) ON DUPLICATE KEY UPDATE server_uid = server_uid"
        ))
        .bind(self.uid.as_str())
        .bind(&self.namespace)
        .bind(&self.name)
        .bind(&self.handled)
        .execute(connection)
        .await?;
        Ok(Ending::Commit(()))
    }
}

impl Queue {
    /// Makes the row of a server that was not known. `handled`: the tokens that count as handled from the start, so
    /// that a first sight never acts on one. Does nothing where the row exists.
    pub async fn register(
        &self,
        uid: &ServerUid,
        namespace: &str,
        name: &str,
        handled: &HandledTokens,
    ) -> Result<(), QueueError> {
        self.transact(Register {
            uid: uid.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            handled: serde_json::to_string(handled).unwrap_or_default(),
        })
        .await
    }
}
