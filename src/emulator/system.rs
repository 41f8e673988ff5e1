//! One emulated machine and what can be done to it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::boot::{Boot, BootTarget};
use super::host::{Booted, Disk, Host, Shared, StartFrom};
use super::inventory::Inventory;
use super::media::Media;
use super::power::{Delays, Happening, Power, PowerState, ResetType, Supply};
use super::qemu::{BootFrom, Machine, Order};
use super::time::Millis;

/// A user name and a password of a BMC.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, …)", self.username)
    }
}

/// Whether a machine says when its host was last started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetTime {
    Reported,
    NotReported,
}

/// What is behind a BMC.
#[derive(Debug)]
pub(super) enum Behind {
    /// A host that is worked out: the machine's [`State::host`].
    Emulated,
    /// A virtual machine.
    Qemu(Machine),
}

/// What of a machine changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) power: Power,
    /// The emulated host. In place of it there may be a virtual machine: then it never starts.
    pub(super) host: Host,
    /// When the keeper of the hosts will look again.
    look: Option<Millis>,
    pub(super) boot: Boot,
    /// Overrides that take effect later, in order of time.
    pub(super) boots_to_come: Vec<(Millis, Boot)>,
    pub(super) booted_from: Option<BootTarget>,
    pub(super) media: Media,
    pub(super) last_reset: Option<Millis>,
    pub(super) resets: u64,
    /// Grows with every change that a reader can see: the source of the ETag.
    pub(super) version: u64,
    pub(super) bad_logins: u32,
    pub(super) locked_until: Millis,
    pub(super) credentials: Option<Credentials>,
    pub(super) serial: Option<String>,
    pub(super) uuid: Option<String>,
}

impl State {
    /// Sets the boot override at `at`; the order of the calls is kept.
    pub(super) fn set_boot(&mut self, boot: Boot, at: Millis) {
        let position = self.boots_to_come.partition_point(|(other, _)| *other <= at);
        self.boots_to_come.insert(position, (at, boot));
    }

    /// The power before anybody looked.
    pub(super) fn begin_with(&mut self, power: PowerState) {
        if self.power.supply() == Supply::Machine {
            let on = power == PowerState::On;
            return self.power.perform(if on { ResetType::ForceOn } else { ResetType::ForceOff }, 0);
        }
        self.power.set(power);
        self.last_reset = (power == PowerState::On).then_some(0);
        match power {
            PowerState::On => self.host.runs_already(),
            PowerState::Off | PowerState::PoweringOn | PowerState::PoweringOff => self.host.stop(),
        }
    }

    /// A virtual machine tells its power.
    pub(super) fn become_power(&mut self, power: PowerState) {
        if self.power.state() != power {
            self.version += 1;
            self.power.is_now(power);
        }
    }

    /// The host loses its power.
    pub(super) fn lose_power(&mut self) {
        self.version += 1;
        self.power.fail();
        self.host.stop();
    }

    fn take_boots(&mut self, now: Millis) {
        let due = self.boots_to_come.partition_point(|(at, _)| *at <= now);
        for (_, boot) in self.boots_to_come.drain(..due) {
            self.boot = boot;
            self.version += 1;
        }
    }
}

/// One machine.
#[derive(Debug)]
pub(super) struct System {
    /// Its place in the fleet.
    pub(super) index: usize,
    pub(super) name: String,
    hosts: Arc<Shared>,
    pub(super) behind: Behind,
    pub(super) reset_time: ResetTime,
    state: Mutex<State>,
}

/// A machine as `GET /emulator/systems` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SystemView {
    /// Its name: the id in the Redfish paths.
    pub name: String,
    /// The power state now.
    pub power: PowerState,
    /// The boot override now.
    pub boot: Boot,
    /// What the host booted from when it started last.
    pub booted_from: Option<BootTarget>,
    /// The image in its virtual CD drive.
    pub media: Option<String>,
    /// How often the host has started since the fleet did.
    pub resets: u64,
    /// When the host started last, in milliseconds since the start of the fleet.
    pub last_reset_ms: Option<Millis>,
    /// Bad logins in a row.
    pub bad_logins: u32,
    /// The serial number.
    pub serial_number: String,
    /// The UUID.
    pub uuid: String,
    /// The MAC address that the host boots from, lower case, with colons.
    pub boot_mac: String,
    /// What is on its disk.
    pub disk: Disk,
    /// What runs on it.
    pub booted: Booted,
    /// How many installations began to write to its disk.
    pub installs: u64,
    /// How many began to erase it.
    pub wipes: u64,
    /// How often it started again by itself; not among `resets`.
    pub reboots: u64,
}

impl System {
    pub(super) fn new(
        (index, name): (usize, String),
        reset_time: ResetTime,
        power: PowerState,
        delays: Delays,
        (behind, hosts, disk): (Behind, Arc<Shared>, Disk),
    ) -> Self {
        let supply = match behind {
            Behind::Emulated => Supply::Timed(delays),
            Behind::Qemu(_) => Supply::Machine,
        };
        let mut state = State {
            power: Power::new(PowerState::Off, supply),
            host: Host::new(disk),
            look: None,
            boot: Boot::default(),
            boots_to_come: Vec::new(),
            booted_from: None,
            media: Media::default(),
            last_reset: None,
            resets: 0,
            version: 1,
            bad_logins: 0,
            locked_until: 0,
            credentials: None,
            serial: None,
            uuid: None,
        };
        state.begin_with(power);
        Self { index, name, hosts, behind, reset_time, state: Mutex::new(state) }
    }

    /// Looks at, or changes, the machine as it is at `now`.
    pub(super) fn at<T>(&self, now: Millis, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.play(&mut state, now);
        let done = act(&mut state);
        // What was asked for now happens now: a host without power writes no further byte.
        self.play(&mut state, now);
        let next = state.power.next();
        if next.is_some() && next != state.look {
            state.look = next;
            if let Some(next) = next {
                self.hosts.alarms.look(self.index, next);
            }
        }
        done
    }

    fn play(&self, state: &mut State, now: Millis) {
        for happening in state.power.advance(now) {
            state.version += 1;
            match happening {
                Happening::Reset(at) => {
                    state.take_boots(at);
                    state.media.advance(at);
                    state.last_reset = Some(at);
                    state.resets += 1;
                    self.start(state, at);
                }
                Happening::Restored(at) => {
                    state.media.advance(at);
                    self.boot(state, BootTarget::None, at);
                }
                Happening::Changed(PowerState::On) => {}
                Happening::Changed(_) => state.host.stop(),
                Happening::Asked(reset, at) => {
                    state.take_boots(at);
                    self.ask(state, reset, at);
                }
            }
        }
        state.take_boots(now);
        state.media.advance(now);
    }

    fn place(&self) -> (usize, &str) {
        (self.index, &self.name)
    }

    /// The host starts from what the override says; a one-time override is used up.
    fn start(&self, state: &mut State, at: Millis) {
        let target = state.boot.start();
        state.booted_from = Some(target);
        self.boot(state, target, at);
    }

    fn boot(&self, state: &mut State, target: BootTarget, at: Millis) {
        let State { host, boot, media, .. } = state;
        host.start(self.place(), StartFrom { target, boot, media: media.image() }, at, &self.hosts);
    }

    /// Has the virtual machine do what its BMC was asked for.
    fn ask(&self, state: &mut State, reset: ResetType, at: Millis) {
        let Behind::Qemu(machine) = &self.behind else { return };
        match reset {
            ResetType::On | ResetType::ForceOn => {
                let from = Self::virtual_start(state, at);
                state.power.is_now(PowerState::PoweringOn);
                machine.order(Order::Start(from));
            }
            ResetType::ForceOff => {
                state.power.is_now(PowerState::PoweringOff);
                machine.order(Order::Quit);
            }
            // It is off when the guest says so.
            ResetType::GracefulShutdown => machine.order(Order::PressButton),
            ResetType::GracefulRestart | ResetType::ForceRestart => {
                machine.order(Order::Reset(Self::virtual_start(state, at)));
            }
            ResetType::PowerCycle => {
                let from = Self::virtual_start(state, at);
                state.power.is_now(PowerState::PoweringOn);
                machine.order(Order::Cycle(from));
            }
        }
    }

    /// A virtual machine starts because its BMC says so; a one-time override is used up.
    fn virtual_start(state: &mut State, at: Millis) -> BootFrom {
        state.last_reset = Some(at);
        state.resets += 1;
        let target = state.boot.start();
        state.booted_from = Some(target);
        match target {
            BootTarget::Pxe => BootFrom::Network,
            BootTarget::None | BootTarget::Hdd | BootTarget::Cd | BootTarget::UefiHttp => BootFrom::Disk,
        }
    }

    /// The host starts again by itself.
    pub(super) fn reboot(&self, state: &mut State, now: Millis) {
        state.version += 1;
        state.last_reset = Some(now);
        state.host.reboots += 1;
        self.start(state, now);
    }

    /// Somebody presses its button: the power is so at once.
    pub(super) fn press(&self, now: Millis, power: PowerState) {
        self.at(now, |state| {
            if let Behind::Qemu(_) = self.behind {
                let on = power == PowerState::On;
                return state.power.perform(if on { ResetType::ForceOn } else { ResetType::ForceOff }, now);
            }
            let starts = state.power.state() != power && power == PowerState::On;
            state.power.set(power);
            state.version += 1;
            if starts {
                state.last_reset = Some(now);
                state.resets += 1;
                self.start(state, now);
            } else if power == PowerState::Off {
                state.host.stop();
            }
        });
    }

    /// Whether the host reacts to a reset that its BMC accepted.
    pub(super) fn reacts(&self, state: &mut State, now: Millis) -> bool {
        state.host.reacts(&self.name, now, &self.hosts)
    }

    /// Its parts: those of its name, with the identity that it was given since.
    pub(super) fn inventory(&self, seed: u64, state: &State) -> Inventory {
        let mut inventory = Inventory::of(seed, &self.name);
        if let Some(serial) = &state.serial {
            inventory.serial.clone_from(serial);
        }
        if let Some(uuid) = &state.uuid {
            inventory.uuid.clone_from(uuid);
        }
        if let Behind::Qemu(machine) = &self.behind {
            inventory.disks.truncate(1);
            inventory.disks.iter_mut().for_each(|disk| disk.bytes = machine.disk_bytes());
        }
        inventory
    }

    pub(super) fn view(&self, seed: u64, now: Millis) -> SystemView {
        self.at(now, |state| {
            let inventory = self.inventory(seed, state);
            SystemView {
                name: self.name.clone(),
                power: state.power.state(),
                boot: state.boot.clone(),
                booted_from: state.booted_from,
                media: state.media.image().map(str::to_owned),
                resets: state.resets,
                last_reset_ms: state.last_reset,
                bad_logins: state.bad_logins,
                serial_number: inventory.serial,
                uuid: inventory.uuid,
                boot_mac: inventory.nics.first().map(|nic| nic.mac.clone()).unwrap_or_default(),
                disk: state.host.disk.clone(),
                booted: state.host.booted(now),
                installs: state.host.installs,
                wipes: state.host.wipes,
                reboots: state.host.reboots,
            }
        })
    }
}
