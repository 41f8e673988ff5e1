//! Carries out one decision.
#![expect(clippy::disallowed_methods, reason = "a job's id has a random part")]

use super::api_call::ApiError;
use super::context::Context;
use super::fair_queue::{Line, Whose};
use super::observe::{Observed, address};
use super::{finalizer, release, requester};
use crate::api::Server;
use crate::job::{JobId, Problem};
use crate::metrics;
use crate::plan::{Command, Share, Work};
use crate::queue::{BmcClaimed, BmcKey, CancelOutcome, Claimant, Enqueued, LostJob, NewJob, QueueError};
use crate::shard::shard_of;

/// What carrying out a command came to.
#[derive(Debug)]
pub(super) enum Applied {
    /// Nothing was to be done, or nothing that a further look would see.
    Settled,
    /// Something changed: look again at once.
    Changed,
    /// The object changed: this is the new one.
    Object(Box<Server>),
    /// Somebody else was in the way, or faster: look again soon.
    InTheWay,
    /// A newer object was decided on: read it live.
    Outdated,
    /// The server was let go.
    Released,
}

impl Applied {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Settled | Self::Changed | Self::Object(_) | Self::Released => "done",
            Self::InTheWay | Self::Outdated => "in_the_way",
        }
    }
}

/// A command that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

pub(super) async fn apply(
    context: &Context,
    observed: &Observed,
    command: &Command,
) -> Result<Applied, ApplyError> {
    let name = match command {
        Command::Nothing(_) => return Ok(Applied::Settled),
        other => command_name(other),
    };
    let result = match carry_out(context, observed, command).await {
        // The row is being worked on right now.
        Err(ApplyError::Queue(QueueError::Busy)) => Ok(Applied::InTheWay),
        other => other,
    };
    let outcome = result.as_ref().map_or("error", Applied::as_str);
    metrics::COMMANDS.one(&[name, outcome]);
    if result.is_ok() && outcome == "done" {
        say(observed, name, command);
    }
    result
}

async fn carry_out(context: &Context, observed: &Observed, command: &Command) -> Result<Applied, ApplyError> {
    let Observed { seen, uid, namespace, name, .. } = observed;
    let queue = &context.queue;
    Ok(match command {
        Command::Nothing(_) => Applied::Settled,
        Command::AddFinalizer => finalizer::add(context, &seen.server).await?,
        Command::Register { handled, contents, .. } => {
            queue.register(uid, namespace, name, handled, contents.as_ref()).await?;
            Applied::Changed
        }
        Command::ClaimBmc { address: text } => {
            let Ok(address) = address(text) else { return Ok(Applied::Settled) };
            let key = BmcKey::named(&address);
            let who = Claimant {
                uid: uid.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                address: text.clone(),
                asked: Some(crate::job::ReconcileRequest::of(&seen.server)),
            };
            match queue.claim_address(who, key).await? {
                BmcClaimed::Granted | BmcClaimed::Refused(_) => Applied::Changed,
                BmcClaimed::Unknown => Applied::InTheWay,
            }
        }
        Command::Recommission => {
            if queue.recommission(uid).await? {
                Applied::Changed
            } else {
                Applied::InTheWay
            }
        }
        Command::Enqueue(work) => enqueue(context, observed, work).await?,
        Command::Cancel { id, reason } => changed(queue.cancel_on(uid, *id, *reason, observed.on).await?),
        Command::Reprioritize { id, lane } => {
            if !context.fair.enter(context.settings.urgent_per_namespace, whose(observed), *lane) {
                return Ok(Applied::InTheWay);
            }
            changed(queue.reprioritize_on(uid, *id, *lane, observed.on).await?)
        }
        // The job shows no sign of having been woken until a worker takes it: looking again would wake it again.
        Command::WakeJob { id } => {
            queue.signal(uid, *id).await?;
            Applied::Settled
        }
        Command::RecordHandled { token, .. } => {
            let recorded = queue.record_handled(uid, token, observed.version()).await?;
            if recorded { Applied::Changed } else { Applied::InTheWay }
        }
        Command::RecordContents { contents } => {
            let recorded = queue.record_contents(uid, contents, observed.version()).await?;
            if recorded { Applied::Changed } else { Applied::InTheWay }
        }
        Command::RecordDebt { debt } => {
            let recorded = queue.record_debt(uid, debt.as_ref(), observed.version()).await?;
            if recorded { Applied::Changed } else { Applied::InTheWay }
        }
        Command::RecordLost { job, cause, debt } => {
            let site = &seen.server.spec.site;
            let lost = LostJob {
                uid: uid.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                site: site.clone(),
                job: job.clone(),
                cause: cause.clone(),
                debt: debt.clone(),
                requester: crate::api::names::CONTROLLER.to_owned(),
            };
            if queue.record_lost(lost, observed.version()).await? {
                Applied::Changed
            } else {
                Applied::InTheWay
            }
        }
        Command::Release(farewell) => {
            context.fair.saw(whose(observed), None);
            context.own_jobs.of(uid, false);
            release::release(context, observed, *farewell).await?
        }
    })
}

async fn enqueue(context: &Context, observed: &Observed, work: &Work) -> Result<Applied, ApplyError> {
    let (seen, queue) = (&observed.seen, &context.queue);
    let id = seen.next_job_id(rand::random());
    if !context.fair.enter(context.settings.urgent_per_namespace, whose(observed), work.lane) {
        return Ok(Applied::InTheWay);
    }
    let cap = context.budgets.cap(context, &observed.namespace);
    let Some(job) = new_job(observed, work, id, (queue.shards(), cap)) else {
        return Ok(Applied::Settled);
    };
    let order_ms = context.fair.order(whose(observed), Line::of(work.action, work.lane), seen.now_ms);
    Ok(match queue.enqueue_on(NewJob { order_ms, ..job }, observed.version(), observed.on).await? {
        Enqueued::Accepted => {
            context.own_jobs.keep(&observed.uid, (id, work.action));
            Applied::Changed
        }
        Enqueued::Stale | Enqueued::Occupied => Applied::InTheWay,
        Enqueued::OverBudget => {
            context.budgets.is_spent(&observed.namespace);
            Applied::InTheWay
        }
    })
}

fn whose(observed: &Observed) -> Whose<'_> {
    let site = &observed.seen.server.spec.site;
    Whose { uid: &observed.uid, namespace: &observed.namespace, site }
}

const fn changed(outcome: CancelOutcome) -> Applied {
    match outcome {
        CancelOutcome::Deleted | CancelOutcome::Stored | CancelOutcome::Gone => Applied::Changed,
        CancelOutcome::Outdated => Applied::Outdated,
    }
}

/// The job for this work; `None` where the address cannot be read, of which no work is made.
fn new_job(observed: &Observed, work: &Work, id: JobId, (shards, cap): (u16, Option<i64>)) -> Option<NewJob> {
    let server = &observed.seen.server;
    let host = address(&server.spec.bmc.address).map_err(|_: Problem| ()).ok()?.claim_key().host;
    Some(NewJob {
        id,
        uid: observed.uid.clone(),
        namespace: observed.namespace.clone(),
        name: observed.name.clone(),
        site: server.spec.site.clone(),
        shard: shard_of(&server.spec.site, &host, shards),
        action: work.action,
        step: work.step,
        lane: work.lane,
        order_ms: observed.seen.now_ms,
        intent: work.intent.clone(),
        cause: work.cause.clone(),
        visibility: work.visibility,
        requester: requester::of(work.action, server.metadata.managed_fields.as_deref()),
        budget: cap.filter(|_| work.share == Share::One),
    })
}

/// The metric label of a command.
const fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Nothing(_) => "Nothing",
        Command::AddFinalizer => "AddFinalizer",
        Command::Register { .. } => "Register",
        Command::ClaimBmc { .. } => "ClaimBmc",
        Command::Recommission => "Recommission",
        Command::Enqueue(_) => "Enqueue",
        Command::Cancel { .. } => "Cancel",
        Command::Reprioritize { .. } => "Reprioritize",
        Command::WakeJob { .. } => "WakeJob",
        Command::RecordHandled { .. } => "RecordHandled",
        Command::RecordContents { .. } => "RecordContents",
        Command::RecordDebt { .. } => "RecordDebt",
        Command::RecordLost { .. } => "RecordLost",
        Command::Release(_) => "Release",
    }
}

/// One line for each command that changed something; a look that nobody asked for is no news.
fn say(observed: &Observed, name: &str, command: &Command) {
    let (action, reason) = match command {
        Command::Enqueue(work) if work.visibility == crate::job::Visibility::Quiet => return,
        Command::Enqueue(work) => (work.action.as_str(), ""),
        Command::RecordLost { job, .. } => (job.action.as_str(), crate::api::Reason::HistoryLost.as_str()),
        Command::Cancel { reason, .. } | Command::RecordHandled { reason, .. } => ("", reason.as_str()),
        _ => ("", ""),
    };
    let job_id = match command {
        Command::Cancel { id, .. } | Command::Reprioritize { id, .. } | Command::WakeJob { id } => {
            id.to_string()
        }
        _ => String::new(),
    };
    tracing::info!(
        controller = "server",
        namespace = observed.namespace,
        name = observed.name,
        uid = observed.uid.as_str(),
        generation = observed.seen.server.metadata.generation,
        job_id,
        action,
        reason,
        "{name}"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::{BmcSpec, ServerSpec};
    use crate::job::{Action, ServerUid, Visibility};
    use crate::plan::{Facts, decide};
    use crate::queue::DecidedOn;

    fn observed(bmc: &str) -> Observed {
        let spec = ServerSpec {
            site: "north".into(),
            bmc: BmcSpec { address: bmc.into(), ..BmcSpec::default() },
            ..ServerSpec::default()
        };
        let mut server = Server::new("a", spec);
        server.metadata.finalizers = Some(vec![crate::api::names::FINALIZER.into()]);
        let address = address(bmc).map(|address| address.normalised()).ok();
        let known = crate::job::Known { claimed_address: address.clone(), ..Default::default() };
        let secret = crate::job::SecretVersion { uid: "s".into(), resource_version: "1".into() };
        let seen = Facts { known: Some(known), address, secret: Some(secret), ..Facts::default() };
        Observed {
            seen: seen.about(server),
            foreign_status: false,
            uid: ServerUid("u".into()),
            namespace: "lab".into(),
            name: "a".into(),
            in_feed: false,
            on: DecidedOn::object(1),
            last_generation: 0,
            held_back: false,
            underived: None,
        }
    }

    fn first_look(observed: &Observed) -> Work {
        let Command::Enqueue(work) = decide(&observed.seen).command else {
            unreachable!("a first look is due")
        };
        work
    }

    #[test]
    fn a_job_takes_its_shard_from_site_and_bmc_host_and_its_requester_from_the_spec() {
        let observed = observed("redfish+https://BMC-1.example/redfish/v1/Systems/7");
        let job = new_job(&observed, &first_look(&observed), JobId(1), (16, Some(1))).unwrap();
        assert_eq!(job.shard, shard_of("north", "bmc-1.example:443", 16));
        assert_eq!((job.action, job.visibility), (Action::Inspect, Visibility::Shown));
        assert_eq!((job.namespace.as_str(), job.site.as_str()), ("lab", "north"));
        assert_eq!(job.requester, crate::api::names::CONTROLLER);
        assert_eq!(job.budget, None, "a look destroys nothing");
    }

    #[test]
    fn every_command_has_its_own_label() {
        let commands = [
            Command::Nothing(crate::api::Reason::AsDeclared),
            Command::AddFinalizer,
            Command::WakeJob { id: JobId(1) },
            Command::ClaimBmc { address: String::new() },
        ];
        let names: std::collections::BTreeSet<_> = commands.iter().map(command_name).collect();
        assert_eq!(names.len(), commands.len());
    }
}
