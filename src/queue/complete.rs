//! The end of a job: its row goes, history and what is known of the server stay.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::batch::{Answers, Batch};
use super::fence::{self, Stands};
use super::many::{filled, groups, in_lock_order, marks, times};
use super::park::refuse_open_request;
use super::row::JobRow;
use super::state::{self, Changed, Tell};
use super::state_row::Locked;
use super::transaction::{Ending, Pass, Transaction, begin_again};
use super::{Claim, Fenced, Queue, QueueError, Report, boot_session, budget, now_ms, permit};
use crate::api::Reason;
use crate::job::{
    Action, Cause, Debt, Event, FinishedJob, InstalledImage, JobResult, Origin, PermitClass, Problem,
    ServerUid, Step, StoredFailure, Tokens,
};

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
    /// What is on the machine's disks now.
    pub disks: Disks,
    /// The step in which it came to its end, where undo steps have run since; `None`: the present one.
    pub step: Option<Step>,
    /// Whether the machine reads on, and nothing that was sent may still switch it off.
    pub is_on: bool,
    /// The machine was switched off by this job, or will be within so many milliseconds, and nobody wishes it off any more.
    pub left_off_within_ms: Option<i64>,
}

impl End {
    /// An end of which nothing more is known.
    pub const fn new(result: JobResult, problem: Option<Problem>) -> Self {
        Self {
            result,
            problem,
            cause: None,
            report: Report::Nothing,
            disks: Disks::Untouched,
            step: None,
            is_on: false,
            left_off_within_ms: None,
        }
    }

    /// The step that is told.
    fn step(&self, job: &JobRow) -> Step {
        self.step.unwrap_or(job.live.step)
    }
}

/// What a job has made of its machine's disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Disks {
    /// Nothing that its stored requests do not say.
    #[default]
    Untouched,
    /// This image is on them.
    Installed(Installed),
    /// They are empty.
    Wiped,
    /// They are empty, and the machine's life has ended.
    Decommissioned,
}

impl Disks {
    fn event(&self, now_ms: i64) -> Option<Event> {
        Some(match self {
            Self::Untouched => return None,
            Self::Installed(Installed { name, digest }) => Event::Installed(InstalledImage {
                name: name.clone(),
                digest: digest.clone(),
                at_ms: now_ms,
                origin: Origin::Installed,
            }),
            Self::Wiped => Event::Wiped,
            Self::Decommissioned => Event::Decommissioned,
        })
    }
}

/// An image that a job has put onto its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The name of its `OSImage`.
    pub name: String,
    /// The digest of that `OSImage`'s spec.
    pub digest: String,
}

/// Completions that share a transaction.
pub(super) struct Complete {
    items: Vec<(Claim, End)>,
}

impl Transaction for Complete {
    type Output = Answers<Fenced<()>>;
    const NAME: &'static str = "complete";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: Pass,
    ) -> Result<Ending<Self::Output>, QueueError> {
        // Most often every claim stands: then the delete says so, and no read has to ask before.
        if self.items.iter().all(|(claim, _)| claim.job.request.is_none())
            && delete_held(connection, &self.items).await?
        {
            let all: Vec<Ended<'_>> =
                self.items.iter().map(|(claim, end)| Ended::of(&claim.job, end)).collect();
            end_deleted(connection, &all).await?;
            return Ok(Ending::Commit(self.items.iter().map(|_| Ok(Fenced::Done(()))).collect()));
        }
        begin_again(connection).await?;
        let stands = fence::stands_all(connection, self.items.iter().map(|(claim, _)| claim)).await?;
        let mut answers = Vec::with_capacity(stands.len());
        let mut ended = Vec::with_capacity(stands.len());
        for (stands, (claim, end)) in stands.into_iter().zip(&self.items) {
            // If it does not stand it was ended by the try whose COMMIT was unknown, or by somebody else: it is over.
            answers.push(match (stands, refuse_open_request(&claim.job)) {
                (Stands::No, _) => Ok(Fenced::Lost),
                (_, Err(error)) => Err(error),
                (Stands::Unmarked, Ok(())) => {
                    ended.push(Ended::of(&claim.job, end));
                    Ok(Fenced::Done(()))
                }
                (Stands::Marked, Ok(())) => {
                    ended.push(Ended { tell: Tell::Controller, ..Ended::of(&claim.job, end) });
                    Ok(Fenced::Done(()))
                }
            });
        }
        if ended.is_empty() {
            return Ok(Ending::Rollback(answers));
        }
        end_jobs(connection, &ended).await?;
        Ok(Ending::Commit(answers))
    }
}

/// A job at its end.
struct Ended<'a> {
    job: &'a JobRow,
    end: &'a End,
    /// Whom to tell if there is no news.
    tell: Tell,
}

impl<'a> Ended<'a> {
    fn of(job: &'a JobRow, end: &'a End) -> Self {
        Self { job, end, tell: job.tell() }
    }
}

/// Deletes the jobs of claims that stand, if nobody asked one of them to stop since it was claimed; whether those are all
/// of them.
async fn delete_held(connection: &mut MySqlConnection, items: &[(Claim, End)]) -> Result<bool, QueueError> {
    let mut claims: Vec<&Claim> = items.iter().map(|(claim, _)| claim).collect();
    claims.sort_by(|a, b| a.uid().cmp(b.uid()));
    // What one claim took has one token. A long OR of pairs would be gone through from its start for each row.
    let fence = |claim: &Claim| (claim.token, claim.job.revision);
    let alike = claims.windows(2).all(|pair| fence(pair[0]) == fence(pair[1]));
    let mut deleted = 0;
    for group in filled(&claims) {
        let fences = if alike {
            "token = ? AND revision = ?".to_owned()
        } else {
            format!("(server_uid, token, revision) IN ({})", times("(?, ?, ?)", group.len(), ", "))
        };
        let text = format!(
            "DELETE job FROM job FORCE INDEX (PRIMARY) WHERE server_uid IN ({}) AND {fences} AND cancel IS NULL",
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for claim in &group {
            query = query.bind(claim.uid().as_str());
        }
        if alike {
            query = query.bind(group[0].token.0).bind(group[0].job.revision);
        } else {
            for claim in &group {
                query = query.bind(claim.uid().as_str()).bind(claim.token.0).bind(claim.job.revision);
            }
        }
        deleted += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(deleted == claims.len() as u64)
}

impl Batch for Complete {
    type Item = (Claim, End);
    type Answer = Fenced<()>;
    /// Nobody waits for an end as for a beginning. Small transactions, one after the other, took the processors from
    /// urgent jobs.
    const PACE: Duration = Duration::from_millis(5);

    fn server((claim, _): &Self::Item) -> &ServerUid {
        claim.uid()
    }

    fn of(items: Vec<Self::Item>) -> Self {
        Self { items }
    }
}

/// Ends a locked job that is in nobody's queue row: deletes it and records what is worth telling.
pub(super) async fn end_job(
    connection: &mut MySqlConnection,
    job: &JobRow,
    end: &End,
) -> Result<(), QueueError> {
    end_jobs(connection, &[Ended::of(job, end)]).await
}

/// Ends locked jobs of different servers, table by table.
async fn end_jobs(connection: &mut MySqlConnection, ended: &[Ended<'_>]) -> Result<(), QueueError> {
    delete_jobs(connection, &in_lock_order(ended.iter().map(|it| &it.job.uid))).await?;
    end_deleted(connection, ended).await
}

/// Records the ends of jobs whose rows are gone.
async fn end_deleted(connection: &mut MySqlConnection, ended: &[Ended<'_>]) -> Result<(), QueueError> {
    // Only these publish boot sessions.
    let booted = ended.iter().filter(|it| it.job.permit_class == Some(PermitClass::Install));
    boot_session::revoke_all(connection, &in_lock_order(booted.map(|it| &it.job.uid))).await?;
    let uids = in_lock_order(ended.iter().map(|it| &it.job.uid));
    let mut states = state::lock_all(connection, &uids).await?;
    let now_ms = match states.values().next() {
        Some(locked) => locked.now_ms,
        None => sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut *connection).await?,
    };
    let mut changed = Vec::with_capacity(ended.len());
    let mut history = Vec::with_capacity(ended.len());
    for Ended { job, end, tell } in ended {
        let shown = match states.remove(job.uid.as_str()) {
            Some(mut locked) => {
                let Learnt { shown, heeded } = learn(job, end, &mut locked)?;
                let tell = if shown || heeded { Tell::Controller } else { *tell };
                changed.push(Changed { uid: &job.uid, locked, tell });
                shown
            }
            None => true,
        };
        if shown {
            history.push((*job, *end));
        }
    }
    changed.sort_by_key(|changed| changed.uid);
    state::write_all(connection, &changed).await?;
    record(connection, &history, now_ms).await?;
    budget::give_back(connection, ended.iter().map(|it| it.job)).await?;
    permit::give_back(connection, ended.iter().map(|it| it.job)).await
}

async fn delete_jobs(connection: &mut MySqlConnection, uids: &[&str]) -> Result<(), QueueError> {
    for group in filled(uids) {
        let text =
            format!("DELETE job FROM job FORCE INDEX (PRIMARY) WHERE server_uid IN ({})", marks(group.len()));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// What is worth telling of the end of a job.
struct Learnt {
    /// The job itself: it is in the history, and status has its end.
    shown: bool,
    /// That a request for a look was acted on.
    heeded: bool,
}

/// Puts the end of a job into what is known.
fn learn(job: &JobRow, end: &End, locked: &mut Locked) -> Result<Learnt, QueueError> {
    if is_replay(job, end, locked)? {
        return Ok(Learnt { shown: false, heeded: false });
    }
    let changed = locked.absorb(&job.uid, &end.report)?;
    let asked =
        job.asked.as_deref().filter(|_| end.report != Report::Nothing || end.result == JobResult::Failed);
    let heeded = locked.heed(&job.uid, asked)?;
    let mut news = false;
    if let Some(event) = end.disks.event(locked.now_ms) {
        locked.happened(&job.uid, &event)?;
    }
    let event = match end.result {
        JobResult::Succeeded => Event::Succeeded(job.live.action),
        JobResult::Failed | JobResult::Cancelled | JobResult::Superseded => Event::EndedInVain,
    };
    locked.happened(&job.uid, &event)?;
    // Of a request that is still open nobody knows what became of it, nor of one of which the database lost the record.
    let lost = end
        .problem
        .as_ref()
        .is_some_and(|problem| matches!(problem.reason, Reason::HistoryLost | Reason::UnexplainedJob));
    // What was never stored took nothing.
    let took = job.live.request_stored;
    if event.tokens() == Tokens::GivenBack && job.request.is_none() && took && !lost {
        locked.give_back(&job.uid, &job.live.taking)?;
    }
    owe(job, end, locked)?;
    match end.result {
        JobResult::Failed => {
            // A quiet look that fails as the last one did tells nothing new.
            let failed = failure(job, end, locked.now_ms);
            let before = locked.failure.get(&job.uid)?;
            news = !before.as_ref().is_some_and(|before| same(before, &failed));
            locked.failure.set(Some(&failed.after(before)));
        }
        JobResult::Succeeded | JobResult::Cancelled | JobResult::Superseded => {}
    }
    let shown = !job.quiet || changed || news;
    if shown && !(job.quiet && end.result == JobResult::Succeeded) {
        locked.last_job.set(Some(&finished(job, end, locked.now_ms)));
    }
    Ok(Learnt { shown, heeded })
}

/// Whether a row that nothing bears out is of a job that has ended, as what ended last says: a row of a backup, or one that somebody
/// put back. Its end was told.
fn is_replay(job: &JobRow, end: &End, locked: &Locked) -> Result<bool, QueueError> {
    let unexplained = end.problem.as_ref().is_some_and(|problem| problem.reason == Reason::UnexplainedJob);
    let last = locked.last_job.get(&job.uid)?;
    Ok(unexplained && last.is_some_and(|last| last.id >= job.live.id && !last.id.is_made_up(locked.now_ms)))
}

/// What becomes of a debt: it ends with a machine that is on, or whose disks were erased, which ends off. Any other end of
/// what should have switched it on was in vain, also within its first claim, whose row was read before it had begun.
fn owe(job: &JobRow, end: &End, locked: &mut Locked) -> Result<(), QueueError> {
    let Some(debt) = locked.debt.get(&job.uid)? else {
        // What was to be off is not recorded with its request: it is a debt since somebody thought better of it.
        let Some(within_ms) = end.left_off_within_ms else { return Ok(()) };
        let debt = Debt::begun(job.live.id, job.live.action, locked.now_ms, within_ms);
        return locked.owe(&job.uid, Some(&debt));
    };
    let paid = end.is_on || matches!(end.disks, Disks::Wiped | Disks::Decommissioned);
    let left = if paid {
        None
    } else if (job.token.is_some() || job.live.started()) && is_a_try(job, end) {
        Some(debt.tried_again(cause(job, end), end.problem.clone(), locked.now_ms))
    } else {
        Some(debt)
    };
    locked.owe(&job.uid, left.as_ref())
}

/// A look tries nothing, and what was asked to stop did not fail.
fn is_a_try(job: &JobRow, end: &End) -> bool {
    let is_own = |action| !matches!(action, Action::Inspect | Action::PowerOn);
    is_own(job.live.action) || (job.live.action == Action::PowerOn && end.result != JobResult::Cancelled)
}

/// The circumstances of an end.
fn cause(job: &JobRow, end: &End) -> Cause {
    end.cause.clone().unwrap_or_else(|| job.cause.clone())
}

fn same(before: &StoredFailure, now: &StoredFailure) -> bool {
    before.cause.same(&now.cause)
        && (before.action, &before.intent, before.problem.reason)
            == (now.action, &now.intent, now.problem.reason)
}

fn failure(job: &JobRow, end: &End, now_ms: i64) -> StoredFailure {
    StoredFailure {
        action: job.live.action,
        intent: job.live.intent.clone(),
        cause: cause(job, end),
        problem: end.problem.clone().unwrap_or_else(|| Problem::new(Reason::DeadlineExceeded, "")),
        at_ms: now_ms,
        behind: None,
    }
}

fn finished(job: &JobRow, end: &End, now_ms: i64) -> FinishedJob {
    FinishedJob {
        id: job.live.id,
        action: job.live.action,
        intent: job.live.intent.clone(),
        result: end.result,
        problem: end.problem.clone(),
        step: end.step(job),
        enqueued_at_ms: job.live.enqueued_at_ms,
        started_at_ms: job.live.started_at_ms,
        finished_at_ms: now_ms,
    }
}

async fn record(
    connection: &mut MySqlConnection,
    ended: &[(&JobRow, &End)],
    now_ms: i64,
) -> Result<(), QueueError> {
    for group in groups(ended) {
        // A row of a backup, or one that somebody put back, may be of a job whose end is there: that one stands.
        let text = format!(
            "INSERT INTO job_history (job_id, server_uid, namespace, name, site, action, result, reason, message, step, \
             intent, requester, enqueued_at_ms, started_at_ms, finished_at_ms) VALUES {} ON DUPLICATE KEY UPDATE job_id = job_id",
            times("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for (job, end) in group {
            let reason = end.problem.as_ref().map_or(end.result.as_str(), |problem| problem.reason.as_str());
            query = query
                .bind(job.live.id.0)
                .bind(job.uid.as_str())
                .bind(&job.namespace)
                .bind(&job.name)
                .bind(&job.site)
                .bind(job.live.action.as_str())
                .bind(end.result.as_str())
                .bind(reason)
                .bind(end.problem.as_ref().map_or("", |problem| problem.message.as_str()))
                .bind(end.step(job).as_str())
                .bind(&job.live.intent.0)
                .bind(&job.requester)
                .bind(job.live.enqueued_at_ms)
                .bind(job.live.started_at_ms)
                .bind(now_ms);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

impl Queue {
    /// Ends a job. [`Fenced::Lost`] after an unknown COMMIT may mean that this very call ended it.
    pub async fn complete(&self, claim: Claim, end: End) -> Result<Fenced<()>, QueueError> {
        self.inner.batchers.complete.call((claim, end)).await
    }
}
