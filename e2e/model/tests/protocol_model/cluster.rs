//! A database that is a cluster. One job, two nodes, two workers and a controller that enqueues. A transaction is committed at the
//! node where it ran and reaches the other one later; what both have written is refused (certification), what one has only
//! locked is not.

use stateright::{Model, Property};

use crate::part::{Part, never};
use crate::rules::{Rule, Rules};

const NODES: [usize; 2] = [0, 1];

/// What one node has.
#[expect(clippy::struct_excessive_bools, reason = "what is so, one by one")]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Rows {
    /// The row in `job`.
    job: bool,
    /// The row in `queue`.
    queued: bool,
    /// Which worker holds the job.
    owner: u8,
    /// Of the first worker.
    tombstone: bool,
    reaped: bool,
    done: bool,
}

/// A transaction that the other node does not have yet.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Write {
    Enqueue,
    Claim(u8),
    Tombstone,
    /// Whether it found a job of the worker.
    Take(bool),
    End,
}

impl Write {
    /// Whether both change one row.
    const fn conflicts(self, other: Self) -> bool {
        let jobs = matches!(self, Self::Enqueue | Self::Claim(_) | Self::End | Self::Take(true));
        let others = matches!(other, Self::Enqueue | Self::Claim(_) | Self::End | Self::Take(true));
        let workers = matches!(self, Self::Tombstone | Self::Take(_));
        (jobs && others) || (workers && matches!(other, Self::Tombstone | Self::Take(_)))
    }

    const fn apply(self, rows: &mut Rows) {
        match self {
            Self::Enqueue => (rows.job, rows.queued) = (true, true),
            Self::Claim(worker) => (rows.queued, rows.owner) = (false, worker),
            Self::Tombstone => rows.tombstone = true,
            Self::Take(found) => {
                rows.reaped = true;
                if found {
                    (rows.queued, rows.owner) = (true, 0);
                }
            }
            Self::End => (rows.job, rows.owner, rows.done) = (false, 0, true),
        }
    }
}

/// What the controller knows of its enqueue.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    /// COMMIT was answered with an error.
    Error,
    Accepted,
    Refused,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Violation {
    RefusedAndDone,
    Half,
    OwnedByReapedWorker,
    TwoOwners,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct State {
    nodes: [Rows; 2],
    /// What each node has committed and the other one not yet, the oldest first.
    pending: [[Option<Write>; 2]; 2],
    /// Where the address leads.
    writer: usize,
    /// The first node left the group with what it had, and runs apart.
    apart: bool,
    told: Told,
    /// The controller's connection has half a transaction open.
    half: bool,
    /// The first worker's lease is over.
    lapsed: bool,
    /// What may still go wrong: an answer to COMMIT, a ROLLBACK, a lease, a failover.
    errors: u8,
    outages: u8,
    freezes: u8,
    failovers: u8,
    violation: Option<Violation>,
}

/// What happens next, at which node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Enqueue(usize),
    /// The same, answered with an error; whether it was committed.
    EnqueueAnsweredWithError(usize, bool),
    /// Looks for what it wrote.
    Look(usize),
    /// The majority is lost within an enqueue, and the ROLLBACK is refused as well.
    RollbackRefused,
    Claim(usize, u8),
    Freeze,
    Tombstone(usize),
    TakeJobs(usize),
    End(usize, u8),
    /// The other node gets the oldest transaction of this one.
    Replicate(usize),
    /// The second node becomes the writer, with all that was committed.
    Failover,
    /// The first node is started apart from the others.
    StartsApart,
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    rules: Rules,
}

impl Cluster {
    pub(crate) fn new(rules: Rules) -> Self {
        Cluster { rules }
    }

    /// Whether a process works at that node.
    fn leads_to(&self, state: &State, node: usize) -> bool {
        if state.apart && node == 0 {
            return !self.rules.on(Rule::PrimaryOfItsGroup);
        }
        node == state.writer || (state.writer == 0 && !self.rules.on(Rule::OneWriter))
    }

    /// Commits at a node; `None`: certification refuses it.
    fn commit(state: &mut State, node: usize, write: Write) -> Option<()> {
        let alone = state.apart;
        if !alone {
            if state.pending[1 - node].iter().flatten().any(|other| other.conflicts(write)) {
                return None;
            }
            let place = state.pending[node].iter_mut().find(|place| place.is_none())?;
            *place = Some(write);
        }
        write.apply(&mut state.nodes[node]);
        Some(())
    }

    fn enqueue(state: &mut State, node: usize) -> Option<()> {
        if std::mem::take(&mut state.half) {
            // BEGIN commits what is open.
            state.nodes[node].job = true;
            return Some(());
        }
        let rows = state.nodes[node];
        if rows.job || rows.done {
            return None;
        }
        Self::commit(state, node, Write::Enqueue)
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Enqueue(node) if state.told == Told::Nothing && self.leads_to(state, node) => {
                Self::enqueue(state, node)?;
                state.told = Told::Accepted;
            }
            Action::EnqueueAnsweredWithError(node, done)
                if state.told == Told::Nothing && self.leads_to(state, node) =>
            {
                state.errors = state.errors.checked_sub(1)?;
                if done {
                    Self::enqueue(state, node)?;
                }
                let is_unknown = self.rules.on(Rule::ErrorAtCommitIsUnknown);
                state.told = if is_unknown { Told::Error } else { Told::Refused };
            }
            Action::Look(node) if state.told == Told::Error && self.leads_to(state, node) => {
                let rows = state.nodes[node];
                state.told = if rows.job || rows.done { Told::Accepted } else { Told::Nothing };
            }
            Action::RollbackRefused if state.told == Told::Nothing => {
                state.outages = state.outages.checked_sub(1)?;
                state.half = !self.rules.on(Rule::HalfIsClosed);
            }
            Action::Freeze => {
                state.freezes = state.freezes.checked_sub(1)?;
                state.lapsed = true;
            }
            Action::Failover if state.pending == [[None; 2]; 2] => {
                state.failovers = state.failovers.checked_sub(1)?;
                state.writer = 1;
            }
            Action::StartsApart if state.writer == 1 && !state.apart => {
                // It lacks whatever was committed since it left.
                state.apart = true;
                state.pending = [[None; 2]; 2];
            }
            Action::Replicate(node) => {
                let write = state.pending[node][0].take()?;
                state.pending[node].swap(0, 1);
                // A member that has left gets nothing any more.
                if !(state.writer == 1 && node == 1) {
                    write.apply(&mut state.nodes[1 - node]);
                }
            }
            Action::Claim(..) | Action::Tombstone(_) | Action::TakeJobs(_) | Action::End(..) => {
                self.work(state, action)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn work(&self, state: &mut State, action: Action) -> Option<()> {
        let (Action::Claim(node, _)
        | Action::Tombstone(node)
        | Action::TakeJobs(node)
        | Action::End(node, _)) = action
        else {
            return None;
        };
        if !self.leads_to(state, node) {
            return None;
        }
        let rows = state.nodes[node];
        let write = match action {
            // It locks the worker's row and requires it alive; it does not write it.
            Action::Claim(_, worker) if rows.queued && (worker == 2 || !rows.tombstone) => {
                Write::Claim(worker)
            }
            Action::Tombstone(_) if state.lapsed && !rows.tombstone => Write::Tombstone,
            Action::TakeJobs(_) if rows.tombstone && !rows.reaped => Write::Take(rows.owner == 1),
            Action::End(_, worker) if rows.owner == worker && (worker == 2 || !state.lapsed) => Write::End,
            _ => return None,
        };
        let others = state.nodes[1 - node];
        if matches!(write, Write::Claim(_)) && state.apart && node == 0 && (others.owner != 0 || others.done)
        {
            state.violation = Some(Violation::TwoOwners);
        }
        Self::commit(state, node, write)
    }

    fn check(state: &mut State) {
        let found = if state.told == Told::Refused && state.nodes.iter().any(|rows| rows.job) {
            Some(Violation::RefusedAndDone)
        } else if state.nodes.iter().any(|rows| rows.job && !rows.queued && rows.owner == 0) {
            Some(Violation::Half)
        } else if state.nodes.iter().any(|rows| rows.reaped && rows.owner == 1) {
            Some(Violation::OwnedByReapedWorker)
        } else {
            None
        };
        state.violation = state.violation.or(found);
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { errors: 2, outages: 1, freezes: 1, failovers: 1, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        actions.extend([Action::RollbackRefused, Action::Freeze, Action::Failover, Action::StartsApart]);
        for node in NODES {
            actions.extend([Action::Enqueue(node), Action::Look(node), Action::Replicate(node)]);
            actions.extend([true, false].map(|done| Action::EnqueueAnsweredWithError(node, done)));
            actions.extend([Action::Tombstone(node), Action::TakeJobs(node)]);
            actions.extend([1, 2].map(|worker| Action::Claim(node, worker)));
            actions.extend([1, 2].map(|worker| Action::End(node, worker)));
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
            RefusedAndDone: "nothing is refused that was done",
            Half: "a live job is in the queue or has an owner",
            OwnedByReapedWorker: "a worker that was reaped owns nothing",
            TwoOwners: "no job is claimed that another worker holds or has ended",
        }
    }
}

impl Part for Cluster {
    fn bounds(&self) -> String {
        "1 job, 2 nodes, 2 workers, 2 COMMITs answered with an error, 1 refused ROLLBACK, 1 failover"
            .to_owned()
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    fn is_settled(&self, state: &State) -> bool {
        state.told == Told::Accepted && state.nodes[state.writer].done
    }

    fn is_fault(action: Action) -> bool {
        matches!(
            action,
            Action::EnqueueAnsweredWithError(..)
                | Action::RollbackRefused
                | Action::Freeze
                | Action::Failover
                | Action::StartsApart
        )
    }
}
