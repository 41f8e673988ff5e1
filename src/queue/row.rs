//! The `job` row and its place in `queue`.

use std::collections::HashMap;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::many::{filled, groups, marks, times};
use super::state::Tell;
use super::{QueueError, now_ms};
use crate::api::Reason;
use crate::job::{
    Action, Cause, Intent, JobId, JobState, Lane, LiveJob, PermitClass, Problem, ServerUid, Step,
    StoredRequest, WaitingFor, order_key,
};

/// The `state` column of a `queue` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum PlaceInQueue {
    /// Started; waits for a worker.
    Ready = 0,
    /// Never started; waits for a worker.
    Queued = 1,
    /// Waits for a worker, and for a permit of its class.
    QueuedBounded = 2,
    /// Waits for a time or a signal.
    Parked = 3,
}

impl PlaceInQueue {
    /// Every place.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Queued, Self::QueuedBounded, Self::Parked];

    /// Where jobs wait for a worker, in the order in which they are claimed from.
    pub const CLAIMED: [Self; 3] = [Self::Ready, Self::Queued, Self::QueuedBounded];

    pub(super) const fn code(self) -> i64 {
        self as i64
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.code() == code)
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
    pub cause: Cause,
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
    pub permit_class: Option<PermitClass>,
    pub permit_held: bool,
    /// The hour of whose destruction budget it took a share.
    pub budget_hour: Option<i64>,
    /// No column: the request for a look that the holder of the job read with the object; empty where there is none.
    pub asked: Option<String>,
}

impl JobRow {
    /// Where this job waits for a worker. One that has to stop needs no permit for that.
    pub(super) fn waits_in(&self) -> PlaceInQueue {
        match self.permit_class {
            Some(_) if !self.permit_held && self.live.cancel.is_none() => PlaceInQueue::QueuedBounded,
            _ => PlaceInQueue::Ready,
        }
    }

    /// Whom a change of this job is told. A quiet look is nobody's business until it was asked to stop: from then on somebody
    /// waits for its end.
    pub(super) fn tell(&self) -> Tell {
        if self.quiet && self.live.cancel.is_none() { Tell::Nobody } else { Tell::Controller }
    }

    /// The class whose permit it holds.
    pub(super) fn permit(&self) -> Option<PermitClass> {
        self.permit_class.filter(|_| self.permit_held)
    }

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
        let exact_reason: Option<String> = row.try_get("exact_reason")?;
        let message: Option<String> = row.try_get("message")?;
        let request: Option<String> = row.try_get("request")?;
        let taking: Option<String> = row.try_get("taking")?;
        let started_at_ms: Option<i64> = row.try_get("started_at_ms")?;
        let reason_of = |column, text: &str| Reason::parse(text).ok_or_else(|| bad(column, text));
        let cancel = cancel.map(|text| reason_of("cancel", &text)).transpose()?;
        let problem = reason
            .map(|text| reason_of("reason", &text))
            .transpose()?
            .map(|reason| Problem::stored(reason, exact_reason.as_deref(), message.unwrap_or_default()));
        let place = match (q_state, q_ord) {
            (Some(state), Some(ord)) => {
                Some((PlaceInQueue::from_code(state).ok_or_else(|| bad("q_state", &state.to_string()))?, ord))
            }
            _ => None,
        };
        let state = match (&cancel, place, started_at_ms) {
            (Some(_), ..) => JobState::Cancelling,
            (None, _, None) => JobState::Queued,
            (None, Some((PlaceInQueue::Parked | PlaceInQueue::QueuedBounded, _)), Some(_)) => {
                JobState::Waiting
            }
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
            undoing: is_undoing(row.try_get("checkpoint")?),
            request_stored: row.try_get::<i64, _>("request_stored")? != 0,
            taking: taking
                .map(|text| serde_json::from_str(&text).map_err(|_| bad("taking", &text)))
                .transpose()?
                .unwrap_or_default(),
            secret_version: row.try_get("secret_version")?,
            progress: None,
            script_given: false,
        };
        let permit_class: Option<String> = row.try_get("permit_class")?;
        let request =
            request.map(|text| serde_json::from_str(&text).map_err(|_| bad("request", &text))).transpose()?;
        Ok(Self {
            namespace: row.try_get("namespace")?,
            name: row.try_get("name")?,
            site: row.try_get("site")?,
            shard: row.try_get("shard")?,
            order_ms: row.try_get("order_ms")?,
            place,
            cause: Cause {
                named: row.try_get::<Option<String>, _>("named_cause")?.unwrap_or_default(),
                whole: row.try_get("cause")?,
            },
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
            permit_class: permit_class
                .map(|text| PermitClass::parse(&text).ok_or_else(|| bad("permit_class", &text)))
                .transpose()?,
            permit_held: row.try_get::<i64, _>("permit_held")? != 0,
            budget_hour: row.try_get("budget_hour")?,
            asked: None,
            uid: ServerUid(uid),
            live,
        })
    }
}

/// Whether a checkpoint is one of undo steps. The rest of it is the workers' business alone.
fn is_undoing(checkpoint: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Undo {
        ending: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Undo>(checkpoint).is_ok_and(|undo| undo.ending.is_some())
}

/// Columns of `job` without a default, and values for them, for an `INSERT` that only ever updates.
pub(super) const FILLING: &str = "id, namespace, name, site, shard, action, lane, order_ms, intent, cause, quiet, requester, \
                                  enqueued_at_ms";
pub(super) const FILLING_VALUES: &str = "0, '', '', '', 0, '', 0, 0, '', '', 0, '', 0";

/// A row to insert into `queue`.
pub(super) struct QueueRow<'a> {
    pub site: &'a str,
    pub shard: i64,
    pub place: PlaceInQueue,
    pub ord: i64,
    pub id: i64,
    pub uid: &'a str,
}

impl<'a> QueueRow<'a> {
    /// The row of `job` in `place`.
    pub(super) fn of(job: &'a JobRow, place: PlaceInQueue, ord: i64) -> Self {
        Self { site: &job.site, shard: job.shard, place, ord, id: job.live.id.0, uid: job.uid.as_str() }
    }
}

/// Inserts the queue rows of jobs that were just put there.
pub(super) async fn insert_places(
    connection: &mut MySqlConnection,
    rows: &[QueueRow<'_>],
) -> Result<(), QueueError> {
    for group in groups(rows) {
        let values = times("(?, ?, ?, ?, ?, ?)", group.len(), ", ");
        let text = format!("INSERT INTO queue (site, shard, state, ord, id, server_uid) VALUES {values}");
        let mut query = sqlx::query(AssertSqlSafe(text));
        for row in group {
            query = query
                .bind(row.site)
                .bind(row.shard)
                .bind(row.place.code())
                .bind(row.ord)
                .bind(row.id)
                .bind(row.uid);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Inserts the queue row of a job that was just put into `place`.
pub(super) async fn insert_place(
    connection: &mut MySqlConnection,
    job: &JobRow,
    place: PlaceInQueue,
    ord: i64,
) -> Result<(), QueueError> {
    insert_places(connection, &[QueueRow::of(job, place, ord)]).await
}

/// The shard, the order key and the job's id of a queue row.
pub(super) type PlaceKey = (i64, i64, i64);

/// Deletes queue rows of one place of a site; they are known to be locked or ours.
pub(super) async fn delete_places(
    connection: &mut MySqlConnection,
    site: &str,
    place: PlaceInQueue,
    keys: &[PlaceKey],
) -> Result<(), QueueError> {
    for group in filled(keys) {
        let rows = these(group.len());
        let text = format!("DELETE queue FROM queue FORCE INDEX (PRIMARY) WHERE site = ? AND {rows}");
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(site);
        for (shard, ord, id) in group {
            query = query.bind(shard).bind(place.code()).bind(ord).bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// So many rows of a site, by shard, place, order key and id.
pub(super) fn these(count: usize) -> String {
    match count {
        // With a single row of `IN` MariaDB scans the table.
        1 => "shard = ? AND state = ? AND ord = ? AND id = ?".to_owned(),
        // A long OR would be gone through from its start for each row.
        many => format!("(shard, state, ord, id) IN ({})", times("(?, ?, ?, ?)", many, ", ")),
    }
}

/// Deletes the queue row of a job; the row is known to be locked or ours.
pub(super) async fn delete_place(
    connection: &mut MySqlConnection,
    job: &JobRow,
    place: PlaceInQueue,
    ord: i64,
) -> Result<(), QueueError> {
    delete_places(connection, &job.site, place, &[(job.shard, ord, job.live.id.0)]).await
}

/// Locks the live jobs of these servers, given in lock order. Each row has the database's clock as `now_ms`.
pub(super) async fn lock_jobs(
    connection: &mut MySqlConnection,
    uids: &[&str],
) -> Result<HashMap<String, MySqlRow>, QueueError> {
    let mut found = HashMap::with_capacity(uids.len());
    for group in filled(uids) {
        let text = format!(
            "SELECT job.*, {} AS now_ms FROM job FORCE INDEX (PRIMARY) WHERE server_uid IN ({}) FOR UPDATE",
            now_ms!(),
            marks(group.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for uid in group {
            query = query.bind(uid);
        }
        for row in query.fetch_all(&mut *connection).await? {
            found.insert(row.try_get("server_uid")?, row);
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::is_undoing;

    #[test]
    fn a_checkpoint_says_whether_its_job_undoes_what_it_began() {
        let ending =
            r#"{"ending": {"result": "Failed", "problem": {"reason": "NeverBooted", "message": "m"}}}"#;
        assert!(is_undoing(ending));
        for text in
            ["", "{}", r#"{"ending": null}"#, r#"{"accepted": {"kind": "PowerOn", "at_ms": 1}}"#, "none"]
        {
            assert!(!is_undoing(text), "{text}");
        }
    }
}
