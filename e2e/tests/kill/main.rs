//! Kill drills: whatever process dies or freezes, and wherever, the fleet converges, nothing happens twice that may not,
//! and status tells the truth.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod controllers;
mod frozen;
mod installs;
mod reboot;
mod signals;
mod workers;
