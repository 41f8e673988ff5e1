//! What was read and judged a moment ago, by token: an installer asks for many things one after the other, and a BMC reads an
//! ISO in thousands of small ranges. That the session is open is looked up each time, except for ISOs.
#![expect(clippy::disallowed_methods, reason = "a judgement is kept for a few seconds")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::token::TokenHash;

/// How long a judgement is kept.
const KEPT: Duration = Duration::from_secs(10);
/// So many are kept before those that are too old are forgotten.
const REMEMBERED: usize = 1_000;

/// Judgements of a moment ago.
#[derive(Debug)]
pub(super) struct Recent<T>(Mutex<HashMap<[u8; 32], (Instant, T)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Recent<T> {
    /// What was kept for this token and is not too old.
    pub(super) fn get(&self, token: &TokenHash) -> Option<T> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(token.as_bytes()).filter(|(at, _)| at.elapsed() < KEPT).map(|(_, judged)| judged.clone())
    }

    /// Keeps a judgement.
    pub(super) fn keep(&self, token: &TokenHash, judged: T) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= REMEMBERED {
            kept.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        kept.insert(*token.as_bytes(), (Instant::now(), judged));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::boot::token::BootToken;

    #[test]
    fn a_judgement_is_kept_for_its_token_and_for_ten_seconds() {
        let recent = Recent::default();
        let (token, other) = (BootToken::generate().unwrap().hash(), BootToken::generate().unwrap().hash());
        recent.keep(&token, "good");
        assert_eq!((recent.get(&token), recent.get(&other)), (Some("good"), None));
        let Some(before) = Instant::now().checked_sub(Duration::from_secs(10)) else { return };
        recent.0.lock().unwrap().insert(*token.as_bytes(), (before, "good"));
        assert_eq!(recent.get(&token), None);
    }
}
