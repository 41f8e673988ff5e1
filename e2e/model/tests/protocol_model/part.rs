//! What every part of the protocol that is explored by itself can say about its runs.

use std::fmt::Debug;
use std::hash::Hash;

use stateright::Model;

/// A part of the protocol, with its rules and with how much may go wrong.
pub(crate) trait Part:
    Model<State: Copy + Eq + Hash + Debug + Send + Sync, Action: Copy + PartialEq + Debug>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// How much may go wrong, as it is printed beside the size.
    fn bounds(&self) -> String;

    /// Whether a promise was broken; the properties say which. Such a run goes no further.
    fn is_violated(state: &Self::State) -> bool;

    /// Whether this is an end of everything as it should be.
    fn is_settled(&self, state: &Self::State) -> bool;

    /// Whether this costs a budget. What must come true in the end must come true without such actions.
    fn is_fault(action: Self::Action) -> bool;
}

/// One property for each violation.
macro_rules! never {
    ($($violation:ident: $sentence:literal),+ $(,)?) => {
        vec![$(
            stateright::Property::always($sentence, |_, state: &State| state.violation != Some(Violation::$violation))
        ),+]
    };
}

pub(crate) use never;
