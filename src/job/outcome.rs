//! How a step and how a job ends.

use serde::{Deserialize, Serialize};

use super::WaitingFor;
use crate::api::Reason;

/// Why something did not go on: one closed reason and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The closed reason; also the condition reason, the log field and the metric label.
    pub reason: Reason,
    /// One sentence with what was seen and what to try; never a secret, at most [`Problem::MESSAGE_MAX`] bytes.
    pub message: String,
}

impl Problem {
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
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let problem = Problem::new(Reason::Unreachable, "ä".repeat(2000));
        assert!(problem.message.len() <= Problem::MESSAGE_MAX);
        assert!(problem.message.ends_with('…'));
    }
}
