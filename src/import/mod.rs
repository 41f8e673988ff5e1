//! A fleet that exists: from a list of BMCs to manifests of Servers that adopt what is there.
//!
//! This reads BMCs and never changes a machine. The rule that only workers touch hardware is one for processes that run by
//! themselves; this is a command that a person gives once, before there is a Server that a worker could look at.

mod address;
mod columns;
mod duplicates;
mod held;
mod list;
mod manifest;
mod names;
mod read;
mod words;

pub use duplicates::{Sameness, Seen, later_ones, same_address};
pub use held::{Planned, objections};
pub use list::{Entry, List, ListError, Refused, list};
pub use manifest::{Certificate, Machine, manifest, secret_manifest};
pub use names::{Want, names};
pub use read::{Found, Judge, machines, read};
pub use words::in_flags;
