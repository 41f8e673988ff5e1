//! Which servers an address has led to lately. One after the other is a switch, which is gone along with; to and fro is an address of
//! several writers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::writer::Node;

/// In how long a time so many changes are no switch any more: a switch and the way back are two.
const CHANGES: (usize, Duration) = (4, Duration::from_mins(1));

/// What a new connection tells of the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To the node of before.
    There,
    /// To another one than before.
    Elsewhere,
    /// To this one and that one in turns.
    ToAndFro(Node, Node),
}

/// The nodes that were met.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    now: Option<Node>,
    before: Option<Node>,
    changes: VecDeque<Instant>,
}

impl Nodes {
    /// A new connection leads to `node`.
    pub(super) fn met(&mut self, node: &Node, at: Instant) -> Leads {
        let (most, within) = CHANGES;
        self.changes.retain(|change| at.saturating_duration_since(*change) < within);
        let another = self.now.as_ref().is_some_and(|now| now != node);
        if another {
            self.before = self.now.take();
            if self.changes.len() == most {
                self.changes.pop_front();
            }
            self.changes.push_back(at);
        }
        self.now.get_or_insert_with(|| node.clone());
        match &self.before {
            Some(before) if self.changes.len() >= most => Leads::ToAndFro(before.clone(), node.clone()),
            _ if another => Leads::Elsewhere,
            _ => Leads::There,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_and_the_way_back_are_gone_along_with_and_an_address_of_several_writers_is_not() {
        let (mut nodes, begun) = (Nodes::default(), Instant::now());
        let mut met =
            |node: &str, second: u64| nodes.met(&node.to_owned(), begun + Duration::from_secs(second));
        assert_eq!(met("a", 0), Leads::There);
        assert_eq!(
            (met("b", 10), met("b", 11), met("a", 20)),
            (Leads::Elsewhere, Leads::There, Leads::Elsewhere)
        );
        assert_eq!(met("b", 30), Leads::Elsewhere);
        let both = Leads::ToAndFro("b".to_owned(), "a".to_owned());
        assert_eq!((met("a", 31), met("a", 32)), (both.clone(), both));
        // As long as it goes on.
        assert!(matches!(met("b", 33), Leads::ToAndFro(..)));
        assert_eq!((met("b", 95), met("a", 96)), (Leads::There, Leads::Elsewhere));
    }
}
