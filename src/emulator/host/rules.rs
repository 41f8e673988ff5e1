//! The host rules that are in force, and which of them a host meets.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::super::pattern;
use super::super::time::Millis;
use super::behaviour::{HostBehaviour, HostRule, Occasion};
use super::draw::draw;

/// A host rule in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveHostRule {
    /// Its number, for `DELETE /emulator/hosts/{id}`.
    pub id: u64,
    /// When it was set.
    pub set_at_ms: Millis,
    /// How many occasions matched it.
    pub matched: u32,
    /// On how many it acted.
    pub acted: u32,
    /// The rule.
    pub rule: HostRule,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    rules: Vec<ActiveHostRule>,
}

/// All host rules of a fleet.
#[derive(Debug)]
pub(in crate::emulator) struct HostRules {
    seed: u64,
    book: Mutex<Book>,
}

impl HostRules {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, book: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(in crate::emulator) fn add(&self, rule: HostRule, now: Millis) -> u64 {
        self.with(|book| {
            book.next += 1;
            book.rules.push(ActiveHostRule { id: book.next, set_at_ms: now, matched: 0, acted: 0, rule });
            book.next
        })
    }

    pub(in crate::emulator) fn list(&self) -> Vec<ActiveHostRule> {
        self.with(|book| book.rules.clone())
    }

    /// Deletes the rule; whether there was one.
    pub(in crate::emulator) fn remove(&self, id: u64) -> bool {
        self.with(|book| {
            let before = book.rules.len();
            book.rules.retain(|rule| rule.id != id);
            book.rules.len() < before
        })
    }

    /// Deletes all rules; how many there were.
    pub(in crate::emulator) fn clear(&self) -> usize {
        self.with(|book| std::mem::take(&mut book.rules).len())
    }

    /// What this host does on its `nth` occasion of that kind, in the order in which the rules were set; counts them.
    /// The choice does not hang on what other hosts do meanwhile.
    pub(super) fn meet(&self, system: &str, occasion: Occasion, nth: u64, now: Millis) -> Vec<HostBehaviour> {
        self.with(|book| {
            book.rules
                .iter_mut()
                .filter(|active| active.rule.behaviour.occasion() == occasion && active.concerns(system, now))
                .filter_map(|active| {
                    active.matched += 1;
                    let chosen = draw(self.seed, system, &[active.id, nth], 100) < active.rule.percent.into();
                    if active.matched <= active.rule.skip || !chosen {
                        return None;
                    }
                    active.acted += 1;
                    Some(active.rule.behaviour.clone())
                })
                .collect()
        })
    }
}

impl ActiveHostRule {
    fn concerns(&self, system: &str, now: Millis) -> bool {
        let rule = &self.rule;
        rule.for_ms.is_none_or(|length| now < self.set_at_ms.saturating_add(length))
            && rule.count.is_none_or(|count| self.acted < count)
            && rule.system.as_deref().is_none_or(|wanted| pattern::matches(wanted, system))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hang() -> HostRule {
        HostRule::on_system("node-*", HostBehaviour::Hang { at_percent: 50 })
    }

    #[test]
    fn a_rule_acts_on_its_occasion_its_systems_and_as_often_as_it_counts() {
        let rules = HostRules::new(0);
        rules.add(HostRule { skip: 1, ..hang().times(1) }, 0);
        let acts = |system, occasion| !rules.meet(system, occasion, 1, 0).is_empty();
        assert!(!acts("node-1", Occasion::Start));
        assert!(!acts("other", Occasion::Install));
        assert!(!acts("node-1", Occasion::Install), "skipped");
        assert!(acts("node-1", Occasion::Install));
        assert!(!acts("node-1", Occasion::Install), "counted");
    }

    #[test]
    fn a_share_is_the_same_hosts_in_whatever_order_they_come() {
        let chosen = |seed, names: &mut dyn Iterator<Item = u32>| {
            let rules = HostRules::new(seed);
            rules.add(HostRule { percent: 30, ..hang() }, 0);
            let mut chosen: Vec<_> = names
                .filter(|n| !rules.meet(&format!("node-{n}"), Occasion::Install, 1, 0).is_empty())
                .collect();
            chosen.sort_unstable();
            chosen
        };
        let forwards = chosen(7, &mut (0..1_000));
        assert_eq!(forwards, chosen(7, &mut (0..1_000).rev()));
        assert_ne!(forwards, chosen(8, &mut (0..1_000)));
        assert!((200..400).contains(&forwards.len()), "{}", forwards.len());
    }
}
