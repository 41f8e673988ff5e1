//! The rules that are in force, and which of them meet a request.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::fault::{Behaviour, Rule};
use super::pattern;
use super::power::ResetType;
use super::time::Millis;

/// A rule in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveRule {
    /// Its number, for `DELETE /emulator/faults/{id}`.
    pub id: u64,
    /// When it was set.
    pub set_at_ms: Millis,
    /// How many requests matched it.
    pub matched: u32,
    /// On how many it acted.
    pub acted: u32,
    /// The rule.
    pub rule: Rule,
}

/// A request, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) system: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) method: &'a str,
    pub(super) worker: Option<&'a str>,
    pub(super) mutating: bool,
    pub(super) reset: Option<ResetType>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    rules: Vec<ActiveRule>,
}

/// All rules of a fleet.
#[derive(Debug)]
pub(super) struct Rules {
    seed: u64,
    book: Mutex<Book>,
}

impl Rules {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, book: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, rule: Rule, now: Millis) -> u64 {
        self.with(|book| {
            book.next += 1;
            book.rules.push(ActiveRule { id: book.next, set_at_ms: now, matched: 0, acted: 0, rule });
            book.next
        })
    }

    pub(super) fn list(&self) -> Vec<ActiveRule> {
        self.with(|book| book.rules.clone())
    }

    /// Deletes the rule; whether there was one.
    pub(super) fn remove(&self, id: u64) -> bool {
        self.with(|book| {
            let before = book.rules.len();
            book.rules.retain(|rule| rule.id != id);
            book.rules.len() < before
        })
    }

    /// Deletes all rules; how many there were.
    pub(super) fn clear(&self) -> usize {
        self.with(|book| std::mem::take(&mut book.rules).len())
    }

    /// The behaviours that meet this request, in the order in which the rules were set; counts them.
    pub(super) fn meet(&self, facts: Facts<'_>, now: Millis) -> Vec<Behaviour> {
        self.with(|book| {
            let seed = self.seed;
            book.rules
                .iter_mut()
                .filter(|active| in_force(active, now) && concerns(&active.rule, facts))
                .filter_map(|active| {
                    active.matched += 1;
                    if active.matched <= active.rule.skip || !chosen(seed, active) {
                        return None;
                    }
                    active.acted += 1;
                    Some(active.rule.behaviour.clone())
                })
                .collect()
        })
    }

    /// Whether connections to this system's own port (or, without one, to the whole fleet) hang at once.
    pub(super) fn hangs_on_accept(&self, system: Option<&str>, now: Millis) -> bool {
        self.with(|book| {
            let Some(active) = book.rules.iter_mut().find(|active| {
                matches!(active.rule.behaviour, Behaviour::HangOnAccept {})
                    && in_force(active, now)
                    && names(&active.rule, system)
            }) else {
                return false;
            };
            active.matched += 1;
            active.acted += 1;
            true
        })
    }
}

fn in_force(active: &ActiveRule, now: Millis) -> bool {
    active.rule.for_ms.is_none_or(|length| now < active.set_at_ms.saturating_add(length))
        && active.rule.count.is_none_or(|count| active.acted < count)
}

fn names(rule: &Rule, system: Option<&str>) -> bool {
    rule.system.as_deref().is_none_or(|wanted| system.is_some_and(|name| pattern::matches(wanted, name)))
}

fn concerns(rule: &Rule, facts: Facts<'_>) -> bool {
    names(rule, facts.system)
        && rule.path.as_deref().is_none_or(|wanted| pattern::matches(wanted, facts.path))
        && rule.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(facts.method))
        && rule.reset.is_none_or(|wanted| facts.reset == Some(wanted))
        && rule
            .worker
            .as_deref()
            .is_none_or(|wanted| facts.worker.is_some_and(|name| pattern::matches(wanted, name)))
        && rule.behaviour.applies(facts.mutating, facts.reset)
}

/// The draw for `percent`: the same rule, the same request number and the same seed give the same answer.
fn chosen(seed: u64, active: &ActiveRule) -> bool {
    if active.rule.percent >= 100 {
        return true;
    }
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    hash.update(active.id.to_be_bytes());
    hash.update(active.matched.to_be_bytes());
    let draw: [u8; 32] = hash.finalize().into();
    u16::from_be_bytes([draw[0], draw[1]]) % 100 < u16::from(active.rule.percent)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    const GET: Facts<'static> = Facts {
        system: Some("node-0001"),
        path: "/redfish/v1/Systems/node-0001",
        method: "GET",
        worker: Some("host/1"),
        mutating: false,
        reset: None,
    };

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    fn acts(rules: &Rules, facts: Facts<'_>) -> bool {
        !rules.meet(facts, 0).is_empty()
    }

    #[test]
    fn a_rule_passes_what_it_skips_and_then_acts_as_often_as_it_counts() {
        let rules = Rules::new(0);
        rules.add(rule(r#"{"skip":1,"count":2,"behaviour":{"kind":"Hang"}}"#), 0);
        let acted: Vec<_> = (0..5).map(|_| acts(&rules, GET)).collect();
        assert_eq!(acted, [false, true, true, false, false]);
    }

    #[test]
    fn a_rule_looks_at_system_path_method_and_worker() {
        for (json, expected) in [
            (r#"{"system":"node-*","behaviour":{"kind":"Hang"}}"#, true),
            (r#"{"system":"other","behaviour":{"kind":"Hang"}}"#, false),
            (r#"{"path":"*/Systems/*","method":"get","behaviour":{"kind":"Hang"}}"#, true),
            (r#"{"method":"POST","behaviour":{"kind":"Hang"}}"#, false),
            (r#"{"worker":"*/1","behaviour":{"kind":"Hang"}}"#, true),
            (r#"{"worker":"*/2","behaviour":{"kind":"Hang"}}"#, false),
            (r#"{"behaviour":{"kind":"Lie"}}"#, false),
        ] {
            let rules = Rules::new(0);
            rules.add(rule(json), 0);
            assert_eq!(acts(&rules, GET), expected, "{json}");
        }
    }

    #[test]
    fn a_rule_for_a_time_ends_by_itself() {
        let rules = Rules::new(0);
        rules.add(rule(r#"{"for_ms":100,"behaviour":{"kind":"Hang"}}"#), 50);
        assert_eq!(rules.meet(GET, 149).len(), 1);
        assert!(rules.meet(GET, 150).is_empty());
    }

    #[test]
    fn a_share_of_the_requests_is_the_same_for_the_same_seed() {
        let draw = |seed| {
            let rules = Rules::new(seed);
            rules.add(rule(r#"{"percent":30,"behaviour":{"kind":"Hang"}}"#), 0);
            (0..1_000).map(|_| acts(&rules, GET)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let share = draw(7).into_iter().filter(|acted| *acted).count();
        assert!((200..400).contains(&share), "{share}");
    }

    #[test]
    fn unknown_fields_kinds_and_values_are_refused() {
        for json in [
            r#"{"behaviour":{"kind":"Explode"}}"#,
            r#"{"behaviour":{"kind":"Hang","ms":5}}"#,
            r#"{"sytem":"x","behaviour":{"kind":"Hang"}}"#,
            r#"{"behaviour":{"kind":"Delay"}}"#,
        ] {
            assert!(serde_json::from_str::<Rule>(json).is_err(), "{json}");
        }
        assert!(rule(r#"{"behaviour":{"kind":"Status","status":42}}"#).check().is_err());
        assert!(rule(r#"{"percent":0,"behaviour":{"kind":"Hang"}}"#).check().is_err());
    }
}
