//! Reads are monotonic: nothing is decided on an object that is older than one that this process has seen, whether it came
//! from the watch, from a live read, or as the answer to a write.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::core::ObjectMeta;

/// The newest of each object that was seen.
#[derive(Debug)]
struct Seen {
    resource_version: String,
    /// Written by this process, and not come back through the watch yet.
    is_ours: bool,
}

/// The newest resourceVersion of each object.
#[derive(Debug, Default)]
pub(super) struct Newest {
    seen: Mutex<HashMap<String, Seen>>,
}

impl Newest {
    fn seen(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what a write of ours answered.
    pub(super) fn written(&self, metadata: &ObjectMeta) {
        self.set(metadata, true);
    }

    /// Remembers what a live read answered. It is the truth, even if it is older than what was seen before: then etcd was
    /// restored.
    pub(super) fn read(&self, metadata: &ObjectMeta) {
        self.set(metadata, false);
    }

    fn set(&self, metadata: &ObjectMeta, is_ours: bool) {
        if let (Some(uid), Some(version)) = (&metadata.uid, &metadata.resource_version) {
            self.seen().insert(uid.clone(), Seen { resource_version: version.clone(), is_ours });
        }
    }

    /// Whether the cached object is older than one that was seen. A newer one is remembered.
    pub(super) fn is_stale(&self, cached: &ObjectMeta) -> bool {
        let (Some(uid), Some(version)) = (&cached.uid, &cached.resource_version) else { return false };
        let mut all = self.seen();
        match all.get_mut(uid) {
            Some(seen) if is_older(version, &seen.resource_version) => true,
            Some(seen) => {
                seen.resource_version.clone_from(version);
                false
            }
            None => {
                all.insert(uid.clone(), Seen { resource_version: version.clone(), is_ours: false });
                false
            }
        }
    }

    /// Whether the watch shows our own last write and nothing else: whoever wrote it went on from there. Only once for
    /// each write, so that a new list has everything looked at again.
    pub(super) fn is_echo(&self, cached: &ObjectMeta) -> bool {
        let (Some(uid), Some(version)) = (&cached.uid, &cached.resource_version) else { return false };
        match self.seen().get_mut(uid) {
            Some(seen) if seen.resource_version == *version => std::mem::take(&mut seen.is_ours),
            _ => false,
        }
    }

    /// The object is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.seen().remove(uid);
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
    fn a_cache_behind_what_was_seen_is_stale_however_it_was_seen() {
        let newest = Newest::default();
        assert!(!newest.is_stale(&at("9")));
        newest.written(&at("10"));
        assert!(newest.is_stale(&at("9")));
        newest.read(&at("12"));
        assert!(newest.is_stale(&at("11")));
        assert!(!newest.is_stale(&at("13")));
        assert!(newest.is_stale(&at("12")), "a cache that goes back is behind as well");
    }

    #[test]
    fn a_live_read_that_is_older_is_the_truth() {
        let newest = Newest::default();
        newest.written(&at("100"));
        newest.read(&at("7"));
        assert!(!newest.is_stale(&at("7")) && newest.is_stale(&at("6")));
    }

    #[test]
    fn our_own_write_comes_back_once_and_what_others_wrote_is_none_of_it() {
        let newest = Newest::default();
        newest.written(&at("10"));
        assert!(!newest.is_echo(&at("9")) && !newest.is_echo(&at("11")));
        assert!(newest.is_echo(&at("10")));
        assert!(!newest.is_echo(&at("10")) && !newest.is_stale(&at("10")));
        newest.read(&at("11"));
        assert!(!newest.is_echo(&at("11")), "somebody else wrote it");
    }

    #[test]
    fn versions_that_are_no_numbers_are_compared_for_equality() {
        let newest = Newest::default();
        newest.written(&at("abc"));
        assert!(newest.is_stale(&at("abd")));
        assert!(!newest.is_stale(&at("abc")));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let newest = Newest::default();
        newest.read(&at("10"));
        newest.forget("u");
        assert!(newest.seen().is_empty());
    }
}
