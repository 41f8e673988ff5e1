//! Parking and handing back: a job leaves its worker without being done.

use sqlx::{MySqlConnection, Row};

use super::fence::{self, Standing};
use super::row::{JobRow, insert_place};
use super::state::{self, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Claim, Fenced, PlaceInQueue, Queue, QueueError, Report, now_ms};
use crate::job::{Incarnation, JobId, Problem, ServerUid, Token, WaitingFor};

/// Where a parked job went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It sleeps until its wake time or a signal.
    Asleep,
    /// Something signalled it since the evidence was read: it is ready at once.
    AwakeAgain,
}

struct Park {
    claim: Claim,
    after_ms: i64,
    waiting_for: WaitingFor,
    problem: Option<Problem>,
    secret_version: Option<String>,
    checkpoint: String,
    report: Report,
}

impl Transaction for Park {
    type Output = Fenced<Parked>;
    const NAME: &'static str = "park";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<Parked>>, QueueError> {
        let Standing::Held(job) = fence::check(connection, &self.claim, pass).await? else {
            // Also after an unknown COMMIT: parked or taken over, it is no longer this worker's.
            return Ok(Ending::Rollback(Fenced::Lost));
        };
        refuse_open_request(&job)?;
        // Read before the evidence: whatever signalled the job since then may be what it would wait for.
        let signalled = job.signals != self.claim.job.signals;
        let now_ms: i64 =
            sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut *connection).await?;
        let (place, ord) = if signalled {
            (PlaceInQueue::Ready, job.order_key())
        } else {
            (PlaceInQueue::Parked, now_ms + self.after_ms.max(0))
        };
        let reason = self.problem.as_ref().map(|problem| problem.reason);
        let before = job.live.problem.as_ref().map(|problem| problem.reason);
        let since = match (reason, job.live.problem_since_ms) {
            (Some(_), Some(since)) if reason == before => Some(since),
            (Some(_), _) => Some(now_ms),
            (None, _) => None,
        };
        sqlx::query(
            "UPDATE job SET owner = NULL, token = NULL, q_state = ?, q_ord = ?, revision = revision + 1, \
             attempt = attempt + 1, waiting_for = ?, reason = ?, message = ?, problem_since_ms = ?, \
             secret_version = ?, checkpoint = ? WHERE server_uid = ?",
        )
        .bind(place.code())
        .bind(ord)
        .bind(self.waiting_for.as_str())
        .bind(reason.map(crate::api::Reason::as_str))
        .bind(self.problem.as_ref().map(|problem| problem.message.as_str()))
        .bind(since)
        .bind(&self.secret_version)
        .bind(&self.checkpoint)
        .bind(job.uid.as_str())
        .execute(&mut *connection)
        .await?;
        let new_reason =
            reason != before || job.live.waiting_for != Some(self.waiting_for) && job.live.attempt == 0;
        if let Some(locked) = state::lock(connection, &job.uid).await? {
            let mut known = locked.known;
            let changed = state::absorb(&mut known, &self.report, locked.now_ms);
            let tell = if changed || (new_reason && !job.quiet) { Tell::Controller } else { Tell::Nobody };
            state::write(connection, &job.uid, &known, tell).await?;
        }
        insert_place(connection, &job, place, ord).await?;
        Ok(Ending::Commit(Fenced::Done(if signalled { Parked::AwakeAgain } else { Parked::Asleep })))
    }
}

/// Until the answer came or the settle time has passed nobody parks or ends a job.
pub(super) fn refuse_open_request(job: &JobRow) -> Result<(), QueueError> {
    match &job.request {
        Some(request) => Err(QueueError::Refused(format!(
            "job {} still waits for its {}",
            job.live.id,
            request.kind.as_str()
        ))),
        None => Ok(()),
    }
}

struct HandBack {
    claim: Claim,
}

impl Transaction for HandBack {
    type Output = Fenced<()>;
    const NAME: &'static str = "hand_back";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<()>>, QueueError> {
        let Standing::Held(job) = fence::check(connection, &self.claim, pass).await? else {
            return Ok(Ending::Rollback(Fenced::Lost));
        };
        super::wake::move_to_ready(connection, &job).await?;
        insert_place(connection, &job, PlaceInQueue::Ready, job.order_key()).await?;
        Ok(Ending::Commit(Fenced::Done(())))
    }
}

struct Disown {
    me: Incarnation,
    job: OwnedJob,
}

impl Transaction for Disown {
    type Output = bool;
    const NAME: &'static str = "disown";

    async fn run(&self, connection: &mut MySqlConnection, _: Pass) -> Result<Ending<bool>, QueueError> {
        let row = sqlx::query(
            "SELECT * FROM job WHERE server_uid = ? AND id = ? AND owner = ? AND token = ? FOR UPDATE",
        )
        .bind(self.job.uid.as_str())
        .bind(self.job.id.0)
        .bind(self.me.0)
        .bind(self.job.token.0)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(Ending::Rollback(false)) };
        let job = JobRow::read(&row)?;
        super::wake::move_to_ready(connection, &job).await?;
        insert_place(connection, &job, PlaceInQueue::Ready, job.order_key()).await?;
        Ok(Ending::Commit(true))
    }
}

/// A job that names a worker as its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnedJob {
    /// The server.
    pub uid: ServerUid,
    /// The job.
    pub id: JobId,
    /// The token of the claim.
    pub token: Token,
}

/// How a job is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkAs {
    /// Milliseconds until it wakes by itself.
    pub after_ms: i64,
    /// What it waits for.
    pub waiting_for: WaitingFor,
    /// What is in the way; `None` where the waiting is part of the step.
    pub problem: Option<Problem>,
    /// The version of the credentials Secret that was used.
    pub secret_version: Option<String>,
    /// What the next try has to know.
    pub checkpoint: String,
    /// What was learned about the machine.
    pub report: Report,
}

impl Queue {
    /// Parks a job: it holds no slot, no connection and no lock until its time comes or something signals it. A
    /// stored request must be closed before.
    pub async fn park(&self, claim: Claim, how: ParkAs) -> Result<Fenced<Parked>, QueueError> {
        let ParkAs { after_ms, waiting_for, problem, secret_version, checkpoint, report } = how;
        self.transact(Park { claim, after_ms, waiting_for, problem, secret_version, checkpoint, report })
            .await
    }

    /// The jobs that name `me` as their owner. What its slots do not run was claimed in a transaction whose COMMIT was
    /// unknown: it is given back with [`Queue::disown`].
    pub async fn owned(&self, me: Incarnation) -> Result<Vec<OwnedJob>, QueueError> {
        let rows = sqlx::query("SELECT server_uid, id, token FROM job WHERE owner = ? AND token IS NOT NULL")
            .bind(me.0)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OwnedJob {
                    uid: ServerUid(row.try_get("server_uid")?),
                    id: JobId(row.try_get("id")?),
                    token: Token(row.try_get("token")?),
                })
            })
            .collect()
    }

    /// Gives back a job that `me` owns but does not run; `false`: it is no longer that claim.
    pub async fn disown(&self, me: Incarnation, job: OwnedJob) -> Result<bool, QueueError> {
        self.transact(Disown { me, job }).await
    }

    /// Gives a job back as it is, ready for another worker at once. Does not count as a crash.
    pub async fn hand_back(&self, claim: Claim) -> Result<Fenced<()>, QueueError> {
        self.transact(HandBack { claim }).await
    }
}
