//! How the databases carry out the statements: taken from the server's own log, so that none is forgotten.

use std::collections::BTreeMap;

use autobuild::api::{Mac, Reason};
use autobuild::job::{
    Action, BootPurpose, InstallProgress, JobId, Lane, PermitClass, Problem, RequestKind, ServerUid, Step,
    StoredRequest, TokenValue, WaitingFor,
};
use autobuild::queue::{
    BmcKey, CallHome, CardOwner, Claim, Claimant, ContentsAfter, Effects, Front, LeaseWatch, MachineKey,
    NewBootSession, Newcomer, ParkAs, Past, Queue, Report, Room, Served, ShareBound, Shares,
};
use autobuild::shard::Shard;
use e2e::database::{Database, Engine};
use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

use crate::claims::reading;
use crate::fixture::{Fixture, SITE, done, job, now_ms, succeeded};

/// Statements that read a whole table on purpose, and why.
const WHOLE_TABLES: &[(&str, &str)] = &[
    ("FROM worker LIMIT 1", "whether there is any worker"),
    ("FROM worker WHERE site", "the registry has one row for each process"),
    ("COUNT(*) FROM job WHERE site", "the repair of the permits counts all live jobs, every ten minutes"),
    ("FROM permit WHERE site", "one row for each class"),
    ("FROM job WHERE cancel IS NULL", "after another history every live job is looked for once"),
    ("FROM meta WHERE name LIKE", "a handful of rows, after another history"),
    ("_sqlx_migrations", "the list of migrations"),
    ("schema_expansion", "the list of migrations"),
    (
        "AS jobs_0",
        "all that waits at a site is counted, every ten seconds, by the leader alone; with one site that is the key",
    ),
    (
        "DISTINCT namespace FROM server_state",
        "once a minute at most, by a worker where one namespace has its share of the slots; ends at the second one",
    ),
    ("WHERE job.server_uid > ''", "the first page of the sweep begins at the first row, and ends after 200"),
];

/// Every statement of a workload that uses every operation, with one row and with many, is explained by the server
/// that ran it.
pub async fn no_statement_scans_or_sorts(engine: Engine) {
    let database = Database::start(engine).await.unwrap();
    let f = Fixture::new(&database).await;
    let mut connection = MySqlConnection::connect(&f.url).await.unwrap();
    // Enough rows that the optimizer has something to lose by a scan.
    let mut bystanders = Vec::new();
    for number in 0..300 {
        bystanders.push(f.server(&format!("other-{number:03}")).await);
    }
    enqueue(&f, &bystanders, Action::PowerOn, Shard(7)).await;
    for table in ["job", "queue", "server_state"] {
        sqlx::query(AssertSqlSafe(format!("ANALYZE TABLE {table}")))
            .fetch_all(&mut connection)
            .await
            .unwrap();
    }
    for statement in ["SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = ON"] {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    for count in [1, 2, 90] {
        workload(&f, count).await;
    }
    sqlx::raw_sql("SET GLOBAL general_log = OFF").execute(&mut connection).await.unwrap();
    // MySQL 9 draws a tree by default; MariaDB has the table only.
    sqlx::raw_sql("SET SESSION explain_format = 'TRADITIONAL'").execute(&mut connection).await.ok();
    let statements = logged(&mut connection).await;
    assert!(statements.len() > 60, "only {} kinds of statements: {:#?}", statements.len(), statements.keys());
    // The sessions of the workload are gone, and a table without rows is explained as a scan.
    for number in 0..300 {
        sqlx::query(
            "INSERT INTO boot_session (server_uid, job_id, namespace, name, mac, image, digest) \
             VALUES (?, 1, 'ns', 'a', ?, 'debian', 'sha256:1')",
        )
        .bind(format!("uid-busy-90-{number:03}"))
        .bind(number.to_string())
        .execute(&mut connection)
        .await
        .unwrap();
    }
    multiply_jobs(&mut connection).await;
    let mut bad = Vec::new();
    for statement in statements.values() {
        if WHOLE_TABLES.iter().any(|(part, _)| statement.contains(part)) {
            continue;
        }
        for plan in sqlx::query(AssertSqlSafe(format!("EXPLAIN {statement}")))
            .fetch_all(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
        {
            let text = |column: &str| plan.try_get::<Option<String>, _>(column).unwrap().unwrap_or_default();
            let (table, kind, extra) = (text("table"), text("type"), text("Extra"));
            // A derived table holds what its parts gave, which are explained themselves.
            if (matches!(kind.as_str(), "ALL" | "index") && !table.starts_with('<'))
                || extra.contains("filesort")
            {
                bad.push(format!("{kind} {extra} on {table}: {statement:.400}"));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Many jobs: of a few, all are read as fast as those that are named.
async fn multiply_jobs(connection: &mut MySqlConnection) {
    sqlx::raw_sql("CREATE TEMPORARY TABLE copy AS SELECT * FROM job")
        .execute(&mut *connection)
        .await
        .unwrap();
    for number in 0..10 {
        let text = format!("UPDATE copy SET server_uid = CONCAT('{number}', server_uid)");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await.unwrap();
        sqlx::raw_sql("INSERT INTO job SELECT * FROM copy").execute(&mut *connection).await.unwrap();
    }
    sqlx::raw_sql("ANALYZE TABLE job").fetch_all(&mut *connection).await.unwrap();
}

/// One statement of each shape: what differs by values or by their number is alike.
async fn logged(connection: &mut MySqlConnection) -> BTreeMap<String, String> {
    let rows = sqlx::query(
        "SELECT CONVERT(argument USING utf8mb4) AS text FROM mysql.general_log WHERE command_type = 'Execute'",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let mut statements = BTreeMap::new();
    for row in rows {
        let text: String = row.get("text");
        if ["SELECT", "(SELECT", "UPDATE", "DELETE"].iter().any(|verb| text.starts_with(verb)) {
            // MariaDB leaves the marks of some statements in its log.
            let text = text.replace("LIMIT ?", "LIMIT 5").replace('?', "'1'");
            let shape: String = text.chars().filter(|char| !char.is_ascii_digit()).take(250).collect();
            statements.insert(format!("{} {shape}", text.len() > 900), text);
        }
    }
    statements
}

fn number(servers: &[ServerUid], uid: &ServerUid) -> usize {
    servers.iter().position(|one| one == uid).unwrap_or_default()
}

/// Claims cards as a BMC tells of them, looks for one, and lets go of the addresses before.
async fn cards(queue: &Queue, uid: &ServerUid, (of, number): (usize, usize)) {
    let who = CardOwner { uid: uid.clone(), namespace: "ns".into(), name: uid.0.clone() };
    let card = |bay: usize| format!("52:55:{of:02x}:{number:02x}:00:{bay:02x}").parse::<Mac>().unwrap();
    for told in [vec![card(1), card(2)], vec![card(1)]] {
        queue.claim_cards(who.clone(), &told).await.unwrap();
    }
    queue.claim_wished_card(who.clone(), &card(3)).await.unwrap();
    queue.card_claim(&who, "52:54:00:00:00:01").await.unwrap();
    queue.leave_addresses(uid, identity(uid)).await.unwrap();
}

async fn enqueue(f: &Fixture, servers: &[ServerUid], action: Action, shard: Shard) {
    let all = servers.iter().map(async |uid| {
        let version = f.version(uid).await;
        let mut wanted = job(uid, Action::PowerOn, Lane::High, JobId::new(now_ms(), rand::random()));
        (wanted.action, wanted.step, wanted.shard) = (action, Step::Off, shard);
        wanted.budget = wanted.action.permit_class().map(|_| 1_000_000);
        f.queue.enqueue(wanted, version).await.unwrap()
    });
    join_all(all).await;
}

fn served() -> Served {
    Served { site: SITE.to_owned(), shards: [Shard(0), Shard(1)].into() }
}

fn how(after_ms: i64, report: Report) -> ParkAs {
    ParkAs {
        after_ms,
        waiting_for: WaitingFor::Bmc,
        problem: Some(Problem::new(Reason::Unreachable, "no answer")),
        secret_version: None,
        checkpoint: String::new(),
        report,
    }
}

fn claimant(uid: &ServerUid) -> Claimant {
    let (uid, name) = (uid.clone(), uid.as_str().to_owned());
    let address = format!("redfish+https://{name}");
    Claimant { uid, namespace: "ns".to_owned(), address, name, asked: None }
}

fn identity(uid: &ServerUid) -> Vec<BmcKey> {
    let key = |kind: &str| BmcKey { host: format!("{kind}:{}", uid.as_str()), system: String::new() };
    vec![key("addr"), key("hw:uuid")]
}

fn machine(uid: &ServerUid) -> MachineKey {
    MachineKey { identity: format!("hw:uuid:{}", uid.as_str()), serial_number: uid.as_str().to_owned() }
}

/// Everything that processes do to the queue, on so many servers.
async fn workload(f: &Fixture, count: usize) {
    let queue = &f.queue;
    queue.set_permits(SITE, PermitClass::Install, 200).await.unwrap();
    let mut servers = Vec::new();
    for number in 0..count {
        servers.push(f.server(&format!("busy-{count}-{number:03}")).await);
    }
    for action in [Action::Reboot, Action::Reimage] {
        enqueue(f, &servers, action, Shard(0)).await;
        let worker = f.worker().await;
        let mut front = Front::new(served(), 2);
        let room = Room { any: count as u32, urgent: 1 };
        let id = queue.observe(&servers[0]).await.unwrap().job.unwrap().id;
        queue.ahead(&servers[0], 10).await.unwrap();
        queue.waiting(SITE).await.unwrap();
        queue.reprioritize(&servers[0], id, Lane::Urgent).await.unwrap();
        passed_over(f, &mut front, &worker, room).await;
        let claims = claim_mine(f, &mut front, &worker, room, &servers).await;
        for uid in &servers {
            // Once to be claimed, once to be found.
            for _ in 0..2 {
                queue.claim_identity(claimant(uid), identity(uid), Some(machine(uid))).await.unwrap();
            }
            cards(queue, uid, (count, number(&servers, uid))).await;
        }
        let off = StoredRequest { kind: RequestKind::ForceOff, settle_ms: 1 };
        let claims = join_all(claims.into_iter().map(async |claim| {
            let claim = done(
                queue
                    .store_request(
                        claim,
                        off.clone(),
                        String::new(),
                        Effects::handling([TokenValue::reboot("t")]),
                    )
                    .await
                    .unwrap(),
            );
            done(queue.close_request(claim, String::new()).await.unwrap())
        }))
        .await;
        let claims = join_all(claims.into_iter().map(async |claim| {
            done(queue.advance(claim, Step::On, String::new(), reading()).await.unwrap())
        }))
        .await;
        join_all(claims.into_iter().enumerate().map(async |(number, claim)| {
            let report = if number % 2 == 0 { reading() } else { Report::Nothing };
            queue.park(claim, how(0, report)).await.unwrap()
        }))
        .await;
        queue.signal(&servers[0], id).await.ok();
        queue.wake(SITE, &[Shard(0), Shard(1)], 10).await.unwrap();
        let claims = claim_mine(f, &mut front, &worker, room, &servers).await;
        // A dead worker's jobs go to another one, and come back.
        drop(claims);
        queue.owned(worker.incarnation()).await.unwrap();
        let mut watch = LeaseWatch::new(std::time::Duration::from_secs(10));
        let registry = queue.registry(SITE).await.unwrap();
        watch.observe(&registry, std::time::Duration::ZERO);
        for expired in watch.observe(&registry, std::time::Duration::from_secs(10)) {
            queue.reap(expired).await.unwrap();
        }
        let worker = f.worker().await;
        let mut claims = claim_mine(f, &mut front, &worker, room, &servers).await;
        let back = claims.pop().unwrap();
        queue.cancel(back.uid(), back.job().id, Reason::Paused).await.unwrap();
        done(queue.hand_back(back).await.unwrap());
        claims.extend(claim_mine(f, &mut front, &worker, room, &servers[..1]).await);
        join_all(claims.into_iter().map(async |claim| queue.complete(claim, succeeded()).await.unwrap()))
            .await;
        for uid in &servers {
            if let Some(job) = queue.observe(uid).await.unwrap().job {
                let why = Problem::new(Reason::ServerGone, "gone");
                queue.abandon(uid, job.id, why, [worker.incarnation()].into()).await.unwrap();
            }
        }
    }
    enqueue(f, &servers[..1], Action::Reboot, Shard(1)).await;
    let id = queue.observe(&servers[0]).await.unwrap().job.unwrap().id;
    queue.cancel(&servers[0], id, Reason::Replaced).await.unwrap();
    let (changed, _) = queue.feed(&Default::default(), 100).await.unwrap();
    for row in changed.iter().take(3) {
        queue.acknowledge(&row.uid, row.version).await.unwrap();
    }
    queue.sweep(None).await.unwrap();
    queue.repair_permits(SITE, PermitClass::Install).await.unwrap();
    queue.budget_used("ns").await.unwrap();
    queue.trim_budgets(now_ms() - 1_000_000, 10).await.unwrap();
    queue.registered(None, 10).await.unwrap();
    queue.trim_history(now_ms() - 1_000_000, 10).await.unwrap();
    let version = f.version(&servers[0]).await;
    queue.record_handled(&servers[0], &TokenValue::reboot("u"), version).await.unwrap();
    boots(f, &servers[..servers.len().min(3)]).await;
    // Another history, and its end.
    let past = Past::Lost;
    let quiet = std::time::Duration::ZERO;
    queue.enter(Newcomer { site: SITE, host: "test", quiet, past }).await.unwrap();
    let mark = queue.follow().await.unwrap().underived;
    let all = queue.registered(None, 1000).await.unwrap().into_iter().map(|row| row.uid).collect();
    queue.derived(&mark.unwrap(), &["ns".to_owned()], std::sync::Arc::new(all)).await.unwrap();
}

/// Installations of so many machines, and what they tell.
async fn boots(f: &Fixture, servers: &[ServerUid]) {
    let queue = &f.queue;
    enqueue(f, servers, Action::Reimage, Shard(0)).await;
    let worker = f.worker().await;
    let mut front = Front::new(served(), 2);
    let room = Room { any: servers.len() as u32, urgent: 1 };
    let claims = claim_mine(f, &mut front, &worker, room, servers).await;
    for (number, claim) in claims.into_iter().enumerate() {
        let mac = format!("52:54:00:00:00:{number:02}");
        let media_hash = format!("m{number}");
        let session = NewBootSession {
            mac: mac.clone(),
            image: "debian".into(),
            digest: "sha256:1".into(),
            purpose: BootPurpose::Install,
            media_hash: Some(media_hash.clone()),
        };
        let effects = Effects {
            session: Some(session),
            contents: ContentsAfter::Started,
            ..Effects::handling([TokenValue::reimage(format!("t{number}"))])
        };
        let stored = StoredRequest { kind: RequestKind::PowerOn, settle_ms: 1 };
        let claim = done(queue.store_request(claim, stored, String::new(), effects).await.unwrap());
        let claim = done(queue.close_request(claim, String::new()).await.unwrap());
        let (uid, id) = (claim.uid().clone(), claim.job().id);
        queue.observe_asked(&uid, &[TokenValue::reimage("new"), TokenValue::reboot("new")]).await.unwrap();
        queue.boot_at_mac(&mac).await.unwrap();
        queue.boot_at_mac("52:54:00:00:00:ff").await.unwrap();
        queue.boot_by_media(&media_hash).await.unwrap();
        queue.media_read(&media_hash).await.unwrap();
        queue.boot_media(100).await.unwrap();
        let told = InstallProgress { percent: 5, line: "writing".into() };
        for what in [
            CallHome::ScriptFetched { token_hash: format!("{number}"), data_version: "d".into() },
            CallHome::Booted,
            CallHome::Progress(told),
            CallHome::Failed { reason: "no disk".into() },
            CallHome::NotServed { why: "another SHA-256".into() },
            CallHome::Installed,
        ] {
            queue.boot_by_token(&format!("{number}")).await.unwrap();
            queue.call_home(&uid, id, None, what).await.unwrap();
        }
        queue.boot_evidence(&uid, id).await.unwrap();
        queue.revoke_boot(&uid, id).await.unwrap();
        done(queue.complete(claim, succeeded()).await.unwrap());
    }
}

/// Claims until the jobs of these servers are in hand.
/// Claims beside a namespace that has its share, and gives back.
async fn passed_over(f: &Fixture, front: &mut Front, worker: &autobuild::queue::Heart, room: Room) {
    assert!(!f.queue.has_several_namespaces().await.unwrap());
    let full = Shares::new(ShareBound::Slots(room.any), room, vec!["other"; room.any as usize]);
    let claims = f.queue.fetch_within(front, worker.incarnation(), &full).await.unwrap();
    assert!(!claims.is_empty());
    for claim in claims {
        done(f.queue.hand_back(claim).await.unwrap());
    }
}

async fn claim_mine(
    f: &Fixture,
    front: &mut Front,
    worker: &autobuild::queue::Heart,
    room: Room,
    servers: &[ServerUid],
) -> Vec<Claim> {
    let mut mine = Vec::new();
    crate::fixture::wait_for("the jobs to be claimed", async || {
        mine.extend(f.queue.fetch(front, worker.incarnation(), room).await.unwrap());
        mine.len() == servers.len()
    })
    .await;
    mine
}
