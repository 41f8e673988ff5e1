//! Stored requests: written down before they are sent, closed when the answer came.

use sqlx::MySqlConnection;

use super::fence;
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Claim, Fenced, Queue, QueueError};
use crate::job::StoredRequest;

struct StoreRequest {
    claim: Claim,
    request: StoredRequest,
    checkpoint: String,
    reboot_token: Option<String>,
}

impl Transaction for StoreRequest {
    type Output = Fenced<Claim>;
    const NAME: &'static str = "store_request";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<Claim>>, QueueError> {
        let held = match fence::enter(connection, &self.claim, pass).await? {
            Ok(job) => job,
            Err(ending) => return Ok(ending),
        };
        // Once stored, a cancel must find the job begun; one that came before wins, and nothing is sent.
        if held.live.cancel.is_some() && self.claim.cancel().is_none() {
            return Ok(Ending::Rollback(Fenced::Done(Claim { job: *held, token: self.claim.token })));
        }
        sqlx::query(
            "UPDATE job SET request = ?, checkpoint = ?, request_stored = 1, revision = revision + 1 WHERE server_uid = ?",
        )
        .bind(serde_json::to_string(&self.request).unwrap_or_default())
        .bind(&self.checkpoint)
        .bind(self.claim.uid().as_str())
        .execute(&mut *connection)
        .await?;
        if let Some(mut locked) = state::lock(connection, self.claim.uid()).await? {
            if let Some(token) = &self.reboot_token {
                locked.record_reboot(self.claim.uid(), token)?;
            }
            state::write(connection, self.claim.uid(), locked, Tell::Controller).await?;
        }
        Ok(Ending::Commit(Fenced::Done(fence::reread(connection, &self.claim).await?)))
    }
}

struct CloseRequest {
    claim: Claim,
    checkpoint: String,
}

impl Transaction for CloseRequest {
    type Output = Fenced<Claim>;
    const NAME: &'static str = "close_request";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<Claim>>, QueueError> {
        if let Err(ending) = fence::enter(connection, &self.claim, pass).await? {
            return Ok(ending);
        }
        sqlx::query(
            "UPDATE job SET request = NULL, checkpoint = ?, revision = revision + 1 WHERE server_uid = ?",
        )
        .bind(&self.checkpoint)
        .bind(self.claim.uid().as_str())
        .execute(&mut *connection)
        .await?;
        Ok(Ending::Commit(Fenced::Done(fence::reread(connection, &self.claim).await?)))
    }
}

impl Queue {
    /// Stores what is about to be sent, and what a successor has to know; in the same transaction `reboot_token`
    /// becomes handled. Where the job was
    /// asked to stop since `claim` was read, nothing is stored and the returned claim has the cancel mark and no
    /// request: nothing may be sent then.
    pub async fn store_request(
        &self,
        claim: Claim,
        request: StoredRequest,
        checkpoint: String,
        reboot_token: Option<String>,
    ) -> Result<Fenced<Claim>, QueueError> {
        self.transact(StoreRequest { claim, request, checkpoint, reboot_token }).await
    }

    /// Closes the stored request: its answer came, or its settle time has passed and a probe was made. What came of it
    /// goes into the checkpoint.
    pub async fn close_request(&self, claim: Claim, checkpoint: String) -> Result<Fenced<Claim>, QueueError> {
        self.transact(CloseRequest { claim, checkpoint }).await
    }
}
