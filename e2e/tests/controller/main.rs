//! The controller process on a real control plane and a real database, under its own service account. The worker is
//! the test: it speaks through the queue.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod deletion;
mod failover;
mod looks;
mod refused;
mod silence;
mod site;
mod stale;
mod story;
mod strangers;

/// The Lease is one for the whole control plane, by the controller's role: tests take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
