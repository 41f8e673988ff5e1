//! The servers and the jobs of a benchmark: power-on jobs, of which every second one reports a whole reading.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::api::hardware::{Disk, Hardware, HardwareIdentity, Nic, PowerState};
use crate::job::{Action, Cause, Intent, JobId, JobResult, Lane, Reading, ServerUid, Step, Visibility};
use crate::queue::measure::KnownServer;
use crate::queue::{End, NewJob, Report};
use crate::shard::{DEFAULT_SHARDS, Shard};

/// The site of every server.
pub(super) const SITE: &str = "bench";

/// The uid of a server by its number: a UUID as Kubernetes gives them, so that neighbours in the queue are none in the
/// tables that are ordered by uid.
pub(super) fn uid(number: u64) -> ServerUid {
    ServerUid(Uuid::from_u64_pair(mixed(2 * number), mixed(2 * number + 1)).to_string())
}

/// The finaliser of splitmix64: one-to-one, and without a pattern.
const fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A digit of the uid, counted from its end: chance that is the same for a server every time.
fn digit(uid: &ServerUid, from_end: usize) -> u16 {
    let digit = uid.as_str().chars().rev().nth(from_end).and_then(|digit| digit.to_digit(16));
    digit.unwrap_or(0) as u16
}

/// All shards of the site.
pub(super) fn all_shards() -> impl Iterator<Item = Shard> {
    (0..DEFAULT_SHARDS).map(Shard)
}

/// Whether the job of this server ends with a reading.
fn reports(uid: &ServerUid) -> bool {
    digit(uid, 1).is_multiple_of(2)
}

/// The row of a server. `readings`: those that will report one had one before.
pub(super) fn known(number: u64, readings: bool) -> KnownServer {
    let uid = uid(number);
    let reading = (readings && reports(&uid)).then(|| reading(&uid, PowerState::PoweredOff));
    KnownServer { reading, namespace: "bench".to_owned(), name: name(&uid), uid }
}

fn name(uid: &ServerUid) -> String {
    format!("server-{}", &uid.as_str()[..8])
}

/// A new id of the present time; no two of one process are alike.
pub(super) fn next_id() -> JobId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    JobId::new(now_ms(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A job to power a server on.
pub(super) fn job(uid: &ServerUid, id: JobId, lane: Lane) -> NewJob {
    NewJob {
        id,
        order_ms: id.unix_ms(),
        namespace: "bench".to_owned(),
        name: name(uid),
        site: SITE.to_owned(),
        shard: Shard(digit(uid, 0) % DEFAULT_SHARDS),
        action: Action::PowerOn,
        step: Step::On,
        lane,
        intent: Intent("5e1f0c3b".repeat(8)),
        cause: Cause { named: "a77a1c0d".repeat(8), whole: "a77a1c0d".repeat(8) },
        visibility: Visibility::Shown,
        requester: "autobuild-bench".to_owned(),
        budget: None,
        uid: uid.clone(),
    }
}

/// The end of such a job.
pub(super) fn end(uid: &ServerUid) -> End {
    let report = if reports(uid) {
        Report::Good(Box::new(reading(uid, PowerState::PoweredOn)))
    } else {
        Report::Nothing
    };
    End { report, ..End::new(JobResult::Succeeded, None) }
}

/// What a BMC of an ordinary server with two network ports and four disks tells.
fn reading(uid: &ServerUid, power: PowerState) -> Reading {
    let serial = uid.as_str()[..8].to_uppercase();
    let nic = |port: u16| Nic {
        name: format!("NIC.Slot.1-{port}"),
        mac_address: Some(format!("02:00:5e:{:02x}:{:02x}:{port:02x}", digit(uid, 0), digit(uid, 2))),
        speed_mbps: Some(25_000),
        ..Nic::default()
    };
    let disk = |bay: u16| Disk {
        name: format!("Disk.Bay.{bay}"),
        model: Some("NVMe 3.84 TB read intensive".to_owned()),
        serial_number: Some(format!("{serial}-{bay}")),
        size_bytes: Some(3_840_755_982_336),
        ..Disk::default()
    };
    Reading {
        power,
        identity: HardwareIdentity {
            serial_number: Some(serial.clone()),
            uuid: Some(uid.as_str().to_owned()),
            system: None,
        },
        hardware: Hardware {
            manufacturer: Some("Example Systems".to_owned()),
            model: Some("Example 2U".to_owned()),
            serial_number: Some(serial.clone()),
            uuid: Some(uid.as_str().to_owned()),
            bios_version: Some("2.19.1".to_owned()),
            cpus: Some(2),
            memory_gib: Some(512),
            nics: (1..=2).map(nic).collect(),
            disks: (1..=4).map(disk).collect(),
            ..Hardware::default()
        },
        last_reset_time: Some("2026-01-01T00:00:00Z".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn servers_differ_spread_over_all_shards_and_half_of_them_report() {
        let uids: BTreeSet<ServerUid> = (0..10_000).map(uid).collect();
        assert_eq!(uids.len(), 10_000);
        let shards: BTreeSet<Shard> = uids.iter().map(|uid| job(uid, JobId(1), Lane::Low).shard).collect();
        assert_eq!(shards, all_shards().collect());
        let reporting = uids.iter().filter(|uid| reports(uid)).count();
        assert!((4_500..5_500).contains(&reporting), "{reporting}");
    }
}
