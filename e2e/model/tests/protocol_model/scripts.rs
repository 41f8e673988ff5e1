//! Installations whose machine runs while the database is failed over. One server, one job, a machine that may be started
//! again by somebody at any moment, and a replica that has stopped at any moment.
//!
//! What may be done but once is to give the machine its script: that overwrites its disks. What the machine tells then comes
//! once, too.

use stateright::{Model, Property};

use crate::part::{Part, never};
use crate::rules::{Rule, Rules};

/// The `job` row with its boot session.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
struct Job {
    live: bool,
    /// Its machine was started: the steps that reset it are over.
    waits: bool,
    /// In which history its script was given first; 0: it was not.
    given_in: u8,
    installed: bool,
}

/// What status shows of the job.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Shown {
    #[default]
    Queued,
    Running,
    Ended,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Violation {
    InstalledTwice,
    EndedInVain,
}

#[expect(clippy::struct_excessive_bools, reason = "what is so, one by one")]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct State {
    job: Job,
    shown: Shown,
    /// What the replica has, once it has stopped.
    replica: Option<Job>,
    history: u8,
    underived: bool,
    /// The machine starts, and asks the network first.
    asks: bool,
    installing: bool,
    installed: bool,
    /// For the properties only: the failover has lost nothing of a job whose machine had its script.
    is_whole: bool,
    restarts: u8,
    violation: Option<Violation>,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// A worker starts the machine.
    Start,
    /// The machine asks for what it shall boot.
    Ask,
    /// The installed system calls home.
    CallHome,
    /// Somebody starts the machine again.
    Restart,
    /// A worker ends a job whose machine has called home.
    End,
    /// The same, of one that waited in vain.
    DeadlinePasses,
    Show,
    ReplicaStops,
    Failover,
    Derive,
}

impl Action {
    const ALL: [Self; 10] = [
        Self::Start,
        Self::Ask,
        Self::CallHome,
        Self::Restart,
        Self::End,
        Self::DeadlinePasses,
        Self::Show,
        Self::ReplicaStops,
        Self::Failover,
        Self::Derive,
    ];
}

#[derive(Clone, Debug)]
pub(crate) struct Scripts {
    rules: Rules,
}

impl Scripts {
    pub(crate) fn new(rules: Rules) -> Self {
        Scripts { rules }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        let job = state.job;
        match action {
            // The second witness.
            Action::Start if job.live && !job.waits && state.shown == Shown::Running && !state.underived => {
                state.job.waits = true;
                state.asks = true;
            }
            Action::Ask if state.asks => self.ask(state)?,
            Action::CallHome if state.installing => {
                state.installing = false;
                state.installed = true;
                // It tells this once.
                if job.live && job.given_in != 0 {
                    state.job.installed = true;
                }
            }
            Action::Restart => {
                state.restarts = state.restarts.checked_sub(1)?;
                state.asks = true;
                state.installing = false;
            }
            Action::End if job.live && job.installed && !state.underived => state.job.live = false,
            Action::DeadlinePasses
                if job.live
                    && job.waits
                    && !job.installed
                    && !state.underived
                    && !state.installing
                    && !state.asks =>
            {
                state.job.live = false;
            }
            Action::Show if !state.underived => {
                state.shown = if job.live { Shown::Running } else { Shown::Ended };
            }
            Action::ReplicaStops if state.replica.is_none() && state.history == 1 => {
                state.replica = Some(job);
            }
            Action::Failover => {
                let replica = state.replica.take()?;
                state.is_whole = job == replica && job.live && job.waits && job.given_in != 0;
                state.job = replica;
                state.history = 2;
                state.underived = true;
            }
            Action::Derive if state.underived => self.derive(state),
            _ => return None,
        }
        Some(())
    }

    /// A machine that is given nothing starts from its disk.
    fn ask(&self, state: &mut State) -> Option<()> {
        state.asks = false;
        let job = &mut state.job;
        if !job.live || job.installed || state.shown != Shown::Running {
            return Some(());
        }
        if state.underived {
            // It is asked to come again.
            return None;
        }
        let given_elsewhere = job.given_in != 0 && job.given_in != state.history;
        if given_elsewhere && self.rules.on(Rule::ScriptInOneHistory) {
            return Some(());
        }
        if job.given_in == 0 {
            job.given_in = state.history;
        }
        if state.installed {
            state.violation.get_or_insert(Violation::InstalledTwice);
        }
        state.installing = true;
        Some(())
    }

    fn derive(&self, state: &mut State) {
        state.underived = false;
        let had_its_script = state.job.given_in != 0 || !self.rules.on(Rule::OnlyGivenGoesOn);
        let goes_on = state.job.waits && had_its_script && self.rules.on(Rule::GivenGoesOn);
        let is_lost = match state.shown {
            Shown::Queued => false,
            Shown::Running => !goes_on,
            Shown::Ended => true,
        };
        if state.job.live && is_lost {
            state.job.live = false;
            if state.is_whole && state.shown == Shown::Running {
                state.violation.get_or_insert(Violation::EndedInVain);
            }
        }
        state.is_whole = false;
    }
}

impl Model for Scripts {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let job = Job { live: true, ..Job::default() };
        vec![State { job, history: 1, restarts: 2, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_none() {
            actions.extend(Action::ALL);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action)?;
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        never! {
            InstalledTwice: "what is installed is not installed again",
            EndedInVain: "an installation of which nothing is lost goes on",
        }
    }
}

impl Part for Scripts {
    fn bounds(&self) -> String {
        "1 job, 1 failover, 2 restarts of the machine by somebody".to_owned()
    }

    fn is_violated(state: &State) -> bool {
        state.violation.is_some()
    }

    fn is_settled(&self, state: &State) -> bool {
        !state.job.live && state.shown == Shown::Ended && !state.underived && !state.asks && !state.installing
    }

    fn is_fault(action: Action) -> bool {
        matches!(action, Action::Restart | Action::ReplicaStops | Action::Failover)
    }
}
