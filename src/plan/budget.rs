//! The destruction budget: how many machines of a namespace may lose their data in one hour, so that a bad commit over a
//! whole fleet can be taken back before it has come far.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Observation, Share, Work};
use crate::api::Reason;
use crate::job::Problem;

/// Milliseconds of the period that a budget is for.
pub const HOUR_MS: i64 = 3_600_000;

/// Over how many milliseconds of a new hour those who waited for it begin.
const SPREAD_MS: i64 = 120_000;

/// What is left of this hour's budget of the namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Budget {
    /// No bound, or something is left.
    #[default]
    Left,
    /// As many as may had their data destroyed.
    Spent {
        /// How many that is.
        cap: i64,
    },
}

/// Whether `work` has to wait for the next hour.
pub(super) fn in_the_way(seen: &Observation, work: &Work) -> Option<Problem> {
    let (Budget::Spent { cap }, Share::One) = (seen.budget, work.share) else { return None };
    Some(Problem::new(
        Reason::DestructionBudget,
        format!(
            "{} waits for the next hour: in this one {cap} jobs that give up the data of a machine were begun in this namespace, \
             as many as may (--destruction-budget); a mistake can be taken back now",
            work.action
        ),
    ))
}

/// When the budget of the next hour is asked, milliseconds since the Unix epoch: each server has its own moment.
pub(super) fn next_moment_ms(seen: &Observation) -> i64 {
    let digest = Sha256::digest(seen.uid().as_str().as_bytes());
    let own = i64::from(u16::from_be_bytes([digest[0], digest[1]])) * SPREAD_MS / (1 << 16);
    (seen.now_ms.div_euclid(HOUR_MS) + 1) * HOUR_MS + own
}
