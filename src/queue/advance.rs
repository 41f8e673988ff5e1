//! Advancing: a step is done, the job goes on with the next one.

use sqlx::MySqlConnection;

use super::fence;
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Claim, Fenced, Queue, QueueError, Report, now_ms};
use crate::job::Step;

struct Advance {
    claim: Claim,
    step: Step,
    checkpoint: String,
    report: Report,
}

impl Transaction for Advance {
    type Output = Fenced<Claim>;
    const NAME: &'static str = "advance";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<Claim>>, QueueError> {
        if let Err(ending) = fence::enter(connection, &self.claim, pass).await? {
            return Ok(ending);
        }
        sqlx::query(concat!(
            "UPDATE job SET step = ?, checkpoint = ?, step_since_ms = ",
            now_ms!(),
            ", revision = revision + 1, attempt = 0, crashes = 0, request = NULL, reason = NULL, message = NULL, \
             problem_since_ms = NULL WHERE server_uid = ?"
        ))
        .bind(self.step.as_str())
        .bind(&self.checkpoint)
        .bind(self.claim.uid().as_str())
        .execute(&mut *connection)
        .await?;
        if let Some(locked) = state::lock(connection, self.claim.uid()).await? {
            let mut known = locked.known;
            let changed = state::absorb(&mut known, &self.report, locked.now_ms);
            let tell = if changed { Tell::Controller } else { self.claim.tell() };
            state::write(connection, self.claim.uid(), &known, tell).await?;
        }
        Ok(Ending::Commit(Fenced::Done(fence::reread(connection, &self.claim).await?)))
    }
}

impl Queue {
    /// Goes on with `step`. The count of crashes starts again; the stored request is closed. The returned claim has
    /// the signals and the cancel mark as they are now.
    pub async fn advance(
        &self,
        claim: Claim,
        step: Step,
        checkpoint: String,
        report: Report,
    ) -> Result<Fenced<Claim>, QueueError> {
        self.transact(Advance { claim, step, checkpoint, report }).await
    }
}
