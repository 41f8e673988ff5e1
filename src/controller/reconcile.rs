//! One reconcile: observe, decide, apply, show; again while something changed.
#![expect(clippy::disallowed_methods, reason = "reconciles are timed, and pauses are jittered")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Resource as _;

use super::api_call::{ApiError, Refusal, call};
use super::apply::{Applied, ApplyError, apply};
use super::context::Context;
use super::fleet::Guarded;
use super::observe::{Object, Observed, observe};
use super::status::{Shown, is_shown_live, show};
use super::work_queue::Serves;
use super::{CONTROLLER, events};
use crate::api::{Reason, Server, ServerStatus};
use crate::metrics;
use crate::plan::{self, Command, Decision, NewRecord};
use crate::queue::QueueError;

/// A read of one Server.
const READ: &str = "read the server";

/// Looks in one reconcile; a server that still changes then takes its turn again.
const LOOKS: u32 = 10;

/// A reconcile that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("this release cannot read the object: {0}; apply crds/ of this release, or correct the object")]
    Unreadable(String),
}

impl From<ApplyError> for ReconcileError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Queue(error) => Self::Queue(error),
            ApplyError::Api(error) => Self::Api(error),
        }
    }
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// When something happens, or after this time.
    Calm(Option<Duration>),
    /// After this time, and before that nothing has to be shown: whether it can be is not known.
    Unshown(Duration),
    /// Soon: something was in the way.
    Soon,
}

/// Reconciles whose turn it is, until the term is over.
pub(super) async fn run(context: Arc<Context>, serves: Serves) {
    while let Some(key) = context.work.next(serves).await {
        let object = context.fleet.get(&key);
        let is_deleted = |object: &Guarded| object.meta().deletion_timestamp.is_some();
        let only_deletions = context.namespaces.only_deletions(&key.0);
        let goes_on = !context.namespaces.is_left_out(&key.0)
            || only_deletions && object.as_deref().is_some_and(is_deleted);
        let after = match object {
            // It is woken when its namespace is looked after again.
            _ if !goes_on => None,
            Some(object) => reconcile(&context, &object).await,
            None => None,
        };
        context.work.done(key, after);
    }
}

/// One reconcile; returns after which time the object is to be looked at again although nothing happened.
async fn reconcile(context: &Context, object: &Guarded) -> Option<Duration> {
    if !context.leadership.holds() {
        return Some(Duration::from_secs(1));
    }
    metrics::ACTIVE_RECONCILES.add(&[CONTROLLER], 1.0);
    let begun = Instant::now();
    let result = converge(context, object).await;
    metrics::RECONCILE_TIME.observe(&[CONTROLLER], begun.elapsed().as_secs_f64());
    metrics::ACTIVE_RECONCILES.add(&[CONTROLLER], -1.0);
    let next = match result {
        Ok(next) => next,
        Err(error) => return after_error(context, object, &error).await,
    };
    if !matches!(next, Next::Unshown(_)) {
        for (namespace, name) in context.retries.over(object.meta().uid.as_deref().unwrap_or_default()) {
            context.fleet.wake(&namespace, &name);
        }
    }
    let result = if next == Next::Calm(None) { "success" } else { "requeue_after" };
    metrics::RECONCILES.one(&[CONTROLLER, result]);
    match next {
        Next::Calm(after) => after,
        Next::Unshown(after) => Some(after),
        Next::Soon => Some(Duration::from_millis(rand::random_range(100..400))),
    }
}

/// Reported and counted here, and nowhere else; the metric counts what the log does not repeat. What is refused until somebody
/// does something about it is told on the object too, whose status cannot say it.
async fn after_error(context: &Context, object: &Guarded, error: &ReconcileError) -> Option<Duration> {
    let metadata = object.meta();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let key = (namespace.to_owned(), metadata.name.clone().unwrap_or_default());
    metrics::RECONCILES.one(&[CONTROLLER, "error"]);
    metrics::RECONCILE_ERRORS.one(&[CONTROLLER]);
    let refused = match error {
        ReconcileError::Api(error) => error.stands(),
        ReconcileError::Queue(_) | ReconcileError::Unreadable(_) => None,
    };
    let at_least = match error {
        ReconcileError::Api(ApiError::Refused { after, .. }) => *after,
        _ => Duration::ZERO,
    };
    if let ReconcileError::Api(ApiError::Forbidden { .. }) = error {
        context.namespaces.suspect(namespace);
    }
    let (pause, told) = context.retries.failed(uid, &key, refused, at_least);
    // One cause is one line, however many Servers meet it.
    let cause = match (error, refused) {
        (ReconcileError::Api(error), Some(class)) => format!("{namespace} {class} {}", error.what()),
        (ReconcileError::Unreadable(_), _) => format!("{namespace} {uid} {error}"),
        _ => error.to_string(),
    };
    if let Some(times) = context.repeats.met(&cause) {
        tracing::warn!(
            controller = CONTROLLER,
            namespace = metadata.namespace,
            name = metadata.name,
            uid = metadata.uid,
            generation = metadata.generation,
            times,
            "not reconciled: {error}"
        );
    }
    if let (Ok(server), true, true) = (&object.0, told, refused.is_some()) {
        events::publish(context, server, vec![refused_note(error)]).await;
    }
    match error {
        ReconcileError::Unreadable(_) => None,
        ReconcileError::Queue(_) | ReconcileError::Api(_) => Some(pause),
    }
}

fn refused_note(error: &ReconcileError) -> plan::EventNote {
    plan::EventNote {
        kind: plan::EventKind::Warning,
        reason: Reason::StatusRefused,
        action: "Write".to_owned(),
        note: format!("what the controller writes is refused, and status stays as it was: {error}"),
    }
}

async fn converge(context: &Context, object: &Guarded) -> Result<Next, ReconcileError> {
    let cached = object.0.as_ref().map_err(|invalid| ReconcileError::Unreadable(invalid.error.clone()))?;
    let mut object = Object { server: cached.clone(), not_before: None };
    // After another history the live status decides what was lost, not a cache that may be behind it.
    let underived = context.derivation.present();
    if context.newest.is_stale(&cached.metadata) || underived.is_some() {
        let Some(live) = live(context, cached, 0).await? else { return Ok(Next::Calm(None)) };
        object = live;
    }
    for _ in 0..LOOKS {
        let not_before = object.not_before;
        // The object was taken before the row is read, and what follows counts only while this process leads.
        let observed = observe(context, object, underived.as_ref()).await?;
        if observed.held_back && not_before.is_none() {
            // As with everything that is derived again: the live status decides.
            match live(context, &observed.seen.server, observed.last_generation).await? {
                Some(live) => object = live,
                None => return Ok(Next::Calm(None)),
            }
            continue;
        }
        if !context.leadership.holds() {
            return Ok(Next::Soon);
        }
        let looked = match standing(&observed) {
            Standing::Present => look(context, &observed).await?,
            Standing::Outdated => Look::Outdated,
            Standing::WentBack => {
                let (uid, generation) = (&observed.uid, observed.on.generation());
                context.queue.go_back_to(uid, generation, observed.version()).await?;
                Look::Again(None)
            }
        };
        object = match looked {
            Look::Done(next) => return Ok(next),
            Look::Again(Some(changed)) => {
                Object { server: *changed, not_before: Some(observed.last_generation) }
            }
            Look::Again(None) => Object { server: observed.seen.server, not_before },
            Look::Outdated => match live(context, &observed.seen.server, observed.last_generation).await? {
                Some(live) => live,
                None => return Ok(Next::Calm(None)),
            },
        }
    }
    Ok(Next::Soon)
}

/// How an object stands to the one that was decided on last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is that one, or a newer one.
    Present,
    /// It is older: nothing is decided on it.
    Outdated,
    /// It is older and was read live since then: etcd was restored.
    WentBack,
}

fn standing(observed: &Observed) -> Standing {
    if observed.on.is_outdated(observed.last_generation) {
        Standing::Outdated
    } else if observed.on.generation() < observed.last_generation {
        Standing::WentBack
    } else {
        Standing::Present
    }
}

/// What one look came to.
enum Look {
    Done(Next),
    /// Something changed; with the object where that changed.
    Again(Option<Box<Server>>),
    /// The object that was looked at is not the present one.
    Outdated,
}

impl From<Shown> for Look {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Already => Self::Again(None),
            Shown::Written(now) => Self::Again(Some(now)),
            Shown::Outdated => Self::Outdated,
        }
    }
}

async fn look(context: &Context, observed: &Observed) -> Result<Look, ReconcileError> {
    let seen = &observed.seen;
    let decision = plan::decide(seen);
    let status = plan::status(seen, &decision);
    // Told before it is done: afterwards there is nothing left to tell it on.
    if matches!(decision.command, Command::Release(_)) {
        match tell(context, observed, &decision, &status).await {
            Ok(Shown::Already) => {}
            Ok(other) => return Ok(other.into()),
            // Whatever keeps a status from being stored as it is written keeps no machine.
            Err(ReconcileError::Api(
                error @ (ApiError::StoredOtherwise { .. }
                | ApiError::Refused {
                    why: Refusal::Invalid | Refusal::Definition | Refusal::TooLarge,
                    ..
                }),
            )) => {
                tracing::warn!(
                    controller = CONTROLLER,
                    uid = observed.uid.as_str(),
                    "let go all the same: {error}"
                );
            }
            Err(error) => return Err(error),
        }
    }
    match apply(context, observed, &decision.command).await? {
        Applied::Released => return Ok(Look::Done(Next::Calm(None))),
        Applied::InTheWay => return Ok(Look::Done(Next::Soon)),
        Applied::Outdated => return Ok(Look::Outdated),
        Applied::Object(server) => return Ok(Look::Again(Some(server))),
        Applied::Changed => match &decision.command {
            // What these did shows in no later look.
            Command::Register { why: NewRecord::Rebuilt, .. } => {
                return Ok(tell(context, observed, &decision, &status).await?.into());
            }
            Command::Register { why: NewRecord::FirstSight, .. } | Command::RecordHandled { .. } => {
                let shown = seen.server.status.clone().unwrap_or_default();
                events::publish(context, &seen.server, plan::events(seen, &decision, &shown)).await;
                return Ok(Look::Again(None));
            }
            _ => return Ok(Look::Again(None)),
        },
        Applied::Settled => {}
    }
    if let Some(mark) = &observed.underived {
        context.derivation.derived(mark, &observed.uid);
    }
    if let Some(job) = seen.job.as_ref().filter(|_| observed.held_back) {
        // It was derived: it goes on where it was.
        return Ok(match context.queue.signal(&observed.uid, job.id).await {
            Err(QueueError::Busy) => Look::Done(Next::Soon),
            other => other.map(|_| Look::Again(None))?,
        });
    }
    if let Some(pause) = pause(context, observed, &decision, &status) {
        return Ok(Look::Done(Next::Unshown(pause)));
    }
    if matches!(tell(context, observed, &decision, &status).await?, Shown::Outdated) {
        return Ok(Look::Outdated);
    }
    let after = decision.recheck_after_ms.map(|ms| Duration::from_millis(ms.max(0) as u64));
    Ok(Look::Done(Next::Calm(after)))
}

/// How long nothing has to be shown: what is over in a moment, and mere steps in quick succession.
fn pause(
    context: &Context,
    observed: &Observed,
    decision: &Decision,
    status: &ServerStatus,
) -> Option<Duration> {
    let (seen, uid) = (&observed.seen, &observed.uid);
    let passing = plan::in_passing(seen, decision).filter(|_| context.paced.may_pass(uid));
    let passing = passing.map(|left_ms| Duration::from_millis(left_ms.max(0) as u64));
    passing.or_else(|| context.paced.left(uid).filter(|_| plan::only_steps(seen, status)))
}

/// Shows the status, publishes what is new in it, and takes the server out of the feed; nothing of it where the object
/// changed meanwhile.
async fn tell(
    context: &Context,
    observed: &Observed,
    decision: &Decision,
    status: &ServerStatus,
) -> Result<Shown, ReconcileError> {
    let seen = &observed.seen;
    let shown = show(context, observed, status).await?;
    match &shown {
        Shown::Outdated => return Ok(shown),
        // The cache may be older than another leader's patch.
        Shown::Already => {
            if observed.in_feed && !is_shown_live(context, &seen.server, status).await? {
                return Ok(Shown::Outdated);
            }
            context.paced.shown(&observed.uid);
        }
        Shown::Written(_) => {
            context.paced.written(&observed.uid);
            say(observed, status);
            events::publish(context, &seen.server, plan::events(seen, decision, status)).await;
        }
    }
    if let Some(job) =
        seen.shown_job().filter(|job| status.job.as_ref().is_some_and(|shown| shown.id == job.id.to_string()))
    {
        context.own_jobs.keep(&observed.uid, (job.id, job.action));
    }
    if observed.in_feed {
        context.queue.acknowledge(&observed.uid, observed.version()).await?;
    }
    Ok(shown)
}

/// The present object; `None`: it is gone, or another one has its name. `last`: the generation of the object that was
/// decided on last, as far as it is known.
async fn live(context: &Context, known: &Server, last: i64) -> Result<Option<Object>, ReconcileError> {
    let metadata = &known.metadata;
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else { return Ok(None) };
    match call(READ, context.servers(namespace).get(name)).await {
        Ok(live) if live.metadata.uid == metadata.uid => {
            context.newest.read(&live.metadata);
            Ok(Some(Object { server: live, not_before: Some(last) }))
        }
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One line for each change of the phase.
fn say(observed: &Observed, status: &ServerStatus) {
    let server = &observed.seen.server;
    let before = server.status.as_ref().and_then(|status| status.phase);
    if before == status.phase {
        return;
    }
    let ready = crate::api::condition::find(&status.conditions, crate::api::condition::ConditionType::Ready);
    tracing::info!(
        controller = CONTROLLER,
        namespace = observed.namespace,
        name = observed.name,
        uid = observed.uid.as_str(),
        generation = server.metadata.generation,
        job_id = status.job.as_ref().map(|job| job.id.as_str()),
        reason = ready.map(|ready| ready.reason.as_str()),
        "{}",
        status.phase.map_or("", |phase| phase.as_str())
    );
}
