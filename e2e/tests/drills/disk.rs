//! The database has no space left: nothing is claimed, nobody dies of it, everybody says so, and it goes on by itself.

use e2e::autobuild::Running;
use e2e::fleet::{Fleet, LIMIT, Layout};
use e2e::wait::{Look, wait_for};
use sqlx::AssertSqlSafe;

use crate::steps::{
    ask_for_reboots, asked_for, controller_flags, declared, rebooted, rebooted_so_often, systems,
};

const TABLES: &[&str] = &["job", "queue", "server_state", "job_history", "worker"];
const WRITES: &[&str] = &["INSERT", "UPDATE"];

/// Answers every write that needs space as a server with a full disk does. A real one decides by chance which writes
/// find a free page yet.
async fn fill(fleet: &Fleet) {
    for table in TABLES {
        for write in WRITES {
            let plug = format!(
                "CREATE TRIGGER full_{table}_{write} BEFORE {write} ON {table} FOR EACH ROW \
                 SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table ''{table}'' is full'"
            );
            sqlx::raw_sql(AssertSqlSafe(plug)).execute(fleet.records().pool()).await.unwrap();
        }
    }
}

async fn make_room(fleet: &Fleet) {
    for table in TABLES {
        for write in WRITES {
            let unplug = format!("DROP TRIGGER full_{table}_{write}");
            sqlx::raw_sql(AssertSqlSafe(unplug)).execute(fleet.records().pool()).await.unwrap();
        }
    }
}

async fn says_that_it_is_full(running: &Running) {
    wait_for(&format!("{} to say that the disk is full", running.process().name()), LIMIT, async || {
        let (status, text) = running.get("/readyz").await?;
        let told = text.contains("no space left") && text.contains("is full (1114)");
        Ok(if status == 503 && told { Look::Holds(()) } else { Look::NotYet(format!("{status}: {text}")) })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn a_database_without_space_is_waited_for_and_nothing_is_lost_or_doubled() {
    let fleet = Fleet::with(Layout::new(4).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = controller_flags(&fleet);
    let controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    let worker = fleet.worker("worker").await.unwrap();
    let names = systems(4);
    declared(&fleet, &names).await.unwrap();
    let (busy, idle) = names.split_at(2);
    ask_for_reboots(&fleet, busy, "one").await.unwrap();
    asked_for(&fleet, busy, 1).await.unwrap();

    fill(&fleet).await;
    ask_for_reboots(&fleet, idle, "one").await.unwrap();
    says_that_it_is_full(&worker).await;
    for process in [&controller, &worker] {
        assert!(process.process().ended().unwrap().is_none(), "{} died of it", process.process().name());
        assert_eq!(process.get("/livez").await.unwrap().0, 200);
    }
    for name in idle {
        assert!(fleet.bmcs().resets(name).await.unwrap().is_empty());
    }

    make_room(&fleet).await;
    rebooted(&fleet, &names, "one").await.unwrap();
    worker.wait_ready().await.unwrap();
    controller.wait_ready().await.unwrap();
    rebooted_so_often(&fleet, &names, 1).await.unwrap();
    fleet.end().await.unwrap();
}
