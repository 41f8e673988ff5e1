//! The hosts behind the BMCs: they boot, from the network or from their disk, install, and call home.
//!
//! A start of a host begins a life of it (`state`). Most lives need nobody: what runs is worked out from the time when
//! somebody looks. A life that talks to the boot service is a task of the `keeper`, which ends with that life: every
//! act of a task looks, under the machine's lock, whether its life is still the present one, so that nothing is
//! written to a disk whose machine lost its power.
//!
//! A life goes: `keeper` (task) - `life` (what happens when) - `network` (requests) - `script` and `command_line`
//! (pure: what the boot service said). `behaviour` and `rules` say how a host deviates.

mod alarm;
mod behaviour;
mod command_line;
mod disk;
mod draw;
mod keeper;
mod life;
mod network;
mod record;
mod rules;
mod script;
mod settings;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod timeline;

pub(super) use draw::draw;

pub use behaviour::{HostBehaviour, HostRule, HostRuleError};
pub use disk::{Disk, DiskError};
pub(super) use keeper::keep;
pub use record::{HostAct, HostEntry, Stage, Why};
pub use rules::ActiveHostRule;
pub use settings::{AfterWipe, BootUrl, BootUrlError, HostSettings, Payloads};
pub(super) use shared::Shared;
pub use state::Booted;
pub(super) use state::{Host, StartFrom};
