//! Lanes: a queued job is moved from one to another while claims go on. Two jobs, two lanes, two that move, two workers.
//!
//! Here the locks are in the model: a transaction takes them one by one, and what it writes is seen at its COMMIT.

use stateright::{Model, Property};

use crate::part::{Part, never};
use crate::rules::{Rule, Rules};
use crate::state::BOTH;

/// The more urgent one first. The key of a row is (lane, age).
const LANES: [u8; 2] = [0, 1];

/// Older than any age: a look from the start.
const START: u8 = 0;

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Job {
    /// One bit per lane in which it has a queue row.
    rows: u8,
    /// Where `job` says that its queue row is, or would be.
    lane: u8,
    /// `job` says that it has a queue row.
    queued: bool,
    /// The age in the key of its row. The first job is the older one.
    age: u8,
    owned: bool,
    ended: bool,
    /// Whose lock its queue row has: an actor + 1.
    row_lock: u8,
    /// Whose lock its `job` row has.
    lock: u8,
}

/// What a transaction has done so far.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Move {
    #[default]
    Idle,
    /// Has read the key, without a lock.
    Read(Seen),
    /// Has locked the queue row, if the job has one.
    RowLocked(Seen),
    BothLocked(Seen),
    /// Has deleted the old row (only without `MoveIsOneTransaction`).
    Deleted(usize),
}

/// A job, and the lane in which it was seen queued; `None`: a worker had it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Seen {
    job: usize,
    at: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Fetch {
    #[default]
    Idle,
    RowLocked(usize, u8),
    BothLocked(usize, u8),
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Worker {
    fetch: Fetch,
    /// The age from which it looks, by lane: everything older was claimed when it looked last.
    hints: [u8; 2],
    /// Stands still, with the locks that it has.
    frozen: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Violation {
    InTwoPlaces,
    InNoPlace,
    KeyWrong,
    YoungerFirst,
}

/// The jobs, and who is doing what to them.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct State {
    jobs: [Job; 2],
    movers: [Move; 2],
    workers: [Worker; 2],
    /// How often a job may still be moved.
    moves: u8,
    hand_backs: u8,
    freezes: u8,
    violation: Option<Violation>,
}

/// What happens next. The numbers are the one that moves or the worker, the job, the lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    ReadKey(usize, usize),
    /// The next statement of a move.
    MoveOn(usize),
    FetchFromHint(usize, u8),
    FetchFromStart(usize, u8),
    /// The next statement of a claim.
    ClaimOn(usize),
    Complete(usize),
    HandBack(usize),
    Freeze(usize),
}

/// The part, with its rules.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    rules: Rules,
}

impl Lanes {
    pub(crate) fn new(rules: Rules) -> Self {
        Lanes { rules }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::ReadKey(m, j) => {
                let Job { lane, queued, ended, .. } = state.jobs[j];
                if ended || state.movers[m] != Move::Idle {
                    return None;
                }
                state.moves = state.moves.checked_sub(1)?;
                state.movers[m] = Move::Read(Seen { job: j, at: queued.then_some(lane) });
            }
            Action::MoveOn(m) => self.move_on(state, m)?,
            Action::FetchFromHint(w, lane) => {
                Self::fetch(state, w, lane, state.workers[w].hints[usize::from(lane)])?;
            }
            Action::FetchFromStart(w, lane) => {
                let hint = state.workers[w].hints[usize::from(lane)];
                // From the start only where the look from the hint found too little.
                let short = self.rules.on(Rule::ShortClaimLooksAgain) && hint != START;
                if !short || found(state, lane, hint).is_some() {
                    return None;
                }
                Self::fetch(state, w, lane, START)?;
            }
            Action::ClaimOn(w) => Self::claim_on(state, w)?,
            Action::Complete(j) | Action::HandBack(j) => {
                let job = &mut state.jobs[j];
                // Whoever moves it may hold its row a moment longer.
                if !job.owned || job.lock != 0 {
                    return None;
                }
                job.owned = false;
                if matches!(action, Action::Complete(_)) {
                    *job = Job { ended: true, ..Job::default() };
                } else {
                    state.hand_backs = state.hand_backs.checked_sub(1)?;
                    job.queued = true;
                    job.rows |= 1 << job.lane;
                }
            }
            Action::Freeze(w) => {
                state.freezes = state.freezes.checked_sub(1)?;
                state.workers[w].frozen = true;
            }
        }
        Some(())
    }

    /// The queue row, then the job, neither waiting; then whether the job still is where it was seen.
    fn move_on(&self, state: &mut State, m: usize) -> Option<()> {
        let me = m as u8 + 1;
        state.movers[m] = match state.movers[m] {
            Move::Idle => return None,
            Move::Read(seen) => {
                let job = &mut state.jobs[seen.job];
                let row = seen.at.map(|lane| job.rows & (1 << lane) != 0);
                match row {
                    Some(true) if job.row_lock != 0 => self.busy(state, me)?,
                    Some(true) => {
                        job.row_lock = me;
                        Move::RowLocked(seen)
                    }
                    Some(false) if self.rules.on(Rule::MissingRowIsBusy) => Move::Idle,
                    Some(false) | None => Move::RowLocked(seen),
                }
            }
            Move::RowLocked(seen) => {
                if state.jobs[seen.job].lock != 0 {
                    self.busy(state, me)?
                } else {
                    state.jobs[seen.job].lock = me;
                    Move::BothLocked(seen)
                }
            }
            Move::BothLocked(seen) => self.write_move(state, me, seen)?,
            Move::Deleted(j) => {
                self.insert_moved(&mut state.jobs[j]);
                unlock(state, me);
                Move::Idle
            }
        };
        Some(())
    }

    /// Another transaction has the lock. `None`: waits for it.
    fn busy(&self, state: &mut State, me: u8) -> Option<Move> {
        if !self.rules.on(Rule::MoveAnswersBusy) {
            return None;
        }
        unlock(state, me);
        Some(Move::Idle)
    }

    fn write_move(&self, state: &mut State, me: u8, seen: Seen) -> Option<Move> {
        let job = &mut state.jobs[seen.job];
        let now = job.queued.then_some(job.lane);
        if job.ended || (now != seen.at && self.rules.on(Rule::MoveChecksKeyAgain)) {
            unlock(state, me);
            return Some(Move::Idle);
        }
        let Some(lane) = seen.at else {
            // Nothing to move: it goes to the new lane when its worker gives it back.
            job.lane = 1 - job.lane;
            unlock(state, me);
            return Some(Move::Idle);
        };
        if job.rows & (1 << lane) != 0 && ![0, me].contains(&job.row_lock) {
            // A DELETE waits for whoever has locked the row.
            return None;
        }
        job.rows &= !(1 << lane);
        if !self.rules.on(Rule::MoveIsOneTransaction) {
            return Some(Move::Deleted(seen.job));
        }
        self.insert_moved(job);
        unlock(state, me);
        Some(Move::Idle)
    }

    fn insert_moved(&self, job: &mut Job) {
        let to = 1 - job.lane;
        job.rows |= 1 << to;
        if self.rules.on(Rule::MoveWritesKey) {
            job.lane = to;
        }
        if !self.rules.on(Rule::MoveKeepsAge) {
            job.age = 3;
        }
    }

    /// Locks the oldest row of a lane that nobody has locked.
    fn fetch(state: &mut State, w: usize, lane: u8, from: u8) -> Option<()> {
        let worker = state.workers[w];
        if worker.fetch != Fetch::Idle || worker.frozen {
            return None;
        }
        let j = found(state, lane, from)?;
        // Below the hint it has not looked.
        if (0..j).any(|older| free_in(state, older, lane) && state.jobs[older].age >= from) {
            state.violation.get_or_insert(Violation::YoungerFirst);
        }
        state.jobs[j].row_lock = worker_id(w);
        state.workers[w].fetch = Fetch::RowLocked(j, lane);
        Some(())
    }

    fn claim_on(state: &mut State, w: usize) -> Option<()> {
        let me = worker_id(w);
        if state.workers[w].frozen {
            return None;
        }
        state.workers[w].fetch = match state.workers[w].fetch {
            Fetch::Idle => return None,
            Fetch::RowLocked(j, lane) => {
                if state.jobs[j].lock != 0 {
                    return None;
                }
                state.jobs[j].lock = me;
                Fetch::BothLocked(j, lane)
            }
            Fetch::BothLocked(j, lane) => {
                let job = &mut state.jobs[j];
                job.rows &= !(1 << lane);
                job.queued = false;
                job.owned = true;
                state.workers[w].hints[usize::from(lane)] = job.age;
                unlock(state, me);
                Fetch::Idle
            }
        };
        Some(())
    }
}

/// The locks of a worker, apart from those of the two that move.
fn worker_id(w: usize) -> u8 {
    w as u8 + 3
}

fn free_in(state: &State, j: usize, lane: u8) -> bool {
    state.jobs[j].rows & (1 << lane) != 0 && state.jobs[j].row_lock == 0
}

/// The oldest row of a lane from this age on that nobody has locked: `SKIP LOCKED`.
fn found(state: &State, lane: u8, from: u8) -> Option<usize> {
    let here = |j: &usize| free_in(state, *j, lane) && state.jobs[*j].age >= from;
    BOTH.into_iter().filter(here).min_by_key(|j| state.jobs[*j].age)
}

fn unlock(state: &mut State, actor: u8) {
    for job in &mut state.jobs {
        for lock in [&mut job.row_lock, &mut job.lock] {
            if *lock == actor {
                *lock = 0;
            }
        }
    }
}

/// What must hold in every committed state by itself.
fn check(state: &mut State) {
    for job in state.jobs {
        let rows = job.rows.count_ones();
        let places = rows + u32::from(job.owned);
        let found = if places > 1 {
            Violation::InTwoPlaces
        } else if places == 0 && !job.ended {
            Violation::InNoPlace
        } else if rows == 1 && !(job.queued && job.rows == 1 << job.lane) {
            Violation::KeyWrong
        } else {
            continue;
        };
        state.violation.get_or_insert(found);
    }
}

impl Model for Lanes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // The older one waits in the less urgent lane.
        let job = |lane: u8, age: u8| Job { rows: 1 << lane, lane, queued: true, age, ..Job::default() };
        vec![State { jobs: [job(1, 1), job(0, 2)], moves: 2, hand_backs: 1, freezes: 1, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        for one in BOTH {
            actions.extend(BOTH.map(|j| Action::ReadKey(one, j)));
            actions.extend([Action::MoveOn(one), Action::ClaimOn(one), Action::Freeze(one)]);
            actions.extend([Action::Complete(one), Action::HandBack(one)]);
            for lane in LANES {
                actions.extend([Action::FetchFromHint(one, lane), Action::FetchFromStart(one, lane)]);
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action)?;
        check(&mut next);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        never! {
            InTwoPlaces: "a live job has one queue row or an owner",
            InNoPlace: "no live job is in no place",
            KeyWrong: "the job knows the key of its queue row",
            YoungerFirst: "of one lane the older job is claimed first",
        }
    }
}

impl Part for Lanes {
    fn bounds(&self) -> String {
        let State { moves, hand_backs, freezes, .. } = self.init_states()[0];
        format!(
            "2 jobs, 2 lanes, 2 that move, 2 workers, {moves} moves, {hand_backs} hand-back, {freezes} freeze"
        )
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    /// Nobody waits with a move, and every job has ended but for those whose rows a frozen worker keeps locked.
    fn is_settled(&self, state: &State) -> bool {
        let kept = |job: &Job| {
            state.workers.iter().enumerate().any(|(w, worker)| worker.frozen && job.row_lock == worker_id(w))
        };
        state.movers == [Move::Idle; 2] && state.jobs.iter().all(|job| job.ended || kept(job))
    }

    fn is_fault(action: Action) -> bool {
        matches!(action, Action::ReadKey(..) | Action::HandBack(_) | Action::Freeze(_))
    }
}
