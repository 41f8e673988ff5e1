//! What a leading controller does: observe, decide, write, patch status, acknowledge.

use crate::protocol::Protocol;
use crate::rules::Rule;
use crate::state::{Job, Leader, LeaderPhase, Queue, State, Status, Violation};

/// One action of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaderAction {
    /// Starts a reconcile: the object from the cache, the row from the database.
    Observe,
    /// Takes the object after the row (only without `ObjectBeforeRow`).
    TakeObject,
    /// Derives from Kubernetes what the history after a failover does not know.
    Derive,
    /// Enqueues, deletes or cancels.
    Write,
    PatchStatus,
    Acknowledge,
    /// The process dies; the next leader looks at everything.
    Crash,
}

impl LeaderAction {
    pub(crate) const ALL: [LeaderAction; 7] = [
        LeaderAction::Observe,
        LeaderAction::TakeObject,
        LeaderAction::Derive,
        LeaderAction::Write,
        LeaderAction::PatchStatus,
        LeaderAction::Acknowledge,
        LeaderAction::Crash,
    ];
}

/// What a reconcile writes to the database.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Nothing,
    Enqueue,
    Delete,
    Cancel,
}

fn decide(leader: &Leader) -> Decision {
    let wish = leader.object.wish;
    let handled = leader.known.handled | leader.object.status.handled;
    let job = &leader.job;
    if job.id != 0 {
        if job.intent == wish || job.cancel {
            Decision::Nothing
        } else if job.started {
            Decision::Cancel
        } else {
            Decision::Delete
        }
    } else if wish != 0 && handled & (1 << wish) == 0 && leader.known.failed != wish {
        Decision::Enqueue
    } else {
        Decision::Nothing
    }
}

impl Protocol {
    /// The state after leader `i` did this; `None` if it cannot. Leader 1 is the one that was deposed.
    pub(crate) fn leader(&self, state: &State, i: usize, action: LeaderAction) -> Option<State> {
        let leader = state.leaders[i];
        let mut next = *state;
        match (action, leader.phase) {
            (LeaderAction::Derive, LeaderPhase::Idle) if i == 0 && state.underived => self.derive(&mut next),
            (LeaderAction::Observe, LeaderPhase::Idle) if !state.underived => {
                if i == 0 && (state.triggered || state.known.changed) {
                    next.triggered = false;
                } else if i == 1 && state.budget.stale > 0 {
                    next.budget.stale -= 1;
                } else {
                    return None;
                }
                next.leaders[i] = Leader {
                    phase: LeaderPhase::RowOnly,
                    job: state.job,
                    known: state.known,
                    ..Leader::default()
                };
                if self.rules.on(Rule::ObjectBeforeRow) {
                    // The cache may lag behind by any amount, so this one step covers any time between the two.
                    Self::take_object(&mut next, i);
                }
            }
            (LeaderAction::TakeObject, LeaderPhase::RowOnly) => Self::take_object(&mut next, i),
            (LeaderAction::Write, LeaderPhase::Observed) => {
                next.leaders[i].phase = LeaderPhase::Acted;
                if !self.write(&mut next, &leader) {
                    // Refused: look again at once.
                    next.triggered = true;
                }
            }
            (LeaderAction::PatchStatus, LeaderPhase::Acted) => self.patch_status(&mut next, i),
            (LeaderAction::Acknowledge, LeaderPhase::Patched) => {
                if state.known.version == leader.known.version || !self.rules.on(Rule::AcknowledgeOnVersion) {
                    next.known.changed = false;
                    if !leader.was_shown {
                        next.violated(Violation::AcknowledgedUnshown);
                    }
                }
                next.leaders[i] = Leader::default();
            }
            (LeaderAction::Crash, phase) if phase != LeaderPhase::Idle && state.budget.takeovers > 0 => {
                next.budget.takeovers -= 1;
                next.leaders[i] = Leader::default();
                next.triggered = true;
            }
            _ => return None,
        }
        Some(next)
    }

    fn take_object(state: &mut State, i: usize) {
        let leader = &mut state.leaders[i];
        leader.object = state.cache;
        let nothing = decide(leader) == Decision::Nothing;
        leader.phase = if nothing { LeaderPhase::Acted } else { LeaderPhase::Observed };
    }

    /// Whether the transaction was accepted.
    fn write(&self, state: &mut State, leader: &Leader) -> bool {
        match decide(leader) {
            Decision::Nothing => true,
            Decision::Enqueue => {
                let same =
                    state.known.version == leader.known.version || !self.rules.on(Rule::EnqueueOnVersion);
                // One live job per server: the primary key.
                if state.job.id != 0 || !same {
                    return false;
                }
                let intent = leader.object.wish;
                if state.gave_up & (1 << intent) != 0 {
                    state.violated(Violation::FailedIntentRepeated);
                }
                state.job = Job {
                    id: state.new_job_id(),
                    intent,
                    queue: Queue::Queued,
                    signals: 1,
                    ..Job::default()
                };
                self.feed(state, Rule::FeedOnEnqueue);
                true
            }
            Decision::Delete => {
                let unclaimed = state.job.id == leader.job.id && !state.job.started;
                let refused = !unclaimed && self.rules.on(Rule::DeleteOnlyUnclaimed);
                if state.job.id == 0 || refused {
                    return false;
                }
                if state.job.started {
                    state.violated(Violation::LiveJobDeleted);
                }
                state.job.id = 0;
                self.feed(state, Rule::FeedOnDelete);
                true
            }
            Decision::Cancel => {
                if state.job.id != leader.job.id {
                    return false;
                }
                state.job.cancel = true;
                state.signal();
                if state.job.queue == Queue::Parked && self.rules.on(Rule::CancelWakes) {
                    state.job.queue = Queue::Ready;
                }
                self.feed(state, Rule::FeedOnCancel);
                true
            }
        }
    }

    fn patch_status(&self, state: &mut State, i: usize) {
        let leader = state.leaders[i];
        let status = Status::of(&leader.job, leader.known);
        if status == leader.object.status && status == state.server.status {
            // The live read says the same: nothing to patch.
            state.leaders[i].phase = LeaderPhase::Patched;
            state.leaders[i].was_shown = true;
            return;
        }
        let current = leader.object.resource_version == state.server.resource_version;
        if current || !self.rules.on(Rule::StatusOnResourceVersion) {
            if leader.known.version < state.shown {
                state.violated(Violation::StatusWentBack);
            }
            state.shown = leader.known.version;
            state.server.status = status;
            state.write_object();
            state.leaders[i].phase = LeaderPhase::Patched;
        } else if self.rules.on(Rule::AcknowledgeAfterPatch) {
            state.leaders[i] = Leader::default();
            state.triggered = true;
        } else {
            state.leaders[i].phase = LeaderPhase::Patched;
        }
        state.leaders[i].was_shown =
            state.leaders[i].phase == LeaderPhase::Patched && state.server.status == status;
    }
}
