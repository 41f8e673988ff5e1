//! The rules of the protocol, each of which can be switched off.

use std::fmt;

use crate::state::Budget;

/// One rule. Its sentence says what the protocol does; the model shows what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// A worker reads the `Server` live inside every claim, before the first mutating step.
    ConfirmInEveryClaim,
    /// It reads it again after a probe said that the request did not happen.
    ConfirmAgainAfterProbe,
    /// Every mutating request is stored before it is sent, power on as well as power off.
    StoreBeforeSend,
    /// A request is sent only while its stored settle time still covers it; else it is stored anew.
    SendWithinSettle,
    /// The sender itself waits for the answer or for the end of the settle time.
    SenderWaitsForSettle,
    /// A successor that finds an unresolved request waits the whole settle time.
    SuccessorWaitsForSettle,
    /// A cancel mark cuts no settle time short.
    CancelWaitsForSettle,
    /// After the settle time the machine is probed; no reset is repeated blindly.
    ProbeBeforeRepeat,
    /// The token counts as handled in the transaction that stores the first mutating request.
    HandledWithFirstRequest,
    /// Once off was sent, a cancelled job still ends with on.
    UndoBeforeEnd,
    /// Every write of a worker names the token of its claim.
    WritesNameTheToken,
    /// The token becomes NULL in every transaction that puts the job back into the queue.
    ReleaseClearsTheToken,
    /// A worker touches no hardware once its lease is over by its own clock.
    StopBeforeLeaseEnds,
    /// The reaper tombstones the worker before it takes its jobs.
    TombstoneFirst,
    /// A claim holds the worker's own row and requires it alive.
    ClaimOnlyAlive,
    /// A worker hands back the jobs that name it as owner and that it does not run.
    HandBackUnknownClaims,
    /// A park is conditional on `signals`.
    ParkOnUnchangedSignals,
    /// `signals` is read before the evidence.
    SignalsBeforeEvidence,
    /// Evidence, signal and wake-up are one transaction.
    EvidenceWithSignal,
    /// A cancel mark sends a parked job to `ready` at once.
    CancelWakes,
    /// Only a job with the id that was seen, and never claimed, is deleted; checked under its lock.
    DeleteOnlyUnclaimed,
    /// An enqueue counts only if `server_state.version` is still the one that was decided on.
    EnqueueOnVersion,
    /// A failure for good is stored, and its intent is not enqueued again.
    FailureIsStored,
    /// An enqueue raises the version and enters the feed.
    FeedOnEnqueue,
    /// The first claim of a job raises the version and enters the feed.
    FeedOnFirstClaim,
    /// Storing the first request (the token is handled now) raises the version and enters the feed.
    FeedOnHandled,
    /// An advance raises the version and enters the feed.
    FeedOnAdvance,
    /// A cancel mark raises the version and enters the feed.
    FeedOnCancel,
    /// A deletion of a job that never started raises the version and enters the feed.
    FeedOnDelete,
    /// A superseded job raises the version and enters the feed.
    FeedOnSupersede,
    /// A completion raises the version and enters the feed.
    FeedOnComplete,
    /// The feed is acknowledged only at the version that was read.
    AcknowledgeOnVersion,
    /// The feed is acknowledged only after an accepted patch: a conflict is no acceptance.
    AcknowledgeAfterPatch,
    /// A change of status alone triggers a reconcile too.
    StatusChangesTrigger,
    /// A status patch carries the resourceVersion of the object that was read.
    StatusOnResourceVersion,
    /// The object is taken from the cache before the row is read, never after it.
    ObjectBeforeRow,
}

impl Rule {
    /// All rules, in the order of the page that explains them.
    pub(crate) const ALL: [Rule; 36] = [
        Rule::ConfirmInEveryClaim,
        Rule::ConfirmAgainAfterProbe,
        Rule::StoreBeforeSend,
        Rule::SendWithinSettle,
        Rule::SenderWaitsForSettle,
        Rule::SuccessorWaitsForSettle,
        Rule::CancelWaitsForSettle,
        Rule::ProbeBeforeRepeat,
        Rule::HandledWithFirstRequest,
        Rule::UndoBeforeEnd,
        Rule::WritesNameTheToken,
        Rule::ReleaseClearsTheToken,
        Rule::StopBeforeLeaseEnds,
        Rule::TombstoneFirst,
        Rule::ClaimOnlyAlive,
        Rule::HandBackUnknownClaims,
        Rule::ParkOnUnchangedSignals,
        Rule::SignalsBeforeEvidence,
        Rule::EvidenceWithSignal,
        Rule::CancelWakes,
        Rule::DeleteOnlyUnclaimed,
        Rule::EnqueueOnVersion,
        Rule::FailureIsStored,
        Rule::FeedOnEnqueue,
        Rule::FeedOnFirstClaim,
        Rule::FeedOnHandled,
        Rule::FeedOnAdvance,
        Rule::FeedOnCancel,
        Rule::FeedOnDelete,
        Rule::FeedOnSupersede,
        Rule::FeedOnComplete,
        Rule::AcknowledgeOnVersion,
        Rule::AcknowledgeAfterPatch,
        Rule::StatusChangesTrigger,
        Rule::StatusOnResourceVersion,
        Rule::ObjectBeforeRow,
    ];
}

impl Rule {
    /// The smallest scenario that shows what happens without this rule.
    pub(crate) fn shown_in(self) -> Scenario {
        match self {
            Rule::HandledWithFirstRequest
            | Rule::UndoBeforeEnd
            | Rule::ParkOnUnchangedSignals
            | Rule::SignalsBeforeEvidence
            | Rule::EvidenceWithSignal
            | Rule::CancelWakes
            | Rule::DeleteOnlyUnclaimed
            | Rule::FeedOnEnqueue
            | Rule::FeedOnFirstClaim
            | Rule::FeedOnHandled
            | Rule::FeedOnAdvance
            | Rule::FeedOnCancel
            | Rule::FeedOnDelete
            | Rule::FeedOnSupersede
            | Rule::FeedOnComplete
            | Rule::AcknowledgeOnVersion => Scenario::MadeAgain,
            Rule::EnqueueOnVersion | Rule::FailureIsStored => Scenario::Failure,
            Rule::AcknowledgeAfterPatch
            | Rule::StatusChangesTrigger
            | Rule::StatusOnResourceVersion
            | Rule::ObjectBeforeRow => Scenario::DeposedLeader,
            Rule::ConfirmInEveryClaim
            | Rule::ConfirmAgainAfterProbe
            | Rule::StoreBeforeSend
            | Rule::SendWithinSettle
            | Rule::SenderWaitsForSettle
            | Rule::SuccessorWaitsForSettle
            | Rule::CancelWaitsForSettle
            | Rule::ProbeBeforeRepeat
            | Rule::WritesNameTheToken
            | Rule::ReleaseClearsTheToken
            | Rule::StopBeforeLeaseEnds
            | Rule::TombstoneFirst
            | Rule::ClaimOnlyAlive => Scenario::Fault,
            Rule::HandBackUnknownClaims => Scenario::OneFault,
        }
    }
}

/// How much may go wrong in a run. Each of these is explored to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// One of: crash, freeze, hand-back, lost answer to a claim.
    OneFault,
    /// A wish is made, taken back and made again, at any moments.
    MadeAgain,
    /// A wish is replaced by another.
    Replaced,
    /// A job fails for good, a second leader acts on what it once saw, and a leader dies.
    Failure,
    /// A wish is taken back while a second leader acts on what it once saw.
    DeposedLeader,
    /// A wish is taken back, and one fault.
    Fault,
    /// Two such faults.
    TwoFaults,
    /// One such fault while a second leader acts on what it once saw.
    FaultAndDeposedLeader,
}

impl Scenario {
    pub(crate) const ALL: [Scenario; 8] = [
        Scenario::OneFault,
        Scenario::MadeAgain,
        Scenario::Replaced,
        Scenario::Failure,
        Scenario::DeposedLeader,
        Scenario::Fault,
        Scenario::TwoFaults,
        Scenario::FaultAndDeposedLeader,
    ];

    /// The number of tokens that a person may wish for.
    pub(crate) const fn tokens(self) -> u8 {
        if matches!(self, Scenario::Replaced) { 2 } else { 1 }
    }

    pub(crate) const fn budget(self) -> Budget {
        let calm = Budget { wishes: 1, faults: 0, failures: 0, stale: 0, takeovers: 0 };
        match self {
            Scenario::OneFault => Budget { faults: 1, ..calm },
            Scenario::MadeAgain => Budget { wishes: 3, ..calm },
            Scenario::Replaced => Budget { wishes: 2, ..calm },
            Scenario::Failure => Budget { failures: 1, stale: 1, takeovers: 1, ..calm },
            Scenario::DeposedLeader => Budget { wishes: 2, stale: 1, ..calm },
            Scenario::Fault => Budget { wishes: 2, faults: 1, ..calm },
            Scenario::TwoFaults => Budget { faults: 2, ..calm },
            Scenario::FaultAndDeposedLeader => Budget { faults: 1, stale: 1, ..calm },
        }
    }
}

/// Which rules hold in a run.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    off: u64,
}

impl Rules {
    /// The protocol as it is.
    pub(crate) const ALL_ON: Rules = Rules { off: 0 };

    /// The protocol without one rule.
    pub(crate) const fn without(rule: Rule) -> Rules {
        Rules { off: 1 << rule as u64 }
    }

    /// Whether this rule holds.
    pub(crate) const fn on(self, rule: Rule) -> bool {
        self.off & (1 << rule as u64) == 0
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Rule::ALL.iter().filter(|rule| !self.on(**rule))).finish()
    }
}
