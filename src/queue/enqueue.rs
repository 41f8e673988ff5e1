//! A new job, conditional on the version that the decision was made on.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::batch::{Answers, Batch};
use super::budget::{self, Shares};
use super::many::{filled, groups, marks, times};
use super::row::{QueueRow, insert_places};
use super::transaction::{Ending, Pass, Transaction, begin_again};
use super::{DecidedOn, PlaceInQueue, Queue, QueueError, now_ms};
use crate::job::{Action, Cause, Intent, JobId, Lane, PermitClass, ServerUid, Step, Visibility, order_key};
use crate::shard::Shard;

/// A job to enqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Made by the caller. Enqueued twice, it is one job.
    pub id: JobId,
    /// The server.
    pub uid: ServerUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// The shard of its BMC.
    pub shard: Shard,
    /// What to do.
    pub action: Action,
    /// The first step.
    pub step: Step,
    /// The lane to wait in.
    pub lane: Lane,
    /// Where it comes in that lane, which it keeps for life: milliseconds since the Unix epoch.
    pub order_ms: i64,
    /// What it is for.
    pub intent: Intent,
    /// The circumstances in which it was decided.
    pub cause: Cause,
    /// Who sees it.
    pub visibility: Visibility,
    /// Who asked: a field manager or a part of the controller.
    pub requester: String,
    /// How many machines of the namespace may have their data given up in one hour, where this job counts among them.
    pub budget: Option<i64>,
}

/// What became of an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// The job is live.
    Accepted,
    /// What is known changed since the decision: look again.
    Stale,
    /// Another job of this server is live: look again.
    Occupied,
    /// The namespace's budget of this hour is spent: nothing was enqueued.
    OverBudget,
}

/// A job, the version that it was decided on, and the object, where there is one.
#[derive(Clone)]
pub(super) struct Decided {
    job: NewJob,
    version: i64,
    on: Option<DecidedOn>,
}

impl Decided {
    fn place(&self) -> PlaceInQueue {
        match self.job.action.permit_class() {
            Some(_) => PlaceInQueue::QueuedBounded,
            None => PlaceInQueue::Queued,
        }
    }

    fn ord(&self) -> i64 {
        order_key(self.job.lane, self.job.order_ms)
    }
}

/// Enqueues that share a transaction.
pub(super) struct Enqueue {
    items: Vec<Decided>,
}

/// How far the inserts went.
enum Inserted {
    All,
    /// A key exists that was not seen before: another one's transaction won.
    Collided(String),
    /// What is known of some server is no longer at the version that was decided on.
    Outdated,
    /// So many jobs of a namespace are too many for its budget.
    Overdrawn {
        namespace: String,
        surplus: i64,
    },
}

impl Transaction for Enqueue {
    type Output = Answers<Enqueued>;
    const NAME: &'static str = "enqueue";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        _: Pass,
    ) -> Result<Ending<Self::Output>, QueueError> {
        // In lock order, and table by table: two batches never wait for each other in a circle.
        let mut wanted: Vec<usize> = (0..self.items.len()).collect();
        wanted.sort_by(|a, b| self.items[*a].job.uid.cmp(&self.items[*b].job.uid));
        let mut answers = vec![Enqueued::Accepted; self.items.len()];
        for _ in 0..ROUNDS {
            self.sort_out(connection, &mut wanted, &mut answers).await?;
            let items: Vec<&Decided> = wanted.iter().map(|index| &self.items[*index]).collect();
            if items.is_empty() {
                return Ok(Ending::Rollback(answers.into_iter().map(Ok).collect()));
            }
            match insert(connection, &items).await? {
                Inserted::Overdrawn { namespace, surplus } => {
                    begin_again(connection).await?;
                    refuse_last(&self.items, &mut wanted, &mut answers, (&namespace, surplus));
                }
                Inserted::All => return Ok(Ending::Commit(answers.into_iter().map(Ok).collect())),
                // One of them stands in the way of all. Found by reading again; alone it is simply refused.
                Inserted::Outdated | Inserted::Collided(_) if items.len() == 1 => {
                    begin_again(connection).await?;
                    let before = wanted.len();
                    self.sort_out(connection, &mut wanted, &mut answers).await?;
                    if wanted.len() == before {
                        answers[wanted[0]] = Enqueued::Stale;
                    }
                    return Ok(Ending::Rollback(answers.into_iter().map(Ok).collect()));
                }
                Inserted::Outdated => begin_again(connection).await?,
                Inserted::Collided(key) => {
                    begin_again(connection).await?;
                    let before = wanted.len();
                    self.sort_out(connection, &mut wanted, &mut answers).await?;
                    if wanted.len() == before {
                        // Not to be seen yet, or not the row's key: the caller looks again.
                        tracing::debug!(key, "an enqueue collided with one that is not to be seen");
                        break;
                    }
                }
            }
        }
        Err(QueueError::Conflict { code: DUPLICATE })
    }
}

/// How often a batch starts again without those that stood in its way.
const ROUNDS: u32 = 8;

/// The error number of a duplicate key.
const DUPLICATE: u16 = 1062;

impl Enqueue {
    /// Answers what can be answered by looking: servers that have a live job, and those that changed since the
    /// decision. The rest stays in `wanted`.
    async fn sort_out(
        &self,
        connection: &mut MySqlConnection,
        wanted: &mut Vec<usize>,
        answers: &mut [Enqueued],
    ) -> Result<(), QueueError> {
        let uids: Vec<&str> = wanted.iter().map(|index| self.items[*index].job.uid.as_str()).collect();
        let mut live = HashMap::new();
        let mut versions = HashMap::new();
        for group in filled(&uids) {
            let text = format!(
                "SELECT server_state.server_uid, server_state.version, job.id FROM server_state FORCE INDEX (PRIMARY) \
                 LEFT JOIN job FORCE INDEX (PRIMARY) ON job.server_uid = server_state.server_uid \
                 WHERE server_state.server_uid IN ({})",
                marks(group.len())
            );
            let mut query = sqlx::query(AssertSqlSafe(text));
            for uid in group {
                query = query.bind(uid);
            }
            for row in query.fetch_all(&mut *connection).await? {
                let uid: String = row.try_get("server_uid")?;
                if let Some(id) = row.try_get::<Option<i64>, _>("id")? {
                    live.insert(uid.clone(), id);
                }
                versions.insert(uid, row.try_get::<i64, _>("version")?);
            }
        }
        wanted.retain(|index| {
            let item = &self.items[*index];
            let uid = item.job.uid.as_str();
            let answer = match live.get(uid) {
                // Ours, from a try whose commit was unknown, or another one's: the id tells.
                Some(id) if *id == item.job.id.0 => Enqueued::Accepted,
                Some(_) => Enqueued::Occupied,
                None if versions.get(uid) == Some(&item.version) => return true,
                None => Enqueued::Stale,
            };
            answers[*index] = answer;
            false
        });
        Ok(())
    }
}

/// Takes as many jobs of a namespace out of the batch as its budget lacks.
fn refuse_last(
    items: &[Decided],
    wanted: &mut Vec<usize>,
    answers: &mut [Enqueued],
    (namespace, mut surplus): (&str, i64),
) {
    for at in (0..wanted.len()).rev() {
        let job = &items[wanted[at]].job;
        if surplus > 0 && job.budget.is_some() && job.namespace == namespace {
            answers[wanted[at]] = Enqueued::OverBudget;
            wanted.remove(at);
            surplus -= 1;
        }
    }
}

/// Inserts queue rows and jobs, raises the versions of their servers, and takes their shares of the budgets.
async fn insert(connection: &mut MySqlConnection, items: &[&Decided]) -> Result<Inserted, QueueError> {
    let charged = items.iter().any(|item| item.job.budget.is_some());
    let hour = if charged { Some(budget::hour(connection).await?) } else { None };
    let places: Vec<QueueRow<'_>> = items
        .iter()
        .map(|item| QueueRow {
            site: &item.job.site,
            shard: i64::from(item.job.shard.0),
            place: item.place(),
            ord: item.ord(),
            id: item.job.id.0,
            uid: item.job.uid.as_str(),
        })
        .collect();
    let inserted = match insert_places(connection, &places).await {
        Ok(()) => insert_jobs(connection, items, hour).await,
        Err(error) => Err(error),
    };
    match inserted {
        Ok(()) => {}
        Err(QueueError::Duplicate(key)) => return Ok(Inserted::Collided(key)),
        Err(error) => return Err(error),
    }
    for visibility in [Visibility::Shown, Visibility::Quiet] {
        let of: Vec<&Decided> =
            items.iter().copied().filter(|item| item.job.visibility == visibility).collect();
        if raise(connection, &of, visibility).await? < of.len() as u64 {
            return Ok(Inserted::Outdated);
        }
    }
    let Some(hour) = hour else { return Ok(Inserted::All) };
    let mut shares = Shares::new();
    for item in items.iter().filter(|item| item.job.budget.is_some()) {
        *shares.entry(&item.job.namespace).or_default() += 1;
    }
    for (namespace, count) in shares {
        let of = items.iter().filter(|item| item.job.namespace == namespace);
        let Some(cap) = of.filter_map(|item| item.job.budget).min() else { continue };
        let used = budget::take(connection, hour, namespace, count).await?;
        if used > cap {
            let (namespace, surplus) = (namespace.to_owned(), (used - cap).min(count));
            return Ok(Inserted::Overdrawn { namespace, surplus });
        }
    }
    Ok(Inserted::All)
}

async fn insert_jobs(
    connection: &mut MySqlConnection,
    items: &[&Decided],
    hour: Option<i64>,
) -> Result<(), QueueError> {
    for group in groups(items) {
        let row = concat!("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ", now_ms!(), ")");
        let text = format!(
            "INSERT INTO job (server_uid, id, namespace, name, site, shard, action, lane, order_ms, q_state, q_ord, \
             intent, cause, named_cause, quiet, step, checkpoint, requester, permit_class, budget_hour, enqueued_at_ms) VALUES {}",
            times(row, group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for item in group {
            let job = &item.job;
            query = query
                .bind(job.uid.as_str())
                .bind(job.id.0)
                .bind(&job.namespace)
                .bind(&job.name)
                .bind(&job.site)
                .bind(i64::from(job.shard.0))
                .bind(job.action.as_str())
                .bind(i64::from(job.lane.number()))
                .bind(job.order_ms)
                .bind(item.place().code())
                .bind(item.ord())
                .bind(&job.intent.0)
                .bind(&job.cause.whole)
                .bind(&job.cause.named)
                .bind(i64::from(job.visibility == Visibility::Quiet))
                .bind(job.step.as_str())
                .bind(&job.requester)
                .bind(job.action.permit_class().map(PermitClass::as_str))
                .bind(job.budget.and(hour));
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Raises the versions of servers that are still at theirs, and notes on which object that was decided; returns how many
/// were. A newer decision raised the version, so that no generation has to be compared.
async fn raise(
    connection: &mut MySqlConnection,
    servers: &[&Decided],
    visibility: Visibility,
) -> Result<u64, QueueError> {
    let told = match visibility {
        Visibility::Shown => concat!(", changed_at_ms = COALESCE(changed_at_ms, ", now_ms!(), ")"),
        Visibility::Quiet => "",
    };
    let mut raised = 0;
    for group in filled(servers) {
        // A long OR of pairs would be gone through from its start for each row.
        let text = format!(
            "UPDATE server_state FORCE INDEX (PRIMARY) SET version = version + 1{told}, \
             generation = COALESCE(CASE server_uid {} END, generation) WHERE server_uid IN ({}) AND (server_uid, version) IN ({})",
            times("WHEN ? THEN CAST(? AS SIGNED)", group.len(), " "),
            marks(group.len()),
            times("(?, ?)", group.len(), ", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for item in &group {
            query = query.bind(item.job.uid.as_str()).bind(item.on.map(DecidedOn::generation));
        }
        for item in &group {
            query = query.bind(item.job.uid.as_str());
        }
        for item in &group {
            query = query.bind(item.job.uid.as_str()).bind(item.version);
        }
        raised += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(raised)
}

impl Batch for Enqueue {
    type Item = Decided;
    type Answer = Enqueued;
    /// One controller enqueues for many workers, each of which has lanes of its own.
    const LANES: usize = 4;

    fn server(item: &Decided) -> &ServerUid {
        &item.job.uid
    }

    fn of(items: Vec<Decided>) -> Self {
        Self { items }
    }
}

impl Queue {
    /// Enqueues a job if what is known of its server is still at `version`.
    ///
    /// A job that ran and ended between a lost COMMIT answer and its repetition is not enqueued again: its enqueue
    /// raised the version.
    pub async fn enqueue(&self, job: NewJob, version: i64) -> Result<Enqueued, QueueError> {
        self.inner.batchers.enqueue.call(Decided { job, version, on: None }).await
    }

    /// Like [`Queue::enqueue`], for a decision on this object: one on an older object is refused from then on.
    pub async fn enqueue_on(&self, job: NewJob, version: i64, on: DecidedOn) -> Result<Enqueued, QueueError> {
        self.inner.batchers.enqueue.call(Decided { job, version, on: Some(on) }).await
    }
}
