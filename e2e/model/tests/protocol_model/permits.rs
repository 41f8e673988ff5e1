//! Permits: a class of jobs of which only so many are in flight. Three servers with a job each, two of that class.
//!
//! Every action is one transaction, `permit` locked last. Workers have no names here: the fence is another part.

use stateright::{Model, Property};

use crate::part::{Part, never};
use crate::rules::{Rule, Rules};

/// The jobs, in the order of their age. The last one needs no permit.
const JOBS: [usize; 3] = [0, 1, 2];

/// Whether a job is of the class with the cap.
const fn is_bounded(job: usize) -> bool {
    job < 2
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Place {
    #[default]
    Queued,
    /// Waits for a permit: `queued_bounded`.
    Bounded,
    Ready,
    Parked,
    Owned,
    /// The row is gone.
    Ended,
}

#[expect(clippy::struct_excessive_bools, reason = "they are the columns of the row, and its machine")]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Job {
    place: Place,
    /// `permit_held`.
    permit: bool,
    started: bool,
    /// Its first request was stored.
    acted: bool,
    cancel: bool,
    /// Its BMC answers no more.
    unreachable: bool,
    /// It waited for its witness once: the next wait is a long one.
    waited: bool,
    /// A claim read that a permit was free (only without `PermitWithClaim`).
    saw_free: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Violation {
    CapExceeded,
    CountWrong,
    ActsWithoutPermit,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Budget {
    /// Cancels, and wishes that go before the first request.
    changes: u8,
    /// Crashes and hand-backs.
    faults: u8,
    /// BMCs that answer no more.
    unreachable: u8,
    /// Wrong counts, as after a manual change.
    miscounts: u8,
    /// The operator sets the cap to 0.
    closings: u8,
}

/// The rows of the jobs and the `permit` row.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct State {
    jobs: [Job; 3],
    cap: u8,
    used: u8,
    /// The count is known to be wrong until the sweep repairs it.
    miscounted: bool,
    /// What a sweep counted that has yet to write it (only without `SweepCountsUnderLock`).
    counted: Option<u8>,
    budget: Budget,
    violation: Option<Violation>,
}

/// What happens next, to which job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// A plain read says that a permit is free.
    Look(usize),
    Claim(usize),
    StoreFirstRequest(usize),
    Park(usize),
    /// Parks for the moment that status takes to show it: with its permit.
    AwaitWitness(usize),
    Wake(usize),
    Cancel(usize),
    /// The wish was gone at the live read.
    Supersede(usize),
    Complete(usize),
    /// A crash and the reaper, or a hand-back: the permit stays with the job.
    HandBack(usize),
    /// The same for a job that gives it back with the row.
    HandBackWithPermit(usize),
    LosesBmc(usize),
    Miscount(u8),
    Sweep,
    SweepWrites,
    CloseClass,
}

/// The part, with its rules.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    rules: Rules,
}

impl Permits {
    pub(crate) fn new(rules: Rules) -> Self {
        Permits { rules }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Look(j) => {
                let waits = state.jobs[j].place == Place::Bounded && state.used < state.cap;
                if self.rules.on(Rule::PermitWithClaim) || !waits {
                    return None;
                }
                state.jobs[j].saw_free = true;
            }
            Action::Claim(j) => self.claim(state, j)?,
            Action::StoreFirstRequest(j) => {
                let job = &mut state.jobs[j];
                if job.place != Place::Owned || job.acted || job.cancel || job.unreachable {
                    return None;
                }
                job.acted = true;
            }
            Action::Park(j) => self.park(state, j)?,
            Action::AwaitWitness(j) => {
                let job = &mut state.jobs[j];
                if job.place != Place::Owned || job.cancel || job.acted || job.unreachable || job.waited {
                    return None;
                }
                (job.place, job.waited) = (Place::Parked, true);
            }
            Action::Wake(j) => {
                if state.jobs[j].place != Place::Parked {
                    return None;
                }
                state.jobs[j].place = self.waits_in(j, state.jobs[j]);
            }
            Action::Cancel(j) => self.cancel(state, j)?,
            Action::Supersede(j) | Action::Complete(j) => {
                let Job { place, acted, cancel, .. } = state.jobs[j];
                let complete = matches!(action, Action::Complete(_));
                if place != Place::Owned || complete != (acted || cancel) {
                    return None;
                }
                if !complete {
                    state.budget.changes = state.budget.changes.checked_sub(1)?;
                }
                self.end(state, j);
            }
            Action::HandBack(j) | Action::HandBackWithPermit(j) => self.hand_back(state, j, action)?,
            Action::LosesBmc(j) => {
                let job = &mut state.jobs[j];
                if job.unreachable || job.place == Place::Ended || state.budget.unreachable == 0 {
                    return None;
                }
                job.unreachable = true;
                state.budget.unreachable -= 1;
            }
            Action::Miscount(_) | Action::Sweep | Action::SweepWrites | Action::CloseClass => {
                self.count(state, action)?;
            }
        }
        Some(())
    }

    fn claim(&self, state: &mut State, j: usize) -> Option<()> {
        let job = state.jobs[j];
        match job.place {
            Place::Ready | Place::Queued => {
                // One queue for all would be taken from its front.
                let behind = JOBS[..j].iter().any(|&older| {
                    matches!(state.jobs[older].place, Place::Queued | Place::Bounded | Place::Ready)
                });
                if behind && !self.rules.on(Rule::BoundedWaitApart) {
                    return None;
                }
            }
            Place::Bounded => {
                let free =
                    if self.rules.on(Rule::PermitWithClaim) { state.used < state.cap } else { job.saw_free };
                if !free {
                    return None;
                }
                state.used += 1;
                state.jobs[j].permit = true;
                // A wrong count lets in too many; they are not thrown out again.
                if held(state) > state.cap && !state.miscounted {
                    state.violation.get_or_insert(Violation::CapExceeded);
                }
            }
            Place::Parked | Place::Owned | Place::Ended => return None,
        }
        state.jobs[j].place = Place::Owned;
        state.jobs[j].started = true;
        state.jobs[j].saw_free = false;
        Some(())
    }

    fn park(&self, state: &mut State, j: usize) -> Option<()> {
        let job = state.jobs[j];
        // Waits for its BMC, or for evidence from the machine.
        if job.place != Place::Owned || job.cancel || !(job.acted || job.unreachable) {
            return None;
        }
        let gives_back = if job.acted {
            !self.rules.on(Rule::PermitKeptOnceActed)
        } else {
            self.rules.on(Rule::PermitBackOnPark)
        };
        if gives_back && job.permit {
            give_back(state, j);
        }
        state.jobs[j].place = Place::Parked;
        Some(())
    }

    /// Where a job waits that no worker has and that started.
    fn waits_in(&self, j: usize, job: Job) -> Place {
        let needs = is_bounded(j) && !job.permit && (!job.cancel || !self.rules.on(Rule::UndoNeedsNoPermit));
        if needs && self.rules.on(Rule::WokenWaitsForPermit) { Place::Bounded } else { Place::Ready }
    }

    fn cancel(&self, state: &mut State, j: usize) -> Option<()> {
        let job = state.jobs[j];
        if job.place == Place::Ended || job.cancel || state.budget.changes == 0 {
            return None;
        }
        state.budget.changes -= 1;
        if !job.started {
            state.jobs[j] = Job { place: Place::Ended, ..Job::default() };
            return Some(());
        }
        state.jobs[j].cancel = true;
        if matches!(job.place, Place::Parked | Place::Bounded) {
            state.jobs[j].place = self.waits_in(j, state.jobs[j]);
        }
        Some(())
    }

    fn hand_back(&self, state: &mut State, j: usize, action: Action) -> Option<()> {
        let job = state.jobs[j];
        if job.place != Place::Owned || state.budget.faults == 0 {
            return None;
        }
        if matches!(action, Action::HandBackWithPermit(_)) {
            let keeps = job.acted && self.rules.on(Rule::PermitKeptOnceActed);
            if !job.permit || keeps {
                return None;
            }
            give_back(state, j);
        }
        state.budget.faults -= 1;
        state.jobs[j].place = self.waits_in(j, state.jobs[j]);
        Some(())
    }

    /// Every transaction that deletes a job.
    fn end(&self, state: &mut State, j: usize) {
        let held = state.jobs[j].permit || !self.rules.on(Rule::GiveBackOnlyHeld);
        if is_bounded(j) && held && self.rules.on(Rule::PermitBackWithRow) {
            state.used = state.used.saturating_sub(1);
        }
        state.jobs[j] = Job { place: Place::Ended, ..Job::default() };
    }

    fn count(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Miscount(used) if used != state.used && state.budget.miscounts > 0 => {
                state.budget.miscounts -= 1;
                state.used = used;
                state.miscounted = true;
            }
            Action::Sweep if self.rules.on(Rule::SweepRepairsCount) => {
                if !self.rules.on(Rule::SweepCountsUnderLock) {
                    state.counted = Some(held(state));
                    return Some(());
                }
                state.used = held(state);
                state.miscounted = false;
            }
            Action::SweepWrites => {
                state.used = state.counted.take()?;
                state.miscounted = false;
            }
            Action::CloseClass if state.budget.closings > 0 => {
                state.budget.closings -= 1;
                state.cap = 0;
            }
            _ => return None,
        }
        Some(())
    }
}

/// How many jobs hold a permit.
fn held(state: &State) -> u8 {
    state.jobs.iter().filter(|job| job.permit).count() as u8
}

fn give_back(state: &mut State, j: usize) {
    state.jobs[j].permit = false;
    state.used = state.used.saturating_sub(1);
}

/// What must hold in every state by itself.
fn check(state: &mut State) {
    if !state.miscounted && state.used != held(state) {
        state.violation.get_or_insert(Violation::CountWrong);
    }
    let acts = |j: usize| state.jobs[j].acted && is_bounded(j) && !state.jobs[j].permit;
    if JOBS.into_iter().any(acts) {
        state.violation.get_or_insert(Violation::ActsWithoutPermit);
    }
}

impl Model for Permits {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let jobs = JOBS.map(|j| Job {
            place: if is_bounded(j) { Place::Bounded } else { Place::Queued },
            ..Job::default()
        });
        let budget = Budget { changes: 2, faults: 1, unreachable: 1, miscounts: 1, closings: 1 };
        vec![State { jobs, cap: 1, budget, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        for j in JOBS {
            actions.extend([
                Action::Look(j),
                Action::Claim(j),
                Action::StoreFirstRequest(j),
                Action::Park(j),
                Action::AwaitWitness(j),
            ]);
            actions.extend([Action::Wake(j), Action::Cancel(j), Action::Supersede(j), Action::Complete(j)]);
            actions.extend([Action::HandBack(j), Action::HandBackWithPermit(j), Action::LosesBmc(j)]);
        }
        actions.extend((0..=2).map(Action::Miscount));
        actions.extend([Action::Sweep, Action::SweepWrites, Action::CloseClass]);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action)?;
        check(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        never! {
            CapExceeded: "no permit is given above the cap",
            CountWrong: "the count is the number of jobs that hold a permit",
            ActsWithoutPermit: "a job that acted holds its permit to its end",
        }
    }
}

impl Part for Permits {
    fn bounds(&self) -> String {
        let budget = self.init_states()[0].budget;
        format!("3 jobs, 2 of a class with 1 permit, {budget:?}")
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    /// Every job has had its turn and ended, but for what cannot go on: its class is closed, or its BMC is gone.
    fn is_settled(&self, state: &State) -> bool {
        JOBS.into_iter().all(|j| {
            let job = state.jobs[j];
            let closed = state.cap == 0 && job.place == Place::Bounded;
            let cannot_go_on = (closed || job.unreachable) && !job.cancel && !job.acted;
            job.place == Place::Ended || cannot_go_on
        })
    }

    fn is_fault(action: Action) -> bool {
        matches!(
            action,
            Action::Cancel(_)
                | Action::Supersede(_)
                | Action::HandBack(_)
                | Action::HandBackWithPermit(_)
                | Action::LosesBmc(_)
                | Action::Miscount(_)
                | Action::CloseClass
        )
    }
}
