//! Everything that a decision is made on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::Budget;
use crate::api::{ImageKind, Server, ServerSpec, ServerStatus, names};
use crate::job::Visibility;
use crate::job::{
    Action, Cause, Circumstance, Deleting, Effect, HandledTokens, Intent, JobId, Known, LiveJob, Problem,
    ReadThrough, Reading, ReconcileRequest, SecretVersion, ServerUid, Unanswered, UnreadableJob, Wish,
};

/// Whether somebody works for a site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteWorkers {
    /// At least one worker serves it.
    #[default]
    Live,
    /// No live worker serves it.
    None,
}

/// What erases the disks of a machine that boots as its `Server` says: the `OSImage` that `--wipe-image` or `--wipe-iso` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WipeImage {
    /// Its name.
    pub name: String,
    /// The digest of the one in the namespace of the server; `None`: there is none.
    pub digest: Option<String>,
}

impl Default for WipeImage {
    fn default() -> Self {
        Self { name: "wipe".to_owned(), digest: None }
    }
}

/// Periods and bounds, in milliseconds: set by the operator, not by users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How often each BMC is looked at although nothing happened.
    pub inspect_period_ms: i64,
    /// How old the last good reading may be before `Fresh` is False.
    pub fresh_bound_ms: i64,
    /// How soon a power state in transition is read again.
    pub transition_period_ms: i64,
    /// After how long an unreachable BMC with work pending counts as `Stalled`.
    pub stalled_after_ms: i64,
    /// How long a deletion waits for what a job had begun to be undone.
    pub undo_wait_ms: i64,
    /// How long a deletion with `PowerOff` tries to power off.
    pub power_off_wait_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inspect_period_ms: 300_000,
            fresh_bound_ms: 900_000,
            transition_period_ms: 15_000,
            stalled_after_ms: 600_000,
            undo_wait_ms: 60_000,
            power_off_wait_ms: 600_000,
        }
    }
}

/// One server at one moment.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The object: metadata, spec, and the status shown so far.
    pub server: Server,
    /// What the database knows; `None`: it has no record of this server.
    pub known: Option<Known>,
    /// The live job.
    pub job: Option<LiveJob>,
    /// The live job, where its row is of another release.
    pub unreadable_job: Option<UnreadableJob>,
    /// The job that this process enqueued, or showed, as the newest one: it needs no other witness.
    pub own_job: Option<(JobId, Action)>,
    /// Whether that job shows.
    pub visibility: Visibility,
    /// Whether the job that status shows has its end in the history; asked for only where nothing else tells.
    pub shown_job_ended: bool,
    /// Whether the database was failed over or restored and nothing was claimed in it since: what it says of a job may be
    /// behind of what that job did.
    pub another_history: bool,
    /// `spec.bmc.address`, normalised, or what is wrong with it.
    pub bmc_address: Result<String, Problem>,
    /// The digest of the `OSImage` that `spec.image` names; `None`: none is named, or there is none of that name.
    pub image_digest: Option<String>,
    /// How machines boot that image; `None`: there is none.
    pub image_kind: Option<ImageKind>,
    /// Why no machine can be given that image, as far as the object alone tells; `None`: nothing is known against it.
    pub image_flaw: Option<String>,
    /// What erases disks.
    pub wipe: WipeImage,
    /// What is left of the namespace's destruction budget.
    pub budget: Budget,
    /// The version of the credentials Secret; `None`: there is none of that name and type.
    pub secret: Option<SecretVersion>,
    /// Whether somebody works for its site.
    pub site: SiteWorkers,
    /// Whether as many other jobs of the namespace are `Urgent` as may be.
    pub urgent_is_full: bool,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Periods and bounds.
    pub settings: Settings,
}

impl Observation {
    pub(super) fn spec(&self) -> &ServerSpec {
        &self.server.spec
    }

    /// The status shown so far.
    pub(super) fn shown(&self) -> Option<&ServerStatus> {
        self.server.status.as_ref()
    }

    pub(super) fn generation(&self) -> Option<i64> {
        self.server.metadata.generation
    }

    pub(super) fn uid(&self) -> ServerUid {
        ServerUid(self.server.metadata.uid.clone().unwrap_or_default())
    }

    pub(super) fn paused(&self) -> bool {
        self.spec().paused == Some(true)
    }

    pub(super) fn deleting(&self) -> Deleting {
        Deleting::of(&self.server)
    }

    /// For how long it has been asked to go.
    pub(super) fn deleting_for_ms(&self) -> i64 {
        let since = self.server.metadata.deletion_timestamp.as_ref();
        since.map_or(0, |Time(at)| self.now_ms - at.as_millisecond())
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.server.metadata.finalizers.iter().flatten().any(|name| name == names::FINALIZER)
    }

    /// The address as far as it can be read.
    pub(super) fn address(&self) -> &str {
        self.bmc_address.as_deref().unwrap_or(&self.spec().bmc.address)
    }

    /// Whether what came through `through` came from where spec says that the BMC is.
    fn belongs(&self, through: Option<&ReadThrough>) -> bool {
        if let Some(through) = through {
            return *through == ReadThrough::of(&self.spec().bmc);
        }
        let claimed = self.known.as_ref().and_then(|known| known.claimed_address.as_deref());
        claimed.is_none_or(|claimed| claimed == self.address())
    }

    /// The last good reading, if it came from where spec says that the BMC is: what was read through another address or login
    /// may be of another machine.
    pub(super) fn reading(&self) -> Option<&Reading> {
        let known = self.known.as_ref()?;
        known.reading.as_ref().filter(|_| self.belongs(known.read_through.as_ref()))
    }

    /// When that was.
    pub(super) fn last_good_read_ms(&self) -> Option<i64> {
        self.reading().and(self.known.as_ref()).and_then(|known| known.last_good_read_ms)
    }

    /// That the BMC gave no good reading the last time, if it was asked where spec says that it is.
    pub(super) fn unanswered(&self) -> Option<&Unanswered> {
        let silence = self.known.as_ref()?.unanswered.as_ref()?;
        self.belongs(silence.through.as_ref()).then_some(silence)
    }

    /// Whether the machine was read, and spec gives another address or login by now.
    pub(super) fn is_read_elsewhere(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.reading.is_some()) && self.reading().is_none()
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.server.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether somebody asks for a look that nobody has taken yet: by any value but the one that was acted on.
    pub(super) fn look_requested(&self) -> bool {
        let Some(known) = &self.known else { return false };
        let asked = ReconcileRequest::of(&self.server);
        match &known.reconcile_request {
            _ if asked.is_empty() => false,
            Some(before) => asked != before.value,
            // An earlier release looked last: the value may be as old as the object, unless it is a time after that look.
            None => asked.parse::<k8s_openapi::jiff::Timestamp>().is_ok_and(|at| {
                let at_ms = at.as_millisecond();
                at_ms <= self.now_ms && known.last_try_ms.is_some_and(|tried| at_ms > tried)
            }),
        }
    }

    pub(super) fn intent(&self, action: Action) -> Intent {
        let uid = self.uid();
        let digest = if action.wipes() { &self.wipe.digest } else { &self.image_digest };
        Intent::of(
            action,
            Wish {
                uid: &uid,
                spec: self.spec(),
                bmc_address: self.address(),
                image_digest: digest.as_deref(),
                deleting: self.deleting(),
            },
        )
    }

    /// The circumstances in which `action` is decided, or failed.
    pub(super) fn cause(&self, action: Action) -> Cause {
        let before = self.known.as_ref().and_then(|known| known.reconcile_request.as_ref());
        let asked = ReconcileRequest::newest(&self.server, before);
        let (secret, asked) = (self.secret.as_ref(), asked.as_deref());
        Cause::of(action, Circumstance { server: &self.server, secret, asked })
    }

    /// The tokens that status has as handled.
    pub(super) fn shown_tokens(&self) -> HandledTokens {
        HandledTokens::shown(self.shown())
    }

    /// The tokens that count as handled: those of the database and those of status together.
    pub(super) fn handled(&self) -> HandledTokens {
        let shown = self.shown_tokens();
        self.known.as_ref().map_or_else(|| shown.clone(), |known| known.handled.union(&shown))
    }

    /// Whether the live job is one that the object does not ask for, and of which neither status nor this process knew before: that
    /// there is such a job only its row says. What has begun a worker knows by its seal.
    pub(super) fn is_unwitnessed(&self, job: &LiveJob) -> bool {
        let is_shown = self.shown().is_some_and(|status| status.shows(job.id, job.action));
        let is_known = is_shown || self.own_job == Some((job.id, job.action));
        job.action.effect() != Effect::ReadOnly && !is_known && !super::word::is_asked_for(self, job.action)
    }

    /// The id of this server's next job.
    pub fn next_job_id(&self, random: u64) -> JobId {
        let known = self.known.as_ref().and_then(|known| known.last_job.as_ref()).map(|last| last.id);
        let shown = self.shown();
        let last = shown.and_then(|status| status.last_job.as_ref()).map(|last| last.id.as_str());
        let live = shown.and_then(|status| status.job.as_ref()).map(|job| job.id.as_str());
        let all = known.into_iter().chain([last, live].into_iter().flatten().filter_map(JobId::parse));
        let last = all.filter(|id| !id.is_made_up(self.now_ms)).max();
        JobId::after(last, self.now_ms, random)
    }

    /// Whether the live job is one that users see.
    pub fn shown_job(&self) -> Option<&LiveJob> {
        self.job.as_ref().filter(|_| self.visibility == Visibility::Shown)
    }
}
