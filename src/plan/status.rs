//! What status shall be: a function of what was observed and of what was decided.

use std::collections::BTreeMap;

use super::situation::{Situation, situation};
use super::{Command, Decision, Observation, conditions, debt, history_lost, image};
use crate::api::condition::time;
use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};
use crate::api::{JobProgress, JobStatus, LastJobStatus, Phase, Reason, ServerStatus};
use crate::job::{FinishedJob, HandledTokens, JobId, LiveJob};

/// The whole status. Equal inputs give equal statuses: a server for which nothing changed is not written.
pub fn status(seen: &Observation, decision: &Decision) -> ServerStatus {
    let situation = situation(seen, decision);
    let reading = seen.reading();
    let before = seen.shown();
    let handled = handled(seen, decision);
    ServerStatus {
        observed_generation: seen.generation(),
        phase: Some(phase(&situation)),
        power: match reading {
            Some(reading) => Some(reading.power),
            None if seen.is_read_elsewhere() => Some(PowerState::Unknown),
            None => before.and_then(|before| before.power),
        },
        image: image::shown(seen),
        contents: image::word(seen),
        wiped_at: image::wiped_at(seen),
        decommissioned_at: image::decommissioned_at(seen),
        hardware: reading
            .map(|reading| Hardware { bmc: None, ..reading.hardware.clone() })
            .or_else(|| before.and_then(|before| before.hardware.clone())),
        bmc: reading.map_or_else(
            || before.and_then(|before| before.bmc.clone()),
            |reading| reading.hardware.bmc.clone(),
        ),
        // Status is what a worker goes by where a row has no seal: it shows no job that nothing but the row knows of.
        job: history_lost::kept(seen)
            .or_else(|| seen.shown_job().filter(|job| !seen.is_unwitnessed(job)).map(job)),
        last_job: newest(seen),
        left_off_by: debt::left_off_by(seen),
        reboot_tokens: handled.reboot,
        reimage_tokens: handled.reimage,
        last_handled_reconcile_at: heeded(seen),
        bmc_identity: before
            .and_then(|before| before.bmc_identity.clone())
            .or_else(|| reading.map(|reading| reading.identity.clone()).filter(is_an_identity)),
        conditions: conditions::conditions(seen, &situation),
        unknown: BTreeMap::new(),
    }
}

/// The last job that ended. A database that lost its last commits does not take back what was shown, and what nobody can have
/// written is not shown: an id of far ahead, or the end of a job that lives.
fn newest(seen: &Observation) -> Option<LastJobStatus> {
    let of = |last: &LastJobStatus| JobId::parse(&last.id).filter(|id| !id.is_made_up(seen.now_ms));
    let shown = seen.shown().and_then(|status| status.last_job.clone()).filter(|last| of(last).is_some());
    let live = seen.job.as_ref().map(|job| job.id);
    let known = seen.known.as_ref().and_then(|known| known.last_job.as_ref()).filter(|last| {
        let was_shown = shown.as_ref().and_then(of) == Some(last.id);
        !last.id.is_made_up(seen.now_ms) && (live != Some(last.id) || was_shown)
    });
    match (known, shown) {
        (Some(known), Some(shown)) if of(&shown) > Some(known.id) => Some(shown),
        (Some(known), _) => Some(last_job(known)),
        (None, shown) => shown,
    }
}

/// The request for a look that was acted on last.
fn heeded(seen: &Observation) -> Option<String> {
    let asked = seen.known.as_ref()?.reconcile_request.as_ref()?;
    Some(asked.value.clone()).filter(|value| !value.is_empty())
}

fn is_an_identity(identity: &HardwareIdentity) -> bool {
    *identity != HardwareIdentity::default()
}

fn handled(seen: &Observation, decision: &Decision) -> HandledTokens {
    let handled = match (&decision.command, &seen.known) {
        (Command::Register { handled, .. }, _) => handled.clone(),
        (_, None) => seen.shown_tokens(),
        (_, Some(known)) => {
            let mut handled = known.handled.clone();
            // What may ask again is not shown: status takes nothing back.
            let taking = seen.job.iter().flat_map(|job| &job.taking);
            taking.for_each(|token| handled.give_back(token));
            handled.union(&seen.shown_tokens())
        }
    };
    handled.last(Some(seen.spec()))
}

const fn phase(situation: &Situation) -> Phase {
    match situation {
        Situation::Pending(_) => Phase::Pending,
        Situation::AsDeclared => Phase::Ready,
        Situation::Ended => Phase::Decommissioned,
        Situation::Queued(_) => Phase::Queued,
        Situation::Working(phase, _) => *phase,
        Situation::UnreachableIdle | Situation::UnreachableAtWork(..) => Phase::Unreachable,
        Situation::Stalled(_) => Phase::Stalled,
        Situation::PausedInSync
        | Situation::PausedWithDifference
        | Situation::PausedUnseen
        | Situation::PausedLeftOff(_) => Phase::Paused,
        Situation::Deleting(_) | Situation::DeletingStalled(_) => Phase::Deleting,
    }
}

fn job(job: &LiveJob) -> JobStatus {
    JobStatus {
        id: job.id.to_string(),
        action: job.action,
        priority: job.lane,
        state: job.state,
        step: job.step,
        attempt: (job.attempt > 0).then_some(i64::from(job.attempt)),
        enqueued_at: time(job.enqueued_at_ms),
        started_at: job.started_at_ms.map(time),
        waiting_for: job.waiting_for,
        progress: job
            .progress
            .as_ref()
            .map(|told| JobProgress { percent: i64::from(told.percent), message: told.line.clone() }),
    }
}

fn last_job(last: &FinishedJob) -> LastJobStatus {
    let reason = last.problem.as_ref().map(|problem| problem.reason);
    LastJobStatus {
        id: last.id.to_string(),
        action: last.action,
        result: last.result,
        reason: reason.map(Reason::served),
        exact_reason: reason.and_then(Reason::beside_served).map(|exact| exact.as_str().to_owned()),
        message: last.problem.as_ref().map(|problem| problem.message.clone()),
        step: last.step,
        enqueued_at: time(last.enqueued_at_ms),
        started_at: last.started_at_ms.map(time),
        finished_at: time(last.finished_at_ms),
    }
}
