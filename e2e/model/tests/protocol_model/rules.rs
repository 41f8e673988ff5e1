//! The rules of the protocol, each of which can be switched off.

use std::fmt;

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
    /// A destructive job stores its first request only while the live status shows this very job as running.
    SecondWitness,
    /// A worker that finds another history ends its incarnation.
    AnotherHistoryEndsIncarnation,
    /// After a failover nobody claims for the longer of one lease and the longest settle time.
    QuietAfterFailover,
    /// After a failover nobody claims before the controller derived the state of the server again.
    DeriveBeforeClaims,
    /// The controller derives from the live status, not from its cache.
    DeriveFromLiveStatus,
    /// What status has as handled is handled, whatever the database says.
    HandledInStatusToo,
    /// A destructive job that status shows as running is lost where it has anything to send, whatever the database says of it.
    RunningIsLost,
    /// A destructive job whose token status has as handled is lost.
    HandledIsLost,
    /// The token of a lost job is handled, and its end is stored.
    LostIsHandled,
    /// A lost job ends with on, also where the database knows of no off.
    LostIsUndone,
    /// A job that by its row has only to wait for its machine, which was given its script, is not lost: it goes on.
    GivenGoesOn,
    /// No other destructive job that status shows as running goes on.
    OnlyGivenGoesOn,
    /// A script that was given in another history is not given again.
    ScriptInOneHistory,
    /// A claim takes the permit in its own transaction, and only while one is free under the lock.
    PermitWithClaim,
    /// A job that parks before its first stored request gives its permit back, unless it waits a moment for its witness.
    PermitBackOnPark,
    /// A job that stored a request keeps its permit through park, hand-back and reap.
    PermitKeptOnceActed,
    /// A job that wakes without a permit waits in `queued_bounded` again.
    WokenWaitsForPermit,
    /// A job without a permit that is marked for cancel goes to `ready`: its undo needs none.
    UndoNeedsNoPermit,
    /// The transaction that deletes a job gives its permit back.
    PermitBackWithRow,
    /// Only a job that holds a permit gives one back.
    GiveBackOnlyHeld,
    /// A sweep sets the count to the number of jobs that hold a permit.
    SweepRepairsCount,
    /// The sweep locks the count before it counts.
    SweepCountsUnderLock,
    /// Jobs that need a permit wait apart from the others: a full class blocks nobody.
    BoundedWaitApart,
    /// Whoever moves a queued job checks under its locks that the job still is where it was seen.
    MoveChecksKeyAgain,
    /// A queue row that is no longer at the key that was read means "busy".
    MissingRowIsBusy,
    /// A move waits for no lock: it answers "busy" at once.
    MoveAnswersBusy,
    /// The old queue row goes and the new one comes in one transaction.
    MoveIsOneTransaction,
    /// That transaction also writes the new key into the job.
    MoveWritesKey,
    /// A job that is moved to another lane keeps its age.
    MoveKeepsAge,
    /// A claim that started from a hint and found too little looks again from the start.
    ShortClaimLooksAgain,
    /// A batch whose COMMIT has an unknown outcome is repeated whole.
    UnknownIsRepeated,
    /// The repetition looks for what it wrote before, item by item.
    UnknownIsReadBack,
    /// A worker's write is found again by token and revision, not by the token alone.
    ReadBackByRevision,
    /// An enqueue that finds a live job compares its id with its own.
    EnqueueKnowsItsId,
    /// Every item has its own answer: one that is stale or occupied does not take the others with it.
    AnswerPerItem,
    /// What a stale item has inserted goes again in the same transaction.
    StaleItemIsUndone,
    /// A key that is taken rolls the whole batch back, which begins again without that item.
    DuplicateRollsBack,
    /// The end of a look that was asked to stop is told, whatever it found.
    MarkedLookIsTold,
    /// Whether a job was asked to stop is read in the transaction that ends it.
    MarkIsReadAtTheEnd,
    /// A leader decides on nothing that is older than what it has seen.
    ReadsAreMonotonic,
    /// The row has the generation that was decided on last, and a decision on an older one is refused.
    DecidedGenerationIsStored,
    /// Whatever a server calls an error at COMMIT, but a conflict, leaves open what became of it: it is looked for.
    ErrorAtCommitIsUnknown,
    /// A connection whose ROLLBACK failed is closed.
    HalfIsClosed,
    /// Every transaction runs at one node: what one node has locked the other one does not know.
    OneWriter,
    /// A member that is not the primary of its group is not worked with.
    PrimaryOfItsGroup,
}

impl Rule {
    /// All rules, in the order of the page that explains them.
    pub(crate) const ALL: [Rule; 81] = [
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
        Rule::SecondWitness,
        Rule::AnotherHistoryEndsIncarnation,
        Rule::QuietAfterFailover,
        Rule::DeriveBeforeClaims,
        Rule::DeriveFromLiveStatus,
        Rule::HandledInStatusToo,
        Rule::RunningIsLost,
        Rule::HandledIsLost,
        Rule::LostIsHandled,
        Rule::LostIsUndone,
        Rule::GivenGoesOn,
        Rule::OnlyGivenGoesOn,
        Rule::ScriptInOneHistory,
        Rule::PermitWithClaim,
        Rule::PermitBackOnPark,
        Rule::PermitKeptOnceActed,
        Rule::WokenWaitsForPermit,
        Rule::UndoNeedsNoPermit,
        Rule::PermitBackWithRow,
        Rule::GiveBackOnlyHeld,
        Rule::SweepRepairsCount,
        Rule::SweepCountsUnderLock,
        Rule::BoundedWaitApart,
        Rule::MoveChecksKeyAgain,
        Rule::MissingRowIsBusy,
        Rule::MoveAnswersBusy,
        Rule::MoveIsOneTransaction,
        Rule::MoveWritesKey,
        Rule::MoveKeepsAge,
        Rule::ShortClaimLooksAgain,
        Rule::UnknownIsRepeated,
        Rule::UnknownIsReadBack,
        Rule::ReadBackByRevision,
        Rule::EnqueueKnowsItsId,
        Rule::AnswerPerItem,
        Rule::StaleItemIsUndone,
        Rule::DuplicateRollsBack,
        Rule::MarkedLookIsTold,
        Rule::MarkIsReadAtTheEnd,
        Rule::ReadsAreMonotonic,
        Rule::DecidedGenerationIsStored,
        Rule::ErrorAtCommitIsUnknown,
        Rule::HalfIsClosed,
        Rule::OneWriter,
        Rule::PrimaryOfItsGroup,
    ];
}

/// Which rules hold in a run.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    off: u128,
}

impl Rules {
    /// The protocol as it is.
    pub(crate) const ALL_ON: Rules = Rules { off: 0 };

    /// The protocol without one rule.
    pub(crate) const fn without(rule: Rule) -> Rules {
        Rules { off: 1 << rule as u128 }
    }

    /// Whether this rule holds.
    pub(crate) const fn on(self, rule: Rule) -> bool {
        self.off & (1 << rule as u128) == 0
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Rule::ALL.iter().filter(|rule| !self.on(**rule))).finish()
    }
}
