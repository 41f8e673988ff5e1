//! While more urgent jobs wait, no less urgent one is started: over a whole fleet, with jobs that come while others run.

use std::collections::BTreeMap;

use autobuild::job::Lane;
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use serde_json::json;
use sqlx::Row as _;

use crate::steps::{controller_flags, declared, rebooted, systems};

const SERVERS: usize = 48;
/// How long a more urgent job may have waited while a less urgent one is started: a worker looks at its own shards ten
/// times a second, and once a second at those of others; the rest is for a busy machine.
const T_MS: i64 = 3_000;

/// When a job was wished for, and when it was started.
#[derive(Debug)]
struct Past {
    lane: Lane,
    enqueued_ms: i64,
    started_ms: i64,
}

fn passed_over(all: &BTreeMap<String, Past>) -> Vec<String> {
    let mut found = Vec::new();
    for (low, started) in all {
        for (high, waiting) in all {
            let eligible = waiting.enqueued_ms + T_MS <= started.started_ms;
            if waiting.lane < started.lane && eligible && waiting.started_ms > started.started_ms {
                found.push(format!("{low} {started:?} was started before {high} {waiting:?}"));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn no_job_is_started_while_a_more_urgent_one_has_waited_for_long() {
    let fleet = Fleet::with(Layout::new(SERVERS as u32).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = controller_flags(&fleet);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    // Without the share that lower lanes get otherwise, and with few slots.
    let flags = fleet.worker_flags().set("--slots", "2").set("--urgent-slots", "0").set("--lower-share", "0");
    let mut workers = Vec::new();
    for name in ["first", "second"] {
        workers.push(fleet.worker_with(name, &flags, &[]).await.unwrap());
    }
    let names = systems(SERVERS);
    declared(&fleet, &names).await.unwrap();
    let lanes = ["Low", "Normal", "High", "Urgent"];
    let lane_of = |number: usize| lanes[number * lanes.len() / SERVERS];
    let ended =
        async || fleet.records().number("SELECT COUNT(*) FROM job_history WHERE action = 'Reboot'").await;
    // The least urgent come first; each further lane comes while the one before it is worked on.
    for (number, name) in names.iter().enumerate() {
        if number > 0 && lane_of(number) != lane_of(number - 1) {
            let before = ended().await.unwrap();
            wait_for("some jobs to be done", LIMIT, async || {
                let now = ended().await?;
                Ok(if now >= before + 2 { Look::Holds(()) } else { Look::NotYet(format!("{now} are done")) })
            })
            .await
            .unwrap();
        }
        fleet.change(name, json!({ "rebootToken": "one", "priority": lane_of(number) })).await.unwrap();
    }
    rebooted(&fleet, &names, "one").await.unwrap();
    let rows =
        sqlx::query("SELECT name, enqueued_at_ms, started_at_ms FROM job_history WHERE action = 'Reboot'")
            .fetch_all(fleet.records().pool())
            .await
            .unwrap();
    let lane = |name: &str| {
        let number = names.iter().position(|one| one == name).unwrap();
        [Lane::Low, Lane::Normal, Lane::High, Lane::Urgent][number * lanes.len() / SERVERS]
    };
    let all: BTreeMap<String, Past> = rows
        .iter()
        .map(|row| {
            let name: String = row.get("name");
            let past = Past {
                lane: lane(&name),
                enqueued_ms: row.get("enqueued_at_ms"),
                started_ms: row.get::<Option<i64>, _>("started_at_ms").unwrap(),
            };
            (name, past)
        })
        .collect();
    assert_eq!(all.len(), SERVERS);
    let found = passed_over(&all);
    assert!(found.is_empty(), "{}", found.join("\n"));
    fleet.end().await.unwrap();
}

#[test]
fn a_job_that_was_passed_over_is_found() {
    let past = |lane, enqueued_ms, started_ms| Past { lane, enqueued_ms, started_ms };
    let all = |high_started| {
        BTreeMap::from([
            ("low".to_owned(), past(Lane::Low, 0, T_MS + 2)),
            ("high".to_owned(), past(Lane::High, 1, high_started)),
        ])
    };
    assert!(passed_over(&all(T_MS)).is_empty());
    assert_eq!(passed_over(&all(T_MS + 3)).len(), 1);
}
