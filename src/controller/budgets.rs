//! What is left of each namespace's destruction budget. The enqueue takes from it and has the last word; what is kept here
//! only saves asking for what will be refused, and says why nothing happens.
#![expect(clippy::disallowed_methods, reason = "what was read is forgotten after a moment")]

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::context::Context;
use crate::plan::Budget;
use crate::queue::QueueError;

/// How long a number that was read is used.
const KEPT: Duration = Duration::from_secs(1);

/// The least that a share of the fleet comes to: of three machines a tenth is none.
const LEAST: i64 = 10;

/// How many machines of a namespace may have their data given up in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestructionBudget {
    /// So many.
    Machines(u32),
    /// So many of a hundred, and at least ten.
    Percent(u8),
    /// No bound.
    Unlimited,
}

/// What a budget is written as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no budget: write a number of machines such as 25, a share such as 10%, or unlimited")]
pub struct NoBudget(String);

impl FromStr for DestructionBudget {
    type Err = NoBudget;

    fn from_str(text: &str) -> Result<Self, NoBudget> {
        let wrong = || NoBudget(text.to_owned());
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        match text.strip_suffix('%') {
            Some(share) => {
                let percent = share.parse().ok().filter(|percent| *percent <= 100);
                percent.map(Self::Percent).ok_or_else(wrong)
            }
            None => text.parse().map(Self::Machines).map_err(|_| wrong()),
        }
    }
}

impl DestructionBudget {
    /// How many that is in a namespace with so many Servers; `None`: no bound.
    fn cap(self, servers: usize) -> Option<i64> {
        match self {
            Self::Machines(machines) => Some(i64::from(machines)),
            Self::Percent(percent) => Some((servers as i64 * i64::from(percent) / 100).max(LEAST)),
            Self::Unlimited => None,
        }
    }
}

/// What was read of one namespace.
#[derive(Debug, Clone, Copy)]
struct Read {
    at: Instant,
    used: i64,
    servers: usize,
}

/// The budgets of all watched namespaces.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<BTreeMap<String, Read>>);

impl Budgets {
    fn with<T>(&self, what: impl FnOnce(&mut BTreeMap<String, Read>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is left for a namespace, read at most once a second.
    pub(super) async fn left(&self, context: &Context, namespace: &str) -> Result<Budget, QueueError> {
        if context.settings.destruction_budget == DestructionBudget::Unlimited {
            return Ok(Budget::Left);
        }
        let kept = self.with(|all| all.get(namespace).copied()).filter(|read| read.at.elapsed() < KEPT);
        let read = if let Some(read) = kept {
            read
        } else {
            let (at, servers) = (Instant::now(), context.fleet.count(namespace));
            let read = Read { at, used: context.queue.budget_used(namespace).await?, servers };
            self.with(|all| all.insert(namespace.to_owned(), read));
            read
        };
        Ok(match context.settings.destruction_budget.cap(read.servers) {
            Some(cap) if read.used >= cap => Budget::Spent { cap },
            _ => Budget::Left,
        })
    }

    /// The bound of a namespace.
    pub(super) fn cap(&self, context: &Context, namespace: &str) -> Option<i64> {
        let read = self.with(|all| all.get(namespace).copied());
        let servers = read.map_or_else(|| context.fleet.count(namespace), |read| read.servers);
        context.settings.destruction_budget.cap(servers)
    }

    /// An enqueue was refused: what was read is too old.
    pub(super) fn is_spent(&self, namespace: &str) {
        self.with(|all| all.remove(namespace));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_number_a_share_or_none() {
        for (text, servers, cap) in [
            ("3", 1000, Some(3)),
            ("0", 1000, Some(0)),
            ("10%", 1000, Some(100)),
            ("10%", 20, Some(LEAST)),
            ("unlimited", 1000, None),
        ] {
            assert_eq!(text.parse::<DestructionBudget>().unwrap().cap(servers), cap, "{text}");
        }
        for bad in ["", "-1", "101%", "%", "ten", "10 %"] {
            let error = bad.parse::<DestructionBudget>().unwrap_err().to_string();
            assert!(error.contains("unlimited") && error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
