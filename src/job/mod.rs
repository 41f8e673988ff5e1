//! What a job is: actions, their steps, intents, outcomes, retry policy. Pure: no clock, no I/O.
//!
//! Everything here is a closed set. A new action, step, request or reason for waiting is first a value of an
//! enum in this module; the compiler then lists the places that must learn about it.

mod action;
mod asked;
mod boot_purpose;
mod contents;
mod debt;
mod ids;
mod intent;
mod known;
mod live;
mod outcome;
mod permit;
mod priority;
mod request;
mod retry;
mod step;

pub use action::{Action, Effect};
pub use boot_purpose::BootPurpose;
pub use contents::{BootEvidence, Contents, InstallProgress, InstalledImage, Origin};
pub use debt::{Debt, Tried};
pub use ids::{Incarnation, JobId, ServerUid, Token};
pub use intent::{Cause, Deleting, Intent, SecretVersion, Wish};
pub use known::{
    ClaimRefusal, EndedMachine, FinishedJob, HANDLED_TOKENS_KEPT, HandledTokens, Known, Reading,
    StoredFailure, TokenKind, TokenValue, Unanswered,
};
pub use live::{JobState, LiveJob, UnreadableJob, Visibility, WaitingFor};
pub use outcome::{JobResult, Problem, StepOutcome};
pub use permit::PermitClass;
pub use priority::{Lane, order_key};
pub use request::{RequestKind, StoredRequest};
pub use retry::{RetryClass, backoff};
pub use step::Step;
