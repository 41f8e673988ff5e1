//! Stored requests: written down before they are sent, closed when the answer came.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::batch::{Answers, Batch};
use super::fence::{self, Checked};
use super::many::{groups, times};
use super::row::{FILLING, FILLING_VALUES, JobRow};
use super::state::{self, Changed, Tell};
use super::transaction::{Ending, Pass, Transaction};
use super::{Claim, Fenced, NewBootSession, Queue, QueueError, boot_session};
use crate::job::{Debt, Event, Medium, ServerUid, StoredRequest, TokenValue, Tokens};

/// What a request means for a machine's disks once it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContentsAfter {
    /// Nothing.
    #[default]
    Kept,
    /// The machine is started into what its boot session gives it: see [`Event::Started`].
    Started,
}

/// What becomes true in the transaction that stores a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// With the first request of the job these tokens are handled, unless no request of it is carried out.
    pub tokens: Vec<TokenValue>,
    /// This boot session is published.
    pub session: Option<NewBootSession>,
    /// What of the disks is known.
    pub contents: ContentsAfter,
    /// Set by a request that switches off a machine which has to be on again: for how many milliseconds it may still take
    /// effect.
    pub switches_off_for_ms: Option<i64>,
}

impl Effects {
    /// Only makes these tokens handled.
    pub fn handling(tokens: impl IntoIterator<Item = TokenValue>) -> Self {
        Self { tokens: tokens.into_iter().collect(), ..Self::default() }
    }

    fn change_state(&self) -> bool {
        *self != Self::default()
    }
}

/// A request that is about to be sent.
#[derive(Clone)]
pub(super) struct ToStore {
    claim: Claim,
    request: StoredRequest,
    checkpoint: String,
    effects: Effects,
}

/// Stores that share a transaction.
pub(super) struct StoreRequest {
    items: Vec<ToStore>,
}

impl Transaction for StoreRequest {
    type Output = Answers<Fenced<Claim>>;
    const NAME: &'static str = "store_request";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Self::Output>, QueueError> {
        let claims = self.items.iter().map(|item| &item.claim);
        let Checked { standings, .. } = fence::check_all(connection, claims, pass).await?;
        let mut answers = Vec::with_capacity(standings.len());
        let mut stored: Vec<(&ToStore, JobRow)> = Vec::with_capacity(standings.len());
        for (standing, item) in standings.into_iter().zip(&self.items) {
            answers.push(fence::answer(standing, &item.claim, |job| {
                // Once stored, a cancel must find the job begun; one that came before wins, and nothing is sent.
                if job.live.cancel.is_none() || item.claim.cancel().is_some() {
                    job.request = Some(item.request.clone());
                    job.checkpoint.clone_from(&item.checkpoint);
                    if !job.live.request_stored && Event::RequestStored.tokens() == Tokens::Taken {
                        job.live.taking.clone_from(&item.effects.tokens);
                    }
                    (job.live.request_stored, job.revision) = (true, job.revision + 1);
                    stored.push((item, job.clone()));
                }
            }));
        }
        if stored.is_empty() {
            return Ok(Ending::Rollback(answers));
        }
        stored.sort_by(|(_, a), (_, b)| a.uid.cmp(&b.uid));
        write(connection, stored.iter().map(|(_, job)| job)).await?;
        for (item, job) in &stored {
            if let Some(session) = &item.effects.session {
                boot_session::publish(connection, job, session).await?;
            }
        }
        record_effects(connection, &stored).await?;
        Ok(Ending::Commit(answers))
    }
}

/// Writes requests and checkpoints of locked jobs, given in lock order.
async fn write(
    connection: &mut MySqlConnection,
    jobs: impl Iterator<Item = &JobRow>,
) -> Result<(), QueueError> {
    let jobs: Vec<&JobRow> = jobs.collect();
    for group in groups(&jobs) {
        // The rows exist and are locked, so this only updates; `UPDATE` cannot give each row values of its own.
        let text = format!(
            "INSERT INTO job (server_uid, request, request_stored, taking, checkpoint, step, {FILLING}) VALUES {} \
             ON DUPLICATE KEY UPDATE request = VALUES(request), request_stored = VALUES(request_stored), \
             taking = VALUES(taking), checkpoint = VALUES(checkpoint), revision = revision + 1",
            times(&format!("(?, ?, ?, ?, ?, '', {FILLING_VALUES})"), group.len(), ", "),
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for job in group {
            query = query
                .bind(job.uid.as_str())
                .bind(job.request.as_ref().map(|request| serde_json::to_string(request).unwrap_or_default()))
                .bind(job.live.request_stored)
                .bind(taking(job))
                .bind(&job.checkpoint);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn taking(job: &JobRow) -> Option<String> {
    let taking = &job.live.taking;
    (!taking.is_empty()).then(|| serde_json::to_string(taking).unwrap_or_default())
}

/// The medium of a locked job's session, which is locked too: whoever reads it first waits for this, or is seen.
async fn medium(connection: &mut MySqlConnection, job: &JobRow) -> Result<Medium, QueueError> {
    let row = sqlx::query(
        "SELECT media_hash IS NOT NULL AS has_medium, media_read_at_ms FROM boot_session WHERE server_uid = ? FOR UPDATE",
    )
    .bind(job.uid.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(Medium::Absent) };
    let read = row.try_get::<Option<i64>, _>("media_read_at_ms")?.is_some();
    Ok(match (row.try_get::<i64, _>("has_medium")?, read) {
        (0, _) => Medium::Absent,
        (_, false) => Medium::Unread,
        (_, true) => Medium::Read,
    })
}

/// Tells the controller, and writes what else becomes true.
async fn record_effects(
    connection: &mut MySqlConnection,
    stored: &[(&ToStore, JobRow)],
) -> Result<(), QueueError> {
    let mut started = HashMap::new();
    for (_, job) in stored.iter().filter(|(item, _)| item.effects.contents == ContentsAfter::Started) {
        started.insert(job.uid.as_str(), Event::Started(medium(connection, job).await?));
    }
    let with_effects = stored.iter().filter(|(item, _)| item.effects.change_state());
    let uids: Vec<&str> = with_effects.map(|(_, job)| job.uid.as_str()).collect();
    let mut states = state::lock_all(connection, &uids).await?;
    let (mut changed, mut silent) = (Vec::with_capacity(uids.len()), Vec::new());
    for (item, job) in stored {
        if !item.effects.change_state() {
            silent.push(job.uid.as_str());
            continue;
        }
        let Some(mut locked) = states.remove(job.uid.as_str()) else { continue };
        locked.record(&job.uid, &item.effects.tokens)?;
        if let Some(session) = &item.effects.session {
            locked.boot_mac.set(Some(session.mac.clone()));
        }
        if let Some(started) = started.get(job.uid.as_str()) {
            locked.happened(&job.uid, started)?;
        }
        if let Some(takes_ms) = item.effects.switches_off_for_ms {
            let new = Debt::begun(job.live.id, job.live.action, locked.now_ms, takes_ms);
            let since_ms = locked.debt.get(&job.uid)?.map_or(new.since_ms, |before| before.since_ms);
            locked.debt.set(Some(&Debt { since_ms, ..new }));
        }
        changed.push(Changed { uid: &job.uid, locked, tell: Tell::Controller });
    }
    state::write_all(connection, &changed).await?;
    state::touch_all(connection, &silent, Tell::Controller).await
}

impl Batch for StoreRequest {
    type Item = ToStore;
    type Answer = Fenced<Claim>;

    fn server(item: &ToStore) -> &ServerUid {
        item.claim.uid()
    }

    fn of(items: Vec<ToStore>) -> Self {
        Self { items }
    }
}

/// A request of which it is known what came of it, as far as it ever will be.
#[derive(Clone)]
pub(super) struct ToClose {
    claim: Claim,
    checkpoint: String,
    came: Event,
}

/// Closings that share a transaction.
pub(super) struct CloseRequest {
    items: Vec<ToClose>,
}

impl Transaction for CloseRequest {
    type Output = Answers<Fenced<Claim>>;
    const NAME: &'static str = "close_request";

    async fn run(
        &self,
        connection: &mut MySqlConnection,
        pass: Pass,
    ) -> Result<Ending<Self::Output>, QueueError> {
        let claims = self.items.iter().map(|item| &item.claim);
        let Checked { standings, .. } = fence::check_all(connection, claims, pass).await?;
        let mut answers = Vec::with_capacity(standings.len());
        let mut closed: Vec<JobRow> = Vec::with_capacity(standings.len());
        for (standing, item) in standings.into_iter().zip(&self.items) {
            answers.push(fence::answer(standing, &item.claim, |job| {
                job.request = None;
                job.checkpoint.clone_from(&item.checkpoint);
                if item.came.tokens() == Tokens::Handled {
                    job.live.taking.clear();
                }
                job.revision += 1;
                closed.push(job.clone());
            }));
        }
        if closed.is_empty() {
            return Ok(Ending::Rollback(answers));
        }
        closed.sort_by(|a, b| a.uid.cmp(&b.uid));
        write(connection, closed.iter()).await?;
        Ok(Ending::Commit(answers))
    }
}

impl Batch for CloseRequest {
    type Item = ToClose;
    type Answer = Fenced<Claim>;

    fn server(item: &ToClose) -> &ServerUid {
        item.claim.uid()
    }

    fn of(items: Vec<Self::Item>) -> Self {
        Self { items }
    }
}

impl Queue {
    /// Stores what is about to be sent, and what a successor has to know; in the same transaction `effects` become
    /// true ([`QueueError::Duplicate`]: the MAC address of the session boots another machine right now). Where the job was asked to stop since `claim` was read, nothing is stored and the returned
    /// claim has the cancel mark and no request: nothing may be sent then.
    pub async fn store_request(
        &self,
        claim: Claim,
        request: StoredRequest,
        checkpoint: String,
        effects: Effects,
    ) -> Result<Fenced<Claim>, QueueError> {
        self.inner.batchers.store_request.call(ToStore { claim, request, checkpoint, effects }).await
    }

    /// Closes the stored request: its answer came, or its settle time has passed and a probe was made. What came of it
    /// goes into the checkpoint.
    pub async fn close_request(&self, claim: Claim, checkpoint: String) -> Result<Fenced<Claim>, QueueError> {
        let came = Event::RequestMayBeDone;
        self.inner.batchers.close_request.call(ToClose { claim, checkpoint, came }).await
    }

    /// The same for a request that was refused: an answer came, and nothing was done. A job that ends with nothing but
    /// refused requests gives its tokens back.
    pub async fn close_refused(&self, claim: Claim, checkpoint: String) -> Result<Fenced<Claim>, QueueError> {
        let came = Event::RequestRefused;
        self.inner.batchers.close_request.call(ToClose { claim, checkpoint, came }).await
    }
}
