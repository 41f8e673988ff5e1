//! The end of a job: its row goes, history and what is known of the server stay.

use sqlx::MySqlConnection;

use super::fence::{self, Standing};
use super::park::refuse_open_request;
use super::row::JobRow;
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Claim, Fenced, Queue, QueueError, Report, now_ms};
use crate::job::{Action, Cause, Effect, FinishedJob, JobResult, Problem, StoredFailure};

/// How a job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its result.
    pub result: JobResult,
    /// Why, where it did not succeed.
    pub problem: Option<Problem>,
    /// The circumstances as the worker saw them last; `None`: those in which it was enqueued.
    pub cause: Option<Cause>,
    /// What was learned about the machine.
    pub report: Report,
}

struct Complete {
    claim: Claim,
    end: End,
}

impl Transaction for Complete {
    type Output = Fenced<()>;
    const NAME: &'static str = "complete";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<()>>, QueueError> {
        match fence::check(connection, &self.claim, pass).await? {
            Standing::Held(job) => {
                refuse_open_request(&job)?;
                end_job(connection, &job, &self.end).await?;
                Ok(Ending::Commit(Fenced::Done(())))
            }
            // The row is gone: ended by the try whose COMMIT was unknown, or by somebody else. Either way it is over.
            Standing::Written(_) | Standing::Lost => Ok(Ending::Rollback(Fenced::Lost)),
        }
    }
}

/// Ends a locked job that is in nobody's queue row: deletes it and records what is worth telling.
pub(super) async fn end_job(
    connection: &mut MySqlConnection,
    job: &JobRow,
    end: &End,
) -> Result<(), QueueError> {
    sqlx::query("DELETE FROM job WHERE server_uid = ?")
        .bind(job.uid.as_str())
        .execute(&mut *connection)
        .await?;
    let now_ms = match state::lock(connection, &job.uid).await? {
        Some(locked) => {
            let mut known = locked.known;
            let changed = state::absorb(&mut known, &end.report, locked.now_ms);
            let failed = (end.result == JobResult::Failed).then(|| failure(job, end, locked.now_ms));
            // A quiet look that fails as the last one did tells nothing new.
            let news = failed
                .as_ref()
                .is_some_and(|now| !known.failure.as_ref().is_some_and(|before| same(before, now)));
            let shown = !job.quiet || changed || news;
            match end.result {
                JobResult::Failed => known.failure = failed,
                // What came true is no longer in the way. A look says nothing about a failed power change.
                JobResult::Succeeded if blocks_no_more(job.live.action, known.failure.as_ref()) => {
                    known.failure = None;
                }
                _ => {}
            }
            if shown && !(job.quiet && end.result == JobResult::Succeeded) {
                known.last_job = Some(finished(job, end, locked.now_ms));
            }
            state::write(connection, &job.uid, &known, if shown { Tell::Controller } else { Tell::Nobody })
                .await?;
            shown.then_some(locked.now_ms)
        }
        None => Some(sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut *connection).await?),
    };
    match now_ms {
        Some(now_ms) => record(connection, job, end, now_ms).await,
        None => Ok(()),
    }
}

fn blocks_no_more(action: Action, failure: Option<&StoredFailure>) -> bool {
    failure.is_some_and(|failure| {
        // Power that is as wished says nothing about data that may be half gone.
        let destructive = |action: Action| action.effect() == Effect::Destructive;
        (action != Action::Inspect || failure.action == Action::Inspect)
            && (!destructive(failure.action) || destructive(action))
    })
}

fn same(before: &StoredFailure, now: &StoredFailure) -> bool {
    (before.action, &before.intent, &before.cause, before.problem.reason)
        == (now.action, &now.intent, &now.cause, now.problem.reason)
}

fn failure(job: &JobRow, end: &End, now_ms: i64) -> StoredFailure {
    StoredFailure {
        action: job.live.action,
        intent: job.live.intent.clone(),
        cause: end.cause.clone().unwrap_or_else(|| Cause(job.cause.clone())),
        problem: end
            .problem
            .clone()
            .unwrap_or_else(|| Problem::new(crate::api::Reason::DeadlineExceeded, "")),
        at_ms: now_ms,
    }
}

fn finished(job: &JobRow, end: &End, now_ms: i64) -> FinishedJob {
    FinishedJob {
        id: job.live.id,
        action: job.live.action,
        intent: job.live.intent.clone(),
        result: end.result,
        problem: end.problem.clone(),
        step: job.live.step,
        enqueued_at_ms: job.live.enqueued_at_ms,
        started_at_ms: job.live.started_at_ms,
        finished_at_ms: now_ms,
    }
}

async fn record(
    connection: &mut MySqlConnection,
    job: &JobRow,
    end: &End,
    now_ms: i64,
) -> Result<(), QueueError> {
    let reason = end.problem.as_ref().map_or(end.result.as_str(), |problem| problem.reason.as_str());
    sqlx::query(
        "INSERT INTO job_history (job_id, server_uid, namespace, name, site, action, result, reason, message, step, \
         intent, requester, enqueued_at_ms, started_at_ms, finished_at_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(job.live.id.0)
    .bind(job.uid.as_str())
    .bind(&job.namespace)
    .bind(&job.name)
    .bind(&job.site)
    .bind(job.live.action.as_str())
    .bind(end.result.as_str())
    .bind(reason)
    .bind(end.problem.as_ref().map_or("", |problem| problem.message.as_str()))
    .bind(job.live.step.as_str())
    .bind(&job.live.intent.0)
    .bind(&job.requester)
    .bind(job.live.enqueued_at_ms)
    .bind(job.live.started_at_ms)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

impl Queue {
    /// Ends a job. [`Fenced::Lost`] after an unknown COMMIT may mean that this very call ended it.
    pub async fn complete(&self, claim: Claim, end: End) -> Result<Fenced<()>, QueueError> {
        self.transact(Complete { claim, end }).await
    }
}
