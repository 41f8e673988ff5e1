//! The `job` row and its place in `queue`.

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::QueueError;
use crate::api::Reason;
use crate::job::{
    Action, Intent, JobId, JobState, Lane, LiveJob, Problem, ServerUid, Step, StoredRequest, WaitingFor,
    order_key,
};

/// The `state` column of a `queue` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum PlaceInQueue {
    /// Started; waits for a worker.
    Ready = 0,
    /// Never started; waits for a worker.
    Queued = 1,
    /// Waits for a time or a signal.
    Parked = 3,
}

impl PlaceInQueue {
    pub(super) const fn code(self) -> i64 {
        self as i64
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::Ready, Self::Queued, Self::Parked].into_iter().find(|place| place.code() == code)
    }
}

/// A whole `job` row.
#[derive(Debug, Clone)]
pub(super) struct JobRow {
    pub live: LiveJob,
    pub uid: ServerUid,
    pub namespace: String,
    pub name: String,
    pub site: String,
    pub shard: i64,
    pub order_ms: i64,
    pub place: Option<(PlaceInQueue, i64)>,
    pub cause: String,
    pub quiet: bool,
    pub checkpoint: String,
    pub revision: i64,
    pub crashes: i64,
    pub owner: Option<i64>,
    pub token: Option<i64>,
    pub signals: i64,
    pub request: Option<StoredRequest>,
    pub requester: String,
    pub step_since_ms: Option<i64>,
}

impl JobRow {
    /// The order key of this job in `ready` and `queued`.
    pub(super) fn order_key(&self) -> i64 {
        order_key(self.live.lane, self.order_ms)
    }

    /// Reads a row selected with `job.*`. A value of another release is an error that names it.
    pub(super) fn read(row: &MySqlRow) -> Result<Self, QueueError> {
        let uid: String = row.try_get("server_uid")?;
        let bad = |column, value: &str| QueueError::unknown("job", &uid, column, value);
        let action: String = row.try_get("action")?;
        let step: String = row.try_get("step")?;
        let lane: i64 = row.try_get("lane")?;
        let owner: Option<i64> = row.try_get("owner")?;
        let q_state: Option<i64> = row.try_get("q_state")?;
        let q_ord: Option<i64> = row.try_get("q_ord")?;
        let cancel: Option<String> = row.try_get("cancel")?;
        let waiting_for: Option<String> = row.try_get("waiting_for")?;
        let reason: Option<String> = row.try_get("reason")?;
        let message: Option<String> = row.try_get("message")?;
        let request: Option<String> = row.try_get("request")?;
        let started_at_ms: Option<i64> = row.try_get("started_at_ms")?;
        let reason_of = |column, text: &str| Reason::parse(text).ok_or_else(|| bad(column, text));
        let cancel = cancel.map(|text| reason_of("cancel", &text)).transpose()?;
        let problem = reason
            .map(|text| reason_of("reason", &text))
            .transpose()?
            .map(|reason| Problem { reason, message: message.unwrap_or_default() });
        let place = match (q_state, q_ord) {
            (Some(state), Some(ord)) => {
                Some((PlaceInQueue::from_code(state).ok_or_else(|| bad("q_state", &state.to_string()))?, ord))
            }
            _ => None,
        };
        let state = match (&cancel, place, started_at_ms) {
            (Some(_), ..) => JobState::Cancelling,
            (None, _, None) => JobState::Queued,
            (None, Some((PlaceInQueue::Parked, _)), Some(_)) => JobState::Waiting,
            (None, ..) => JobState::Running,
        };
        let live = LiveJob {
            id: JobId(row.try_get("id")?),
            action: Action::parse(&action).ok_or_else(|| bad("action", &action))?,
            lane: u8::try_from(lane)
                .ok()
                .and_then(Lane::from_number)
                .ok_or_else(|| bad("lane", &lane.to_string()))?,
            intent: Intent(row.try_get("intent")?),
            state,
            step: Step::parse(&step).ok_or_else(|| bad("step", &step))?,
            attempt: row.try_get::<i32, _>("attempt")?.max(0) as u32,
            waiting_for: waiting_for
                .map(|text| WaitingFor::parse(&text).ok_or_else(|| bad("waiting_for", &text)))
                .transpose()?,
            problem,
            problem_since_ms: row.try_get("problem_since_ms")?,
            enqueued_at_ms: row.try_get("enqueued_at_ms")?,
            started_at_ms,
            cancel,
            request_stored: row.try_get::<i64, _>("request_stored")? != 0,
            secret_version: row.try_get("secret_version")?,
        };
        let request =
            request.map(|text| serde_json::from_str(&text).map_err(|_| bad("request", &text))).transpose()?;
        Ok(Self {
            namespace: row.try_get("namespace")?,
            name: row.try_get("name")?,
            site: row.try_get("site")?,
            shard: row.try_get("shard")?,
            order_ms: row.try_get("order_ms")?,
            place,
            cause: row.try_get("cause")?,
            quiet: row.try_get::<i64, _>("quiet")? != 0,
            checkpoint: row.try_get("checkpoint")?,
            revision: row.try_get("revision")?,
            crashes: row.try_get("crashes")?,
            owner,
            token: row.try_get("token")?,
            signals: row.try_get("signals")?,
            request,
            requester: row.try_get("requester")?,
            step_since_ms: row.try_get("step_since_ms")?,
            uid: ServerUid(uid),
            live,
        })
    }
}

/// Inserts the queue row of a job that was just put into `place`.
pub(super) async fn insert_place(
    connection: &mut MySqlConnection,
    job: &JobRow,
    place: PlaceInQueue,
    ord: i64,
) -> Result<(), QueueError> {
    sqlx::query("INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(&job.site)
        .bind(job.shard)
        .bind(place.code())
        .bind(ord)
        .bind(job.live.id.0)
        .bind(job.uid.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the queue row of a job; the row is known to be locked or ours.
pub(super) async fn delete_place(
    connection: &mut MySqlConnection,
    job: &JobRow,
    place: PlaceInQueue,
    ord: i64,
) -> Result<(), QueueError> {
    sqlx::query("DELETE FROM queue WHERE site = ? AND shard = ? AND state = ? AND ord = ? AND id = ?")
        .bind(&job.site)
        .bind(job.shard)
        .bind(place.code())
        .bind(ord)
        .bind(job.live.id.0)
        .execute(connection)
        .await?;
    Ok(())
}
