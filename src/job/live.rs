//! A live job as the database shows it.

use serde::{Deserialize, Serialize};

use super::{Action, Effect, InstallProgress, Intent, JobId, Lane, Problem, Step, TokenValue};
use crate::api::Reason;

/// Where a live job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum JobState {
    /// Never claimed; waits for a worker.
    Queued,
    /// A worker holds it, or it was begun and waits to be claimed again.
    Running,
    /// Begun and parked: it waits for a time or a signal.
    Waiting,
    /// Asked to stop; a worker that takes it undoes what it had begun.
    Cancelling,
}

impl JobState {
    /// The name in the API, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Waiting => "Waiting",
            Self::Cancelling => "Cancelling",
        }
    }
}

/// Whether a job shows in status, events and history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// It does.
    #[default]
    Shown,
    /// Only if it changes something or fails: an inspection after the first one.
    Quiet,
}

/// What a parked or queued job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum WaitingFor {
    /// A free slot of a worker.
    Worker,
    /// Others of its class to end: as many are in flight as may be.
    Permit,
    /// The power state that was asked for.
    PowerState,
    /// The operating system to shut down.
    Shutdown,
    /// The BMC to answer, or to answer as a BMC.
    #[serde(rename = "BMC")]
    Bmc,
    /// The BMC to be less busy, or out of a transition: it said "not yet". Or its turn: one job at a time talks to a BMC.
    #[serde(rename = "BMCCapacity")]
    BmcCapacity,
    /// The API server to answer: nothing is sent before the wish was read again.
    #[serde(rename = "APIServer")]
    ApiServer,
    /// Working credentials in the Secret, or a right for the account there.
    Credentials,
    /// The status to show this job as running: nothing that destroys data is begun before.
    Status,
    /// The BMC to show the boot override that it accepted.
    BootOverride,
    /// The BMC to show the medium that it accepted, or an empty drive.
    Media,
    /// The machine to fetch its boot script, or to ask for its session.
    NetworkBoot,
    /// The machine to be installed and to call home.
    Installation,
    /// The machine to erase its disks and to call home.
    Wipe,
}

impl WaitingFor {
    /// Every value, in a fixed order.
    pub const ALL: [Self; 14] = [
        Self::Worker,
        Self::Permit,
        Self::PowerState,
        Self::Shutdown,
        Self::Bmc,
        Self::BmcCapacity,
        Self::ApiServer,
        Self::Credentials,
        Self::Status,
        Self::BootOverride,
        Self::Media,
        Self::NetworkBoot,
        Self::Installation,
        Self::Wipe,
    ];

    /// The name in the API, the database and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "Worker",
            Self::Permit => "Permit",
            Self::PowerState => "PowerState",
            Self::Shutdown => "Shutdown",
            Self::Bmc => "BMC",
            Self::BmcCapacity => "BMCCapacity",
            Self::ApiServer => "APIServer",
            Self::Credentials => "Credentials",
            Self::Status => "Status",
            Self::BootOverride => "BootOverride",
            Self::Media => "Media",
            Self::NetworkBoot => "NetworkBoot",
            Self::Installation => "Installation",
            Self::Wipe => "Wipe",
        }
    }

    /// The value of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == name)
    }

    /// What a job waits for whose step met `reason`.
    pub const fn after(reason: Reason) -> Self {
        match reason {
            Reason::BMCBusy => Self::BmcCapacity,
            Reason::APIUnavailable => Self::ApiServer,
            Reason::WorkerTrouble => Self::Worker,
            Reason::CredentialsInvalid | Reason::CredentialsMissing | Reason::BMCPermissionDenied => {
                Self::Credentials
            }
            Reason::MediaNotInserted => Self::Media,
            Reason::NeverBooted | Reason::BootMACMismatch | Reason::BootMACConflict => Self::NetworkBoot,
            _ => Self::Bmc,
        }
    }
}

/// A live job, as `observe` reads it. The controller decides on it and shows it in `status.job`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveJob {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub action: Action,
    /// The lane it waits in.
    pub lane: Lane,
    /// The wish that it was made for.
    pub intent: Intent,
    /// Where it stands.
    pub state: JobState,
    /// The present step.
    pub step: Step,
    /// Tries of the present step, counted from 1; 0 before the first.
    pub attempt: u32,
    /// What it waits for; `None` while it runs.
    pub waiting_for: Option<WaitingFor>,
    /// What the last try met; `None` after a step that went well.
    pub problem: Option<Problem>,
    /// When the present problem was first met, milliseconds since the Unix epoch.
    pub problem_since_ms: Option<i64>,
    /// When it was enqueued, milliseconds since the Unix epoch.
    pub enqueued_at_ms: i64,
    /// When it was first claimed.
    pub started_at_ms: Option<i64>,
    /// Why it was asked to stop.
    pub cancel: Option<Reason>,
    /// Whether its undo steps run because it failed, or because it was found to be needless: it goes through them in an order
    /// of their own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undoing: bool,
    /// Whether its first request that changes the machine was stored: from then on its token is handled.
    pub request_stored: bool,
    /// The tokens that its first request takes, as long as no request of it may have been carried out: where the job ends like
    /// that they ask again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taking: Vec<TokenValue>,
    /// The version of the credentials Secret that its last try used; a newer one is worth a wake-up.
    pub secret_version: Option<String>,
    /// What the machine's installer told last.
    pub progress: Option<InstallProgress>,
    /// Whether its machine was given its script, by a session that gives it in no other history again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub script_given: bool,
}

/// A live job whose row is of another release, or a server of which such a release has recorded something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableJob {
    /// The id of the live job; `None`: there is none.
    pub id: Option<JobId>,
    /// What is wrong with the row, and the way out.
    pub problem: Problem,
}

impl LiveJob {
    /// Whether a request of it was stored, or it is at a step that comes after one: from then on the object is not asked again
    /// for each request.
    pub fn has_begun(&self) -> bool {
        let is_first = self.action.steps().first() == Some(&self.step);
        self.action.effect() != Effect::ReadOnly && (self.request_stored || self.undoing || !is_first)
    }

    /// Whether a worker ever claimed it.
    pub fn started(&self) -> bool {
        self.started_at_ms.is_some()
    }
}
