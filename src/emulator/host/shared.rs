//! What all hosts of a fleet share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::time::Millis;
use super::alarm::Alarms;
use super::behaviour::HostBehaviour;
use super::draw::draw;
use super::rules::HostRules;
use super::settings::{BootUrl, HostSettings};

/// The settings, the rules and the keeper's list.
#[derive(Debug)]
pub(in crate::emulator) struct Shared {
    seed: u64,
    pub(super) settings: HostSettings,
    boot_url: Mutex<Option<BootUrl>>,
    pub(in crate::emulator) rules: HostRules,
    pub(in crate::emulator) alarms: Alarms,
}

/// What takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    Post,
    Install,
    Interval,
}

impl Shared {
    pub(in crate::emulator) fn new(seed: u64, settings: HostSettings) -> Self {
        let boot_url = Mutex::new(settings.boot_url.clone());
        Self { seed, settings, boot_url, rules: HostRules::new(seed), alarms: Alarms::default() }
    }

    pub(in crate::emulator) fn boot_url(&self) -> Option<BootUrl> {
        self.boot_url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::emulator) fn set_boot_url(&self, url: Option<BootUrl>) {
        *self.boot_url.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// How long it takes this host on its `nth` occasion: as the last of its behaviours says, else as the settings do.
    pub(super) fn lasts(&self, what: Lasting, system: &str, nth: u64, habits: &[HostBehaviour]) -> Millis {
        let told = habits.iter().rev().find_map(|habit| match (what, habit) {
            (Lasting::Post, HostBehaviour::PostDelay { ms })
            | (Lasting::Install, HostBehaviour::InstallDuration { ms })
            | (Lasting::Interval, HostBehaviour::ProgressInterval { ms }) => Some(*ms),
            _ => None,
        });
        told.unwrap_or_else(|| {
            let (number, usual) = match what {
                Lasting::Post => (1, self.settings.post_delay),
                Lasting::Install => (2, self.settings.install_duration),
                Lasting::Interval => (3, self.settings.progress_interval),
            };
            let usual = millis(usual);
            let most = usual.saturating_mul(self.settings.spread_percent.into()) / 100;
            // Rules draw with their numbers, from 1: the highest numbers are nobody's.
            let longer = draw(self.seed, system, &[u64::MAX - number, nth], most.saturating_add(1));
            usual.saturating_add(longer)
        })
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_spread_by_seed_system_and_occasion_and_a_rule_is_exact() {
        let settings = HostSettings { spread_percent: 50, ..HostSettings::default() };
        let hosts = Shared::new(0, settings);
        let lasts = |system, nth| hosts.lasts(Lasting::Install, system, nth, &[]);
        assert_eq!(lasts("a", 1), lasts("a", 1));
        assert!(lasts("a", 1) != lasts("a", 2) || lasts("a", 1) != lasts("b", 1));
        assert!((0..100).all(|nth| (10_000..=15_000).contains(&lasts("a", nth))));
        let told = [HostBehaviour::InstallDuration { ms: 7 }];
        assert_eq!(hosts.lasts(Lasting::Install, "a", 1, &told), 7);
    }
}
