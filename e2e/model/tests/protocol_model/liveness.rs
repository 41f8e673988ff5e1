//! From every state that can be reached, faults included, a settled state can be reached without further faults.
//!
//! `stateright` checks "eventually" only along paths without a cycle, and this protocol waits in cycles. So this walks
//! the same model forwards and then backwards from the settled states.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher};

use crate::part::Part;

/// What the walk found.
pub(crate) struct Walk<Action> {
    pub(crate) states: usize,
    /// The shortest way to break a promise: the sentence of its property, and the way. The walk stops there.
    pub(crate) broken: Option<(&'static str, Vec<Action>)>,
    /// The shortest way into a state from which nothing settles.
    pub(crate) stuck: Option<Vec<Action>>,
}

/// A hash that costs less than the default one, which half of the time would go into; equality still decides.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// The states that were seen, in the order in which they were, and where each is.
struct Known<State> {
    /// By hash. One that is taken by another state is followed by the next number.
    places: HashMap<u64, u32, BuildHasherDefault<Mixer>>,
    states: Vec<State>,
}

impl<State: Eq + Hash> Known<State> {
    /// The place of a state; a new one gets the next.
    fn place_of(&mut self, state: State) -> u32 {
        let mut hash = BuildHasherDefault::<Mixer>::default().hash_one(&state);
        loop {
            match self.places.entry(hash) {
                Entry::Occupied(place) if self.states[*place.get() as usize] == state => return *place.get(),
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
                Entry::Vacant(free) => {
                    let place = self.states.len() as u32;
                    self.states.push(state);
                    return *free.insert(place);
                }
            }
        }
    }
}

/// Walks the whole state space.
pub(crate) fn walk<P: Part>(part: &P) -> Walk<P::Action> {
    let properties = part.properties();
    let mut known: Known<P::State> = Known { places: HashMap::default(), states: Vec::new() };
    let mut parents: Vec<Option<(u32, P::Action)>> = Vec::new();
    for state in part.init_states() {
        known.place_of(state);
        parents.push(None);
    }
    // Edges without faults, backwards.
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut actions = Vec::new();
    let mut at = 0;
    while at < known.states.len() {
        let state = known.states[at];
        if P::is_violated(&state) {
            let broken = properties.iter().find(|property| !(property.condition)(part, &state));
            let sentence = broken.map_or("a promise without a property", |property| property.name);
            let broken = Some((sentence, way_to(&parents, at)));
            return Walk { states: known.states.len(), broken, stuck: None };
        }
        actions.clear();
        part.actions(&state, &mut actions);
        for &action in &actions {
            let Some(next) = part.next_state(&state, action) else { continue };
            let to = known.place_of(next);
            if to as usize == parents.len() {
                parents.push(Some((at as u32, action)));
            }
            if !P::is_fault(action) {
                edges.push((to, at as u32));
            }
        }
        at += 1;
    }
    let states = known.states;
    edges.sort_unstable();
    let mut settles: Vec<bool> = states.iter().map(|state| part.is_settled(state)).collect();
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
    let stuck = settles.iter().position(|settles| !settles).map(|at| way_to(&parents, at));
    Walk { states: states.len(), broken: None, stuck }
}

fn way_to<Action: Copy>(parents: &[Option<(u32, Action)>], mut at: usize) -> Vec<Action> {
    let mut way = Vec::new();
    while let Some((from, action)) = parents[at] {
        way.push(action);
        at = from as usize;
    }
    way.reverse();
    way
}
