//! What a worker does, one database transaction, one request or one look at a time.

use crate::protocol::Protocol;
use crate::rules::Rule;
use crate::state::{End, Flight, Lease, Phase, Queue, Registration, State, Step, Violation};

/// One action of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WorkerAction {
    Claim,
    /// Decides at a step boundary what to do with the job.
    Decide,
    StoreRequest,
    Send,
    /// The settle time is over.
    GiveUpWaiting,
    Probe,
    ReadSignals,
    Park,
    End,
    /// Meets a refused write and drops the job.
    Drop,
    /// Hands back a job that names it as owner and that it does not run.
    HandBackUnknown,
    /// The row is tombstoned: starts as a new incarnation.
    StartAnew,
    /// Thaws in time: the next heartbeat is still accepted.
    HeartbeatAccepted,
}

impl WorkerAction {
    pub(crate) const ALL: [WorkerAction; 13] = [
        WorkerAction::Claim,
        WorkerAction::Decide,
        WorkerAction::StoreRequest,
        WorkerAction::Send,
        WorkerAction::GiveUpWaiting,
        WorkerAction::Probe,
        WorkerAction::ReadSignals,
        WorkerAction::Park,
        WorkerAction::End,
        WorkerAction::Drop,
        WorkerAction::HandBackUnknown,
        WorkerAction::StartAnew,
        WorkerAction::HeartbeatAccepted,
    ];

    /// What one can do that runs no job.
    pub(crate) const WHEN_IDLE: [WorkerAction; 4] = [
        WorkerAction::Claim,
        WorkerAction::HandBackUnknown,
        WorkerAction::StartAnew,
        WorkerAction::HeartbeatAccepted,
    ];
}

impl Protocol {
    /// The state after worker `w` did this; `None` if it cannot.
    pub(crate) fn worker(&self, state: &State, w: usize, action: WorkerAction) -> Option<State> {
        let worker = &state.workers[w];
        if worker.lease == Lease::Crashed && action != WorkerAction::StartAnew {
            return None;
        }
        let fenced = self.passes_fence(state, w);
        let mut next = *state;
        match action {
            WorkerAction::Claim => self.claim(&mut next, w)?,
            WorkerAction::Decide if fenced && worker.phase == Phase::Holding => {
                self.decide_step(&mut next, w)?;
            }
            WorkerAction::StoreRequest if fenced && self.may_store(state, w) => {
                self.store_request(&mut next, w);
            }
            WorkerAction::Send => self.send(&mut next, w)?,
            WorkerAction::GiveUpWaiting
                if worker.phase == Phase::Unresolved && self.settle_is_over(state, w) =>
            {
                next.workers[w].phase = Phase::Probing;
            }
            WorkerAction::Probe if fenced && worker.phase == Phase::Probing => self.probe(&mut next, w),
            WorkerAction::ReadSignals if fenced && worker.phase == Phase::LateSignals => {
                next.workers[w].signals = state.job.signals;
                next.workers[w].phase = Phase::Parking;
            }
            WorkerAction::Park if fenced && worker.phase == Phase::Parking => {
                let unchanged =
                    !self.rules.on(Rule::ParkOnUnchangedSignals) || state.job.signals == worker.signals;
                self.release(&mut next, w, if unchanged { Queue::Parked } else { Queue::Ready });
            }
            WorkerAction::End if fenced => {
                let Phase::Ending(end) = worker.phase else { return None };
                self.end(&mut next, w, end);
            }
            WorkerAction::Drop
                if !fenced
                    && !matches!(worker.phase, Phase::Idle | Phase::Stored | Phase::StoredElsewhere(_)) =>
            {
                next.workers[w].phase = Phase::Idle;
            }
            WorkerAction::HandBackUnknown
                if self.rules.on(Rule::HandBackUnknownClaims)
                    && worker.phase == Phase::Idle
                    && usize::from(state.job.owner) == w + 1
                    && worker.registration == Registration::Alive =>
            {
                self.release(&mut next, w, Queue::Ready);
            }
            WorkerAction::StartAnew
                if worker.lease != Lease::Held && worker.registration == Registration::Reaped =>
            {
                next.workers[w].phase = Phase::Idle;
                next.workers[w].lease = Lease::Held;
                next.workers[w].registration = Registration::Alive;
            }
            WorkerAction::HeartbeatAccepted
                if worker.lease == Lease::Lapsed && worker.registration == Registration::Alive =>
            {
                next.workers[w].lease = Lease::Held;
            }
            _ => return None,
        }
        Some(next)
    }

    /// Whether a fenced write of this worker finds its row.
    fn passes_fence(&self, state: &State, w: usize) -> bool {
        let worker = &state.workers[w];
        state.job.id != 0
            && state.job.id == worker.job
            && (state.job.token == worker.token || !self.rules.on(Rule::WritesNameTheToken))
    }

    /// For the properties: called with every write of a worker to its job's row.
    fn wrote(state: &mut State, w: usize) {
        if usize::from(state.job.owner) != w + 1 {
            state.violated(Violation::WroteWithoutHolding);
        }
    }

    fn claim(&self, state: &mut State, w: usize) -> Option<()> {
        let worker = &state.workers[w];
        let alive = worker.registration == Registration::Alive || !self.rules.on(Rule::ClaimOnlyAlive);
        let waits = matches!(state.job.queue, Queue::Queued | Queue::Ready);
        if state.job.id == 0 || !waits || worker.phase != Phase::Idle || !alive || !self.may_claim(state) {
            return None;
        }
        self.claim_row(state, w);
        state.workers[w].phase = Phase::Holding;
        state.workers[w].job = state.job.id;
        state.workers[w].token = state.job.token;
        state.workers[w].signals = state.job.signals;
        state.workers[w].wish_changed = false;
        Some(())
    }

    /// The claim's transaction.
    pub(crate) fn claim_row(&self, state: &mut State, w: usize) {
        state.job.token = state.new_token();
        state.job.queue = Queue::Owned;
        state.job.owner = w as u8 + 1;
        if !state.job.started {
            state.job.started = true;
            self.feed(state, Rule::FeedOnFirstClaim);
        }
    }

    fn decide_step(&self, state: &mut State, w: usize) -> Option<()> {
        let job = state.job;
        let waits_for_settle = !job.cancel || self.rules.on(Rule::CancelWaitsForSettle);
        state.workers[w].phase = if job.request && waits_for_settle {
            Phase::Unresolved
        } else {
            match job.step {
                Step::Off if job.cancel => Phase::Ending(End::Cancelled),
                Step::Off => self.confirm(state)?,
                Step::On if job.cancel && !self.rules.on(Rule::UndoBeforeEnd) => {
                    Phase::Ending(End::Cancelled)
                }
                // May store the request of power on.
                Step::On => return None,
                Step::Wait if job.cancel => Phase::Ending(End::Cancelled),
                Step::Wait if job.evidence => Phase::Ending(End::Done),
                Step::Wait if self.rules.on(Rule::SignalsBeforeEvidence) => Phase::Parking,
                Step::Wait => Phase::LateSignals,
            }
        };
        Some(())
    }

    /// Reads the `Server` live: goes on only if it still asks for this intent and nothing says that it was done.
    /// `None`: status does not show the job yet.
    fn confirm(&self, state: &State) -> Option<Phase> {
        let bit = 1 << state.job.intent;
        let done = (state.known.handled | state.server.status.handled) & bit != 0 && !state.job.acted;
        let wished = state.server.wish == state.job.intent || !self.rules.on(Rule::ConfirmInEveryClaim);
        let go_on = wished && !done;
        if go_on && !self.has_witness(state) {
            return None;
        }
        Some(if go_on { Phase::Confirmed } else { Phase::Ending(End::Superseded) })
    }

    fn may_store(&self, state: &State, w: usize) -> bool {
        let worker = &state.workers[w];
        // Its last request's settle time is over, or the answer came.
        match worker.phase {
            Phase::Confirmed => true,
            Phase::Holding => state.job.step == Step::On && !state.job.request,
            // Too little is left of the settle time: once more.
            Phase::Stored => !worker.settling && self.rules.on(Rule::SendWithinSettle),
            _ => false,
        }
    }

    fn store_request(&self, state: &mut State, w: usize) {
        Self::wrote(state, w);
        state.workers[w].phase = Phase::Stored;
        state.workers[w].settling = true;
        if state.job.step == Step::Off || self.rules.on(Rule::StoreBeforeSend) {
            state.job.request = true;
        }
        if state.job.step == Step::Off && !state.job.acted {
            state.job.acted = true;
            if self.rules.on(Rule::HandledWithFirstRequest) {
                state.known.handled |= 1 << state.job.intent;
                self.feed(state, Rule::FeedOnHandled);
            }
        }
    }

    fn send(&self, state: &mut State, w: usize) -> Option<()> {
        let worker = state.workers[w];
        if let Phase::StoredElsewhere(flight) = worker.phase {
            return Self::send_elsewhere(state, w, flight);
        }
        let in_time = worker.lease == Lease::Held || !self.rules.on(Rule::StopBeforeLeaseEnds);
        let covered = worker.settling || !self.rules.on(Rule::SendWithinSettle);
        if worker.phase != Phase::Stored || !in_time || !covered || worker.flight.is_some() {
            return None;
        }
        // What the history before a failover allowed is what the quiet time after it is for.
        if !state.quiet && (state.job.id != worker.job || state.job.owner != w as u8 + 1) {
            state.violated(Violation::SentWithoutHolding);
        }
        let step = state.job.step;
        if step == Step::Off && state.server.wish != state.job.intent && !worker.wish_changed {
            state.violated(Violation::ActedAgainstTheWish);
        }
        if state.workers.iter().any(|other| other.flight.is_some()) {
            state.violated(Violation::TwoRequestsOutstanding);
        }
        state.workers[w].flight = Some(Flight { step, intent: state.job.intent });
        state.workers[w].phase = Phase::Unresolved;
        Some(())
    }

    /// The settle time of every request that may have been stored before the wait began has passed.
    fn settle_is_over(&self, state: &State, w: usize) -> bool {
        if state.workers[w].settling {
            return !self.rules.on(Rule::SenderWaitsForSettle);
        }
        !state.workers[1 - w].settling || !self.rules.on(Rule::SuccessorWaitsForSettle)
    }

    /// Reads the power state, and advances the row or notes that the request did not happen.
    fn probe(&self, state: &mut State, w: usize) {
        Self::wrote(state, w);
        let off = state.bmc.powered_off;
        let happened = match state.job.step {
            Step::Off => off && self.rules.on(Rule::ProbeBeforeRepeat),
            Step::On | Step::Wait => !off,
        };
        state.job.request = false;
        state.workers[w].phase = Phase::Holding;
        if happened {
            state.job.step = if state.job.step == Step::Off { Step::On } else { Step::Wait };
            state.workers[w].signals = state.job.signals;
            self.feed(state, Rule::FeedOnAdvance);
        } else if state.job.step == Step::Off
            && !state.job.cancel
            && !self.rules.on(Rule::ConfirmAgainAfterProbe)
        {
            state.workers[w].phase = Phase::Confirmed;
        }
    }

    /// Puts the job back into the queue.
    pub(crate) fn release(&self, state: &mut State, w: usize, queue: Queue) {
        Self::wrote(state, w);
        state.workers[w].phase = Phase::Idle;
        self.requeue(state, queue);
    }

    /// The part that every transaction shares that puts a job back into the queue.
    pub(crate) fn requeue(&self, state: &mut State, queue: Queue) {
        if state.job.queue != Queue::Owned {
            state.violated(Violation::JobInTwoPlaces);
        }
        state.job.queue = queue;
        state.job.owner = 0;
        if self.rules.on(Rule::ReleaseClearsTheToken) {
            state.job.token = 0;
        }
    }

    fn end(&self, state: &mut State, w: usize, end: End) {
        Self::wrote(state, w);
        let intent = state.job.intent;
        // The rule did it already; without the rule this is the next best place.
        if state.job.acted && matches!(end, End::Done | End::Failed) {
            state.known.handled |= 1 << intent;
        }
        if end == End::Failed {
            state.gave_up |= 1 << intent;
            if self.rules.on(Rule::FailureIsStored) {
                state.known.failed = intent;
            }
        }
        state.job.id = 0;
        state.workers[w].phase = Phase::Idle;
        let feed = if end == End::Superseded { Rule::FeedOnSupersede } else { Rule::FeedOnComplete };
        self.feed(state, feed);
        if state.workers.iter().any(|worker| worker.flight.is_some()) {
            state.violated(Violation::RequestOutlivesJob);
        }
    }
}
