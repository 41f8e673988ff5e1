//! The power of one system: an agenda of what will happen, played up to "now" whenever somebody looks.
//!
//! There is no task per system, so a fleet of ten thousand costs memory only.

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// Redfish `PowerState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    /// The host runs.
    On,
    /// The host is off.
    Off,
    /// Between off and on.
    PoweringOn,
    /// Between on and off.
    PoweringOff,
}

impl PowerState {
    /// The name in Redfish.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::PoweringOn => "PoweringOn",
            Self::PoweringOff => "PoweringOff",
        }
    }
}

/// Redfish `ResetType`, as far as the emulated machines know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResetType {
    /// Turn on.
    On,
    /// Turn on, whatever the state.
    ForceOn,
    /// Turn off without asking the guest.
    ForceOff,
    /// Ask the guest to shut down.
    GracefulShutdown,
    /// Ask the guest to restart.
    GracefulRestart,
    /// Restart without asking the guest.
    ForceRestart,
    /// Off and on again.
    PowerCycle,
}

impl ResetType {
    /// Every value, in the order of the allowable values.
    pub const ALL: [Self; 7] = [
        Self::On,
        Self::ForceOff,
        Self::GracefulShutdown,
        Self::GracefulRestart,
        Self::ForceRestart,
        Self::ForceOn,
        Self::PowerCycle,
    ];

    /// The name in Redfish.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::ForceOn => "ForceOn",
            Self::ForceOff => "ForceOff",
            Self::GracefulShutdown => "GracefulShutdown",
            Self::GracefulRestart => "GracefulRestart",
            Self::ForceRestart => "ForceRestart",
            Self::PowerCycle => "PowerCycle",
        }
    }

    /// The value of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == text)
    }

    /// Whether a guest that does not react makes it void.
    pub const fn asks_the_guest(self) -> bool {
        matches!(self, Self::GracefulShutdown | Self::GracefulRestart)
    }
}

/// How long the transitions take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delays {
    pub(super) on: Millis,
    pub(super) off: Millis,
}

/// Who changes the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    /// The agenda: the transitions take so long.
    Timed(Delays),
    /// A machine that is told what is wanted, and tells in what state it is.
    Machine,
}

/// Whether the state that a reset asks for is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acceptance {
    Accepted,
    /// There already, or on the way there.
    SameState,
    /// The host is off, and the reset needs one that runs.
    NeedsPower,
}

/// What a machine did while its agenda was played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// The host started (or started again) at that time.
    Reset(Millis),
    /// The power state changed.
    Changed(PowerState),
    /// The power came back by itself at that time.
    Restored(Millis),
    /// A machine that changes its power itself is asked for this.
    Asked(ResetType, Millis),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Become(PowerState),
    /// The host starts: the moment of `LastResetTime` and of the boot override.
    Start,
    Perform(ResetType),
    /// The state flips back by itself, whatever was asked since.
    Restore(PowerState),
}

/// One machine's power.
#[derive(Debug)]
pub(super) struct Power {
    state: PowerState,
    supply: Supply,
    agenda: Vec<(Millis, Step)>,
}

impl Power {
    pub(super) fn new(state: PowerState, supply: Supply) -> Self {
        Self { state, supply, agenda: Vec::new() }
    }

    /// Plays the agenda up to `now` and tells what happened.
    pub(super) fn advance(&mut self, now: Millis) -> Vec<Happening> {
        let mut happenings = Vec::new();
        while let Some(next) = self.agenda.iter().position(|(at, _)| *at <= now) {
            let (at, step) = self.agenda.remove(next);
            match (step, self.supply) {
                (Step::Perform(reset), Supply::Machine) => {
                    if self.acceptance(reset) == Acceptance::Accepted {
                        happenings.push(Happening::Asked(reset, at));
                    }
                }
                (Step::Restore(state), Supply::Machine) => {
                    let reset =
                        if state == PowerState::On { ResetType::ForceOn } else { ResetType::ForceOff };
                    if self.acceptance(reset) == Acceptance::Accepted {
                        happenings.push(Happening::Asked(reset, at));
                    }
                }
                (Step::Become(state) | Step::Restore(state), _) => {
                    if state != self.state {
                        self.state = state;
                        happenings.push(Happening::Changed(state));
                        if step == Step::Restore(PowerState::On) {
                            happenings.push(Happening::Restored(at));
                        }
                    }
                }
                (Step::Start, _) => happenings.push(Happening::Reset(at)),
                (Step::Perform(reset), Supply::Timed(delays)) => self.begin(reset, at, delays),
            }
        }
        happenings
    }

    /// The state after the last [`Self::advance`].
    pub(super) fn state(&self) -> PowerState {
        self.state
    }

    /// Who changes it.
    pub(super) fn supply(&self) -> Supply {
        self.supply
    }

    /// Whether a BMC would accept this reset now.
    pub(super) fn acceptance(&self, reset: ResetType) -> Acceptance {
        let on = matches!(self.state, PowerState::On | PowerState::PoweringOn);
        match reset {
            ResetType::On | ResetType::ForceOn if on => Acceptance::SameState,
            ResetType::ForceOff | ResetType::GracefulShutdown if self.state == PowerState::Off => {
                Acceptance::SameState
            }
            ResetType::GracefulShutdown if self.state == PowerState::PoweringOff => Acceptance::SameState,
            ResetType::GracefulRestart | ResetType::ForceRestart | ResetType::PowerCycle if !on => {
                Acceptance::NeedsPower
            }
            _ => Acceptance::Accepted,
        }
    }

    /// Performs `reset` at `at`, which may be in the future.
    pub(super) fn perform(&mut self, reset: ResetType, at: Millis) {
        self.insert(at, Step::Perform(reset));
    }

    /// Lets the state flip back to `state` at `at`.
    pub(super) fn restore(&mut self, state: PowerState, at: Millis) {
        self.insert(at, Step::Restore(state));
    }

    /// How long the transition of this reset takes.
    pub(super) fn duration(&self, reset: ResetType) -> Millis {
        let Supply::Timed(Delays { on, off }) = self.supply else { return 0 };
        match reset {
            ResetType::On | ResetType::ForceOn => on,
            ResetType::ForceOff | ResetType::GracefulShutdown => off,
            ResetType::GracefulRestart | ResetType::ForceRestart => 0,
            ResetType::PowerCycle => on.saturating_add(off),
        }
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Millis> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// The power fails: off at once. Requests that are on their way still come.
    pub(super) fn fail(&mut self) {
        self.agenda.retain(|(_, step)| matches!(step, Step::Perform(_) | Step::Restore(_)));
        self.state = PowerState::Off;
    }

    /// The state is this from now on, as a machine tells. Requests that are on their way still come.
    pub(super) fn is_now(&mut self, state: PowerState) {
        self.state = state;
    }

    /// Sets the state at once and forgets what was on the way.
    pub(super) fn set(&mut self, state: PowerState) {
        self.agenda.clear();
        self.state = state;
    }

    fn begin(&mut self, reset: ResetType, at: Millis, Delays { on, off }: Delays) {
        if self.acceptance(reset) != Acceptance::Accepted {
            return;
        }
        // A new request replaces the transition that is under way; other requests on their way stay.
        self.agenda.retain(|(_, step)| matches!(step, Step::Perform(_) | Step::Restore(_)));
        match reset {
            ResetType::On | ResetType::ForceOn => self.power_on(at, on),
            ResetType::ForceOff | ResetType::GracefulShutdown => self.power_off(at, off),
            // The power stays on: only the host starts again.
            ResetType::GracefulRestart | ResetType::ForceRestart => {
                self.insert(at, Step::Become(PowerState::On));
                self.insert(at, Step::Start);
            }
            ResetType::PowerCycle => {
                self.power_off(at, off);
                self.power_on(at.saturating_add(off), on);
            }
        }
    }

    fn power_on(&mut self, at: Millis, takes: Millis) {
        self.insert(at, Step::Become(PowerState::PoweringOn));
        self.insert(at.saturating_add(takes), Step::Become(PowerState::On));
        self.insert(at.saturating_add(takes), Step::Start);
    }

    fn power_off(&mut self, at: Millis, takes: Millis) {
        self.insert(at, Step::Become(PowerState::PoweringOff));
        self.insert(at.saturating_add(takes), Step::Become(PowerState::Off));
    }

    /// Keeps the agenda in order of time, and of arrival within one millisecond.
    fn insert(&mut self, at: Millis, step: Step) {
        let position = self.agenda.partition_point(|(other, _)| *other <= at);
        self.agenda.insert(position, (at, step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(state: PowerState) -> Power {
        Power::new(state, Supply::Timed(Delays { on: 100, off: 50 }))
    }

    #[test]
    fn a_machine_is_asked_and_tells_its_state_itself() {
        let mut power = Power::new(PowerState::Off, Supply::Machine);
        power.perform(ResetType::On, 10);
        assert_eq!(power.advance(10), [Happening::Asked(ResetType::On, 10)]);
        assert_eq!(power.state(), PowerState::Off);
        power.is_now(PowerState::On);
        power.perform(ResetType::On, 20);
        assert!(power.advance(20).is_empty(), "it is on already");
        power.restore(PowerState::Off, 30);
        assert_eq!(power.advance(30), [Happening::Asked(ResetType::ForceOff, 30)]);
    }

    #[test]
    fn powering_on_passes_through_powering_on_and_starts_the_host_once() {
        let mut power = machine(PowerState::Off);
        power.perform(ResetType::On, 10);
        assert!(power.advance(9).is_empty());
        power.advance(10);
        assert_eq!(power.state(), PowerState::PoweringOn);
        assert_eq!(power.advance(110), [Happening::Changed(PowerState::On), Happening::Reset(110)]);
        assert_eq!(power.state(), PowerState::On);
        assert!(power.advance(10_000).is_empty());
    }

    #[test]
    fn a_power_cycle_that_nobody_watched_ends_with_on_and_one_start() {
        let mut power = machine(PowerState::On);
        power.perform(ResetType::PowerCycle, 0);
        let happenings = power.advance(1_000);
        assert_eq!(happenings.iter().filter(|h| matches!(h, Happening::Reset(_))).count(), 1);
        assert_eq!(power.state(), PowerState::On);
    }

    #[test]
    fn forcing_off_while_powering_on_ends_off() {
        let mut power = machine(PowerState::Off);
        power.perform(ResetType::On, 0);
        power.advance(50);
        power.perform(ResetType::ForceOff, 50);
        let happenings = power.advance(1_000);
        assert_eq!(power.state(), PowerState::Off);
        assert!(!happenings.iter().any(|h| matches!(h, Happening::Reset(_))));
    }

    #[test]
    fn a_late_request_takes_effect_at_its_time_whatever_came_in_between() {
        let mut power = machine(PowerState::On);
        power.perform(ResetType::ForceOff, 500);
        power.perform(ResetType::ForceRestart, 0);
        power.advance(499);
        assert_eq!(power.state(), PowerState::On);
        power.advance(600);
        assert_eq!(power.state(), PowerState::Off);
    }

    #[test]
    fn a_late_request_for_the_state_that_is_there_does_nothing() {
        let mut power = machine(PowerState::Off);
        power.perform(ResetType::ForceOff, 5);
        assert!(power.advance(1_000).is_empty());
    }

    #[test]
    fn a_state_that_reverts_is_back_after_its_time() {
        let mut power = machine(PowerState::On);
        power.perform(ResetType::ForceOff, 0);
        power.restore(PowerState::On, 80);
        power.advance(79);
        assert_eq!(power.state(), PowerState::Off);
        power.advance(80);
        assert_eq!(power.state(), PowerState::On);
    }

    #[test]
    fn restarts_need_a_host_that_runs() {
        let power = machine(PowerState::Off);
        assert_eq!(power.acceptance(ResetType::ForceRestart), Acceptance::NeedsPower);
        assert_eq!(power.acceptance(ResetType::ForceOff), Acceptance::SameState);
        assert_eq!(power.acceptance(ResetType::On), Acceptance::Accepted);
    }
}
