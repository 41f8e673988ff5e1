//! Which files the cache holds, and which go when there is no room. Pure.

use std::collections::HashMap;

/// The files, by digest.
#[derive(Debug)]
pub struct Shelf {
    limit: u64,
    files: HashMap<String, Kept>,
    /// Room that downloads which run have taken.
    reserved: u64,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: u64,
    last_use: u64,
    readers: u32,
}

/// There is no room, even without every file that nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Shelf {
    /// An empty one for so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, files: HashMap::new(), reserved: 0, uses: 0 }
    }

    /// A file is there.
    pub fn add(&mut self, digest: &str, bytes: u64) {
        self.uses += 1;
        let readers = self.files.get(digest).map_or(0, |kept| kept.readers);
        self.files.insert(digest.to_owned(), Kept { bytes, last_use: self.uses, readers });
    }

    /// A file is no longer there.
    pub fn forget(&mut self, digest: &str) {
        self.files.remove(digest);
    }

    /// Whether a file is there.
    pub fn holds(&self, digest: &str) -> bool {
        self.files.contains_key(digest)
    }

    /// Somebody begins to read it; whether it is there.
    pub fn open(&mut self, digest: &str) -> bool {
        self.uses += 1;
        match self.files.get_mut(digest) {
            Some(kept) => {
                kept.last_use = self.uses;
                kept.readers += 1;
                true
            }
            None => false,
        }
    }

    /// Somebody has opened it, and needs its name no more.
    pub fn close(&mut self, digest: &str) {
        if let Some(kept) = self.files.get_mut(digest) {
            kept.readers = kept.readers.saturating_sub(1);
        }
    }

    /// Takes room for a download. The files of these digests must go, the least recently used first.
    pub fn reserve(&mut self, bytes: u64) -> Result<Vec<String>, Full> {
        let wanted = self.held().saturating_add(self.reserved).saturating_add(bytes);
        let mut missing = wanted.saturating_sub(self.limit);
        let mut idle: Vec<(&String, &Kept)> =
            self.files.iter().filter(|(_, kept)| kept.readers == 0).collect();
        idle.sort_by_key(|(_, kept)| kept.last_use);
        let mut go = Vec::new();
        for (digest, kept) in idle {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(kept.bytes);
            go.push(digest.clone());
        }
        if missing > 0 {
            return Err(Full);
        }
        for digest in &go {
            self.files.remove(digest);
        }
        self.reserved += bytes;
        Ok(go)
    }

    /// The least recently used file that nobody reads: it must go.
    pub fn evict(&mut self) -> Option<String> {
        let idle = self.files.iter().filter(|(_, kept)| kept.readers == 0);
        let oldest = idle.min_by_key(|(_, kept)| kept.last_use).map(|(digest, _)| digest.clone())?;
        self.files.remove(&oldest);
        Some(oldest)
    }

    /// Most that a file may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes of files that may go.
    pub fn idle(&self) -> u64 {
        self.files.values().filter(|kept| kept.readers == 0).map(|kept| kept.bytes).sum()
    }

    /// A download ended, or became a file.
    pub fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// The bytes of all files.
    pub fn held(&self) -> u64 {
        self.files.values().map(|kept| kept.bytes).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn shelf(files: &[(&str, u64)]) -> Shelf {
        let mut shelf = Shelf::new(100);
        for (digest, bytes) in files {
            shelf.add(digest, *bytes);
        }
        shelf
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut shelf = shelf(&[("a", 40), ("b", 40)]);
        assert!(shelf.open("a"));
        shelf.close("a");
        assert_eq!(shelf.reserve(20).unwrap(), Vec::<String>::new());
        assert_eq!(shelf.reserve(10).unwrap(), ["b"]);
        assert_eq!(shelf.held(), 40);
    }

    #[test]
    fn what_somebody_opens_stays() {
        let mut shelf = shelf(&[("a", 60), ("b", 40)]);
        assert!(shelf.open("a"));
        assert_eq!(shelf.reserve(50), Err(Full));
        assert_eq!(shelf.held(), 100);
        shelf.close("a");
        assert_eq!(shelf.reserve(50).unwrap(), ["b", "a"]);
    }

    #[test]
    fn what_goes_for_a_disk_that_is_full_is_what_was_not_used_for_longest_and_nobody_reads() {
        let mut shelf = shelf(&[("a", 10), ("b", 20), ("c", 30)]);
        assert!(shelf.open("a"));
        assert_eq!((shelf.idle(), shelf.evict().as_deref()), (50, Some("b")));
        assert_eq!((shelf.evict().as_deref(), shelf.evict()), (Some("c"), None));
        assert_eq!(shelf.held(), 10);
    }

    #[test]
    fn downloads_that_run_take_room_too() {
        let mut shelf = shelf(&[]);
        shelf.reserve(80).unwrap();
        assert_eq!(shelf.reserve(30), Err(Full));
        shelf.release(80);
        shelf.reserve(30).unwrap();
        assert_eq!(shelf.reserve(101), Err(Full));
    }

    #[test]
    fn a_smaller_limit_than_before_makes_old_files_go() {
        let mut shelf = shelf(&[("a", 80), ("b", 80)]);
        assert_eq!(shelf.reserve(10).unwrap(), ["a"]);
    }
}
