//! What this process wrote last: a cache that is older than our own write must not be decided on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::core::ObjectMeta;

/// The resourceVersion of our own last write of each object, while the cache may not have it.
#[derive(Debug, Default)]
pub(super) struct Written {
    last: Mutex<HashMap<String, String>>,
}

impl Written {
    /// Remembers what a write answered.
    pub(super) fn remember(&self, metadata: &ObjectMeta) {
        if let (Some(uid), Some(version)) = (&metadata.uid, &metadata.resource_version) {
            self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), version.clone());
        }
    }

    /// Whether the cached object is older than our own last write. One that is not ends the remembering.
    pub(super) fn is_stale(&self, cached: &ObjectMeta) -> bool {
        let (Some(uid), Some(version)) = (&cached.uid, &cached.resource_version) else { return false };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ours) = last.get(uid) else { return false };
        if is_older(version, ours) {
            return true;
        }
        last.remove(uid);
        false
    }

    /// Whether the watch shows our own last write and nothing else: whoever wrote it went on from there. Only once for
    /// each write, so that a new list has everything looked at again.
    pub(super) fn is_echo(&self, cached: &ObjectMeta) -> bool {
        let (Some(uid), Some(version)) = (&cached.uid, &cached.resource_version) else { return false };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let echo = last.get(uid) == Some(version);
        if echo {
            last.remove(uid);
        }
        echo
    }

    /// The object is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// resourceVersions of one kind are whole numbers that grow. Should a server not keep to that, only the very same one
/// counts as new enough, and a live read settles the rest.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => version != than,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: &str) -> ObjectMeta {
        ObjectMeta { uid: Some("u".into()), resource_version: Some(version.into()), ..ObjectMeta::default() }
    }

    #[test]
    fn a_cache_behind_our_own_write_is_stale_until_it_has_caught_up() {
        let written = Written::default();
        assert!(!written.is_stale(&at("9")));
        written.remember(&at("10"));
        assert!(written.is_stale(&at("9")));
        assert!(!written.is_stale(&at("11")));
        assert!(
            !written.is_stale(&at("9")),
            "a re-list may bring an older object; nothing of ours is in doubt"
        );
    }

    #[test]
    fn our_own_write_comes_back_once_and_what_others_wrote_is_none_of_it() {
        let written = Written::default();
        written.remember(&at("10"));
        assert!(!written.is_echo(&at("9")) && !written.is_echo(&at("11")));
        assert!(written.is_echo(&at("10")));
        assert!(!written.is_echo(&at("10")) && !written.is_stale(&at("10")));
    }

    #[test]
    fn versions_that_are_no_numbers_are_compared_for_equality() {
        let written = Written::default();
        written.remember(&at("abc"));
        assert!(written.is_stale(&at("abd")));
        assert!(!written.is_stale(&at("abc")));
    }
}
