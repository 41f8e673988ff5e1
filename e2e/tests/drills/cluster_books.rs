//! The books of a fleet on a cluster of three, through faults that a seed draws: reboots and installations are asked for all the
//! time, each with a token of its own. Each is carried out once by the books of the BMCs and those of the database, no row
//! contradicts another one, no machine is left off, and all nodes have the same at the end. `SOAK_SEED` repeats one, `SOAK_FAULTS`
//! has fewer faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use autobuild::api::condition::ConditionType;
use autobuild::api::{Reason, Server};
use autobuild::job::JobId;
use e2e::autobuild::Running;
use e2e::database::{Engine, NODES};
use e2e::fleet::{Asked, BootFiles, Fleet, LIMIT, QUICK_INSTALLS, is_ready, message};
use e2e::wait::{Look, say, wait_for};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rstest::rstest;
use serde_json::json;
use sqlx::Row as _;

use crate::cluster_site::{Fault, Site};
use crate::crash::{number, seed};
use crate::judge::{at_rest, overlaps};
use crate::steps::{controller_flags, systems};

const SYSTEMS: usize = 30;
/// The first of them are installed again and again, beside reboots.
const INSTALLED: usize = 6;
const WORKERS: usize = 2;
const IMAGE: &str = "debian-12";

/// What may not be, and how many of it there are: what jobs.md says of each table, read in one statement.
const CONTRADICTIONS: [(&str, &str); 9] = [
    (
        "a live job that nobody has and that waits nowhere",
        "FROM fleet.job LEFT JOIN fleet.queue ON queue.site = job.site AND queue.shard = job.shard AND queue.state = job.q_state \
         AND queue.ord = job.q_ord AND queue.id = job.id WHERE job.owner IS NULL AND queue.id IS NULL",
    ),
    (
        "a live job that somebody has and that waits",
        "FROM fleet.job JOIN fleet.queue ON queue.server_uid = job.server_uid WHERE job.owner IS NOT NULL",
    ),
    (
        "a row of the queue without its job",
        "FROM fleet.queue LEFT JOIN fleet.job ON job.server_uid = queue.server_uid AND job.id = queue.id WHERE job.id IS NULL",
    ),
    (
        "a server that waits twice",
        "FROM (SELECT server_uid FROM fleet.queue GROUP BY server_uid HAVING COUNT(*) > 1) AS twice",
    ),
    (
        "an owner without a token, or a token without an owner",
        "FROM fleet.job WHERE (owner IS NULL) <> (token IS NULL)",
    ),
    (
        "a job that is alive and has ended",
        "FROM fleet.job JOIN fleet.job_history ON job_history.server_uid = job.server_uid AND job_history.job_id = job.id",
    ),
    (
        "a job of a server that nothing is known of",
        "FROM fleet.job LEFT JOIN fleet.server_state ON server_state.server_uid = job.server_uid \
         WHERE server_state.server_uid IS NULL",
    ),
    (
        "a boot session without its job",
        "FROM fleet.boot_session LEFT JOIN fleet.job ON job.server_uid = boot_session.server_uid AND job.id = boot_session.job_id \
         WHERE job.id IS NULL",
    ),
    (
        "a class of permits that counts others than are held",
        "FROM fleet.permit WHERE used <> (SELECT COUNT(*) FROM fleet.job WHERE job.site = permit.site \
         AND job.permit_class = permit.class AND job.permit_held = 1)",
    ),
];

/// What all nodes have to have alike when nobody writes any more.
const SUM: &str = "SELECT CONCAT_WS(' ', \
    (SELECT CONCAT(COUNT(*), ':', COALESCE(SUM(CRC32(CONCAT_WS('#', job_id, server_uid, action, result, reason, intent))), 0)) \
     FROM fleet.job_history), \
    (SELECT CONCAT(COUNT(*), ':', COALESCE(SUM(CRC32(CONCAT_WS('#', server_uid, version, changed_at_ms, handled, last_job))), 0)) \
     FROM fleet.server_state), \
    (SELECT COUNT(*) FROM fleet.job), (SELECT COUNT(*) FROM fleet.queue), \
    (SELECT CONCAT(COUNT(*), ':', COALESCE(SUM(CRC32(CONCAT_WS('#', server_uid, kind, hash))), 0)) FROM fleet.handled_token), \
    (SELECT CONCAT(COUNT(*), ':', COALESCE(SUM(CRC32(CONCAT_WS('#', identity, server_uid, contents))), 0)) FROM fleet.machine))";

/// What was asked for of one server, each once and each over before the next.
#[derive(Debug, Default)]
struct Wished {
    reboots: usize,
    installs: usize,
    /// Installations that ended as `HistoryLost`: another primary of a group is another history, and what destroys and was under
    /// way there is for a person to ask for again. No such thing happens in a Galera cluster.
    given_up: usize,
}

/// Asks for one thing after another until `over`.
async fn ask(fleet: &Fleet, name: &str, seed: u64, installed: bool, all: &Progress) -> Result<Wished> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut wished = Wished::default();
    let (mut round, mut again) = (0, false);
    while again || !all.over.load(Ordering::SeqCst) {
        round += 1;
        let token = format!("t{round}");
        let installs = again || (installed && random.random_bool(0.5));
        let spec = if installs { json!({ "reimageToken": token }) } else { json!({ "rebootToken": token }) };
        let asked = fleet.change(name, spec).await.with_context(|| format!("{name}: {token}"))?;
        let is_given_up = |server: &Server| {
            installs && message(server, ConditionType::Stalled, Reason::HistoryLost).is_some()
        };
        let is_over = |server: &Server| {
            let Some(status) = &server.status else { return false };
            let handled = if installs { &status.reimage_tokens } else { &status.reboot_tokens };
            let carried_out = handled.contains(&token) && is_ready(server);
            server.metadata.generation >= asked.metadata.generation
                && status.job.is_none()
                && (carried_out || is_given_up(server))
        };
        let server = match fleet.shown().until(name, &token, is_over).await {
            Ok(server) => server,
            Err(error) => return Err(error.context(fleet.story(name).await)),
        };
        again = is_given_up(&server);
        *match (again, installs) {
            (true, _) => &mut wished.given_up,
            (false, true) => &mut wished.installs,
            (false, false) => &mut wished.reboots,
        } += 1;
        all.done.fetch_add(1, Ordering::SeqCst);
    }
    Ok(wished)
}

#[derive(Debug, Default)]
struct Progress {
    done: AtomicUsize,
    over: AtomicBool,
}

impl Progress {
    /// Waits until each server, on average, had one wish more carried out.
    async fn goes_on(&self) -> Result<()> {
        let wanted = self.done.load(Ordering::SeqCst) + SYSTEMS;
        wait_for("everything to go on", LIMIT, async || {
            let done = self.done.load(Ordering::SeqCst);
            Ok(if done >= wanted { Look::Holds(()) } else { Look::NotYet(format!("{done} of {wanted}")) })
        })
        .await
    }
}

/// When claims were seen at the BMCs: each by its first request.
#[derive(Debug, Default)]
struct Claims {
    known: BTreeSet<String>,
    seq: u64,
    /// In milliseconds since the emulator began.
    last_ms: Option<u64>,
}

impl Claims {
    /// How many new claims there were since the last look, and the longest time without one, in milliseconds.
    async fn since_last(&mut self, fleet: &Fleet) -> Result<(usize, u64)> {
        let (mut count, mut longest) = (0, 0);
        for asked in fleet.bmcs().log_since(self.seq).await? {
            self.seq = asked.seq;
            if asked.claim.is_none_or(|claim| !self.known.insert(claim)) {
                continue;
            }
            longest = longest.max(self.last_ms.map_or(0, |last| asked.at_ms.saturating_sub(last)));
            (count, self.last_ms) = (count + 1, Some(asked.at_ms));
        }
        Ok((count, longest))
    }
}

/// One fault after another, and what was seen of each: the lines of a table.
async fn trouble(site: &mut Site, faults: &[Fault], worker: &Running, all: &Progress) -> Result<Vec<String>> {
    let mut claims = Claims::default();
    all.goes_on().await?;
    let (count, longest) = claims.since_last(&site.fleet).await?;
    let mut table = vec![
        "| fault | over after (s) | claims | longest time without a claim (s) |".to_owned(),
        "|---|---|---|---|".to_owned(),
        format!("| (none) | | {count} | {:.1} |", longest as f64 / 1000.0),
    ];
    for fault in faults {
        say(format!("fault: {fault:?}"));
        let begun = Instant::now();
        site.suffer(*fault, worker).await.with_context(|| format!("{fault:?}"))?;
        let over = begun.elapsed().as_secs();
        all.goes_on().await.with_context(|| format!("after {fault:?}"))?;
        let (count, longest) = claims.since_last(&site.fleet).await?;
        table.push(format!("| {fault:?} | {over} | {count} | {:.1} |", longest as f64 / 1000.0));
        say(table.last().map_or("", String::as_str));
        let wrong = contradictions(site, site.writer).await?;
        ensure!(wrong.is_empty(), "after {fault:?}: {wrong:?}");
    }
    all.over.store(true, Ordering::SeqCst);
    Ok(table)
}

async fn contradictions(site: &Site, node: usize) -> Result<Vec<String>> {
    let counts: Vec<String> =
        CONTRADICTIONS.iter().map(|(_, of)| format!("(SELECT COUNT(*) {of})")).collect();
    // One statement: it reads one state of everything.
    let found = site.cluster.ask(node, &format!("SELECT CONCAT_WS(',', {})", counts.join(", "))).await?;
    let found = found.context("a node answers nothing")?;
    let counts: Vec<&str> = found.split(',').collect();
    ensure!(counts.len() == CONTRADICTIONS.len(), "{found}");
    let wrong = CONTRADICTIONS.iter().zip(counts).filter(|(_, count)| *count != "0");
    Ok(wrong.map(|((what, _), count)| format!("node {node}: {what}: {count}")).collect())
}

/// The books of the BMCs and of the database against what was asked for.
async fn judge(fleet: &Fleet, wished: &BTreeMap<String, Wished>) -> Result<Vec<String>> {
    let rows = sqlx::query("SELECT job_id, name, action, result, reason FROM job_history")
        .fetch_all(fleet.records().pool())
        .await?;
    let (mut wrong, mut ended) = (Vec::new(), BTreeSet::new());
    let mut succeeded: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in &rows {
        let (name, action): (String, String) = (row.try_get("name")?, row.try_get("action")?);
        let (id, result): (i64, String) = (row.try_get("job_id")?, row.try_get("result")?);
        if !ended.insert((name.clone(), id)) {
            wrong.push(format!("{name}: job {id} has two ends"));
        }
        let reason: String = row.try_get("reason")?;
        let given_up = wished.get(&name).map_or(0, |wished| wished.given_up);
        if result == "Succeeded" {
            *succeeded.entry((name, action)).or_default() += 1;
        } else if given_up == 0 || !["HistoryLost", "AlreadyDone"].contains(&reason.as_str()) {
            wrong.push(format!("{name}: {action} {id}: {result}, {reason}"));
        }
    }
    let log = fleet.bmcs().whole_log().await?;
    for (name, wished) in wished {
        let of = |action: &str| succeeded.get(&(name.clone(), action.to_owned())).copied().unwrap_or(0);
        let (reboots, installs) = (of("Reboot"), of("Reimage"));
        if (reboots, installs) != (wished.reboots, wished.installs) {
            wrong.push(format!(
                "{name}: {wished:?}, and {reboots} reboots, {installs} installations ended well"
            ));
        }
        // What was shown was acknowledged by the database.
        for (id, action) in fleet.shown().jobs(name) {
            let has_end = JobId::parse(&id).is_some_and(|id| ended.contains(&(name.clone(), id.0)));
            if action != "Inspect" && !has_end {
                wrong.push(format!("{name}: {action} {id} was shown, and has no end"));
            }
        }
        let asked: Vec<&Asked> = log.iter().filter(|one| one.system == *name).collect();
        wrong.extend(overlaps(&asked).into_iter().map(|what| format!("{name}: {what}")));
        let resets = fleet.bmcs().resets(name).await?;
        let done = fleet.installs(name).await?;
        // Before each installation that machine is switched off and on too, after its first one, which is none of the wishes.
        let first = usize::from(done > 0);
        // What was given up may have been done by then, or not.
        let least = wished.installs + first;
        if !(least..=least + wished.given_up).contains(&(done as usize)) {
            wrong.push(format!("{name}: {wished:?}, and {done} installations were done: {resets:?}"));
        }
        if wished.given_up == 0 && resets != ["off", "on"].repeat(wished.reboots + least) {
            wrong.push(format!("{name}: {wished:?}, and its BMC was asked for {resets:?}"));
        }
        let power = fleet.bmcs().power(name).await?;
        if !power.eq_ignore_ascii_case("on") {
            wrong.push(format!("{name} is left {power}"));
        }
    }
    Ok(wrong)
}

/// Waits until all nodes have the same.
async fn alike(site: &Site) -> Result<()> {
    wait_for("all nodes to have the same", LIMIT, async || {
        let mut sums = BTreeSet::new();
        for node in 0..NODES {
            sums.insert(site.cluster.ask(node, SUM).await?.context("no sum")?);
        }
        Ok(if sums.len() == 1 { Look::Holds(()) } else { Look::NotYet(format!("{sums:?}")) })
    })
    .await
}

async fn declare(fleet: &Fleet, names: &[String]) -> Result<()> {
    for (number, name) in names.iter().enumerate() {
        let installed = number < INSTALLED;
        let spec = if installed { json!({ "image": { "name": IMAGE } }) } else { json!({}) };
        let server = fleet.declare(name, spec).await?;
        if installed {
            // It is on, and nobody knows what is on its disk: a person's word is needed.
            let confirm = format!("autobuild.dev/confirm={}", server.metadata.uid.unwrap_or_default());
            let kubectl = fleet.kubectl().in_namespace(fleet.namespace());
            kubectl.run(&["annotate", "server", name, &confirm]).await?;
        }
    }
    for name in names {
        fleet.shown().until(name, "Ready", is_ready).await?;
    }
    Ok(())
}

async fn drill(engine: Engine, seed: u64) -> Result<()> {
    let mut faults = Fault::ALL;
    faults.shuffle(&mut StdRng::seed_from_u64(seed));
    let faults = &faults[..faults.len().min(number("SOAK_FAULTS", faults.len() as u64) as usize)];
    let emulator: Vec<&str> = QUICK_INSTALLS.iter().copied().chain(["--log-capacity", "1000000"]).collect();
    let mut site = Site::start(engine, SYSTEMS, &emulator).await?;
    let fleet = Arc::clone(&site.fleet);
    let files = BootFiles::serve().await?;
    fleet.image(IMAGE, &files, &["release=12"]).await?;
    let boot = fleet.boot("boot", &files).await?;
    let flags = controller_flags(&fleet).set("--destruction-budget", "unlimited");
    let controller = fleet.controller_with("controller", &flags, &[]).await?;
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        workers.push(fleet.worker(&format!("worker-{worker}")).await?);
    }
    let names = systems(SYSTEMS);
    declare(&fleet, &names).await?;
    let all = Progress::default();
    let asking = futures::future::try_join_all(names.iter().enumerate().map(async |(number, name)| {
        ask(&fleet, name, seed.wrapping_add(number as u64), number < INSTALLED, &all).await
    }));
    let (wished, table) = futures::try_join!(asking, trouble(&mut site, faults, &workers[0], &all))?;
    at_rest(&fleet, WORKERS).await?;
    let wished: BTreeMap<String, Wished> = names.iter().cloned().zip(wished).collect();
    let mut wrong = judge(&fleet, &wished).await?;
    let sum = |of: fn(&Wished) -> usize| wished.values().map(of).sum::<usize>();
    let given_up = sum(|one| one.given_up);
    ensure!(engine == Engine::MySql || given_up == 0, "{given_up} installations were given up");
    say(format!(
        "{}: SOAK_SEED={seed}: {} reboots and {} installations carried out, {given_up} given up, {} findings\n{}",
        engine.as_str(),
        sum(|one| one.reboots),
        sum(|one| one.installs),
        wrong.len(),
        table.join("\n")
    ));
    for process in [boot, controller].iter().chain(&workers) {
        process.process().stop(std::time::Duration::from_secs(20)).await?;
    }
    alike(&site).await?;
    for node in 0..NODES {
        wrong.extend(contradictions(&site, node).await?);
    }
    ensure!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
    fleet.end().await
}

#[rstest]
#[case::group(Engine::MySql)]
#[case::galera(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a cluster of three servers: make soak"]
async fn whatever_happens_to_a_cluster_the_books_of_bmcs_and_database_agree(#[case] engine: Engine) {
    let seed = seed();
    say(format!("books of a cluster: {} SOAK_SEED={seed}", engine.as_str()));
    drill(engine, seed).await.with_context(|| format!("SOAK_SEED={seed}")).unwrap();
}
