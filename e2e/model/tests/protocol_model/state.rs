//! One `Server`, its rows, its BMC, two workers and two leaders.
//!
//! Counters (ids, fencing tokens, versions) are kept as ranks: only their order and equality matter, so that the
//! state space is finite. Parts that no longer matter are reset for the same reason.

/// A rank; 0 means none.
pub(crate) type Rank = u8;

/// The two workers, and the two leaders.
pub(crate) const BOTH: [usize; 2] = [0, 1];

/// The mutating requests of a job, which are also its first two steps.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Power off: the first mutating step.
    #[default]
    Off,
    /// Power on: after it the machine starts its installer.
    On,
    /// Wait for evidence from the machine.
    Wait,
}

/// Where a live job is.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Queue {
    /// In no queue row: a worker owns it.
    #[default]
    Owned,
    Queued,
    Ready,
    Parked,
}

/// The `job` row and its `queue` row. `id` 0 means that there is none.
#[expect(clippy::struct_excessive_bools, reason = "they are the columns of the row")]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) id: Rank,
    pub(crate) intent: u8,
    pub(crate) step: Step,
    pub(crate) queue: Queue,
    /// Worker + 1.
    pub(crate) owner: u8,
    /// The fencing token.
    pub(crate) token: Rank,
    pub(crate) started: bool,
    pub(crate) cancel: bool,
    pub(crate) signals: Rank,
    /// A stored request whose outcome is not known yet.
    pub(crate) request: bool,
    /// The first mutating request was stored by this job.
    pub(crate) acted: bool,
    pub(crate) evidence: bool,
}

/// The `server_state` row.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerState {
    pub(crate) version: Rank,
    /// One bit per intent.
    pub(crate) handled: u8,
    pub(crate) failed: u8,
    /// In the feed: `changed_at` is not NULL.
    pub(crate) changed: bool,
}

/// The life of a worker's row.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Registration {
    #[default]
    Alive,
    Tombstoned,
    /// The reaper took its jobs.
    Reaped,
}

/// Whether a worker may touch hardware.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lease {
    #[default]
    Held,
    /// Frozen or cut off until its lease was over by its own clock.
    Lapsed,
    Crashed,
}

/// How a job ends.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Superseded,
    Cancelled,
    Done,
    Failed,
}

/// What a worker is about to do.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    #[default]
    Idle,
    /// Between two steps.
    Holding,
    /// The live `Server` agreed.
    Confirmed,
    /// The request is stored; it may be sent.
    Stored,
    /// Waits for the answer or for the end of the settle time.
    Unresolved,
    Probing,
    /// Saw no evidence, has yet to read `signals` (only without `SignalsBeforeEvidence`).
    LateSignals,
    Parking,
    Ending(End),
    /// Stored this request in a history that is gone, and has not noticed yet.
    StoredElsewhere(Flight),
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) lease: Lease,
    pub(crate) registration: Registration,
    pub(crate) phase: Phase,
    pub(crate) job: Rank,
    pub(crate) token: Rank,
    pub(crate) signals: Rank,
    /// For the properties only: the wish changed since this claim.
    pub(crate) wish_changed: bool,
    /// The settle time of its last stored request is still running.
    pub(crate) settling: bool,
    /// Its request in the network.
    pub(crate) flight: Option<Flight>,
}

/// A request on its way to the BMC.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flight {
    pub(crate) step: Step,
    pub(crate) intent: u8,
}

/// What `status` says.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Status {
    pub(crate) handled: u8,
    pub(crate) failed: u8,
    pub(crate) job: Rank,
    pub(crate) intent: u8,
    pub(crate) started: bool,
    pub(crate) cancel: bool,
    pub(crate) step: Step,
}

impl Status {
    /// The status that these rows ask for.
    pub(crate) fn of(job: &Job, known: ServerState) -> Status {
        let Job { id, intent, started, cancel, step, .. } = *job;
        let blank = Status { handled: known.handled, failed: known.failed, ..Status::default() };
        if id == 0 { blank } else { Status { job: id, intent, started, cancel, step, ..blank } }
    }
}

/// The `Server` as the API has it, or as a cache has it.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Object {
    pub(crate) wish: u8,
    pub(crate) status: Status,
    pub(crate) resource_version: Rank,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LeaderPhase {
    #[default]
    Idle,
    /// Has the row, not yet the object (only without `ObjectBeforeRow`).
    RowOnly,
    Observed,
    /// Has written what it decided; status is next.
    Acted,
    Patched,
}

/// A controller replica in one reconcile.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leader {
    pub(crate) phase: LeaderPhase,
    pub(crate) object: Object,
    pub(crate) job: Job,
    pub(crate) known: ServerState,
    /// For the properties only: status showed what these rows ask for when this reconcile looked last.
    pub(crate) was_shown: bool,
}

/// The machine and its BMC.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bmc {
    pub(crate) powered_off: bool,
    /// The intent whose installer runs; 0 = none.
    pub(crate) installer: u8,
    /// Called home, evidence not yet written (only without `EvidenceWithSignal`).
    pub(crate) called: bool,
    /// One bit per intent whose power-off arrived.
    pub(crate) resets: u8,
}

/// What may still go wrong or change.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Budget {
    /// Changes of the wish by a person.
    pub(crate) wishes: u8,
    /// Crashes, freezes, hand-backs and lost answers to a claim.
    pub(crate) faults: u8,
    /// Failures for good.
    pub(crate) failures: u8,
    /// Reconciles of a second leader that does not know that it was deposed.
    pub(crate) stale: u8,
    /// Crashes of a leader.
    pub(crate) takeovers: u8,
    /// Failovers to a replica that lags.
    pub(crate) failovers: u8,
}

/// What a replica that stopped to apply has: the rows as they once were.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Replica {
    pub(crate) stopped: bool,
    pub(crate) job: Job,
    pub(crate) known: ServerState,
    pub(crate) registrations: [Registration; 2],
}

/// What must never happen.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    TwoRequestsOutstanding,
    ResetTwice,
    ActedAgainstTheWish,
    SentWithoutHolding,
    WroteWithoutHolding,
    RequestOutlivesJob,
    JobInTwoPlaces,
    OwnedByReapedWorker,
    LostWakeUp,
    LiveJobDeleted,
    FailedIntentRepeated,
    StatusWentBack,
    StatusMissesChange,
    AcknowledgedUnshown,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct State {
    pub(crate) job: Job,
    pub(crate) known: ServerState,
    pub(crate) workers: [Worker; 2],
    pub(crate) leaders: [Leader; 2],
    pub(crate) server: Object,
    pub(crate) cache: Object,
    /// The version of the row that status shows.
    pub(crate) shown: Rank,
    pub(crate) triggered: bool,
    /// For the properties only: one bit per intent that failed for good.
    pub(crate) gave_up: u8,
    pub(crate) bmc: Bmc,
    pub(crate) replica: Replica,
    /// A failover was a short time ago.
    pub(crate) quiet: bool,
    /// The controller has yet to derive what this history does not know.
    pub(crate) underived: bool,
    pub(crate) budget: Budget,
    pub(crate) violation: Option<Violation>,
}

impl State {
    /// Notes the first violation.
    pub(crate) fn violated(&mut self, what: Violation) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn raise_version(&mut self) {
        let [a, b] = &self.leaders;
        self.known.version = 1 + self.known.version.max(a.known.version).max(b.known.version).max(self.shown);
        self.known.changed = true;
    }

    pub(crate) fn signal(&mut self) {
        let [a, b] = &self.workers;
        self.job.signals = 1 + self.job.signals.max(a.signals).max(b.signals);
    }

    pub(crate) fn new_token(&self) -> Rank {
        let [a, b] = &self.workers;
        1 + self.job.token.max(a.token).max(b.token).max(self.replica.job.token)
    }

    pub(crate) fn new_job_id(&self) -> Rank {
        let workers = self.workers.iter().map(|worker| worker.job);
        let leaders = self.leaders.iter().flat_map(|leader| [leader.job.id, leader.object.status.job]);
        let shown = [self.job.id, self.server.status.job, self.cache.status.job, self.replica.job.id];
        1 + workers.chain(leaders).chain(shown).max().unwrap_or(0)
    }

    pub(crate) fn write_object(&mut self) {
        let [a, b] = &self.leaders;
        self.server.resource_version = 1 + self
            .server
            .resource_version
            .max(self.cache.resource_version)
            .max(a.object.resource_version)
            .max(b.object.resource_version);
    }
}
