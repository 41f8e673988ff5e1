//! The queue protocol, checked exhaustively: see `docs/src/protocol.md`.
#![expect(clippy::panic, reason = "tests")]

mod controller;
mod failover;
mod liveness;
mod part;
mod protocol;
mod rules;
mod scenario;
mod state;
mod worker;

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Path};

use crate::part::Part;
use crate::protocol::Protocol;
use crate::rules::{Rule, Rules};
use crate::scenario::Scenario;

/// Prints even when the test passes: a bound that nobody sees is none.
macro_rules! report {
    ($($arguments:tt)*) => {
        writeln!(std::io::stderr(), $($arguments)*).expect("stderr is open")
    };
}

/// Walks every run to its end.
fn explore<P: Part>(scenario: Scenario, part: &P) {
    let started = Instant::now();
    let checker = part.clone().checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let last = *path.last_state();
        panic!("{scenario:?}: not so: {property}, after {:?}: {last:?}", path.into_actions());
    }
    drop(checker);
    let walk = liveness::walk(part);
    report!("{scenario:?}: {}: {states} states, depth {depth}, in {:.1?}", part.bounds(), started.elapsed());
    assert_eq!(walk.states, states, "{scenario:?}: both walks see the same states");
    if let Some(way) = walk.stuck {
        panic!("{scenario:?}: nothing settles after {way:?}");
    }
}

/// The shortest way to break a promise: which one, in how many steps, and these steps.
fn counterexample<P: Part>(part: &P) -> Option<(String, usize, String)> {
    let checker = part.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries().into_iter();
    let unsafe_run = discoveries.map(|(property, path)| (property.to_owned(), Path::into_actions(path)));
    let (property, actions) = unsafe_run.min_by_key(|(_, actions)| actions.len()).or_else(|| {
        let way = liveness::walk(part).stuck?;
        Some(("everything settles in the end".to_owned(), way))
    })?;
    Some((property, actions.len(), format!("{actions:?}")))
}

#[test]
fn every_run_of_the_protocol_keeps_its_promises() {
    for scenario in Scenario::ALL {
        explore(scenario, &Protocol::new(Rules::ALL_ON, scenario));
    }
}

#[test]
fn without_any_one_rule_a_promise_breaks() {
    let mut unseen = Vec::new();
    for rule in Rule::ALL {
        let started = Instant::now();
        let (rules, scenario) = (Rules::without(rule), rule.shown_in());
        let Some((property, steps, actions)) = counterexample(&Protocol::new(rules, scenario)) else {
            unseen.push(rule);
            continue;
        };
        report!("without {rule:?}: not so: {property}, after {steps} steps, {:.1?}", started.elapsed());
        if std::env::var_os("PROTOCOL_TRACES").is_some() {
            report!("    {actions}");
        }
    }
    assert!(unseen.is_empty(), "the model does not see what these rules are for: {unseen:?}");
}

#[test]
fn the_list_of_rules_names_each_once() {
    let rules: HashSet<Rule> = Rule::ALL.into_iter().collect();
    assert_eq!(rules.len(), Rule::ALL.len());
}

#[test]
fn tmp_only() {
    let want = std::env::var("ONLY").unwrap_or_default();
    for scenario in Scenario::ALL {
        if format!("{scenario:?}") == want {
            for rule in Rule::ALL {
                if rule.shown_in() == scenario {
                    report!("{rule:?}: {:?}", counterexample(&Protocol::new(Rules::without(rule), scenario)));
                }
            }
            explore(scenario, &Protocol::new(Rules::ALL_ON, scenario));
        }
    }
}
