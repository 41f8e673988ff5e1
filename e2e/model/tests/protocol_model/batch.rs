//! Batches: one transaction for two servers, with an answer for each, and a COMMIT whose outcome is not known.
//!
//! The items are enqueues, or writes of a worker to jobs that it holds.

use stateright::{Model, Property};

use crate::part::{Part, never};
use crate::rules::{Rule, Rules};
use crate::state::BOTH;

/// What the items of a batch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    /// Conditional on the version that the decision was made on; read back by the id.
    Enqueues,
    /// Conditional on token and revision; read back by them.
    Writes,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Holder {
    /// No live job.
    #[default]
    Nobody,
    /// The job of this item, or a job whose token is the worker's.
    Mine,
    /// The job of another leader, or a job that another worker has.
    Other,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Answer {
    Done,
    /// Stale, occupied or lost: look again.
    Refused,
}

/// One server, and the item for it.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Item {
    job: Holder,
    /// Of `server_state`, or the revision of the job; 0 is what the item was decided on.
    version: u8,
    /// For the properties only: how often the item was applied.
    applied: u8,
    /// For the properties only: somebody else wrote to this server.
    touched: bool,
    answer: Option<Answer>,
}

/// How far the present try has come.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Try {
    #[default]
    Begins,
    /// Has read which of the servers have a job.
    HasRead,
    /// All answers are given.
    Over,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Violation {
    AppliedTwice,
    RefusedThoughApplied,
    DoneThoughNot,
    FreshRefused,
    StaleApplied,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Budget {
    /// What others do to these servers.
    others: u8,
    /// COMMITs whose answer is lost.
    lost: u8,
}

/// Two servers, and the batch for them.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct State {
    items: [Item; 2],
    phase: Try,
    /// An earlier COMMIT had no answer.
    unknown: bool,
    budget: Budget,
    violation: Option<Violation>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Read,
    /// Writes, and the answer to the COMMIT comes.
    Commit,
    /// It is in the database; nobody knows.
    AnswerLost,
    /// It is not; nobody knows.
    NeverArrived,
    /// Another leader enqueues, or the reaper gives the job to another worker.
    Taken(usize),
    /// What is known of the server changes.
    Raised(usize),
    /// The job of this item runs and ends.
    RunsAndEnds(usize),
}

/// The part, with its rules.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    rules: Rules,
    items: Items,
}

impl Batch {
    pub(crate) fn new(rules: Rules, items: Items) -> Self {
        Batch { rules, items }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Read if state.phase == Try::Begins => self.read(state),
            Action::Commit if state.phase == Try::HasRead => self.write(state, action),
            Action::AnswerLost | Action::NeverArrived
                if state.phase == Try::HasRead && state.budget.lost > 0 =>
            {
                state.budget.lost -= 1;
                self.write(state, action);
            }
            Action::Taken(s) | Action::Raised(s) | Action::RunsAndEnds(s) => self.other(state, s, action)?,
            _ => return None,
        }
        Some(())
    }

    fn other(&self, state: &mut State, s: usize, action: Action) -> Option<()> {
        let item = &mut state.items[s];
        let enqueues = self.items == Items::Enqueues;
        match (action, item.job) {
            (Action::Taken(_), Holder::Nobody) if enqueues => {
                item.job = Holder::Other;
                item.version += 1;
            }
            (Action::Taken(_), Holder::Mine) if !enqueues => item.job = Holder::Other,
            (Action::Raised(_), _) if enqueues => item.version += 1,
            (Action::RunsAndEnds(_), Holder::Mine) if enqueues => {
                item.job = Holder::Nobody;
                item.version += 1;
            }
            _ => return None,
        }
        // A worker's write has locked the rows that it read.
        if state.budget.others == 0 || (!enqueues && state.phase == Try::HasRead) {
            return None;
        }
        state.budget.others -= 1;
        item.touched = true;
        Some(())
    }

    /// Which items are done already, and which have no chance.
    fn read(&self, state: &mut State) {
        state.phase = Try::HasRead;
        for s in BOTH {
            let Item { job, version, answer, .. } = state.items[s];
            let found = match self.items {
                _ if answer.is_some() => continue,
                Items::Enqueues => match job {
                    Holder::Nobody => continue,
                    Holder::Mine if self.rules.on(Rule::EnqueueKnowsItsId) => Answer::Done,
                    Holder::Mine | Holder::Other => Answer::Refused,
                },
                Items::Writes => {
                    let written = if self.rules.on(Rule::ReadBackByRevision) { version == 1 } else { true };
                    if job != Holder::Mine {
                        Answer::Refused
                    } else if state.unknown && written && self.rules.on(Rule::UnknownIsReadBack) {
                        Answer::Done
                    } else {
                        continue;
                    }
                }
            };
            Self::answer(state, s, found);
        }
        self.refuse_whole(state);
    }

    /// Without an answer per item: one that is refused takes the others with it.
    fn refuse_whole(&self, state: &mut State) {
        let refused = state.items.iter().any(|item| item.answer == Some(Answer::Refused));
        if !refused || self.rules.on(Rule::AnswerPerItem) {
            return;
        }
        for s in BOTH {
            if state.items[s].answer.is_none() {
                Self::answer(state, s, Answer::Refused);
            }
        }
    }

    fn write(&self, state: &mut State, commit: Action) {
        let before = *state;
        let mut answers = [None; 2];
        for s in BOTH {
            if state.items[s].answer.is_none() {
                match self.apply(&mut state.items[s]) {
                    Ok(answer) => answers[s] = Some(answer),
                    // 1062: somebody was faster. The whole transaction is rolled back and begins again.
                    Err(()) if self.rules.on(Rule::DuplicateRollsBack) => {
                        *state = State { phase: Try::Begins, ..before };
                        return;
                    }
                    // Only the statement is undone, and the others count.
                    Err(()) => answers[s] = Some(Answer::Done),
                }
            }
        }
        for s in BOTH {
            let (old, new) = (before.items[s], state.items[s]);
            if new.applied > old.applied && commit != Action::NeverArrived {
                let twice = new.applied > 1;
                if twice || (self.items == Items::Enqueues && old.version != 0) {
                    let wrong = if twice { Violation::AppliedTwice } else { Violation::StaleApplied };
                    state.violation.get_or_insert(wrong);
                }
            }
        }
        if commit == Action::NeverArrived {
            *state = State { violation: state.violation, ..before };
        }
        if commit != Action::Commit {
            state.unknown = true;
            state.phase = Try::Begins;
            if self.rules.on(Rule::UnknownIsRepeated) {
                return;
            }
            answers = answers.map(|answer| answer.map(|_| Answer::Refused));
        }
        for s in BOTH {
            if let Some(answer) = answers[s] {
                Self::answer(state, s, answer);
            }
        }
        self.refuse_whole(state);
        state.phase = Try::Over;
    }

    /// The statements for one item; `Err`: the key is taken.
    fn apply(&self, item: &mut Item) -> Result<Answer, ()> {
        if self.items == Items::Writes {
            let blindly = !self.rules.on(Rule::UnknownIsReadBack);
            if item.job != Holder::Mine || (item.version != 0 && !blindly) {
                return Ok(Answer::Refused);
            }
            item.version += 1;
            item.applied += 1;
            return Ok(Answer::Done);
        }
        if item.job != Holder::Nobody {
            return Err(());
        }
        if item.version != 0 && self.rules.on(Rule::StaleItemIsUndone) {
            return Ok(Answer::Refused);
        }
        item.job = Holder::Mine;
        item.version += 1;
        item.applied += 1;
        Ok(Answer::Done)
    }

    fn answer(state: &mut State, s: usize, answer: Answer) {
        let item = &mut state.items[s];
        item.answer = Some(answer);
        let wrong = match answer {
            Answer::Done if item.applied == 0 => Violation::DoneThoughNot,
            Answer::Refused if item.applied > 0 && item.job == Holder::Mine => {
                Violation::RefusedThoughApplied
            }
            Answer::Refused if !item.touched => Violation::FreshRefused,
            Answer::Done | Answer::Refused => return,
        };
        state.violation.get_or_insert(wrong);
    }
}

impl Model for Batch {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let job = if self.items == Items::Enqueues { Holder::Nobody } else { Holder::Mine };
        let item = Item { job, ..Item::default() };
        vec![State { items: [item; 2], budget: Budget { others: 2, lost: 2 }, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        actions.extend([Action::Read, Action::Commit, Action::AnswerLost, Action::NeverArrived]);
        for s in BOTH {
            actions.extend([Action::Taken(s), Action::Raised(s), Action::RunsAndEnds(s)]);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action)?;
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        never! {
            AppliedTwice: "no item is applied twice",
            RefusedThoughApplied: "no item is refused that was applied",
            DoneThoughNot: "no item is done that was not applied",
            FreshRefused: "no item is refused for another one",
            StaleApplied: "no stale item is applied",
        }
    }
}

impl Part for Batch {
    fn bounds(&self) -> String {
        format!("2 {:?} in a batch, {:?}", self.items, self.init_states()[0].budget)
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    /// Every item has its answer.
    fn is_settled(&self, state: &State) -> bool {
        state.phase == Try::Over && state.items.iter().all(|item| item.answer.is_some())
    }

    fn is_fault(action: Action) -> bool {
        !matches!(action, Action::Read | Action::Commit)
    }
}
