//! Virtual machines behind the BMCs, in place of emulated hosts: they run real firmware, kernels and installers.
//!
//! A machine's power is its process: QEMU runs or it does not. What a BMC is asked for becomes an order to the one task
//! that keeps that machine (`keeper`), which starts the process (`process`, from a `command_line`) and presses its
//! buttons (`qmp`). What the process does by itself, the task tells the system.

mod command_line;
mod keeper;
mod orders;
mod process;
mod qmp;
mod settings;
#[cfg(test)]
mod tests;

pub(super) use keeper::keep;
pub(super) use orders::{BootFrom, Machine, Order};
pub use settings::{QemuError, QemuSettings};
