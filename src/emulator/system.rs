//! One emulated machine and what can be done to it.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::boot::{Boot, BootTarget};
use super::inventory::Inventory;
use super::media::Media;
use super::power::{Delays, Happening, Power, PowerState};
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

/// What of a machine changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) power: Power,
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
    pub(super) name: String,
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
}

impl System {
    pub(super) fn new(name: String, reset_time: ResetTime, power: PowerState, delays: Delays) -> Self {
        let state = State {
            power: Power::new(power, delays),
            boot: Boot::default(),
            boots_to_come: Vec::new(),
            booted_from: None,
            media: Media::default(),
            last_reset: (power == PowerState::On).then_some(0),
            resets: 0,
            version: 1,
            bad_logins: 0,
            locked_until: 0,
            credentials: None,
            serial: None,
            uuid: None,
        };
        Self { name, reset_time, state: Mutex::new(state) }
    }

    /// Looks at, or changes, the machine as it is at `now`.
    pub(super) fn at<T>(&self, now: Millis, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for happening in state.power.advance(now) {
            state.version += 1;
            if let Happening::Reset(at) = happening {
                state.take_boots(at);
                state.last_reset = Some(at);
                state.resets += 1;
                state.booted_from = Some(state.boot.start());
            }
        }
        state.take_boots(now);
        state.media.advance(now);
        act(&mut state)
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
            }
        })
    }
}
