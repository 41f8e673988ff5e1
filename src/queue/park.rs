//! Parking and handing back: a job leaves its worker without being done.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::batch::{Answers, Batch};
use super::fence::{self, Checked, Standing};
use super::many::{groups, times};
use super::row::{FILLING, FILLING_VALUES, JobRow, QueueRow, insert_place, insert_places};
use super::state::{self, Change, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::wake::awaken;
use super::{Claim, Fenced, PlaceInQueue, Queue, QueueError, Report, permit};
use crate::api::Reason;
use crate::job::{Incarnation, JobId, Problem, ServerUid, Token, WaitingFor};

/// Where a parked job went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// It sleeps until its wake time or a signal.
    Asleep,
    /// Something signalled it since the evidence was read: it is ready at once.
    AwakeAgain,
}

/// Parks that share a transaction.
pub(super) struct Park {
    items: Vec<(Claim, ParkAs)>,
}

/// A job that leaves its worker, and its row as it will be.
struct Leaving<'a> {
    how: &'a ParkAs,
    job: JobRow,
    place: PlaceInQueue,
    ord: i64,
    problem_since_ms: Option<i64>,
    gives_back: bool,
    tell: Tell,
}

impl Transaction for Park {
    type Output = Answers<Fenced<Parked>>;
    const NAME: &'static str = "park";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Self::Output>, QueueError> {
        let claims = self.items.iter().map(|(claim, _)| claim);
        let Checked { standings, now_ms } = fence::check_all(connection, claims, pass).await?;
        let mut answers = Vec::with_capacity(standings.len());
        let mut leaving = Vec::with_capacity(standings.len());
        for (standing, (claim, how)) in standings.into_iter().zip(&self.items) {
            answers.push(match standing {
                Ok(Standing::Held(job)) => match refuse_open_request(&job) {
                    Ok(()) => {
                        // Read before the evidence: whatever signalled the job since then may be what it would wait
                        // for.
                        let signalled = job.signals != claim.job.signals;
                        leaving.push(leave(*job, how, signalled, now_ms));
                        Ok(Fenced::Done(if signalled { Parked::AwakeAgain } else { Parked::Asleep }))
                    }
                    Err(error) => Err(error),
                },
                // Also after an unknown COMMIT: parked or taken over, it is no longer this worker's.
                Ok(Standing::Written(_) | Standing::Lost) => Ok(Fenced::Lost),
                Err(error) => Err(error),
            });
        }
        if leaving.is_empty() {
            return Ok(Ending::Rollback(answers));
        }
        leaving.sort_by(|a, b| a.job.uid.cmp(&b.job.uid));
        write(connection, &leaving).await?;
        let changes: Vec<Change<'_>> = leaving
            .iter()
            .map(|it| Change {
                uid: &it.job.uid,
                report: &it.how.report,
                asked: it.job.asked.as_deref(),
                at_least: it.tell,
            })
            .collect();
        state::change_all(connection, &changes).await?;
        permit::give_back(connection, leaving.iter().filter(|it| it.gives_back).map(|it| &it.job)).await?;
        let places: Vec<QueueRow<'_>> =
            leaving.iter().map(|it| QueueRow::of(&it.job, it.place, it.ord)).collect();
        insert_places(connection, &places).await?;
        Ok(Ending::Commit(answers))
    }
}

/// How often a job looks for its witness with its permit in hand. They are about a second apart.
const WITNESS_TRIES: u32 = 10;

fn leave(job: JobRow, how: &ParkAs, signalled: bool, now_ms: i64) -> Leaving<'_> {
    // What has changed nothing yet keeps nobody else waiting while it sleeps, but for the moment that its witness takes:
    // otherwise every job of a class would be begun and put back before the first one acts.
    let for_a_moment = how.waiting_for == WaitingFor::Status && job.live.attempt < WITNESS_TRIES;
    let gives_back = job.permit_held && !job.live.request_stored && !for_a_moment;
    let (place, ord) = if signalled {
        let awake = JobRow { permit_held: job.permit_held && !gives_back, ..job.clone() };
        (awake.waits_in(), job.order_key())
    } else {
        (PlaceInQueue::Parked, now_ms + how.after_ms.max(0))
    };
    let reason = how.problem.as_ref().map(|problem| problem.reason);
    let before = job.live.problem.as_ref().map(|problem| problem.reason);
    let problem_since_ms = match (reason, job.live.problem_since_ms) {
        (Some(_), Some(since)) if reason == before => Some(since),
        (Some(_), _) => Some(now_ms),
        (None, _) => None,
    };
    // Its words count too: by them a person knows what to do.
    let is_news = how.problem != job.live.problem
        || job.live.waiting_for != Some(how.waiting_for) && job.live.attempt == 0;
    // What has begun and is not shown the controller may know of; nobody else wakes it.
    let is_unshown = how.waiting_for == WaitingFor::Status && job.live.has_begun();
    let tell = match (is_unshown, is_news) {
        (true, _) => Tell::Controller,
        (false, true) => job.tell(),
        (false, false) => Tell::Nobody,
    };
    Leaving { how, job, place, ord, problem_since_ms, gives_back, tell }
}

async fn write(connection: &mut MySqlConnection, leaving: &[Leaving<'_>]) -> Result<(), QueueError> {
    for group in groups(leaving) {
        // The rows exist and are locked, so this only updates; `UPDATE` cannot give each row values of its own.
        let text = format!(
            "INSERT INTO job (server_uid, checkpoint, q_state, q_ord, waiting_for, reason, exact_reason, message, problem_since_ms, \
             secret_version, permit_held, step, {FILLING}) VALUES {} \
             ON DUPLICATE KEY UPDATE owner = NULL, token = NULL, revision = revision + 1, attempt = attempt + 1, \
             checkpoint = VALUES(checkpoint), q_state = VALUES(q_state), q_ord = VALUES(q_ord), \
             waiting_for = VALUES(waiting_for), reason = VALUES(reason), exact_reason = VALUES(exact_reason), message = VALUES(message), \
             problem_since_ms = VALUES(problem_since_ms), secret_version = VALUES(secret_version), \
             permit_held = VALUES(permit_held)",
            times(&format!("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', {FILLING_VALUES})"), group.len(), ", "),
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for Leaving { how, job, place, ord, problem_since_ms, gives_back, .. } in group {
            query = query
                .bind(job.uid.as_str())
                .bind(&how.checkpoint)
                .bind(place.code())
                .bind(*ord)
                .bind(how.waiting_for.as_str())
                .bind(how.problem.as_ref().map(|problem| problem.reason.served().as_str()))
                .bind(
                    how.problem
                        .as_ref()
                        .and_then(|problem| problem.reason.beside_served())
                        .map(Reason::as_str),
                )
                .bind(how.problem.as_ref().map(|problem| problem.message.as_str()))
                .bind(*problem_since_ms)
                .bind(&how.secret_version)
                .bind(job.permit_held && !gives_back);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

impl Batch for Park {
    type Item = (Claim, ParkAs);
    type Answer = Fenced<Parked>;

    fn server((claim, _): &Self::Item) -> &ServerUid {
        claim.uid()
    }

    fn of(items: Vec<Self::Item>) -> Self {
        Self { items }
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
        awaken(connection, &job).await?;
        insert_place(connection, &job, job.waits_in(), job.order_key()).await?;
        Ok(Ending::Commit(Fenced::Done(())))
    }
}

/// How long a job is left to the release that knows what is in it, in milliseconds.
const LEFT_FOR_MS: i64 = 30_000;

struct Leave {
    claim: Claim,
    problem: Problem,
}

impl Transaction for Leave {
    type Output = Fenced<()>;
    const NAME: &'static str = "leave";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Fenced<()>>, QueueError> {
        let Checked { mut standings, now_ms } =
            fence::check_all(connection, std::iter::once(&self.claim), pass).await?;
        let Some(Standing::Held(job)) = standings.pop().transpose()? else {
            return Ok(Ending::Rollback(Fenced::Lost));
        };
        let wake_ms = now_ms + LEFT_FOR_MS;
        sqlx::query(
            "UPDATE job SET owner = NULL, token = NULL, revision = revision + 1, q_state = ?, q_ord = ?, waiting_for = ?, \
             problem_since_ms = IF(reason = ?, COALESCE(problem_since_ms, ?), ?), reason = ?, exact_reason = ?, message = ? \
             WHERE server_uid = ?",
        )
        .bind(PlaceInQueue::Parked.code())
        .bind(wake_ms)
        .bind(WaitingFor::Worker.as_str())
        .bind(self.problem.reason.served().as_str())
        .bind(now_ms)
        .bind(now_ms)
        .bind(self.problem.reason.served().as_str())
        .bind(self.problem.reason.beside_served().map(Reason::as_str))
        .bind(&self.problem.message)
        .bind(job.uid.as_str())
        .execute(&mut *connection)
        .await?;
        state::touch(connection, &job.uid, Tell::Controller).await?;
        insert_place(connection, &job, PlaceInQueue::Parked, wake_ms).await?;
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
        awaken(connection, &job).await?;
        insert_place(connection, &job, job.waits_in(), job.order_key()).await?;
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
        self.inner.batchers.park.call((claim, how)).await
    }

    /// The jobs that name `me` as their owner. What its slots do not run was claimed in a transaction whose COMMIT was
    /// unknown: it is given back with [`Queue::disown`].
    pub async fn owned(&self, me: Incarnation) -> Result<Vec<OwnedJob>, QueueError> {
        let rows = sqlx::query(
            "SELECT server_uid, id, token FROM job FORCE INDEX (owner) WHERE owner = ? AND token IS NOT NULL",
        )
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

    /// Leaves a job to a release that knows what is in it: everything of it stays as it is, an open request and the
    /// checkpoint too, and after a pause somebody looks again. No crash and no failure; `problem` is told.
    pub async fn leave(&self, claim: Claim, problem: Problem) -> Result<Fenced<()>, QueueError> {
        self.transact(Leave { claim, problem }).await
    }

    /// Gives a job back as it is, ready for another worker at once. Does not count as a crash. [`Fenced::Lost`] after an
    /// unknown COMMIT may mean that this very call gave it back.
    pub async fn hand_back(&self, claim: Claim) -> Result<Fenced<()>, QueueError> {
        self.transact(HandBack { claim }).await
    }
}
