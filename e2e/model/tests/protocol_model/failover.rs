//! A failover that loses the last commits, and how the workers and the controller find their way back.

use crate::protocol::{Action, Protocol};
use crate::rules::Rule;
use crate::state::{
    BOTH, End, Flight, Job, Leader, Lease, Phase, Queue, Replica, ServerState, State, Step, Violation,
};

impl Protocol {
    pub(crate) fn another_history(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            // One look at the rows is enough: the replica may stop at any moment, and never applies anything again.
            Action::ReplicaStops if state.budget.failovers > 0 && !state.replica.stopped => {
                // Only equality with what this history makes matters: versions and signals start anew.
                let known = ServerState { version: 0, ..state.known };
                let job = Job { signals: state.job.signals.min(1), ..state.job };
                let registrations = state.workers.map(|worker| worker.registration);
                state.replica = Replica { stopped: true, job, known, registrations };
            }
            Action::Failover if state.replica.stopped => {
                state.budget.failovers -= 1;
                self.fail_over(state);
            }
            Action::QuietPasses if state.quiet => {
                let may_still_act = state.workers.iter().any(|worker| {
                    worker.settling
                        || worker.flight.is_some()
                        || matches!(worker.phase, Phase::StoredElsewhere(_))
                });
                if may_still_act {
                    return None;
                }
                state.quiet = false;
            }
            Action::EndIncarnation(w) if matches!(state.workers[w].phase, Phase::StoredElsewhere(_)) => {
                Self::end_incarnation(state, w);
            }
            _ => return None,
        }
        Some(())
    }

    fn fail_over(&self, state: &mut State) {
        let Replica { job, known, registrations, .. } = std::mem::take(&mut state.replica);
        let before = std::mem::replace(&mut state.job, job);
        state.known = ServerState { version: 1, ..known };
        state.shown = 0;
        state.quiet = true;
        state.underived = true;
        // Their connections are gone, and with them what they were about to write.
        state.leaders = [Leader::default(); 2];
        for w in BOTH {
            let worker = &mut state.workers[w];
            worker.registration = registrations[w];
            if worker.phase == Phase::Stored && worker.lease == Lease::Held {
                // Sending needs no database: until it looks there it may still do so.
                let flight = Flight { step: before.step, intent: before.intent };
                worker.phase = Phase::StoredElsewhere(flight);
            } else if self.rules.on(Rule::AnotherHistoryEndsIncarnation) {
                Self::end_incarnation(state, w);
            }
        }
    }

    /// Nothing runs any more that could call home.
    pub(crate) fn wait_in_vain(state: &mut State, action: Action) -> Option<()> {
        let State { job, bmc, .. } = state;
        if job.id == 0 || job.step != Step::Wait || job.evidence || job.cancel || bmc.installer != 0 {
            return None;
        }
        match action {
            Action::DeadlineWakes if job.queue == Queue::Parked => job.queue = Queue::Ready,
            Action::DeadlinePasses(w)
                if usize::from(job.owner) == w + 1 && state.workers[w].phase == Phase::Holding =>
            {
                state.workers[w].phase = Phase::Ending(End::Failed);
            }
            _ => return None,
        }
        Some(())
    }

    /// Everything else that it could do needs the database, and its first look there tells it.
    fn end_incarnation(state: &mut State, w: usize) {
        state.workers[w].phase = Phase::Idle;
        state.workers[w].lease = Lease::Crashed;
    }

    pub(crate) fn send_elsewhere(state: &mut State, w: usize, flight: Flight) -> Option<()> {
        if !state.workers[w].settling || state.workers[w].flight.is_some() {
            return None;
        }
        if state.workers.iter().any(|other| other.flight.is_some()) {
            state.violated(Violation::TwoRequestsOutstanding);
        }
        state.workers[w].flight = Some(flight);
        Self::end_incarnation(state, w);
        Some(())
    }

    /// Whether a claim is allowed so soon after a failover.
    pub(crate) fn may_claim(&self, state: &State) -> bool {
        (!state.quiet || !self.rules.on(Rule::QuietAfterFailover))
            && (!state.underived || !self.rules.on(Rule::DeriveBeforeClaims))
    }

    /// Whether the live status shows this very job as running.
    pub(crate) fn has_witness(&self, state: &State) -> bool {
        let status = state.server.status;
        let shown = status.job == state.job.id && status.started;
        !self.destructive || shown || !self.rules.on(Rule::SecondWitness)
    }

    /// What status knows and the database lost.
    pub(crate) fn derive(&self, state: &mut State) {
        let live = self.rules.on(Rule::DeriveFromLiveStatus);
        let status = if live { state.server.status } else { state.cache.status };
        state.underived = false;
        state.triggered = true;
        if self.rules.on(Rule::HandledInStatusToo) {
            state.known.handled |= status.handled;
        }
        // How far it came cannot be known: the database may have lost its end, or any number of its requests. Who only waits
        // for evidence sends none.
        let unknown = state.job.id != status.job || !state.job.started;
        let only_waits = state.job.step == Step::Wait && !state.job.cancel;
        let is_lost = unknown || (self.rules.on(Rule::RunningIsLost) && !only_waits);
        if status.job != 0 && status.started && is_lost {
            self.lose(state, status.job, status.intent);
        }
        let Job { id, intent, .. } = state.job;
        let is_handled = status.handled & (1 << intent) != 0 && !(only_waits && id == status.job);
        if id != 0 && is_handled && self.rules.on(Rule::HandledIsLost) {
            self.lose(state, id, intent);
        }
        state.raise_version();
    }

    /// Ends a job as `HistoryLost`: the job that is there, or one that is made for it, runs the undo.
    fn lose(&self, state: &mut State, id: u8, intent: u8) {
        if self.rules.on(Rule::LostIsHandled) {
            state.known.handled |= 1 << intent;
            state.known.failed = intent;
        }
        let undone = self.rules.on(Rule::LostIsUndone);
        if state.job.id == 0 {
            if !undone {
                return;
            }
            state.job = Job { id, intent, queue: Queue::Ready, ..Job::default() };
        }
        state.job.started = true;
        state.job.cancel = true;
        state.signal();
        if undone {
            state.job.step = Step::On;
        }
        if matches!(state.job.queue, Queue::Queued | Queue::Parked) {
            state.job.queue = Queue::Ready;
        }
    }
}
