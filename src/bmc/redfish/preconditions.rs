//! Where `If-Match` is of no use: some BMCs compare it with the ETag of the action instead of the system's, and would
//! refuse for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;

/// So many refusals in a row, each with an ETag that was read just before, are no coincidence.
const REFUSALS: u8 = 2;
/// Systems that are remembered; those beyond it go on with `If-Match`.
const REMEMBERED_MAX: usize = 4096;

type Refused = HashMap<(String, String), u8>;

/// The systems that refused `If-Match`, and how often in a row. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::bmc) struct Preconditions(Arc<Mutex<Refused>>);

impl Preconditions {
    /// The ETag to send: none where the BMC has none, has only a weak one (which never matches), or refused it before.
    pub(super) fn guard<'a>(&self, host: &str, system: &str, etag: Option<&'a str>) -> Option<&'a str> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let useless =
            refused.get(&(host.to_owned(), system.to_owned())).is_some_and(|times| *times >= REFUSALS);
        etag.filter(|etag| !useless && !etag.is_empty() && !etag.starts_with("W/"))
    }

    /// Takes in what came of a request.
    pub(super) fn learn(&self, host: &str, system: &str, guarded: bool, status: StatusCode) {
        if !guarded {
            return;
        }
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), system.to_owned());
        if status != StatusCode::PRECONDITION_FAILED {
            refused.remove(&key);
        } else if refused.len() < REMEMBERED_MAX || refused.contains_key(&key) {
            let times = refused.entry(key).or_insert(0);
            *times = times.saturating_add(1);
        }
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_sent_until_it_was_refused_twice_in_a_row() {
        let (known, host) = (Preconditions::default(), "bmc.example:443");
        let guard = |system| known.guard(host, system, Some("\"1\""));
        assert_eq!(known.guard(host, "a", Some("W/\"1\"")), None, "a weak one never matches");
        let refused = StatusCode::PRECONDITION_FAILED;
        for status in [refused, StatusCode::NO_CONTENT, refused] {
            known.learn(host, "a", true, status);
            assert!(guard("a").is_some());
        }
        known.learn(host, "a", true, refused);
        assert_eq!(guard("a"), None);
        assert!(guard("b").is_some());
    }
}
