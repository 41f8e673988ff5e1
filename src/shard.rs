//! Site and BMC host to shard. Ownership of a shard is affinity, not safety: a job that two workers see is still
//! claimed by one.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::job::Incarnation;

/// A part of a site's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u16);

/// Workers that serve one shard, so that none waits for a worker that has just died.
const SERVERS_OF_A_SHARD: usize = 2;

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

/// The shards that `me` serves among the live workers of a site: each shard is served by the two workers that score
/// highest for it (rendezvous hashing), so that a worker that comes or goes moves no shard but its own.
pub fn served_by(me: Incarnation, live: &[Incarnation], shards: u16) -> BTreeSet<Shard> {
    let score = |worker: Incarnation, shard: u16| {
        let mut hash = Sha256::new();
        hash.update(worker.0.to_be_bytes());
        hash.update(shard.to_be_bytes());
        let digest = hash.finalize();
        (u64::from_be_bytes(std::array::from_fn(|byte| digest[byte])), worker)
    };
    (0..shards)
        .filter(|shard| {
            let mine = score(me, *shard);
            let ahead = live.iter().filter(|other| **other != me && score(**other, *shard) > mine);
            ahead.count() < SERVERS_OF_A_SHARD
        })
        .map(Shard)
        .collect()
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

    fn owners(live: &[Incarnation]) -> Vec<BTreeSet<Incarnation>> {
        (0..DEFAULT_SHARDS)
            .map(|shard| {
                let serves =
                    |me: &&Incarnation| served_by(**me, live, DEFAULT_SHARDS).contains(&Shard(shard));
                live.iter().filter(serves).copied().collect()
            })
            .collect()
    }

    #[test]
    fn every_shard_has_two_workers_where_there_are_two() {
        assert_eq!(served_by(Incarnation(1), &[], 16).len(), 16, "before anybody is known, it serves all");
        for count in 1..20_i64 {
            let live: Vec<Incarnation> = (0..count).map(|number| Incarnation(number * 7919)).collect();
            let want = usize::try_from(count).unwrap_or(2).min(2);
            assert!(owners(&live).iter().all(|owners| owners.len() == want));
        }
    }

    #[test]
    fn a_worker_that_goes_moves_no_shard_but_its_own() {
        let live: Vec<Incarnation> = (0..6).map(|number| Incarnation(number * 104_729)).collect();
        let before = owners(&live);
        let gone = live[2];
        let left: Vec<Incarnation> = live.into_iter().filter(|worker| *worker != gone).collect();
        for (before, after) in before.iter().zip(owners(&left)) {
            let stayed: BTreeSet<Incarnation> =
                before.iter().filter(|worker| **worker != gone).copied().collect();
            assert!(after.is_superset(&stayed), "{before:?} became {after:?}");
        }
    }
}
