//! The queue protocol, checked exhaustively: see `docs/src/protocol.md`.
#![expect(clippy::panic, reason = "tests")]

mod batch;
mod cluster;
mod controller;
mod failover;
mod lanes;
mod liveness;
mod looks;
mod part;
mod permits;
mod protocol;
mod ranks;
mod rules;
mod scenario;
mod scripts;
mod state;
mod worker;

use std::collections::{BTreeSet, HashSet};
use std::io::Write as _;
use std::time::Instant;

use stateright::Checker;

use crate::batch::{Batch, Items};
use crate::cluster::Cluster;
use crate::lanes::Lanes;
use crate::looks::Looks;
use crate::part::Part;
use crate::permits::Permits;
use crate::protocol::Protocol;
use crate::rules::{Rule, Rules};
use crate::scenario::Scenario;
use crate::scripts::Scripts;

/// Prints even when the test passes: a bound that nobody sees is none.
macro_rules! report {
    ($($arguments:tt)*) => {
        writeln!(std::io::stderr(), $($arguments)*).expect("stderr is open")
    };
}

/// Does this with the part that a scenario is about.
macro_rules! with_part {
    ($scenario:expr, $rules:expr, |$part:ident| $body:expr) => {
        match $scenario {
            Scenario::Permits => {
                let $part = &Permits::new($rules);
                $body
            }
            Scenario::Lanes => {
                let $part = &Lanes::new($rules);
                $body
            }
            Scenario::BatchedEnqueues => {
                let $part = &Batch::new($rules, Items::Enqueues);
                $body
            }
            Scenario::BatchedWrites => {
                let $part = &Batch::new($rules, Items::Writes);
                $body
            }
            Scenario::Looks => {
                let $part = &Looks::new($rules);
                $body
            }
            Scenario::Scripts => {
                let $part = &Scripts::new($rules);
                $body
            }
            Scenario::Cluster => {
                let $part = &Cluster::new($rules);
                $body
            }
            whole => {
                let $part = &Protocol::new($rules, whole);
                $body
            }
        }
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
fn counterexample<P: Part>(part: &P) -> Option<(&'static str, usize, String)> {
    let walk = liveness::walk(part);
    let (property, way) =
        walk.broken.or_else(|| walk.stuck.map(|way| ("everything settles in the end", way)))?;
    Some((property, way.len(), format!("{way:?}")))
}

#[test]
fn every_run_of_the_protocol_keeps_its_promises() {
    let long = std::env::var_os("PROTOCOL_LONG").map_or(&[] as &[Scenario], |_| &Scenario::LONG);
    for &scenario in Scenario::ALL.iter().chain(long) {
        with_part!(scenario, Rules::ALL_ON, |part| explore(scenario, part));
    }
}

#[test]
fn without_any_one_rule_a_promise_breaks() {
    let (mut unseen, mut shown) = (Vec::new(), BTreeSet::new());
    for rule in Rule::ALL {
        let started = Instant::now();
        let found = with_part!(rule.shown_in(), Rules::without(rule), |part| counterexample(part));
        let Some((property, steps, actions)) = found else {
            unseen.push(rule);
            continue;
        };
        report!("without {rule:?}: not so: {property}, after {steps} steps, {:.1?}", started.elapsed());
        if std::env::var_os("PROTOCOL_TRACES").is_some() {
            report!("    {actions}");
        }
        shown.insert(format!("| {} `{rule:?}` | {property} | {steps} |", sentence(rule)));
    }
    assert!(unseen.is_empty(), "the model does not see what these rules are for: {unseen:?}");
    let page = include_str!("../../../../docs/src/protocol.md");
    let told: BTreeSet<String> = page.lines().filter(|line| is_rule(line)).map(str::to_owned).collect();
    let differ: Vec<&String> = shown.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "docs/src/protocol.md and the model do not agree:\n{differ:#?}");
}

/// What the page says of a rule: its documentation.
fn sentence(rule: Rule) -> &'static str {
    let name = format!("    {rule:?},");
    let mut before = "";
    for line in include_str!("rules.rs").lines() {
        if line == name {
            break;
        }
        before = line;
    }
    before.trim_start().trim_start_matches("/// ")
}

/// Whether a line of the page is one of a table of rules: what it says and its switch, what breaks, after how many steps.
fn is_rule(line: &str) -> bool {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    matches!(cells.as_slice(), [rule, _, steps] if rule.ends_with('`') && steps.parse::<u32>().is_ok())
}

#[test]
fn the_list_of_rules_names_each_once() {
    let rules: HashSet<Rule> = Rule::ALL.into_iter().collect();
    assert_eq!(rules.len(), Rule::ALL.len());
}
