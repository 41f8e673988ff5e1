//! How a step and how a job ends.

use serde::{Deserialize, Serialize};

use super::WaitingFor;
use crate::api::Reason;

/// Why something did not go on: one closed reason and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredProblem", into = "StoredProblem")]
pub struct Problem {
    /// The closed reason; also the condition reason, the log field and the metric label.
    pub reason: Reason,
    /// One sentence with what was seen and what to try; never a secret, at most [`Problem::MESSAGE_MAX`] bytes.
    pub message: String,
}

/// How it is stored: the release before reads `reason`.
#[derive(Serialize, Deserialize)]
struct StoredProblem {
    reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact_reason: Option<String>,
    message: String,
}

impl From<Problem> for StoredProblem {
    fn from(Problem { reason, message }: Problem) -> Self {
        let exact_reason = reason.beside_served().map(|exact| exact.as_str().to_owned());
        Self { reason: reason.served(), exact_reason, message }
    }
}

impl From<StoredProblem> for Problem {
    fn from(stored: StoredProblem) -> Self {
        Self::stored(stored.reason, stored.exact_reason.as_deref(), stored.message)
    }
}

impl Problem {
    /// What is stored as two words: the one that the oldest release served knows, and the exact one beside it.
    pub fn stored(served: Reason, exact: Option<&str>, message: String) -> Self {
        Self { reason: Reason::exact(served, exact), message }
    }

    /// The longest message kept, in bytes.
    pub const MESSAGE_MAX: usize = 1024;

    /// A problem; an over-long message is cut at a character boundary.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > Self::MESSAGE_MAX {
            let cut = (0..=Self::MESSAGE_MAX - 3).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
            message.push('…');
        }
        Self { reason, message }
    }
}

/// What a step came to. "Not yet" is data, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// The step is done; the job goes on with the next one.
    Next,
    /// Nothing to do now: look again after `after_ms`, or when something signals the job.
    Park {
        /// Milliseconds from now.
        after_ms: i64,
        /// What is waited for.
        waiting_for: WaitingFor,
    },
    /// The whole job is done, whatever steps are left.
    Done,
    /// Something transient is in the way; the step runs again after the back-off of its class.
    Retry {
        /// Milliseconds from now; at least what the BMC asked for.
        after_ms: i64,
        /// What is in the way.
        problem: Problem,
    },
    /// The wish changed, or is fulfilled already; nothing was sent and the job ends.
    Superseded {
        /// Why.
        problem: Problem,
    },
    /// The job cannot succeed: its undo steps run, then it ends.
    Failed {
        /// Why.
        problem: Problem,
    },
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum JobResult {
    /// The wish came true and was read back.
    Succeeded,
    /// It failed for good; the reason says why.
    Failed,
    /// It was asked to stop; what had begun was undone.
    Cancelled,
    /// The wish had changed, or was fulfilled already, before the first request was sent.
    Superseded,
}

impl JobResult {
    /// Every result, in a fixed order.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Superseded];

    /// The name in the API, the database, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Superseded => "Superseded",
        }
    }

    /// The result of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.as_str() == name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    /// Every reason of the release before.
    const OF_RELEASE_BEFORE: &str = include_str!("../../e2e/release_before/reasons.txt");

    #[test]
    fn the_release_before_reads_every_stored_reason_and_this_one_the_exact_one() {
        let known = |word: &str| OF_RELEASE_BEFORE.lines().any(|line| line == word);
        for reason in Reason::ALL {
            let problem = Problem::new(*reason, "m");
            let stored = serde_json::to_value(&problem).unwrap();
            let word = stored["reason"].as_str().unwrap();
            assert!(known(word), "{reason} is stored as {word}");
            assert_eq!(stored.get("exact_reason").is_some(), !known(reason.as_str()), "{reason}");
            assert_eq!(serde_json::from_value::<Problem>(stored).unwrap(), problem);
        }
    }

    #[test]
    fn an_exact_reason_of_another_release_says_nothing() {
        let of = |served: &str, exact: &str| {
            let text = format!(r#"{{"reason":"{served}","exact_reason":"{exact}","message":""}}"#);
            serde_json::from_str::<Problem>(&text).unwrap().reason
        };
        assert_eq!(of("PowerStateMismatch", "LeftPoweredOff"), Reason::LeftPoweredOff);
        assert_eq!(of("PowerStateMismatch", "OfTomorrow"), Reason::PowerStateMismatch);
        assert_eq!(
            of("Unreachable", "LeftPoweredOff"),
            Reason::Unreachable,
            "an older release wrote the first word since"
        );
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let problem = Problem::new(Reason::Unreachable, "ä".repeat(2000));
        assert!(problem.message.len() <= Problem::MESSAGE_MAX);
        assert!(problem.message.ends_with('…'));
    }
}
