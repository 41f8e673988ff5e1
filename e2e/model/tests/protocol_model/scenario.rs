//! How much may go wrong in a run, and which run shows what a rule is for.

use crate::rules::Rule;
use crate::state::Budget;

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
    /// The database loses any number of its last commits to a failover.
    Failover,
    /// The same while a wish is taken back.
    FailoverAndWish,
    /// The same with one fault, before it or after.
    FailoverAndFault,
    /// A machine is being installed, and may be started again by somebody, while the database is failed over.
    Scripts,
    /// Three jobs, of which two need a permit of a class that has one.
    Permits,
    /// Queued jobs change their lane while they are claimed.
    Lanes,
    /// Two enqueues in one transaction.
    BatchedEnqueues,
    /// Two writes of a worker in one transaction.
    BatchedWrites,
    /// Wishes that come while a machine is being looked at, and caches that lag.
    Looks,
    /// A database of two nodes, with the errors of clusters.
    Cluster,
}

impl Scenario {
    pub(crate) const ALL: [Scenario; 17] = [
        Scenario::OneFault,
        Scenario::MadeAgain,
        Scenario::Replaced,
        Scenario::Failure,
        Scenario::DeposedLeader,
        Scenario::Fault,
        Scenario::TwoFaults,
        Scenario::FaultAndDeposedLeader,
        Scenario::Failover,
        Scenario::FailoverAndWish,
        Scenario::Scripts,
        Scenario::Permits,
        Scenario::Lanes,
        Scenario::BatchedEnqueues,
        Scenario::BatchedWrites,
        Scenario::Looks,
        Scenario::Cluster,
    ];

    /// Takes about as long as a third of the others together: walked with `PROTOCOL_LONG=1`.
    pub(crate) const LONG: [Scenario; 1] = [Scenario::FailoverAndFault];

    /// The number of tokens that a person may wish for.
    pub(crate) const fn tokens(self) -> u8 {
        if matches!(self, Scenario::Replaced) { 2 } else { 1 }
    }

    pub(crate) const fn budget(self) -> Budget {
        let calm = Budget { wishes: 1, faults: 0, failures: 0, stale: 0, takeovers: 0, failovers: 0 };
        match self {
            Scenario::OneFault => Budget { faults: 1, ..calm },
            Scenario::MadeAgain => Budget { wishes: 3, ..calm },
            Scenario::Replaced => Budget { wishes: 2, ..calm },
            Scenario::Failure => Budget { failures: 1, stale: 1, takeovers: 1, ..calm },
            Scenario::DeposedLeader => Budget { wishes: 2, stale: 1, ..calm },
            Scenario::Fault => Budget { wishes: 2, faults: 1, ..calm },
            Scenario::TwoFaults => Budget { faults: 2, ..calm },
            Scenario::FaultAndDeposedLeader => Budget { faults: 1, stale: 1, ..calm },
            Scenario::Failover => Budget { failovers: 1, ..calm },
            Scenario::FailoverAndWish => Budget { wishes: 2, failovers: 1, ..calm },
            Scenario::FailoverAndFault => Budget { faults: 1, failovers: 1, ..calm },
            Scenario::Scripts
            | Scenario::Permits
            | Scenario::Lanes
            | Scenario::BatchedEnqueues
            | Scenario::BatchedWrites
            | Scenario::Looks
            | Scenario::Cluster => calm,
        }
    }
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
            Rule::SecondWitness
            | Rule::AnotherHistoryEndsIncarnation
            | Rule::QuietAfterFailover
            | Rule::DeriveBeforeClaims
            | Rule::DeriveFromLiveStatus
            | Rule::HandledInStatusToo
            | Rule::RunningIsLost
            | Rule::HandledIsLost
            | Rule::LostIsHandled
            | Rule::LostIsUndone => Scenario::Failover,
            Rule::GivenGoesOn | Rule::OnlyGivenGoesOn | Rule::ScriptInOneHistory => Scenario::Scripts,
            Rule::PermitWithClaim
            | Rule::PermitBackOnPark
            | Rule::PermitKeptOnceActed
            | Rule::WokenWaitsForPermit
            | Rule::UndoNeedsNoPermit
            | Rule::PermitBackWithRow
            | Rule::GiveBackOnlyHeld
            | Rule::SweepRepairsCount
            | Rule::SweepCountsUnderLock
            | Rule::BoundedWaitApart => Scenario::Permits,
            Rule::MoveChecksKeyAgain
            | Rule::MissingRowIsBusy
            | Rule::MoveAnswersBusy
            | Rule::MoveIsOneTransaction
            | Rule::MoveWritesKey
            | Rule::MoveKeepsAge
            | Rule::ShortClaimLooksAgain => Scenario::Lanes,
            Rule::UnknownIsRepeated
            | Rule::EnqueueKnowsItsId
            | Rule::AnswerPerItem
            | Rule::StaleItemIsUndone
            | Rule::DuplicateRollsBack => Scenario::BatchedEnqueues,
            Rule::UnknownIsReadBack | Rule::ReadBackByRevision => Scenario::BatchedWrites,
            Rule::MarkedLookIsTold
            | Rule::MarkIsReadAtTheEnd
            | Rule::ReadsAreMonotonic
            | Rule::DecidedGenerationIsStored => Scenario::Looks,
            Rule::ErrorAtCommitIsUnknown | Rule::HalfIsClosed | Rule::OneWriter | Rule::PrimaryOfItsGroup => {
                Scenario::Cluster
            }
        }
    }
}
