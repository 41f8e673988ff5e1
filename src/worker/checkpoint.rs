//! What a job's next step, or its next worker, has to know: stored with the job, never a secret.

use serde::{Deserialize, Serialize};

use crate::api::hardware::{HardwareIdentity, PowerState};
use crate::api::{BmcSpec, BootMethod};
use crate::job::{JobResult, Problem, RequestKind, Step};

/// A request that the BMC accepted in the present step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    /// What was asked for.
    pub kind: RequestKind,
    /// When, milliseconds since the Unix epoch by the database's clock.
    pub at_ms: i64,
}

/// How the job ends once its undo steps have run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    /// The result.
    pub result: JobResult,
    /// Why.
    pub problem: Problem,
    /// The step in which that was met: the undo steps come after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
}

/// The checkpoint of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Checkpoint {
    /// The BMC that the first request went to: later steps and the undo go to the same one, whatever spec says then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcSpec>,
    /// The last request of this step that the BMC accepted; an undo step may have none yet: see `undone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    /// The last request of this step whose answer never came: an undo must reckon with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<Accepted>,
    /// Present while undo steps run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// While undo steps run: the request that changed the power last, or may have. It may still take effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone: Option<Accepted>,
    /// What is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// Which machine the first request went to: nothing is ever sent to another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<HardwareIdentity>,
    /// Since when something is in the way of what was begun, milliseconds since the Unix epoch by the database's clock; a
    /// step that came to its end clears it, but not while it is undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_the_way_since_ms: Option<i64>,
}

/// What an installation has to know from its first request on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Install {
    /// The name of the `OSImage`.
    pub image: String,
    /// The digest of its spec.
    pub digest: String,
    /// The MAC address that boots.
    pub mac: String,
    /// How it boots.
    pub method: BootMethod,
    /// Whether the machine was on before.
    pub power_before: PowerState,
    /// The SHA-256 (hexadecimal) of the token in the address of the medium that was inserted last, or is about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_hash: Option<String>,
}

impl Checkpoint {
    /// Reads what an earlier claim left. What cannot be read counts as nothing: every step begins with a look at the
    /// machine, so it is merely forgotten how long it has been waited for.
    pub(super) fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::warn!(%error, "a job's checkpoint cannot be read; the step starts afresh");
            Self::default()
        })
    }

    /// The stored form.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The checkpoint of the next step.
    pub(super) fn next_step(&self) -> Self {
        let in_the_way_since_ms = self.in_the_way_since_ms.filter(|_| self.ending.is_some());
        Self { accepted: None, unanswered: None, in_the_way_since_ms, ..self.clone() }
    }

    /// The last request of this step; in an undo step without one of its own, the one that is undone.
    pub(super) fn accepted(&self) -> Option<Accepted> {
        self.accepted.or(self.undone)
    }

    /// The checkpoint of the undo: what was accepted, or may have been, may still take effect.
    pub(super) fn undo_step(&self, ending: Ending) -> Self {
        let undone = self.accepted.or(self.unanswered);
        Self { accepted: None, unanswered: None, undone, ending: Some(ending), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_its_text_and_an_unknown_one_is_empty() {
        let checkpoint = Checkpoint {
            bmc: Some(BmcSpec { address: "redfish+https://192.0.2.1".into(), ..BmcSpec::default() }),
            accepted: Some(Accepted { kind: RequestKind::ForceOff, at_ms: 7 }),
            ..Checkpoint::default()
        };
        assert_eq!(Checkpoint::parse(&checkpoint.text()), checkpoint);
        for text in ["", "{}", "nonsense", r#"{"accepted": {"kind": "Levitate", "at_ms": 1}}"#] {
            assert_eq!(Checkpoint::parse(text), Checkpoint::default(), "{text}");
        }
    }
}
