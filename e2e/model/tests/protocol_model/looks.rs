//! Wishes that come while a machine is being looked at, and caches that lag. One server, one worker, a leader and one that
//! was deposed.
//!
//! A look is quiet: its end is told to nobody, unless somebody asked it to stop and waits for its end. What is wished is
//! one of two things, and a person goes from one to the other: by the generation, even or odd.

use stateright::{Model, Property};

use crate::part::{Part, never};
use crate::rules::{Rule, Rules};
use crate::state::BOTH;

/// The `job` row.
#[expect(clippy::struct_excessive_bools, reason = "they are the columns of the row")]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Job {
    kind: Kind,
    started: bool,
    owned: bool,
    /// Asked to stop.
    marked: bool,
    /// Its holder claimed it after that.
    mark_is_known: bool,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Kind {
    /// There is none.
    #[default]
    Nothing,
    Look,
    /// Work that makes this come true.
    Work(u8),
}

/// What a reconcile has seen.
#[expect(clippy::struct_excessive_bools, reason = "what it knows, one by one")]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Leader {
    at_work: bool,
    /// Has written what it decided.
    acted: bool,
    generation: u8,
    job: Job,
    /// Nothing was written since it looked: the version is still the same.
    is_fresh: bool,
    /// The job that it saw, or that there was none, is still so.
    is_same_job: bool,
    done: u8,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Violation {
    Unheard,
    WentBack,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct State {
    /// The generation of the object as the API has it.
    server: u8,
    /// As each leader's cache has it.
    caches: [u8; 2],
    /// The newest that each leader has seen.
    newest: [u8; 2],
    leaders: [Leader; 2],
    /// The watch showed the leader something, or it wants to look again.
    triggered: bool,
    job: Job,
    /// In the feed.
    changed: bool,
    /// The generation in the row.
    decided: u8,
    /// What is true of the machine.
    done: u8,
    /// For the properties only: the newest generation that something was written on, and that each leader decided on.
    written_on: u8,
    decided_on: [u8; 2],
    wishes: u8,
    looks: u8,
    stale: u8,
    crashes: u8,
    violation: Option<Violation>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Wish,
    CacheCatchesUp(usize),
    /// The period is over: the leader enqueues a look.
    LookIsDue,
    Observe(usize),
    /// A patch met a conflict: the object is read live.
    ReadLive(usize),
    Write(usize),
    Acknowledge(usize),
    Claim,
    End,
    /// Its worker dies, and its jobs are taken over.
    Crash,
}

#[derive(Clone, Debug)]
pub(crate) struct Looks {
    rules: Rules,
}

impl Looks {
    pub(crate) fn new(rules: Rules) -> Self {
        Looks { rules }
    }

    /// Raises the version, and enters the feed where somebody is told.
    fn touch(state: &mut State, is_told: bool) {
        state.changed |= is_told;
        for leader in &mut state.leaders {
            leader.is_fresh = false;
        }
    }

    /// Another job, or none.
    fn replace(state: &mut State, job: Job) {
        state.job = job;
        for leader in &mut state.leaders {
            leader.is_same_job = false;
        }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Wish => {
                state.wishes = state.wishes.checked_sub(1)?;
                state.server += 1;
            }
            Action::CacheCatchesUp(i) => {
                if state.caches[i] == state.server {
                    return None;
                }
                state.caches[i] = state.server;
                state.triggered |= i == 0;
            }
            Action::LookIsDue => {
                if state.job.kind != Kind::Nothing || state.leaders[0].at_work {
                    return None;
                }
                state.looks = state.looks.checked_sub(1)?;
                Self::replace(state, Job { kind: Kind::Look, ..Job::default() });
                Self::touch(state, false);
            }
            Action::Observe(i) => self.observe(state, i)?,
            Action::ReadLive(i) => {
                let leader = &mut state.leaders[i];
                if !leader.at_work || leader.acted || leader.generation == state.server {
                    return None;
                }
                leader.generation = state.server;
                state.newest[i] = state.server;
            }
            Action::Write(i) => {
                if !state.leaders[i].at_work || state.leaders[i].acted {
                    return None;
                }
                self.write(state, i);
            }
            Action::Acknowledge(i) => {
                let leader = state.leaders[i];
                if !leader.acted {
                    return None;
                }
                if leader.is_fresh {
                    state.changed = false;
                }
                state.leaders[i] = Leader::default();
            }
            Action::Claim => {
                if state.job.kind == Kind::Nothing || state.job.owned {
                    return None;
                }
                (state.job.started, state.job.owned) = (true, true);
                state.job.mark_is_known = state.job.marked;
                Self::touch(state, state.job.kind != Kind::Look);
            }
            Action::End => self.end(state)?,
            Action::Crash => {
                if !state.job.owned {
                    return None;
                }
                state.crashes = state.crashes.checked_sub(1)?;
                state.job.owned = false;
                Self::touch(state, state.job.kind != Kind::Look || state.job.marked);
            }
        }
        Some(())
    }

    fn observe(&self, state: &mut State, i: usize) -> Option<()> {
        if state.leaders[i].at_work {
            return None;
        }
        if i == 0 {
            if !state.triggered && !state.changed {
                return None;
            }
            state.triggered = false;
        } else {
            state.stale = state.stale.checked_sub(1)?;
        }
        let behind_itself = state.caches[i] < state.newest[i] && self.rules.on(Rule::ReadsAreMonotonic);
        let behind_the_row =
            state.caches[i] < state.decided && self.rules.on(Rule::DecidedGenerationIsStored);
        let generation = if behind_itself || behind_the_row { state.server } else { state.caches[i] };
        state.newest[i] = state.newest[i].max(generation);
        let State { job, done, .. } = *state;
        let (is_fresh, is_same_job) = (true, true);
        state.leaders[i] =
            Leader { at_work: true, acted: false, generation, job, is_fresh, is_same_job, done };
        Some(())
    }

    /// Decides on what was seen, and writes that.
    fn write(&self, state: &mut State, i: usize) {
        let leader = state.leaders[i];
        let wish = leader.generation % 2;
        state.leaders[i].acted = true;
        let went_back = leader.generation < state.decided_on[i];
        state.decided_on[i] = state.decided_on[i].max(leader.generation);
        let enqueues = leader.job.kind == Kind::Nothing && wish != leader.done;
        let displaces = match leader.job.kind {
            Kind::Nothing => false,
            _ if leader.job.marked => false,
            Kind::Look => wish != leader.done,
            Kind::Work(what) => what != wish,
        };
        if !enqueues && !displaces {
            return;
        }
        let unchanged = if enqueues { leader.is_fresh } else { leader.is_same_job };
        let outdated = leader.generation < state.decided && self.rules.on(Rule::DecidedGenerationIsStored);
        // Refused or done, it looks again at once.
        state.triggered |= i == 0;
        state.leaders[i] = Leader::default();
        if !unchanged || outdated {
            return;
        }
        if went_back || leader.generation < state.written_on {
            state.violation.get_or_insert(Violation::WentBack);
        }
        state.written_on = state.written_on.max(leader.generation);
        state.decided = leader.generation;
        if enqueues {
            Self::replace(state, Job { kind: Kind::Work(wish), ..Job::default() });
            Self::touch(state, true);
        } else if state.job.started {
            state.job.marked = true;
            Self::touch(state, state.job.kind != Kind::Look);
        } else {
            let is_shown = state.job.kind != Kind::Look;
            Self::replace(state, Job::default());
            Self::touch(state, is_shown);
        }
    }

    fn end(&self, state: &mut State) -> Option<()> {
        let job = state.job;
        if !job.owned {
            return None;
        }
        let is_waited_for = job.marked && (job.mark_is_known || self.rules.on(Rule::MarkIsReadAtTheEnd));
        let is_told = match job.kind {
            Kind::Nothing => return None,
            Kind::Look => is_waited_for && self.rules.on(Rule::MarkedLookIsTold),
            // The object is read live before anything is sent.
            Kind::Work(what) => {
                if !job.mark_is_known && state.server % 2 == what {
                    state.done = what;
                }
                true
            }
        };
        Self::replace(state, Job::default());
        Self::touch(state, is_told);
        Some(())
    }

    /// What must hold in every state by itself.
    fn check(state: &mut State) {
        let awake = state.triggered || state.changed || state.leaders[0].at_work;
        let sees = state.caches[0] != state.server;
        if state.server % 2 != state.done && state.job.kind == Kind::Nothing && !awake && !sees {
            state.violation.get_or_insert(Violation::Unheard);
        }
    }
}

impl Model for Looks {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { wishes: 2, looks: 2, stale: 1, crashes: 1, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        actions.extend([Action::Wish, Action::LookIsDue, Action::Claim, Action::End, Action::Crash]);
        for i in BOTH {
            actions.extend([Action::CacheCatchesUp(i), Action::Observe(i), Action::ReadLive(i)]);
            actions.extend([Action::Write(i), Action::Acknowledge(i)]);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action)?;
        Self::check(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        never! {
            Unheard: "a pending wish has a job, or somebody is awake",
            WentBack: "nothing is written on an object that is older than one that was decided on",
        }
    }
}

impl Part for Looks {
    fn bounds(&self) -> String {
        "1 worker, 2 leaders, 2 wishes, 2 looks, 1 crash".to_owned()
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    fn is_settled(&self, state: &State) -> bool {
        state.server % 2 == state.done && state.job.kind == Kind::Nothing
    }

    fn is_fault(action: Action) -> bool {
        matches!(action, Action::Wish | Action::LookIsDue | Action::Crash | Action::Observe(1))
    }
}
