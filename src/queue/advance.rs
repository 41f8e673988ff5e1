//! Advancing: a step is done, the job goes on with the next one.

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::batch::{Answers, Batch};
use super::fence::{self, Checked};
use super::many::{groups, times};
use super::row::{FILLING, FILLING_VALUES};
use super::state::{self, Change};
use super::transaction::{Ending, Pass, Transaction};
use super::{Claim, Fenced, Queue, QueueError, Report};
use crate::job::{ServerUid, Step};

/// A step that is done.
#[derive(Clone)]
pub(super) struct StepDone {
    claim: Claim,
    step: Step,
    checkpoint: String,
    report: Report,
}

/// Advances that share a transaction.
pub(super) struct Advance {
    items: Vec<StepDone>,
}

impl Transaction for Advance {
    type Output = Answers<Fenced<Claim>>;
    const NAME: &'static str = "advance";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Self::Output>, QueueError> {
        let claims = self.items.iter().map(|item| &item.claim);
        let Checked { standings, now_ms } = fence::check_all(connection, claims, pass).await?;
        let mut answers = Vec::with_capacity(standings.len());
        let mut advanced: Vec<(&StepDone, Claim)> = Vec::with_capacity(standings.len());
        for (standing, item) in standings.into_iter().zip(&self.items) {
            answers.push(fence::answer(standing, &item.claim, |job| {
                (job.live.step, job.step_since_ms) = (item.step, Some(now_ms));
                (job.live.attempt, job.crashes, job.revision) = (0, 0, job.revision + 1);
                job.checkpoint.clone_from(&item.checkpoint);
                (job.request, job.live.problem, job.live.problem_since_ms) = (None, None, None);
                advanced.push((item, Claim { job: job.clone(), token: item.claim.token }));
            }));
        }
        if advanced.is_empty() {
            return Ok(Ending::Rollback(answers));
        }
        advanced.sort_by(|(_, a), (_, b)| a.uid().cmp(b.uid()));
        write(connection, &advanced, now_ms).await?;
        let changes: Vec<Change<'_>> = advanced
            .iter()
            .map(|(item, claim)| Change {
                uid: claim.uid(),
                report: &item.report,
                asked: claim.job.asked.as_deref(),
                at_least: claim.tell(),
            })
            .collect();
        state::change_all(connection, &changes).await?;
        Ok(Ending::Commit(answers))
    }
}

async fn write(
    connection: &mut MySqlConnection,
    advanced: &[(&StepDone, Claim)],
    now_ms: i64,
) -> Result<(), QueueError> {
    for group in groups(advanced) {
        // The rows exist and are locked, so this only updates; `UPDATE` cannot give each row values of its own.
        let text = format!(
            "INSERT INTO job (server_uid, step, checkpoint, step_since_ms, {FILLING}) VALUES {} \
             ON DUPLICATE KEY UPDATE step = VALUES(step), checkpoint = VALUES(checkpoint), \
             step_since_ms = VALUES(step_since_ms), revision = revision + 1, attempt = 0, crashes = 0, request = NULL, \
             reason = NULL, exact_reason = NULL, message = NULL, problem_since_ms = NULL",
            times(&format!("(?, ?, ?, ?, {FILLING_VALUES})"), group.len(), ", "),
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for (item, claim) in group {
            query =
                query.bind(claim.uid().as_str()).bind(item.step.as_str()).bind(&item.checkpoint).bind(now_ms);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

impl Batch for Advance {
    type Item = StepDone;
    type Answer = Fenced<Claim>;

    fn server(item: &StepDone) -> &ServerUid {
        item.claim.uid()
    }

    fn of(items: Vec<StepDone>) -> Self {
        Self { items }
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
        self.inner.batchers.advance.call(StepDone { claim, step, checkpoint, report }).await
    }
}
