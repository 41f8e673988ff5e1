//! Site and BMC host to shard. Ownership of a shard is affinity, not safety: a job that two workers see is still
//! claimed by one.

use sha2::{Digest, Sha256};

/// A part of a site's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u16);

/// Shards per site when `migrate` sets up a database.
pub const DEFAULT_SHARDS: u16 = 16;

/// The shard of a BMC: the systems behind one BMC host meet in one shard. `host` is the normalised `host:port`.
pub fn shard_of(site: &str, host: &str, shards: u16) -> Shard {
    let mut hash = Sha256::new();
    hash.update(site.as_bytes());
    hash.update([0]);
    hash.update(host.as_bytes());
    let digest = hash.finalize();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    Shard((number % u32::from(shards.max(1))) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_stays_in_its_shard_and_hosts_spread_over_all() {
        let mut seen = std::collections::BTreeSet::new();
        for host in 0..1000 {
            let name = format!("bmc-{host}:443");
            let shard = shard_of("default", &name, DEFAULT_SHARDS);
            assert_eq!(shard, shard_of("default", &name, DEFAULT_SHARDS));
            assert!(shard.0 < DEFAULT_SHARDS);
            seen.insert(shard);
        }
        assert_eq!(seen.len(), usize::from(DEFAULT_SHARDS));
    }

    #[test]
    fn no_shards_at_all_is_one_shard() {
        assert_eq!(shard_of("a", "b", 0), Shard(0));
    }
}
