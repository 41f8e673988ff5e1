//! The queue protocol, checked exhaustively: see `docs/src/protocol.md`.
#![expect(clippy::panic, reason = "tests")]

mod controller;
mod liveness;
mod protocol;
mod rules;
mod state;
mod worker;

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::protocol::{Action, Protocol};
use crate::rules::{Rule, Rules, Scenario};

/// Prints even when the test passes: a bound that nobody sees is none.
macro_rules! report {
    ($($arguments:tt)*) => {
        writeln!(std::io::stderr(), $($arguments)*).expect("stderr is open")
    };
}

#[test]
fn every_run_of_the_protocol_keeps_its_promises() {
    for scenario in Scenario::ALL {
        let protocol = Protocol::new(Rules::ALL_ON, scenario);
        let started = Instant::now();
        let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        if let Some((property, path)) = checker.discoveries().into_iter().next() {
            let last = *path.last_state();
            panic!("{scenario:?}: not so: {property}, after {:?}: {last:?}", path.into_actions());
        }
        drop(checker);
        let walk = liveness::walk(&protocol);
        report!(
            "{scenario:?}: 2 workers, 2 leaders, {} tokens, {:?}: {states} states, depth {depth}, in {:.1?}",
            protocol.tokens,
            protocol.budget,
            started.elapsed()
        );
        assert_eq!(walk.states, states, "{scenario:?}: both walks see the same states");
        if let Some(way) = walk.stuck {
            panic!("{scenario:?}: nothing settles after {way:?}");
        }
    }
}

/// The shortest way to break a promise without this rule.
fn counterexample(rule: Rule) -> Option<(String, Vec<Action>)> {
    let protocol = Protocol::new(Rules::without(rule), rule.shown_in());
    let checker = protocol.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries().into_iter();
    let unsafe_run = discoveries.map(|(property, path)| (property.to_owned(), Path::into_actions(path)));
    unsafe_run.min_by_key(|(_, actions)| actions.len()).or_else(|| {
        let way = liveness::walk(&protocol).stuck?;
        Some(("everything settles in the end".to_owned(), way))
    })
}

#[test]
fn without_any_one_rule_a_promise_breaks() {
    let mut unseen = Vec::new();
    for rule in Rule::ALL {
        let started = Instant::now();
        let Some((property, actions)) = counterexample(rule) else {
            unseen.push(rule);
            continue;
        };
        report!(
            "without {rule:?}: not so: {property}, after {} steps, {:.1?}",
            actions.len(),
            started.elapsed()
        );
        if std::env::var_os("PROTOCOL_TRACES").is_some() {
            report!("    {actions:?}");
        }
    }
    assert!(unseen.is_empty(), "the model does not see what these rules are for: {unseen:?}");
}

#[test]
fn the_list_of_rules_names_each_once() {
    let rules: HashSet<Rule> = Rule::ALL.into_iter().collect();
    assert_eq!(rules.len(), Rule::ALL.len());
}
