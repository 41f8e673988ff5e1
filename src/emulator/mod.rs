//! A fleet of Redfish BMCs in one process: for trying AutoBuild without machines, and for proving it.
//!
//! It stands alone: nothing else of this crate is used, so that a mistake in the Redfish client cannot hide behind
//! the same mistake here. Time is looked at only when a request comes or something happens to a machine;
//! a machine has a task only while its host talks to the boot service.
//!
//! A request goes: `listen` (connection) - `control` (routes) - `redfish` (log, misbehaviour, authentication) -
//! `resources` and `services` (reads) or `act` and `manager` (changes) - `deliver` (bytes). `fleet` holds the machines (`system`, `power`, `boot`,
//! `media`, `inventory`), the rules (`fault`, `rules`, `scenario`) and the log (`effects`). `host` has the hosts behind the BMCs, which boot,
//! install and call home; `hosts` is what a fleet offers about them. `qemu` has the virtual machines that may be there in their place.

mod act;
mod answer;
mod auth;
mod boot;
mod control;
mod control_hosts;
mod deliver;
mod effects;
mod fault;
mod fleet;
mod host;
mod hosts;
mod inventory;
mod listen;
mod manager;
mod media;
mod pace;
mod pattern;
mod power;
mod qemu;
mod redfish;
mod resources;
mod rules;
mod scenario;
mod services;
#[cfg(test)]
mod services_test;
mod sessions;
mod spell;
mod system;
mod target;
#[cfg(test)]
mod tests;
mod time;
mod tls;

pub use boot::{Boot, BootMode, BootTarget, OverrideEnabled};
pub use effects::{Action, Counters, Effect, Entry, Which};
pub use fault::{Away, Behaviour, NoAnswer, Rule, RuleError, UnknownPower};
pub use fleet::{
    ButtonPower, Fleet, FleetBuilder, FleetError, HostKind, InitialPower, LastResetTime, SameState,
};
pub use host::{
    ActiveHostRule, AfterWipe, BootUrl, BootUrlError, Booted, Disk, DiskError, HostAct, HostBehaviour,
    HostEntry, HostRule, HostRuleError, HostSettings, Payloads, Stage, Why,
};
pub use hosts::DiskChange;
pub use listen::{Bound, Listeners, OwnAddresses, ServeError, serve};
pub use manager::ManagerReset;
pub use pace::Pace;
pub use power::{PowerState, ResetType};
pub use qemu::{QemuError, QemuSettings};
pub use rules::ActiveRule;
pub use scenario::{Scenario, SystemException};
pub use system::{Credentials, SystemView};
pub use time::Millis;
pub use tls::TlsError;
