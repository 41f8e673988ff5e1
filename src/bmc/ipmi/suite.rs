//! The cipher suites that are spoken, and which BMC speaks which.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// BMCs that are remembered; those beyond it are asked for the better suite each time.
const REMEMBERED_MAX: usize = 4096;

/// A cipher suite of IPMI 2.0. Suite 0, which asks for no password, is not one of them, and neither is any without
/// encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Sha256,
    /// 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128; for BMCs that refuse 17.
    Sha1,
}

impl Suite {
    /// Its number.
    pub(super) const fn id(self) -> u8 {
        match self {
            Self::Sha256 => 17,
            Self::Sha1 => 3,
        }
    }
}

/// The suite that each BMC accepted. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::bmc) struct Suites(Arc<Mutex<HashMap<String, Suite>>>);

impl Suites {
    /// The suites to try, in order.
    pub(super) fn to_try(&self, host: &str) -> &'static [Suite] {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            None => &[Suite::Sha256, Suite::Sha1],
            Some(Suite::Sha256) => &[Suite::Sha256],
            Some(Suite::Sha1) => &[Suite::Sha1],
        }
    }

    /// Remembers what a BMC accepted.
    pub(super) fn accepted(&self, host: &str, suite: Suite) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED_MAX || known.contains_key(host) {
            known.insert(host.to_owned(), suite);
        }
    }

    /// Forgets what a BMC accepted before and refuses now.
    pub(super) fn refused(&self, host: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_better_suite_comes_first_and_what_was_accepted_is_kept() {
        let (suites, host) = (Suites::default(), "bmc.example:623");
        let ids = |suites: &Suites| suites.to_try(host).iter().map(|suite| suite.id()).collect::<Vec<_>>();
        assert_eq!(ids(&suites), [17, 3]);
        suites.accepted(host, Suite::Sha1);
        assert_eq!(ids(&suites), [3]);
        suites.refused(host);
        assert_eq!(ids(&suites), [17, 3]);
    }
}
