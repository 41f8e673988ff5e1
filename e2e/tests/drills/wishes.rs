//! What the users of a drill ask for: reboots and power changes, one after another for each server.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use autobuild::api::Server;
use autobuild::job::Action;
use e2e::fleet::{Fleet, is_ready};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

/// One wish. Each becomes one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Reboot,
    Off,
    On,
}

impl Wish {
    /// What the BMC has to be asked for it, as [`e2e::fleet::Bmcs::resets`] says it.
    pub fn resets(self) -> &'static [&'static str] {
        match self {
            Self::Reboot => &["off", "on"],
            Self::Off => &["off"],
            Self::On => &["on"],
        }
    }

    pub fn action(self) -> Action {
        match self {
            Self::Reboot => Action::Reboot,
            Self::Off => Action::PowerOff,
            Self::On => Action::PowerOn,
        }
    }
}

/// The wishes for the server of that number, of a machine that is on at first. The same seed has the same wishes.
pub fn wishes(seed: u64, server: usize, count: usize) -> Vec<Wish> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(server as u64));
    let mut is_on = true;
    (0..count)
        .map(|_| {
            let wish = match (is_on, random.random_bool(0.4)) {
                (false, _) => Wish::On,
                (true, true) => Wish::Reboot,
                (true, false) => Wish::Off,
            };
            is_on = wish != Wish::Off;
            wish
        })
        .collect()
}

/// Asks for everything in `wishes`, each after the one before was carried out, and counts in `done`.
pub async fn ask(fleet: &Fleet, name: &str, wishes: &[Wish], done: &AtomicUsize) -> Result<()> {
    for (number, wish) in wishes.iter().enumerate() {
        let token = format!("t{number}");
        let spec = match wish {
            Wish::Reboot => json!({ "rebootToken": token }),
            Wish::Off => json!({ "power": "PoweredOff" }),
            Wish::On => json!({ "power": "PoweredOn" }),
        };
        let asked = fleet.change(name, spec).await.with_context(|| format!("{name}: change {number}"))?;
        let carried_out = |server: &Server| {
            let Some(status) = &server.status else { return false };
            let as_wished = match wish {
                Wish::Reboot => status.reboot_tokens.contains(&token),
                Wish::Off => status.power.is_some_and(|power| power.as_str() == "PoweredOff"),
                Wish::On => status.power.is_some_and(|power| power.as_str() == "PoweredOn"),
            };
            // Which job it was is for the judge, who reads the whole history.
            server.metadata.generation >= asked.metadata.generation && as_wished && is_ready(server)
        };
        let waited = fleet.shown().until(name, &format!("{wish:?}, wish {number}"), carried_out).await;
        if let Err(error) = waited {
            return Err(error.context(fleet.story(name).await));
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}
