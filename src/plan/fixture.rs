//! Servers for the tests of this module.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use super::{Budget, Observation, Settings, SiteWorkers, WipeImage, decide, status};
use crate::api::hardware::{Hardware, HardwareIdentity, Nic, PowerState};
use crate::api::{BmcSpec, CredentialsRef, Reason, Server, ServerSpec, names};
use crate::job::Visibility;
use crate::job::{
    Action, JobId, JobState, Known, LiveJob, Problem, Reading, SecretVersion, StoredFailure, Unanswered,
    WaitingFor,
};

pub(super) const NOW_MS: i64 = 1_795_000_000_000;
pub(super) const ADDRESS: &str = "redfish+https://192.0.2.10";

/// A server that was accepted a moment ago.
pub(super) fn new() -> Observation {
    let mut server = Server::new(
        "node1",
        ServerSpec {
            site: "default".into(),
            bmc: BmcSpec {
                address: ADDRESS.into(),
                credentials_ref: CredentialsRef { name: "bmc".into() },
                tls: None,
                boot_mode: None,
            },
            ..ServerSpec::default()
        },
    );
    server.metadata.namespace = Some("lab".into());
    server.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    server.metadata.generation = Some(1);
    server.metadata.finalizers = Some(vec![names::FINALIZER.into()]);
    Observation {
        server,
        known: None,
        job: None,
        unreadable_job: None,
        own_job: None,
        visibility: Visibility::Shown,
        shown_job_ended: false,
        another_history: false,
        bmc_address: Ok(ADDRESS.into()),
        image_digest: None,
        image_kind: None,
        image_flaw: None,
        wipe: WipeImage { digest: Some("sha256:wipe".into()), ..WipeImage::default() },
        budget: Budget::Left,
        secret: Some(SecretVersion { uid: "s".into(), resource_version: "7".into() }),
        site: SiteWorkers::Live,
        urgent_is_full: false,
        now_ms: NOW_MS,
        settings: Settings::default(),
    }
}

pub(super) fn reading(power: PowerState) -> Reading {
    Reading {
        power,
        identity: HardwareIdentity { serial_number: Some("S1".into()), uuid: None, system: None },
        hardware: Hardware {
            serial_number: Some("S1".into()),
            nics: vec![Nic { mac_address: Some("52:54:00:12:34:56".into()), ..Nic::default() }],
            ..Hardware::default()
        },
        last_reset_time: None,
    }
}

/// A server that was read a moment ago and is on.
pub(super) fn ready() -> Observation {
    let mut seen = new();
    seen.known = Some(Known {
        version: 5,
        reading: Some(reading(PowerState::PoweredOn)),
        last_good_read_ms: Some(NOW_MS - 1000),
        last_try_ms: Some(NOW_MS - 1000),
        claimed_address: Some(ADDRESS.into()),
        ..Known::default()
    });
    seen.server.status = Some(status(&seen, &decide(&seen)));
    seen
}

pub(super) fn known(seen: &mut Observation) -> &mut Known {
    seen.known.as_mut().unwrap()
}

pub(super) fn job(seen: &Observation, action: Action) -> LiveJob {
    LiveJob {
        id: JobId::new(NOW_MS - 5000, 1),
        action,
        lane: action.default_lane(),
        intent: seen.intent(action),
        state: JobState::Queued,
        step: action.steps()[0],
        attempt: 0,
        waiting_for: Some(WaitingFor::Worker),
        problem: None,
        problem_since_ms: None,
        enqueued_at_ms: NOW_MS - 5000,
        started_at_ms: None,
        cancel: None,
        undoing: false,
        request_stored: false,
        taking: Vec::new(),
        secret_version: None,
        progress: None,
        script_given: false,
    }
}

pub(super) fn started(seen: &Observation, action: Action) -> LiveJob {
    LiveJob {
        state: JobState::Running,
        started_at_ms: Some(NOW_MS - 4000),
        waiting_for: None,
        attempt: 1,
        ..job(seen, action)
    }
}

/// The live job was enqueued, or shown, by the process that looks.
pub(super) fn own(seen: &mut Observation) {
    seen.own_job = seen.job.as_ref().map(|job| (job.id, job.action));
}

pub(super) fn parked(seen: &Observation, action: Action, reason: Reason, for_ms: i64) -> LiveJob {
    LiveJob {
        state: JobState::Waiting,
        waiting_for: Some(WaitingFor::after(reason)),
        problem: Some(Problem::new(reason, "what was met")),
        problem_since_ms: Some(NOW_MS - for_ms),
        secret_version: seen.secret.as_ref().map(ToString::to_string),
        ..started(seen, action)
    }
}

pub(super) fn unreadable() -> crate::job::UnreadableJob {
    let problem = Problem::new(Reason::UnsupportedJob, "action holds \"Levitate\"");
    crate::job::UnreadableJob { id: Some(JobId(7)), problem }
}

pub(super) fn failure(seen: &Observation, action: Action, reason: Reason) -> StoredFailure {
    StoredFailure {
        action,
        intent: seen.intent(action),
        cause: seen.cause(action),
        problem: Problem::new(reason, "what was met"),
        at_ms: NOW_MS,
        behind: None,
    }
}

pub(super) fn silence(for_ms: i64) -> Unanswered {
    Unanswered {
        problem: Problem::new(Reason::Unreachable, "no route to host"),
        since_ms: NOW_MS - for_ms,
        through: None,
    }
}

pub(super) fn delete(seen: &mut Observation, ago_ms: i64) {
    seen.server.metadata.deletion_timestamp = Some(crate::api::condition::time(NOW_MS - ago_ms));
}
