//! What a job's next step, or its next worker, has to know: stored with the job, never a secret.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::hardware::{HardwareIdentity, PowerState};
use crate::api::{BmcSpec, BootMethod, Reason};
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
    /// Since when the BMC has refused, in this step, to shut the machine down softly: so long its time for it has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_refused_ms: Option<i64>,
    /// What is told with the job's end though it succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<Problem>,
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
    /// Since when status does not show the job although the controller has heard of it, milliseconds since the Unix epoch by the
    /// database's clock: see `witness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unshown_since_ms: Option<i64>,
    /// That a worker wrote all this: see `seal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
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
    /// Who says that it is a card of this machine.
    #[serde(default)]
    pub card: CardChoice,
    /// How it boots.
    pub method: BootMethod,
    /// Whether the machine was on before.
    pub power_before: PowerState,
    /// The SHA-256 (hexadecimal) of the token in the address of the medium that was inserted last, or is about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_hash: Option<String>,
}

/// How the card that boots was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CardChoice {
    /// Spec names it, and the BMC tells of it.
    #[default]
    Told,
    /// Spec names it, and the BMC tells of no card.
    Wished,
    /// Spec names none: it is the first one that the BMC tells of.
    Guessed,
}

impl Checkpoint {
    /// Reads what an earlier claim left. What this release does not know, or would lose with its next write, is another
    /// release's: without it an undo could turn into going forward.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let of_another = |what: String| {
            let message = format!(
                "the job's checkpoint is of another release of AutoBuild ({what}): nothing is done until a worker of that \
                 release takes the job; run one, or finish the upgrade"
            );
            Problem::new(Reason::UnsupportedJob, message)
        };
        let stored: Value = serde_json::from_str(text).map_err(|_| of_another("it is no JSON".to_owned()))?;
        let read: Self = serde_json::from_str(text).map_err(|error| of_another(cut(&error.to_string())))?;
        let kept = serde_json::to_value(&read).unwrap_or_default();
        match lost(&stored, &kept) {
            Some(field) => Err(of_another(format!("field {}", cut(&field)))),
            None => Ok(read),
        }
    }

    /// The stored form.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The checkpoint of the next step.
    pub(super) fn next_step(&self) -> Self {
        let in_the_way_since_ms = self.in_the_way_since_ms.filter(|_| self.ending.is_some());
        Self { accepted: None, unanswered: None, grace_refused_ms: None, in_the_way_since_ms, ..self.clone() }
    }

    /// Whether a request of this step may have been carried out.
    pub(super) fn has_acted(&self) -> bool {
        self.accepted.is_some() || self.unanswered.is_some()
    }

    /// The last request of this step; in an undo step without one of its own, the one that is undone.
    pub(super) fn accepted(&self) -> Option<Accepted> {
        self.accepted.or(self.undone)
    }

    /// The machine did not come on in the time that an accepted request has for it: where that is tried again, it is asked for
    /// again, by the undo too.
    pub(super) fn ask_to_switch_on_again(&mut self) {
        self.accepted = None;
        self.undone = self.undone.filter(|undone| undone.kind != RequestKind::PowerOn);
    }

    /// The checkpoint of the undo: what was accepted, or may have been, may still take effect.
    pub(super) fn undo_step(&self, ending: Ending) -> Self {
        let undone = self.accepted.or(self.unanswered);
        Self {
            accepted: None,
            unanswered: None,
            grace_refused_ms: None,
            undone,
            ending: Some(ending),
            ..self.clone()
        }
    }
}

/// The first field of what is stored that would not be written again.
fn lost(stored: &Value, kept: &Value) -> Option<String> {
    match (stored, kept) {
        (Value::Object(stored), Value::Object(kept)) => {
            stored.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
                let Some(kept) = kept.get(name) else { return Some(name.clone()) };
                lost(value, kept).map(|field| format!("{name}.{field}"))
            })
        }
        (stored, kept) => (stored != kept).then(String::new),
    }
}

/// Names and values of another release are told, not repeated at any length.
fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_did_not_come_is_asked_for_again_and_an_off_that_may_still_come_is_reckoned_with() {
        let on = Accepted { kind: RequestKind::PowerOn, at_ms: 7 };
        let off = Accepted { kind: RequestKind::GracefulShutdown, at_ms: 5 };
        for (undone, left) in [(Some(on), None), (Some(off), Some(off)), (None, None)] {
            let mut checkpoint = Checkpoint { accepted: Some(on), undone, ..Checkpoint::default() };
            checkpoint.ask_to_switch_on_again();
            assert_eq!(checkpoint.accepted(), left);
        }
    }

    #[test]
    fn a_checkpoint_survives_its_text_and_one_of_another_release_is_left_to_that_one() {
        let checkpoint = Checkpoint {
            bmc: Some(BmcSpec { address: "redfish+https://192.0.2.1".into(), ..BmcSpec::default() }),
            accepted: Some(Accepted { kind: RequestKind::ForceOff, at_ms: 7 }),
            ..Checkpoint::default()
        };
        assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
        for text in ["", "{}", r#"{"accepted": null}"#] {
            assert_eq!(Checkpoint::parse(text), Ok(Checkpoint::default()), "{text}");
        }
        for (text, named) in [
            ("nonsense", "JSON"),
            (r#"{"accepted": {"kind": "Levitate", "at_ms": 1}}"#, "Levitate"),
            (
                r#"{"ending": {"result": "Failed", "problem": {"reason": "Levitated", "message": ""}}}"#,
                "Levitated",
            ),
            (
                r#"{"ending": {"result": "Failed", "problem": {"reason": "Paused", "message": ""}, "step": "Fly"}}"#,
                "Fly",
            ),
            (r#"{"debt": {"power": "On"}}"#, "field debt"),
            (r#"{"accepted": {"kind": "PowerOn", "at_ms": 1, "by": "x"}}"#, "field accepted.by"),
            (
                r#"{"bmc": {"address": "a", "credentialsRef": {"name": "b"}, "proxy": "c"}}"#,
                "field bmc.proxy",
            ),
        ] {
            let problem = Checkpoint::parse(text).unwrap_err();
            assert_eq!(problem.reason, Reason::UnsupportedJob);
            assert!(problem.message.contains(named), "{text}: {}", problem.message);
        }
    }

    const KINDS: &[RequestKind] = &[RequestKind::ForceOff, RequestKind::PowerOn, RequestKind::InsertMedia];

    proptest::proptest! {
        #[test]
        fn whatever_was_written_is_read_as_it_was(at_ms: i64, kind in proptest::sample::select(KINDS), undoing: bool) {
            let accepted = Accepted { kind, at_ms };
            let ending = Ending {
                result: JobResult::Failed,
                problem: Problem::new(Reason::DeadlineExceeded, "\u{7}"),
                step: Some(Step::Off),
            };
            let before = Checkpoint { accepted: Some(accepted), unanswered: Some(accepted), ..Checkpoint::default() };
            let checkpoint = if undoing { before.undo_step(ending) } else { before };
            proptest::prop_assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
        }
    }
}
