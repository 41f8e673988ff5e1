//! The model: what can happen, and what must hold.

use stateright::{Model, Property};

use crate::controller::LeaderAction;
use crate::part::{Part, never};
use crate::rules::{Rule, Rules};
use crate::scenario::Scenario;
use crate::state::{
    BOTH, Budget, End, LeaderPhase, Lease, Object, Phase, Queue, Registration, ServerState, State, Status,
    Step, Violation,
};
use crate::worker::WorkerAction;

/// The protocol with its rules, and how much may go wrong.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) rules: Rules,
    pub(crate) budget: Budget,
    /// How many tokens, each an intent of its own, a person may wish for.
    pub(crate) tokens: u8,
    /// The job is of a kind that needs the second witness and that a lost history ends.
    pub(crate) destructive: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A person applies this wish; 0 takes it back.
    Wish(u8),
    CacheCatchesUp,
    Leader(usize, LeaderAction),
    Worker(usize, WorkerAction),
    /// `kill -9`.
    Crash(usize),
    /// SIGSTOP, or cut off, beyond its lease.
    Freeze(usize),
    /// SIGTERM between two steps.
    HandBack(usize),
    /// A claim whose commit is not known to the worker.
    ClaimAnswerLost(usize),
    /// The BMC refuses for good, or a step's deadline passes.
    FailForGood(usize),
    Tombstone(usize),
    TakeJobs(usize),
    /// The request takes effect and the sender gets the answer.
    Answered(usize),
    /// The request takes effect, now or late; the answer is lost.
    EffectOnly(usize),
    RequestLost(usize),
    SettlePasses(usize),
    InstallerCallsHome,
    EvidenceWritten,
    ReplicaStops,
    Failover,
    QuietPasses,
    /// Finds that the database has another history.
    EndIncarnation(usize),
    /// The deadline of a job that waits for evidence which came in a history that is gone: it is looked at again.
    DeadlineWakes,
    DeadlinePasses(usize),
}

impl Protocol {
    pub(crate) fn new(rules: Rules, scenario: Scenario) -> Self {
        let budget = scenario.budget();
        Protocol { rules, budget, tokens: scenario.tokens(), destructive: budget.failovers > 0 }
    }

    /// A transaction that changes what status says: raises the version and enters the feed, if the rule holds.
    pub(crate) fn feed(&self, state: &mut State, rule: Rule) {
        if self.rules.on(rule) {
            state.raise_version();
        }
    }

    fn step(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Leader(i, action) => return self.leader(state, i, action),
            Action::Worker(w, action) => return self.worker(state, w, action),
            Action::Wish(wish) => {
                if state.budget.wishes == 0 || wish == state.server.wish || wish > self.tokens {
                    return None;
                }
                next.budget.wishes -= 1;
                next.server.wish = wish;
                next.write_object();
                for worker in &mut next.workers {
                    worker.wish_changed = true;
                }
            }
            Action::CacheCatchesUp => {
                if state.cache == state.server {
                    return None;
                }
                let wish = state.cache.wish != state.server.wish;
                let status = state.cache.status != state.server.status;
                next.triggered |= wish || (status && self.rules.on(Rule::StatusChangesTrigger));
                next.cache = state.server;
            }
            Action::Crash(w) | Action::Freeze(w) | Action::HandBack(w) | Action::ClaimAnswerLost(w) => {
                self.fault(&mut next, w, action)?;
            }
            Action::FailForGood(w) => Self::fail_for_good(&mut next, w)?,
            Action::Tombstone(w) | Action::TakeJobs(w) => self.reap(&mut next, w, action)?,
            Action::Answered(w) | Action::EffectOnly(w) | Action::RequestLost(w) => {
                Self::network(&mut next, w, action)?;
            }
            Action::SettlePasses(w) => {
                if !state.workers[w].settling || state.workers[w].flight.is_some() {
                    return None;
                }
                next.workers[w].settling = false;
            }
            Action::InstallerCallsHome | Action::EvidenceWritten => self.call_home(&mut next, action)?,
            Action::ReplicaStops | Action::Failover | Action::QuietPasses | Action::EndIncarnation(_) => {
                self.another_history(&mut next, action)?;
            }
            Action::DeadlineWakes | Action::DeadlinePasses(_) => Self::wait_in_vain(&mut next, action)?,
        }
        Some(next)
    }

    fn fault(&self, state: &mut State, w: usize, action: Action) -> Option<()> {
        let worker = state.workers[w];
        if state.budget.faults == 0 || worker.lease != Lease::Held {
            return None;
        }
        state.budget.faults -= 1;
        let idle = worker.phase == Phase::Idle;
        match action {
            Action::Crash(_) if !idle => {
                state.workers[w].phase = Phase::Idle;
                state.workers[w].lease = Lease::Crashed;
            }
            // An idle one may be frozen as well: its claim may be on its way.
            Action::Freeze(_) => state.workers[w].lease = Lease::Lapsed,
            Action::HandBack(_)
                if worker.phase == Phase::Holding && usize::from(state.job.owner) == w + 1 =>
            {
                self.release(state, w, Queue::Ready);
            }
            Action::ClaimAnswerLost(_) => {
                let waits = matches!(state.job.queue, Queue::Queued | Queue::Ready);
                let alive = worker.registration == Registration::Alive;
                if state.job.id == 0 || !waits || !idle || !alive {
                    return None;
                }
                self.claim_row(state, w);
            }
            _ => return None,
        }
        Some(())
    }

    fn fail_for_good(state: &mut State, w: usize) -> Option<()> {
        let holds = usize::from(state.job.owner) == w + 1 && state.workers[w].phase == Phase::Holding;
        // Off that was sent ends with on first, so that a failure between the two is none for good.
        let may_fail =
            matches!(state.job.step, Step::Wait) || (state.job.step == Step::Off && !state.job.acted);
        if state.budget.failures == 0 || !holds || !may_fail || state.job.cancel {
            return None;
        }
        state.budget.failures -= 1;
        state.workers[w].phase = Phase::Ending(End::Failed);
        Some(())
    }

    fn reap(&self, state: &mut State, w: usize, action: Action) -> Option<()> {
        let worker = state.workers[w];
        let owns = usize::from(state.job.owner) == w + 1 && state.job.id != 0;
        match (action, worker.registration) {
            (Action::Tombstone(_), Registration::Alive) if worker.lease != Lease::Held => {
                if !self.rules.on(Rule::TombstoneFirst) {
                    // Takes the jobs and leaves the row alive.
                    if !owns {
                        return None;
                    }
                    self.requeue(state, Queue::Ready);
                    return Some(());
                }
                state.workers[w].registration = Registration::Tombstoned;
            }
            (Action::TakeJobs(_), Registration::Tombstoned) => {
                state.workers[w].registration = Registration::Reaped;
                if owns {
                    self.requeue(state, Queue::Ready);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn network(state: &mut State, w: usize, action: Action) -> Option<()> {
        let flight = state.workers[w].flight.take()?;
        if matches!(action, Action::RequestLost(_)) {
            return Some(());
        }
        match flight.step {
            Step::Off => {
                let bit = 1 << flight.intent;
                if state.bmc.resets & bit != 0 {
                    state.violated(Violation::ResetTwice);
                }
                state.bmc.resets |= bit;
                state.bmc.powered_off = true;
                state.bmc.installer = 0;
            }
            Step::On | Step::Wait => {
                if state.bmc.powered_off {
                    state.bmc.installer = flight.intent;
                }
                state.bmc.powered_off = false;
            }
        }
        if matches!(action, Action::Answered(_)) {
            if state.workers[w].phase != Phase::Unresolved {
                return None;
            }
            state.workers[w].settling = false;
            state.workers[w].phase = Phase::Probing;
        }
        Some(())
    }

    fn call_home(&self, state: &mut State, action: Action) -> Option<()> {
        let first = matches!(action, Action::InstallerCallsHome);
        if state.bmc.installer == 0 || state.bmc.called == first {
            return None;
        }
        let whole = self.rules.on(Rule::EvidenceWithSignal);
        let known = state.job.id != 0 && state.job.intent == state.bmc.installer;
        if known && (whole || !first) {
            state.job.evidence = true;
        }
        if known && first {
            state.signal();
            if state.job.queue == Queue::Parked {
                state.job.queue = Queue::Ready;
            }
        }
        state.bmc.called = first && !whole;
        if !state.bmc.called {
            state.bmc.installer = 0;
        }
        Some(())
    }

    /// What must hold in every state by itself.
    fn check(state: &mut State) {
        let job = state.job;
        if job.id != 0 {
            if job.queue == Queue::Parked && (job.evidence || job.cancel) {
                state.violated(Violation::LostWakeUp);
            }
            if (job.owner == 0) == (job.queue == Queue::Owned) {
                state.violated(Violation::JobInTwoPlaces);
            }
            if job.owner != 0
                && state.workers[usize::from(job.owner) - 1].registration == Registration::Reaped
            {
                state.violated(Violation::OwnedByReapedWorker);
            }
        }
        let at_rest = !state.triggered
            && !state.underived
            && !state.known.changed
            && state.cache == state.server
            && state.leaders.iter().all(|leader| leader.phase == LeaderPhase::Idle);
        if at_rest && state.server.status != Status::of(&state.job, state.known) {
            state.violated(Violation::StatusMissesChange);
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let known = ServerState { version: 1, ..ServerState::default() };
        let server = Object { resource_version: 1, ..Object::default() };
        let start = State { known, server, cache: server, shown: 1, budget: self.budget, ..State::default() };
        vec![start.normal()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        // Leaves out what cannot be, where that is easy to see: trying it costs a copy of the state.
        if state.budget.wishes > 0 {
            actions.extend((0..=self.tokens).map(Action::Wish));
        }
        actions.extend([Action::CacheCatchesUp, Action::InstallerCallsHome, Action::EvidenceWritten]);
        if self.budget.failovers > 0 {
            actions.extend([Action::ReplicaStops, Action::Failover, Action::QuietPasses]);
            actions.extend(BOTH.map(Action::EndIncarnation));
            actions.extend([Action::DeadlineWakes, Action::DeadlinePasses(0), Action::DeadlinePasses(1)]);
        }
        for one in BOTH {
            if one == 0 || state.budget.stale > 0 || state.leaders[one].phase != LeaderPhase::Idle {
                actions.extend(LeaderAction::ALL.map(|action| Action::Leader(one, action)));
            }
            let worker = &state.workers[one];
            if worker.phase == Phase::Idle {
                actions.extend(WorkerAction::WHEN_IDLE.map(|action| Action::Worker(one, action)));
            } else {
                actions.extend(WorkerAction::ALL.map(|action| Action::Worker(one, action)));
            }
            if state.budget.faults > 0 {
                actions.extend([Action::Crash(one), Action::Freeze(one), Action::HandBack(one)]);
                actions.push(Action::ClaimAnswerLost(one));
            }
            if worker.lease != Lease::Held {
                actions.extend([Action::Tombstone(one), Action::TakeJobs(one)]);
            }
            if worker.flight.is_some() {
                actions.extend([Action::Answered(one), Action::EffectOnly(one), Action::RequestLost(one)]);
            }
            actions.extend([Action::FailForGood(one), Action::SettlePasses(one)]);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = self.step(state, action)?;
        Self::check(&mut next);
        let next = next.normal();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        never! {
            TwoRequestsOutstanding: "at most one mutating request is outstanding",
            ResetTwice: "a token resets the machine at most once",
            ActedAgainstTheWish: "nothing starts for a wish that was gone before the claim",
            SentWithoutHolding: "only the holder of the job sends requests",
            WroteWithoutHolding: "only the holder of the job writes its row",
            RequestOutlivesJob: "no request outlives its job",
            JobInTwoPlaces: "a live job is in the queue or has an owner",
            OwnedByReapedWorker: "a worker that was reaped owns nothing",
            LostWakeUp: "no wake-up is lost",
            LiveJobDeleted: "no job that started is deleted from outside",
            FailedIntentRepeated: "a failed intent is not repeated",
            StatusWentBack: "status never goes back",
            AcknowledgedUnshown: "no row leaves the feed before status showed it",
            StatusMissesChange: "nothing is missing from status at rest",
        }
    }
}

impl Part for Protocol {
    fn bounds(&self) -> String {
        format!("2 workers, 2 leaders, {} tokens, {:?}", self.tokens, self.budget)
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    /// The wish was carried out or a reason is stored, the machine is on, and status says so.
    fn is_settled(&self, state: &State) -> bool {
        let wish = state.server.wish;
        let answered = wish == 0 || state.known.handled & (1 << wish) != 0 || state.known.failed == wish;
        state.job.id == 0
            && answered
            && !state.bmc.powered_off
            && !state.quiet
            && !state.underived
            && state.workers.iter().all(|worker| worker.flight.is_none())
            && state.server.status == Status::of(&state.job, state.known)
    }

    fn is_fault(action: Action) -> bool {
        matches!(
            action,
            Action::Wish(_)
                | Action::Crash(_)
                | Action::Freeze(_)
                | Action::HandBack(_)
                | Action::ClaimAnswerLost(_)
                | Action::FailForGood(_)
                | Action::ReplicaStops
                | Action::Failover
                | Action::Leader(_, LeaderAction::Crash)
                | Action::Leader(1, LeaderAction::Observe)
        )
    }
}
