//! In which order jobs are claimed: lanes, shares, room, and what hints must not hide.

use std::collections::BTreeMap;

use autobuild::job::{Action, JobId, Lane, PermitClass, WaitingFor};
use autobuild::queue::{Claim, Enqueued, Front, Heart, ParkAs, Report, Room, Served, ShareBound, Shares};
use autobuild::shard::Shard;
use futures::FutureExt as _;

use crate::Case;
use crate::fixture::{Fixture, SITE, done, job, now_ms, wait_for};

pub const CASES: &[Case] = &[
    ("lanes are emptied one after the other over all shards, started jobs first", |f| lanes(f).boxed_local()),
    ("one claim takes what waits in all shards, and no more than there is room for", |f| {
        all_shards(f).boxed_local()
    }),
    ("what is more urgent than the front that was seen is claimed next", |f| overtakes(f).boxed_local()),
    ("without room for others only urgent jobs are claimed", |f| reserved(f).boxed_local()),
    ("a lower lane gets its share under a backlog of urgent jobs", |f| shares(f).boxed_local()),
    ("without shares a lower lane waits until the higher ones are empty", |f| no_shares(f).boxed_local()),
    ("a row that was put before the hint is found", |f| below_the_hint(f).boxed_local()),
    ("a woken job is found before the backlog that was hinted past it", |f| woken(f).boxed_local()),
    (
        "among several namespaces a job that was put before the hint is found long before the end of a backlog",
        |f| put_before_the_hint(f).boxed_local(),
    ),
    ("only served shards are claimed from, and a change takes effect at once", |f| served(f).boxed_local()),
    (
        "a namespace that has its share of the slots is passed over, however much of it waits before others",
        |f| passed_over(f).boxed_local(),
    ),
    ("a job comes where it was put in its lane, keeps that place, and is as old as it is", |f| {
        placed(f).boxed_local()
    }),
    ("a job's place in the queue counts what may be claimed before it", |f| position(f).boxed_local()),
];

const SHARDS: u16 = 4;

fn front(lower_share: u32) -> Front {
    Front::new(Served { site: SITE.to_owned(), shards: (0..SHARDS).map(Shard).collect() }, lower_share)
}

const fn room(any: u32) -> Room {
    Room { any, urgent: 0 }
}

impl Fixture {
    async fn put(&self, name: &str, lane: Lane, shard: u16, age_ms: i64) -> JobId {
        self.put_of("ns", (name, Action::PowerOn), lane, shard, age_ms).await
    }

    async fn put_of(
        &self,
        namespace: &str,
        (name, action): (&str, Action),
        lane: Lane,
        shard: u16,
        age_ms: i64,
    ) -> JobId {
        let uid = self.server(name).await;
        let id = JobId::new(now_ms() - age_ms, rand::random());
        let mut wanted = job(&uid, action, lane, id);
        (wanted.namespace, wanted.shard) = (namespace.to_owned(), Shard(shard));
        let version = self.version(&uid).await;
        assert_eq!(self.queue.enqueue(wanted, version).await.unwrap(), Enqueued::Accepted);
        id
    }
}

async fn lanes(f: Fixture) {
    let worker = f.worker().await;
    f.put("started", Lane::Normal, 3, 0).await;
    let started = f.fetch(&mut front(0), &worker, room(1)).await.pop().unwrap();
    for (number, lane) in Lane::ALL.into_iter().rev().enumerate() {
        for shard in 0..SHARDS {
            f.put(&format!("{number}-{shard}"), lane, shard, i64::from(shard)).await;
        }
    }
    done(f.queue.hand_back(started).await.unwrap());
    let mut front = front(0);
    let mut order = Vec::new();
    loop {
        let claims = f.fetch(&mut front, &worker, room(3)).await;
        if claims.is_empty() {
            break;
        }
        order.extend(claims.iter().map(|claim| (claim.job().lane, !claim.job().started())));
    }
    assert_eq!(order.len(), 1 + 5 * usize::from(SHARDS));
    assert!(order.is_sorted(), "{order:?}");
}

async fn all_shards(f: Fixture) {
    let worker = f.worker().await;
    let mut put = Vec::new();
    for number in 0..8 {
        put.push(f.put(&format!("a-{number}"), Lane::High, number % SHARDS, 1_000 - i64::from(number)).await);
    }
    let mut front = front(0);
    let ids = async |front: &mut Front, most: u32| -> Vec<JobId> {
        f.fetch(front, &worker, room(most)).await.iter().map(|claim| claim.job().id).collect()
    };
    let mut claimed = ids(&mut front, 6).await;
    assert_eq!(claimed.len(), 6);
    claimed.extend(ids(&mut front, 6).await);
    claimed.sort_unstable();
    put.sort_unstable();
    assert_eq!(claimed, put);
    // What one shard has left comes from that one alone, and what is older than what was claimed is found again.
    for number in 0..8 {
        f.put(&format!("b-{number}"), Lane::High, 2, 500).await;
    }
    assert_eq!(ids(&mut front, 6).await.len(), 6);
    for shard in 0..SHARDS {
        f.put(&format!("c-{shard}"), Lane::High, shard, 5_000).await;
    }
    let (mut seen, mut last) = (0, 0);
    wait_for("all that is left", async || {
        last = ids(&mut front, 20).await.len();
        seen += last;
        seen == 6
    })
    .await;
    assert!(last > 1, "more than one at once");
}

async fn overtakes(f: Fixture) {
    let worker = f.worker().await;
    for number in 0..40 {
        f.put(&format!("low-{number}"), Lane::Low, number % SHARDS, 0).await;
    }
    let mut front = front(0);
    for (number, lane) in [Lane::Normal, Lane::High, Lane::Urgent].into_iter().enumerate() {
        assert_eq!(f.fetch(&mut front, &worker, room(1)).await[0].job().lane, Lane::Low);
        let wanted = f.put(&format!("other-{number}"), lane, number as u16, 0).await;
        // Within some milliseconds, and long before the backlog ends.
        let mut passed = 0;
        while f.fetch(&mut front, &worker, room(1)).await[0].job().id != wanted {
            passed += 1;
            assert!(passed < 4, "{lane:?} waits behind the backlog");
        }
    }
}

async fn reserved(f: Fixture) {
    let worker = f.worker().await;
    for number in 0..5 {
        f.put(&format!("high-{number}"), Lane::High, number % SHARDS, 0).await;
    }
    let mut front = front(16);
    let only_urgent = Room { any: 0, urgent: 2 };
    assert!(f.fetch(&mut front, &worker, only_urgent).await.is_empty());
    for number in 0..3 {
        f.put(&format!("urgent-{number}"), Lane::Urgent, 0, 0).await;
    }
    let claims = f.fetch(&mut front, &worker, only_urgent).await;
    assert_eq!(claims.len(), 2);
    assert!(claims.iter().all(|claim| claim.job().lane == Lane::Urgent));
    assert!(f.fetch(&mut front, &worker, Room { any: 0, urgent: 0 }).await.is_empty());
}

/// How many of the first claims went to which lane.
async fn first_claims(f: &Fixture, share: u32, count: u32) -> BTreeMap<Lane, u32> {
    let worker = f.worker().await;
    for lane in Lane::ALL {
        for number in 0..60 {
            f.put(&format!("{}-{number}", lane.as_str()), lane, number % SHARDS, 0).await;
        }
    }
    let mut front = front(share);
    let mut lanes = BTreeMap::new();
    for _ in 0..count {
        let claims = f.fetch(&mut front, &worker, room(1)).await;
        *lanes.entry(claims[0].job().lane).or_default() += 1;
    }
    lanes
}

async fn shares(f: Fixture) {
    let lanes = first_claims(&f, 5, 50).await;
    // One claim in five, the lower lanes in turn: of 50 claims 10 are shared by four lanes.
    let lower: Vec<u32> = Lane::ALL[1..].iter().map(|lane| lanes.get(lane).copied().unwrap_or(0)).collect();
    assert_eq!(lower.iter().sum::<u32>(), 10, "{lanes:?}");
    assert!(lower.iter().all(|count| (2..=3).contains(count)), "{lanes:?}");
}

async fn no_shares(f: Fixture) {
    assert_eq!(first_claims(&f, 0, 50).await, BTreeMap::from([(Lane::Urgent, 50)]));
}

/// Claims until so many were claimed that nothing more is to come, and looks ten times more.
async fn all_within(
    f: &Fixture,
    front: &mut Front,
    worker: &Heart,
    shares: &Shares,
    until: usize,
) -> Vec<Claim> {
    let mut claimed = Vec::new();
    let mut more = 10;
    wait_for("what may be claimed", async || {
        let claims = f.queue.fetch_within(front, worker.incarnation(), shares).await.unwrap();
        more -= i32::from(claims.is_empty() && claimed.len() >= until);
        claimed.extend(claims);
        more == 0
    })
    .await;
    claimed
}

/// Copies all jobs of the hostile namespace, so often.
async fn multiply(f: &Fixture, times: usize) {
    use sqlx::Connection as _;
    let mut connection = sqlx::MySqlConnection::connect(&f.url).await.unwrap();
    let copy = "CREATE TEMPORARY TABLE copy AS SELECT * FROM job WHERE namespace = 'hostile'";
    sqlx::raw_sql(copy).execute(&mut connection).await.unwrap();
    for _ in 0..times {
        for text in [
            "UPDATE copy SET server_uid = CONCAT('x', server_uid), id = id + 1",
            "INSERT INTO job SELECT * FROM copy",
            "INSERT INTO queue (site, shard, state, ord, id, server_uid) \
             SELECT site, shard, q_state, q_ord, id, server_uid FROM copy",
        ] {
            sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
        }
    }
}

async fn passed_over(f: Fixture) {
    let worker = f.worker().await;
    f.queue.set_permits(SITE, PermitClass::Install, 1).await.unwrap();
    // More than are looked at at once, and all of it before the others.
    for number in 0..150 {
        let lane = if number % 3 == 0 { Lane::Urgent } else { Lane::High };
        let name = format!("hostile-{number}");
        f.put_of("hostile", (&name, Action::PowerOn), lane, number % 2, 10_000).await;
    }
    for (name, action, lane) in [
        ("last", Action::PowerOn, Lane::High),
        ("lower", Action::PowerOn, Lane::Low),
        ("one-install", Action::Reimage, Lane::High),
        ("other-install", Action::Reimage, Lane::High),
    ] {
        f.put_of("honest", (name, action), lane, 1, 0).await;
    }
    let mut front = front(16);
    let shares = |any| Shares::new(ShareBound::Free, Room { any, urgent: 1 }, ["hostile"; 6]);
    let full = shares(2);
    assert_eq!(full.of_anybody(), 0);
    let claimed = all_within(&f, &mut front, &worker, &full, 3).await;
    let mut names: Vec<&str> = claimed.iter().map(Claim::name).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.starts_with(&["last", "lower"]) && names[2].ends_with("install"), "{names:?}");
    // However long the backlog is.
    multiply(&f, 9).await;
    f.put_of("honest", ("later", Action::PowerOn), Lane::High, 1, 0).await;
    let claimed = all_within(&f, &mut front, &worker, &full, 1).await;
    assert_eq!(claimed.iter().map(Claim::name).collect::<Vec<_>>(), ["later"]);
    // With more room it is whatever comes first.
    let wide = shares(10);
    let room = Room { any: 10, urgent: 1 }.at_most(wide.of_anybody());
    let claims = f.queue.fetch(&mut front, worker.incarnation(), room).await.unwrap();
    assert_eq!(claims.len(), 6, "as many as anybody may have");
    assert!(claims.iter().all(|claim| claim.namespace() == "hostile" && claim.job().lane == Lane::Urgent));
}

async fn below_the_hint(f: Fixture) {
    let worker = f.worker().await;
    for number in 0..30 {
        f.put(&format!("high-{number:02}"), Lane::High, 0, 1000 - i64::from(number)).await;
    }
    let moved = f.put("moved", Lane::Low, 0, 3_600_000).await;
    let mut front = front(0);
    // Full claims leave a hint behind; the job that is moved into the lane then is older than it.
    assert_eq!(f.fetch(&mut front, &worker, room(10)).await.len(), 10);
    let uid = autobuild::job::ServerUid("uid-moved".to_owned());
    f.queue.reprioritize(&uid, moved, Lane::High).await.unwrap();
    let mut found = false;
    for _ in 0..3 {
        found |= f.fetch(&mut front, &worker, room(10)).await.iter().any(|claim| claim.job().id == moved);
    }
    assert!(found, "a claim that gets fewer than it asked for looks again from the start");
}

async fn woken(f: Fixture) {
    let worker = f.worker().await;
    let old = f.put("old", Lane::High, 0, 3_600_000).await;
    let mut front = front(0);
    let claim = f.fetch(&mut front, &worker, room(1)).await.pop().unwrap();
    for number in 0..40 {
        f.put(&format!("high-{number:02}"), Lane::High, 0, 1000 - i64::from(number)).await;
    }
    assert_eq!(f.fetch(&mut front, &worker, room(1)).await.len(), 1);
    let how = ParkAs {
        after_ms: 0,
        waiting_for: WaitingFor::PowerState,
        problem: None,
        secret_version: None,
        checkpoint: String::new(),
        report: Report::Nothing,
    };
    done(f.queue.park(claim, how).await.unwrap());
    let mut claimed = 0;
    wait_for("the woken job to be claimed", async || {
        let claims = f.fetch(&mut front, &worker, room(1)).await;
        claimed += claims.len();
        claims.iter().any(|claim| claim.job().id == old)
    })
    .await;
    assert!(claimed <= 40, "before the end of the backlog");
}

async fn put_before_the_hint(f: Fixture) {
    let worker = f.worker().await;
    for number in 0..50 {
        let name = format!("hostile-{number:02}");
        f.put_of("hostile", (&name, Action::PowerOn), Lane::High, 0, 10_000 - i64::from(number)).await;
    }
    let mut front = front(0);
    front.is_among_others(true);
    assert_eq!(f.fetch(&mut front, &worker, room(1)).await.len(), 1);
    let turn = f.put_of("honest", ("turn", Action::PowerOn), Lane::High, 0, 20_000).await;
    for _ in 0..49 {
        if f.fetch(&mut front, &worker, room(1)).await.iter().any(|claim| claim.job().id == turn) {
            return;
        }
    }
    panic!("it was claimed after all that came behind it");
}

async fn served(f: Fixture) {
    let worker = f.worker().await;
    f.put("theirs", Lane::Urgent, 1, 0).await;
    let mine = f.put("mine", Lane::Low, 2, 0).await;
    let mut front = front(0);
    front.serve([Shard(2)].into());
    assert_eq!(f.fetch(&mut front, &worker, room(5)).await[0].job().id, mine);
    assert!(f.fetch(&mut front, &worker, room(5)).await.is_empty());
    front.serve([Shard(1), Shard(2)].into());
    assert_eq!(f.fetch(&mut front, &worker, room(5)).await[0].job().lane, Lane::Urgent);
}

async fn position(f: Fixture) {
    for number in 0..10 {
        f.put(&format!("low-{number}"), Lane::Low, number % SHARDS, 100 - i64::from(number)).await;
        f.put(&format!("high-{number}"), Lane::High, number % SHARDS, 0).await;
    }
    let uid = |name: &str| autobuild::job::ServerUid(format!("uid-{name}"));
    assert_eq!(f.queue.ahead(&uid("low-0"), 1000).await.unwrap(), Some(10));
    assert_eq!(f.queue.ahead(&uid("low-9"), 1000).await.unwrap(), Some(19));
    assert_eq!(f.queue.ahead(&uid("low-9"), 5).await.unwrap(), Some(5), "counted no further than asked");
    let worker = f.worker().await;
    assert_eq!(f.fetch(&mut front(0), &worker, room(1)).await.len(), 1);
    assert_eq!(f.queue.ahead(&uid("low-0"), 1000).await.unwrap(), Some(9));
    assert_eq!(f.queue.ahead(&uid("nobody"), 1000).await.unwrap(), None);
}

/// Namespaces take turns by where their jobs are put: a backlog that is a second apart, and one that comes later between it.
async fn placed(f: Fixture) {
    let worker = f.worker().await;
    let enqueued_ms = now_ms() - 60_000;
    let mut put = Vec::new();
    for (name, place_ms) in
        [("a-0", 0), ("a-1", 100_000), ("a-2", 200_000), ("b-0", 100_000), ("b-1", 101_000)]
    {
        let uid = f.server(name).await;
        let number = put.len() as i64;
        let mut wanted = job(&uid, Action::PowerOn, Lane::Normal, JobId::new(enqueued_ms + number, 1));
        wanted.order_ms = enqueued_ms + place_ms;
        let (order_ms, version) = (wanted.order_ms, f.version(&uid).await);
        assert_eq!(f.queue.enqueue(wanted, version).await.unwrap(), Enqueued::Accepted);
        assert_eq!(f.queue.observe(&uid).await.unwrap().order_ms, Some(order_ms), "{name}");
        put.push(uid);
    }
    let first = f.fetch(&mut front(0), &worker, room(1)).await.pop().unwrap();
    assert_eq!(first.uid(), &put[0]);
    let waiting = f.queue.waiting(SITE).await.unwrap()[&Lane::Normal];
    assert!(waiting.jobs == 4 && waiting.oldest_ms >= 59_000, "places are no ages: {waiting:?}");
    // What goes to another lane, or out of a worker's hands, is put by the same place.
    let moved = f.queue.observe(&put[2]).await.unwrap().job.unwrap();
    f.queue.reprioritize(&put[2], moved.id, Lane::High).await.unwrap();
    f.queue.reprioritize(&put[2], moved.id, Lane::Normal).await.unwrap();
    done(f.queue.hand_back(first).await.unwrap());
    let mut front = front(0);
    let mut order = Vec::new();
    while let Some(claim) = f.fetch(&mut front, &worker, room(1)).await.pop() {
        order.push(claim.name().to_owned());
    }
    assert_eq!(order, ["a-0", "a-1", "b-0", "b-1", "a-2"]);
}
