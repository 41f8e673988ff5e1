//! From every state that can be reached, faults included, a settled state can be reached without further faults.
//!
//! `stateright` checks "eventually" only along paths without a cycle, and this protocol waits in cycles. So this walks
//! the same model forwards and then backwards from the settled states.

use std::collections::HashMap;

use crate::part::Part;

/// What the walk found.
pub(crate) struct Walk<Action> {
    pub(crate) states: usize,
    /// The shortest way into a state from which nothing settles.
    pub(crate) stuck: Option<Vec<Action>>,
}

/// Walks the whole state space.
pub(crate) fn walk<P: Part>(part: &P) -> Walk<P::Action> {
    let mut index: HashMap<P::State, u32> = HashMap::new();
    let mut states: Vec<P::State> = Vec::new();
    let mut parents: Vec<Option<(u32, P::Action)>> = Vec::new();
    for state in part.init_states() {
        index.insert(state, states.len() as u32);
        states.push(state);
        parents.push(None);
    }
    // Edges without faults, backwards.
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut actions = Vec::new();
    let mut at = 0;
    while at < states.len() {
        actions.clear();
        part.actions(&states[at], &mut actions);
        for &action in &actions {
            let Some(next) = part.next_state(&states[at], action) else { continue };
            let to = *index.entry(next).or_insert_with(|| {
                states.push(next);
                parents.push(Some((at as u32, action)));
                states.len() as u32 - 1
            });
            if !P::is_fault(action) {
                edges.push((to, at as u32));
            }
        }
        at += 1;
    }
    edges.sort_unstable();
    // A violation ends a path; the safety properties report it.
    let mut settles: Vec<bool> =
        states.iter().map(|state| P::is_violated(state) || part.is_settled(state)).collect();
    let mut open: Vec<u32> = (0..states.len() as u32).filter(|at| settles[*at as usize]).collect();
    while let Some(to) = open.pop() {
        let first = edges.partition_point(|edge| edge.0 < to);
        for &(_, from) in edges[first..].iter().take_while(|edge| edge.0 == to) {
            if !settles[from as usize] {
                settles[from as usize] = true;
                open.push(from);
            }
        }
    }
    let stuck = settles.iter().position(|settles| !settles).map(|at| {
        let mut way = Vec::new();
        let mut at = at;
        while let Some((from, action)) = parents[at] {
            way.push(action);
            at = from as usize;
        }
        way.reverse();
        way
    });
    Walk { states: states.len(), stuck }
}
