//! First sight of a server: its `server_state` row.

use sqlx::MySqlConnection;

use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Queue, QueueError, handled_token, now_ms};
use crate::job::{Contents, Debt, Event, HandledTokens, ServerUid, TokenValue};

struct Register {
    uid: ServerUid,
    namespace: String,
    name: String,
    handled: String,
    contents: Option<String>,
    tokens: Vec<TokenValue>,
}

impl Transaction for Register {
    type Output = ();
    const NAME: &'static str = "register";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<()>, QueueError> {
        // A row that is there already is left alone: whoever made it first decided which tokens count as handled.
        sqlx::query(concat!(
            "INSERT INTO server_state (server_uid, namespace, name, version, changed_at_ms, handled, contents) VALUES (?, ?, ?, 1, ",
            now_ms!(),
            ", ?, ?) ON DUPLICATE KEY UPDATE server_uid = server_uid"
        ))
        .bind(self.uid.as_str())
        .bind(&self.namespace)
        .bind(&self.name)
        .bind(&self.handled)
        .bind(&self.contents)
        .execute(&mut *connection)
        .await?;
        let ours: Option<i64> = sqlx::query_scalar(
            "SELECT version FROM server_state WHERE server_uid = ? AND handled = ? AND version = 1",
        )
        .bind(self.uid.as_str())
        .bind(&self.handled)
        .fetch_optional(&mut *connection)
        .await?;
        if ours.is_some() {
            let tokens: Vec<_> = self.tokens.iter().map(|token| (&self.uid, token)).collect();
            handled_token::remember(connection, &tokens).await?;
        }
        Ok(Ending::Commit(()))
    }
}

struct RecordHandled {
    uid: ServerUid,
    token: TokenValue,
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
        if handled.is_handled(self.token.kind, Some(&self.token.value)) {
            return Ok(Ending::Rollback(true));
        }
        if locked.version != self.version {
            return Ok(Ending::Rollback(false));
        }
        locked.record(&self.uid, std::slice::from_ref(&self.token))?;
        state::write(connection, &self.uid, locked, Tell::Controller).await?;
        Ok(Ending::Commit(true))
    }
}

struct RecordContents {
    uid: ServerUid,
    contents: Contents,
    version: i64,
}

impl Transaction for RecordContents {
    type Output = bool;
    const NAME: &'static str = "record_contents";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        let Some(mut locked) = state::lock(connection, &self.uid).await? else {
            return Ok(Ending::Rollback(false));
        };
        let there = locked.contents.get(&self.uid)?.as_ref() == Some(&self.contents);
        let adopted = match &self.contents {
            Contents::Image(image) => Some(Event::Adopted(image.clone())),
            _ => None,
        };
        let fails = adopted.as_ref().zip(locked.failure.get(&self.uid)?);
        if there && !fails.is_some_and(|(adopted, failure)| adopted.ends(&failure)) {
            return Ok(Ending::Rollback(true));
        }
        // An enqueue raises the version: at this one no job is live.
        if locked.version != self.version {
            return Ok(Ending::Rollback(false));
        }
        locked.contents.set(Some(&self.contents));
        if let Some(adopted) = adopted {
            locked.happened(&self.uid, &adopted)?;
        }
        state::write(connection, &self.uid, locked, Tell::Controller).await?;
        Ok(Ending::Commit(true))
    }
}

struct RecordDebt {
    uid: ServerUid,
    debt: Option<Debt>,
    version: i64,
}

impl Transaction for RecordDebt {
    type Output = bool;
    const NAME: &'static str = "record_debt";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        let Some(mut locked) = state::lock(connection, &self.uid).await? else {
            return Ok(Ending::Rollback(false));
        };
        if locked.debt.get(&self.uid)? == self.debt {
            return Ok(Ending::Rollback(true));
        }
        // An enqueue raises the version: at this one no job is live.
        if locked.version != self.version {
            return Ok(Ending::Rollback(false));
        }
        locked.owe(&self.uid, self.debt.as_ref())?;
        state::write(connection, &self.uid, locked, Tell::Controller).await?;
        Ok(Ending::Commit(true))
    }
}

impl Queue {
    /// Records without a job that a machine has to be on again, or that nothing is owed any more. `false`: what is known
    /// changed since `version`; look again.
    pub async fn record_debt(
        &self,
        uid: &ServerUid,
        debt: Option<&Debt>,
        version: i64,
    ) -> Result<bool, QueueError> {
        self.transact(RecordDebt { uid: uid.clone(), debt: debt.cloned(), version }).await
    }

    /// Records what is on a machine's disks without a job; an installation that failed before is over with that. `false`: what is known changed since `version`; look again.
    pub async fn record_contents(
        &self,
        uid: &ServerUid,
        contents: &Contents,
        version: i64,
    ) -> Result<bool, QueueError> {
        self.transact(RecordContents { uid: uid.clone(), contents: contents.clone(), version }).await
    }

    /// Counts a token as handled without a job, because it asks for nothing that applies. `false`: what is
    /// known changed since `version`; look again.
    pub async fn record_handled(
        &self,
        uid: &ServerUid,
        token: &TokenValue,
        version: i64,
    ) -> Result<bool, QueueError> {
        let transaction = RecordHandled { uid: uid.clone(), token: token.clone(), version };
        self.transact(transaction).await
    }

    /// Makes the row of a server that was not known. `handled`: the tokens that count as handled from the start, so
    /// that a first sight never acts on one; `contents`: what is on its disks. Does nothing where the row exists.
    pub async fn register(
        &self,
        uid: &ServerUid,
        namespace: &str,
        name: &str,
        handled: &HandledTokens,
        contents: Option<&Contents>,
    ) -> Result<(), QueueError> {
        self.transact(Register {
            uid: uid.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            tokens: handled.values(),
            handled: serde_json::to_string(&handled.clone().last(None)).unwrap_or_default(),
            contents: contents.map(|contents| serde_json::to_string(contents).unwrap_or_default()),
        })
        .await
    }
}
