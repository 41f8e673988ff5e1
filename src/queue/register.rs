//! First sight of a server: its `server_state` row.

use sqlx::MySqlConnection;

use super::state::{self, Tell};
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

struct RecordHandled {
    uid: ServerUid,
    reboot_token: String,
    version: i64,
}

impl Transaction for RecordHandled {
    type Output = bool;
    const NAME: &'static str = "record_handled";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        let Some(mut locked) = state::lock(connection, &self.uid).await? else {
            return Ok(Ending::Rollback(false));
        };
        let handled = locked.handled.get(&self.uid)?.unwrap_or_default();
        if handled.reboot_is_handled(Some(&self.reboot_token)) {
            return Ok(Ending::Rollback(true));
        }
        if locked.version != self.version {
            return Ok(Ending::Rollback(false));
        }
        locked.record_reboot(&self.uid, &self.reboot_token)?;
        state::write(connection, &self.uid, locked, Tell::Controller).await?;
        Ok(Ending::Commit(true))
    }
}

impl Queue {
    /// Counts a reboot token as handled without a job, because it asks for nothing that applies. `false`: what is
    /// known changed since `version`; look again.
    pub async fn record_handled(
        &self,
        uid: &ServerUid,
        reboot_token: &str,
        version: i64,
    ) -> Result<bool, QueueError> {
        let transaction = RecordHandled { uid: uid.clone(), reboot_token: reboot_token.to_owned(), version };
        self.transact(transaction).await
    }

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
