//! The fleet: its machines, rules and log, and how it is built.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::effects::{Counters, EffectLog, Entry, Which};
use super::fault::{Rule, RuleError};
use super::host::{Disk, HostRuleError, HostSettings, Shared};
use super::pace::Pace;
use super::pattern;
use super::power::{Delays, PowerState};
use super::qemu::{Machine, QemuSettings};
use super::rules::{ActiveRule, Rules};
use super::scenario::Scenario;
use super::sessions::Sessions;
use super::system::{Behind, Credentials, ResetTime, System, SystemView};
use super::time::{Clock, Millis};

/// What a BMC answers to a reset into the state that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SameState {
    /// 409 `ResourceInUse`, as most BMCs refuse it in one form or another.
    #[default]
    Conflict,
    /// 204, and nothing happens.
    NoContent,
}

/// The power of the machines at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InitialPower {
    /// All on.
    On,
    /// All off.
    #[default]
    Off,
    /// The first on, the second off, and so on.
    Mixed,
}

/// What is behind the BMCs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostKind {
    /// Hosts that are worked out: [`HostSettings`] says how they are.
    #[default]
    Emulated,
    /// Virtual machines.
    Qemu(QemuSettings),
}

impl HostKind {
    fn behind(&self) -> Behind {
        match self {
            Self::Emulated => Behind::Emulated,
            Self::Qemu(settings) => Behind::Qemu(Machine::new(settings.clone())),
        }
    }
}

/// Which machines have `LastResetTime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastResetTime {
    /// None.
    Never,
    /// Every n-th: with 3, the third, the sixth and so on; with 1 (or 0), all.
    Every(usize),
}

/// A fleet that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No machine.
    #[error("systems is 0: ask for at least 1")]
    NoSystems,
    /// A prefix that does not fit into a path.
    #[error("name-prefix is '{0}': use 1 to 40 letters, digits, '-', '_' and '.'")]
    NamePrefix(String),
    /// Names that Basic authentication cannot carry.
    #[error(
        "username is '{0}': use at least one character and no ':' (Basic authentication cannot carry it)"
    )]
    Username(String),
    /// A rule that cannot be meant.
    #[error("faults[{index}].{error}")]
    Rule {
        /// Which of the rules, from 0.
        index: usize,
        /// Why.
        error: RuleError,
    },
    /// A host rule that cannot be meant.
    #[error("hosts[{index}].{error}")]
    HostRule {
        /// Which of the rules, from 0.
        index: usize,
        /// Why.
        error: HostRuleError,
    },
    /// A system entry of the scenario that names nobody.
    #[error(
        "systems[{index}].name is '{name}', and no system of the fleet matches it; the first one is '{first}'"
    )]
    NoSuchSystem {
        /// Which of the entries, from 0.
        index: usize,
        /// The name.
        name: String,
        /// A name that exists.
        first: String,
    },
}

/// How a fleet shall be.
#[derive(Debug, Clone)]
pub struct FleetBuilder {
    systems: usize,
    name_prefix: String,
    seed: u64,
    credentials: Credentials,
    power_on: Duration,
    power_off: Duration,
    initial: InitialPower,
    last_reset_time: LastResetTime,
    same_state: SameState,
    log_capacity: usize,
    session_limit: usize,
    bmc_reboot: Duration,
    pace: Option<Pace>,
    host_kind: HostKind,
    hosts: HostSettings,
    scenario: Scenario,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) clock: Clock,
    pub(super) seed: u64,
    pub(super) systems: Vec<System>,
    pub(super) by_name: HashMap<String, usize>,
    pub(super) credentials: Credentials,
    pub(super) same_state: SameState,
    pub(super) log: EffectLog,
    pub(super) rules: Rules,
    pub(super) sessions: Sessions,
    pub(super) bmc_reboot: Millis,
    pub(super) pace: Option<Pace>,
    pub(super) hosts: Arc<Shared>,
}

/// A fleet of emulated BMCs. Clones are the same fleet.
#[derive(Debug, Clone)]
pub struct Fleet(pub(super) Arc<Inner>);

/// The new power that a person gives a machine by its button.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ButtonPower {
    /// On at once.
    #[serde(alias = "PoweredOn")]
    On,
    /// Off at once.
    #[serde(alias = "PoweredOff")]
    Off,
}

impl From<ButtonPower> for PowerState {
    fn from(power: ButtonPower) -> Self {
        match power {
            ButtonPower::On => Self::On,
            ButtonPower::Off => Self::Off,
        }
    }
}

impl Default for FleetBuilder {
    fn default() -> Self {
        Self {
            systems: 10,
            name_prefix: "system-".to_owned(),
            seed: 0,
            credentials: Credentials { username: "admin".to_owned(), password: "password".to_owned() },
            power_on: Duration::from_secs(2),
            power_off: Duration::from_secs(1),
            initial: InitialPower::default(),
            last_reset_time: LastResetTime::Every(3),
            same_state: SameState::default(),
            log_capacity: 100_000,
            session_limit: 4,
            bmc_reboot: Duration::from_secs(90),
            pace: None,
            host_kind: HostKind::default(),
            hosts: HostSettings::default(),
            scenario: Scenario::default(),
        }
    }
}

impl FleetBuilder {
    /// How many machines (default 10). They are named by the prefix and a number from 1 with four digits or more.
    #[must_use]
    pub fn systems(self, systems: usize) -> Self {
        Self { systems, ..self }
    }

    /// What the names start with (default `system-`).
    #[must_use]
    pub fn name_prefix(self, prefix: impl Into<String>) -> Self {
        Self { name_prefix: prefix.into(), ..self }
    }

    /// What inventories and random choices follow from (default 0).
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The credentials of every BMC that the scenario gives no others (default `admin`, `password`).
    #[must_use]
    pub fn credentials(self, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { credentials: Credentials { username: username.into(), password: password.into() }, ..self }
    }

    /// How long powering on and off take (default 2 s and 1 s).
    #[must_use]
    pub fn delays(self, power_on: Duration, power_off: Duration) -> Self {
        Self { power_on, power_off, ..self }
    }

    /// The power of the machines at the start (default off).
    #[must_use]
    pub fn initial_power(self, initial: InitialPower) -> Self {
        Self { initial, ..self }
    }

    /// Which machines have `LastResetTime` (default every third).
    #[must_use]
    pub fn last_reset_time(self, which: LastResetTime) -> Self {
        Self { last_reset_time: which, ..self }
    }

    /// What a reset into the state that is there already gets (default 409).
    #[must_use]
    pub fn same_state(self, same_state: SameState) -> Self {
        Self { same_state, ..self }
    }

    /// How many mutating requests, and how many reads, the log keeps (default 100,000 each).
    #[must_use]
    pub fn log_capacity(self, entries: usize) -> Self {
        Self { log_capacity: entries, ..self }
    }

    /// How many sessions a BMC keeps (default 4).
    #[must_use]
    pub fn session_limit(self, sessions: usize) -> Self {
        Self { session_limit: sessions, ..self }
    }

    /// For how long a BMC that starts again is away (default 90 s).
    #[must_use]
    pub fn bmc_reboot(self, away: Duration) -> Self {
        Self { bmc_reboot: away, ..self }
    }

    /// How long a BMC takes for each request (default no time).
    #[must_use]
    pub fn pace(self, pace: Option<Pace>) -> Self {
        Self { pace, ..self }
    }

    /// What is behind the BMCs (default emulated hosts).
    #[must_use]
    pub fn host_kind(self, host_kind: HostKind) -> Self {
        Self { host_kind, ..self }
    }

    /// How the emulated hosts behind the BMCs are; virtual machines take only the boot URL from it.
    #[must_use]
    pub fn hosts(self, hosts: HostSettings) -> Self {
        Self { hosts, ..self }
    }

    /// Exceptions for single machines, and misbehaviour from the start.
    #[must_use]
    pub fn scenario(self, scenario: Scenario) -> Self {
        Self { scenario, ..self }
    }

    /// Builds the fleet; its clock starts now.
    pub fn build(self) -> Result<Fleet, FleetError> {
        if self.systems == 0 {
            return Err(FleetError::NoSystems);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=40).contains(&self.name_prefix.len()) || !self.name_prefix.chars().all(fits) {
            return Err(FleetError::NamePrefix(self.name_prefix));
        }
        let others = self.scenario.systems.iter().filter_map(|system| system.credentials.as_ref());
        for credentials in std::iter::once(&self.credentials).chain(others) {
            if credentials.username.is_empty() || credentials.username.contains(':') {
                return Err(FleetError::Username(credentials.username.clone()));
            }
        }
        let delays = Delays { on: millis(self.power_on), off: millis(self.power_off) };
        let disk = match self.host_kind {
            HostKind::Emulated => self.hosts.disk.clone(),
            HostKind::Qemu(_) => Disk::Unknown,
        };
        let hosts = Arc::new(Shared::new(self.seed, self.hosts));
        let systems: Vec<System> = (1..=self.systems)
            .map(|number| {
                let name = format!("{}{number:04}", self.name_prefix);
                let reported = match self.last_reset_time {
                    LastResetTime::Never => ResetTime::NotReported,
                    LastResetTime::Every(n) if number % n.max(1) == 0 => ResetTime::Reported,
                    LastResetTime::Every(_) => ResetTime::NotReported,
                };
                let power = match self.initial {
                    InitialPower::On => PowerState::On,
                    InitialPower::Mixed if number % 2 == 1 => PowerState::On,
                    InitialPower::Off | InitialPower::Mixed => PowerState::Off,
                };
                let host = (self.host_kind.behind(), Arc::clone(&hosts), disk.clone());
                System::new((number - 1, name), reported, power, delays, host)
            })
            .collect();
        self.scenario.apply(&systems)?;
        let by_name =
            systems.iter().enumerate().map(|(index, system)| (system.name.clone(), index)).collect();
        let fleet = Fleet(Arc::new(Inner {
            clock: Clock::start(),
            seed: self.seed,
            systems,
            by_name,
            credentials: self.credentials,
            same_state: self.same_state,
            log: EffectLog::new(self.log_capacity),
            rules: Rules::new(self.seed),
            sessions: Sessions::new(self.session_limit),
            bmc_reboot: millis(self.bmc_reboot),
            pace: self.pace,
            hosts,
        }));
        for (index, rule) in self.scenario.faults.into_iter().enumerate() {
            fleet.add_fault(rule).map_err(|error| FleetError::Rule { index, error })?;
        }
        for (index, rule) in self.scenario.hosts.into_iter().enumerate() {
            fleet.add_host_rule(rule).map_err(|error| FleetError::HostRule { index, error })?;
        }
        Ok(fleet)
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

impl Fleet {
    /// A fleet of ten machines that are off, to be changed before it is built.
    pub fn builder() -> FleetBuilder {
        FleetBuilder::default()
    }

    /// The time of the log now, in milliseconds since the fleet was built.
    pub fn now(&self) -> Millis {
        self.0.clock.now()
    }

    /// The names of the machines, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.systems.iter().map(|system| system.name.as_str())
    }

    /// One machine as it is now.
    pub fn system(&self, name: &str) -> Option<SystemView> {
        self.find(name).map(|system| system.view(self.0.seed, self.now()))
    }

    /// All machines as they are now.
    pub fn systems(&self) -> Vec<SystemView> {
        let now = self.now();
        self.0.systems.iter().map(|system| system.view(self.0.seed, now)).collect()
    }

    /// Presses the button: the power is so at once. Whether there is such a machine.
    pub fn press(&self, name: &str, power: ButtonPower) -> bool {
        let Some(system) = self.find(name) else { return false };
        system.press(self.now(), power.into());
        true
    }

    /// Gives one BMC other credentials, as a rotation does. Whether there is such a machine.
    pub fn set_credentials(&self, name: &str, credentials: Credentials) -> bool {
        let Some(system) = self.find(name) else { return false };
        system.at(self.now(), |state| state.credentials = Some(credentials));
        true
    }

    /// Puts another machine behind a BMC; what is `None` stays. Whether there is such a system.
    pub fn set_identity(&self, name: &str, serial_number: Option<String>, uuid: Option<String>) -> bool {
        let Some(system) = self.find(name) else { return false };
        system.at(self.now(), |state| {
            if serial_number.is_some() {
                state.serial = serial_number;
            }
            if uuid.is_some() {
                state.uuid = uuid;
            }
            state.version += 1;
        });
        true
    }

    /// Sets a misbehaviour rule; its number.
    pub fn add_fault(&self, rule: Rule) -> Result<u64, RuleError> {
        rule.check()?;
        if let Some(wanted) = &rule.system
            && !self.names().any(|name| pattern::matches(wanted, name))
        {
            return Err(RuleError::NoSuchSystem(wanted.clone()));
        }
        Ok(self.0.rules.add(rule, self.now()))
    }

    /// The rules, with how often they acted.
    pub fn faults(&self) -> Vec<ActiveRule> {
        self.0.rules.list()
    }

    /// Deletes one rule; whether there was one.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.0.rules.remove(id)
    }

    /// Deletes all rules; how many there were.
    pub fn clear_faults(&self) -> usize {
        self.0.rules.clear()
    }

    /// The requests after `since` (a `seq`; 0 for all), in order of arrival.
    pub fn entries(&self, which: Which, system: Option<&str>, since: u64) -> Vec<Entry> {
        self.0.log.entries(which, system, since, usize::MAX).0
    }

    /// The counters of the requests.
    pub fn counters(&self) -> Counters {
        self.0.log.counters()
    }

    pub(super) fn find(&self, name: &str) -> Option<&System> {
        self.0.by_name.get(name).and_then(|index| self.0.systems.get(*index))
    }
}
