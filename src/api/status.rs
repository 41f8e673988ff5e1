//! `status` of a `Server`: what was found, what is being done, and the conditions. Only the controller writes it.
#![allow(unreachable_pub, reason = "the schema derive repeats each struct inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hardware::{BmcStatus, Hardware, HardwareIdentity, PowerState};
use crate::job::{Action, JobId, JobResult, JobState, Lane, Step, WaitingFor};

/// Where the server stands, in one word. For people: programs read the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Accepted; nothing is known of the machine yet.
    Pending,
    /// As declared.
    Ready,
    /// A job waits for its turn.
    Queued,
    /// The machine is being powered on.
    PoweringOn,
    /// The machine is being powered off.
    PoweringOff,
    /// The machine is being rebooted.
    Rebooting,
    /// An operating system is being installed for the first time.
    Building,
    /// An operating system is being installed again.
    Reimaging,
    /// The disks are being erased.
    Wiping,
    /// The machine's life is being ended: its disks are being erased.
    Decommissioning,
    /// The machine's life has ended.
    Decommissioned,
    /// The BMC does not answer.
    Unreachable,
    /// It needs a person; the condition Stalled says what to do.
    Stalled,
    /// Paused by spec.paused.
    Paused,
    /// Being deleted.
    Deleting,
}

impl Phase {
    /// Every phase, in a fixed order.
    pub const ALL: [Self; 15] = [
        Self::Pending,
        Self::Ready,
        Self::Queued,
        Self::PoweringOn,
        Self::PoweringOff,
        Self::Rebooting,
        Self::Building,
        Self::Reimaging,
        Self::Wiping,
        Self::Decommissioning,
        Self::Decommissioned,
        Self::Unreachable,
        Self::Stalled,
        Self::Paused,
        Self::Deleting,
    ];

    /// The name in the API, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Ready => "Ready",
            Self::Queued => "Queued",
            Self::PoweringOn => "PoweringOn",
            Self::PoweringOff => "PoweringOff",
            Self::Rebooting => "Rebooting",
            Self::Building => "Building",
            Self::Reimaging => "Reimaging",
            Self::Wiping => "Wiping",
            Self::Decommissioning => "Decommissioning",
            Self::Decommissioned => "Decommissioned",
            Self::Unreachable => "Unreachable",
            Self::Stalled => "Stalled",
            Self::Paused => "Paused",
            Self::Deleting => "Deleting",
        }
    }
}

/// What the machine's installer told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobProgress {
    /// How much of the installation is done, 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i64,
    /// What it is doing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// Name of the OSImage.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the OSImage's spec.
    #[schemars(length(max = 80))]
    pub digest: String,
    /// When it was installed or adopted.
    pub installed_at: Time,
    /// True where it was there before: AutoBuild did not install it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// What is on a machine's disks, in one word: the database alone says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DiskContents {
    /// Nothing, as far as anybody has seen: the machine was only ever seen switched off.
    Blank,
    /// The image of `status.image`, which a job installed.
    Installed,
    /// The image of `status.image`, which was there before.
    Adopted,
    /// The image of `status.image`, which was recorded for an earlier Server of this machine.
    TakenOver,
    /// What overwrites them was given to the machine, and did not come to its end.
    Unknown,
    /// An image, unless what overwrites it ran unheard.
    Doubtful,
    /// They were being overwritten for an earlier Server of this machine.
    Interrupted,
    /// Nothing: they were erased.
    Wiped,
    /// Nothing, and nothing ever again.
    Decommissioned,
    /// Something of somebody's.
    Foreign,
}

impl DiskContents {
    /// Whether only a person may say that they are overwritten.
    pub const fn is_given_up_by_nobody(self) -> bool {
        match self {
            Self::Adopted | Self::TakenOver | Self::Doubtful | Self::Interrupted | Self::Foreign => true,
            Self::Blank | Self::Installed | Self::Unknown | Self::Wiped | Self::Decommissioned => false,
        }
    }
}

/// The live job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// Its id, as logs and history name it.
    #[schemars(length(max = 16))]
    pub id: String,
    /// What it does.
    pub action: Action,
    /// The lane that it waits in.
    pub priority: Lane,
    /// Where it stands.
    pub state: JobState,
    /// The present step.
    pub step: Step,
    /// Tries of the present step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i64>,
    /// When it was enqueued.
    pub enqueued_at: Time,
    /// When a worker first took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// What it waits for; absent while it runs.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<WaitingFor>,
    /// What the machine's installer told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<JobProgress>,
}

/// The last job that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastJobStatus {
    /// Its id, as logs and history name it.
    #[schemars(length(max = 16))]
    pub id: String,
    /// What it did.
    pub action: Action,
    /// How it ended.
    pub result: JobResult,
    /// Why, where it did not succeed.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::Reason>,
    /// The exact reason, where the release before has no word for it and `reason` is the nearest one that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub exact_reason: Option<String>,
    /// A sentence for people about the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1100))]
    pub message: Option<String>,
    /// The step in which it ended.
    pub step: Step,
    /// When it was enqueued.
    pub enqueued_at: Time,
    /// When a worker first took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Time,
}

/// Reads a value that another release may have written: one that this release does not know says nothing to it. What decides on
/// harm (image, times, tokens, identity) has no such values, and is read strictly.
fn known<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// The same for what is on the disks: whatever a word of a newer release means, it is not given up by itself.
fn somebodys<'de, D>(deserializer: D) -> Result<Option<DiskContents>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.map(|value| serde_json::from_value(value).unwrap_or(DiskContents::Foreign)))
}

impl ServerStatus {
    /// Whether it shows this job as the live one.
    pub fn shows(&self, id: JobId, action: Action) -> bool {
        self.job.as_ref().is_some_and(|job| JobId::parse(&job.id) == Some(id) && job.action == action)
    }
}

impl LastJobStatus {
    /// Why it ended so, in the words of this release.
    pub fn why(&self) -> Option<super::Reason> {
        self.reason.map(|reason| super::Reason::exact(reason, self.exact_reason.as_deref()))
    }
}

/// What was found, and what is being done about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// The generation of spec that this status speaks of; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the server stands, in one word. For people: programs read the conditions.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The power state as it was last read.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerState>,
    /// What is installed; absent while nothing is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,
    /// What is on the disks, in one word. What the database says against it counts where a job in status explains it.
    #[serde(default, deserialize_with = "somebodys", skip_serializing_if = "Option::is_none")]
    pub contents: Option<DiskContents>,
    /// When the disks were erased, and the installer said so; absent where anything may be on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wiped_at: Option<Time>,
    /// When the machine's life ended. It stays ended, whatever spec says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decommissioned_at: Option<Time>,
    /// What is in the machine, as its BMC tells.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// The BMC itself: its firmware, and what it does in another way than others.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcStatus>,
    /// The live job. Inspections after the first one do not show.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// The last job that ended.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub last_job: Option<LastJobStatus>,
    /// The id of the job that switched the machine off and has ended, while the machine is not on again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub left_off_by: Option<String>,
    /// The last values of spec.rebootToken that count as handled, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub reboot_tokens: Vec<String>,
    /// The last values of spec.reimageToken that count as handled, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub reimage_tokens: Vec<String>,
    /// The value of the annotation autobuild.dev/reconcile-requested-at that was acted on last; a long one by its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub last_handled_reconcile_at: Option<String>,
    /// The machine that answered first; another one at the same address is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_identity: Option<HardwareIdentity>,
    /// Ready, Reachable, Fresh and, where power or an image is wished, PowerSynced and ImageSynced; Reconciling, Stalled, Paused and InsecureTLS
    /// only while they are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Fields that the definition of another release has, and this one does not: none of them is ours.
    #[serde(flatten, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl ServerStatus {
    /// Whether the controller ever wrote it: the schema's default is no writing.
    pub fn was_written(&self) -> bool {
        self.observed_generation.is_some_and(|generation| generation >= 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written() -> Value {
        let at = "2026-01-01T00:00:00Z";
        json!({
            "observedGeneration": 3,
            "phase": "Ready",
            "power": "PoweredOn",
            "image": { "name": "debian", "digest": "sha256:1", "installedAt": at },
            "wipedAt": at,
            "hardware": { "model": "m", "nics": [{ "name": "1" }], "unread": ["Disks"] },
            "job": { "id": "1", "action": "Reboot", "priority": "High", "state": "Waiting", "step": "PowerOff", "enqueuedAt": at,
                "waitingFor": "Worker" },
            "lastJob": { "id": "2", "action": "Reboot", "result": "Failed", "reason": "Pending", "step": "PowerOn",
                "enqueuedAt": at, "finishedAt": at },
            "rebootTokens": ["one"],
            "conditions": [],
        })
    }

    /// Every string of a tree that is the name of something closed, by its path.
    fn names(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| names(&format!("{path}/{key}"), value, found));
            }
            Value::Array(values) => {
                (0..).zip(values).for_each(|(at, value)| names(&format!("{path}/{at}"), value, found));
            }
            Value::String(text) if text.chars().next().is_some_and(char::is_uppercase) => {
                found.push(path.to_owned());
            }
            _ => {}
        }
    }

    #[test]
    fn a_value_that_a_newer_release_wrote_hides_no_other() {
        let mut closed = Vec::new();
        names("", &written(), &mut closed);
        assert_eq!(closed.len(), 12, "{closed:?}");
        for path in closed {
            let mut of_tomorrow = written();
            *of_tomorrow.pointer_mut(&path).unwrap() = json!("OfTomorrow");
            let read: ServerStatus = serde_json::from_value(of_tomorrow).unwrap();
            assert_eq!(read.observed_generation, Some(3), "{path}");
            assert!(read.image.is_some() && read.wiped_at.is_some(), "{path}");
            assert_eq!(read.reboot_tokens, ["one"], "{path}");
            let parts =
                [read.phase.is_some(), read.power.is_some(), read.job.is_some(), read.last_job.is_some()];
            assert!(parts.iter().filter(|there| !**there).count() <= 1, "{path}: {parts:?}");
        }
    }

    #[test]
    fn what_decides_on_harm_is_read_strictly() {
        for (field, value) in
            [("image", json!("x")), ("wipedAt", json!("never")), ("rebootTokens", json!("one"))]
        {
            let mut spoilt = written();
            spoilt[field] = value;
            assert!(serde_json::from_value::<ServerStatus>(spoilt).is_err(), "{field}");
        }
    }
}
