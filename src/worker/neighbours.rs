//! Whether other namespaces have servers: where there is one alone it may have every slot.
#![expect(clippy::disallowed_methods, reason = "how often the database is asked is a matter of time")]

use std::time::{Duration, Instant};

use crate::queue::Queue;

/// Between two questions to the database. It reads every server's row where there is one namespace alone, so it is asked while
/// one namespace has its share of the slots and not otherwise.
const ASK: Duration = Duration::from_mins(1);

/// What is known of the namespaces.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    met: Option<String>,
    are_several: bool,
    asked: Option<Instant>,
}

impl Neighbours {
    /// A job of that namespace was claimed.
    pub(super) fn met(&mut self, namespace: &str) {
        match &self.met {
            _ if self.are_several => {}
            Some(met) => self.are_several = met != namespace,
            None => self.met = Some(namespace.to_owned()),
        }
    }

    /// Whether there is more than one.
    pub(super) fn are_several(&self) -> bool {
        self.are_several
    }

    /// Asks the database, where the last answer is old. Without an answer what was known stays.
    pub(super) async fn ask(&mut self, queue: &Queue) {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK) {
            return;
        }
        self.asked = Some(Instant::now());
        match queue.has_several_namespaces().await {
            Ok(are_several) => {
                self.met = None;
                self.are_several = are_several;
            }
            Err(error) => {
                tracing::warn!(reason = error.class(), "cannot see whose servers there are: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Neighbours;

    #[test]
    fn the_second_namespace_is_noticed_with_its_first_job() {
        let mut neighbours = Neighbours::default();
        for (namespace, are_several) in [("a", false), ("a", false), ("b", true), ("a", true)] {
            neighbours.met(namespace);
            assert_eq!(neighbours.are_several(), are_several);
        }
    }
}
