//! What a job is: actions, their steps, intents, outcomes, retry policy. Pure: no clock, no I/O.
//!
//! Everything here is a closed set. A new action, step, request or reason for waiting is first a value of an
//! enum in this module; the compiler then lists the places that must learn about it.

mod action;
mod asked;
#[cfg(test)]
pub(crate) mod asked_table;
mod boot_purpose;
mod card;
mod cause;
mod contents;
mod debt;
mod event;
mod ids;
mod intent;
mod known;
mod live;
mod named_hash;
mod outcome;
mod permit;
mod priority;
mod read_through;
mod request;
mod retry;
mod step;

pub use action::{Action, Effect};
pub use asked::{Asked, Objection, PROVISIONING, Stage, is_given, is_unhandled};
pub use boot_purpose::BootPurpose;
pub use card::not_its_card;
pub use cause::{Cause, Circumstance};
pub use contents::{BootEvidence, Contents, InstallProgress, InstalledImage, Origin, Witnessed};
pub use debt::{Debt, Tried};
pub use event::{Event, Medium, Tokens};
pub use ids::{Incarnation, JobId, ServerUid, Token};
pub use intent::{Deleting, Intent, SecretVersion, Wish, asks_for_off};
pub use known::{
    ClaimRefusal, EndedMachine, FinishedJob, HANDLED_TOKENS_KEPT, HandledTokens, Known, Reading,
    ReconcileRequest, StoredFailure, TokenKind, TokenValue, Unanswered,
};
pub use live::{JobState, LiveJob, UnreadableJob, Visibility, WaitingFor};
pub use outcome::{JobResult, Problem, StepOutcome};
pub use permit::PermitClass;
pub use priority::{Lane, order_key};
pub use read_through::ReadThrough;
pub use request::{RequestKind, StoredRequest};
pub use retry::{RetryClass, backoff};
pub use step::Step;
