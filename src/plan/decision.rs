//! What may be decided: a closed set, one command per pass.

use serde::Serialize;

use super::Work;
use crate::api::Reason;
use crate::job::{Cause, Contents, Debt, FinishedJob, HandledTokens, JobId, Lane, TokenValue};

/// Why a server has no record yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NewRecord {
    /// It was never seen.
    FirstSight,
    /// Its status was written before, so the database lost its record.
    Rebuilt,
}

/// How a server is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Farewell {
    /// Nothing was left to do.
    Clean,
    /// A job had begun something that was not undone in time.
    WithoutUndo,
    /// A job had switched the machine off, and it could not be switched on again in time.
    LeftPoweredOff,
    /// `deletionPolicy` asked for a power-off that did not come true.
    WithoutPowerOff,
    /// `deletionPolicy` asked for erased disks, and nothing says that they are: a person let it go.
    WithoutWipe,
}

/// The one thing to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Nothing, and why.
    Nothing(Reason),
    /// Put the finalizer on the object.
    AddFinalizer,
    /// Make the record of a server that has none.
    Register {
        /// Why it has none.
        why: NewRecord,
        /// The tokens that count as handled from the start.
        handled: HandledTokens,
        /// What is on its disks, where anything is known of that.
        #[serde(skip_serializing_if = "Option::is_none")]
        contents: Option<Contents>,
    },
    /// Claim the BMC at this normalised address for this server; the claim of another address goes.
    ClaimBmc {
        /// The normalised address.
        address: String,
    },
    /// Bring the machine, whose life had ended under another `Server`, back into service.
    Recommission,
    /// Enqueue this, on the version of what is known that was observed.
    Enqueue(Work),
    /// Take a job that never started out of the queue, or ask one that did to stop.
    Cancel {
        /// The job that was seen.
        id: JobId,
        /// Why.
        reason: Reason,
    },
    /// Move a job to another lane.
    Reprioritize {
        /// The job that was seen.
        id: JobId,
        /// The lane that spec asks for now.
        lane: Lane,
    },
    /// Wake a job: what it waits for may have come.
    WakeJob {
        /// The job that was seen.
        id: JobId,
    },
    /// Record a token as handled without acting on it.
    RecordHandled {
        /// The token and its value.
        token: TokenValue,
        /// Why it is not acted on.
        reason: Reason,
    },
    /// Record what is on the machine's disks without touching it.
    RecordContents {
        /// What is there.
        contents: Contents,
    },
    /// Record the failure of a job that status shows as begun and of which the database knows nothing.
    RecordLost {
        /// How it ended.
        job: FinishedJob,
        /// The circumstances: its intent is not tried again before they differ.
        cause: Cause,
        /// What it owes its machine, where it may have switched it off.
        #[serde(skip_serializing_if = "Option::is_none")]
        debt: Option<Debt>,
    },
    /// Record that a machine has to be on again, or that nothing is owed any more.
    RecordDebt {
        /// What is owed.
        debt: Option<Debt>,
    },
    /// Forget the server: its job if one is left, its claims, its record; then the finalizer goes.
    Release(Farewell),
}

/// What to do, and when to look again although nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The one thing to do next.
    pub command: Command,
    /// Milliseconds until the next look; `None`: only when something happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recheck_after_ms: Option<i64>,
}
