//! Clocks that are wrong and clocks that jump, of workers and of the database: no worker that lives loses a job, none
//! goes without, and nothing is done twice.

use std::path::{Path, PathBuf};

use e2e::database::{Database, Engine, Special};
use e2e::fleet::{Fleet, Layout};
use serde_json::json;

use crate::steps::{
    ask_for_reboots, asked_for, controller_flags, counted, declared, rebooted, rebooted_so_often, systems,
};

const SERVERS: usize = 6;

/// A wall clock that is off by what stands in its file. The monotonic clock goes on undisturbed, as it does when
/// somebody sets the time.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn new(dir: &Path, name: &str, off_by: &str) -> Self {
        let clock = Self { file: dir.join(format!("{name}.clock")) };
        clock.set(off_by);
        clock
    }

    fn set(&self, off_by: &str) {
        let unfinished = self.file.with_extension("new");
        std::fs::write(&unfinished, format!("{off_by}\n")).unwrap();
        std::fs::rename(&unfinished, &self.file).unwrap();
    }

    fn env(&self) -> Vec<(String, String)> {
        let library = e2e::packages::FAKETIME.find().unwrap();
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a long drill: make soak"]
async fn wrong_and_jumping_clocks_cost_no_worker_its_jobs_and_double_nothing() {
    let dir = e2e::paths::private("clocks").unwrap();
    let of_database = Clock::new(&dir, "database", "+0s");
    let special = Special { args: Vec::new(), env: of_database.env() };
    let database = Database::special("clocks-database", Engine::from_env().unwrap(), special).await.unwrap();
    let url = database.unique_schema("clocks").await.unwrap();
    let layout = Layout::new(SERVERS as u32).database(&url).emulator(&["--initial-power", "on"]);
    let fleet = Fleet::with(layout).await.unwrap();
    let flags = controller_flags(&fleet);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    // Few slots, so that everybody is needed; a lease that a busy machine costs nobody.
    let flags = fleet.worker_flags().set("--slots", "2").set("--request-timeout", "6s");
    let flags = flags.set("--heartbeat", "1s").set("--lease", "30s");
    let jumping = Clock::new(&dir, "jumping", "+0s");
    let mut workers = Vec::new();
    for (name, clock) in [
        ("ahead", &Clock::new(&dir, "ahead", "+3600s")),
        ("behind", &Clock::new(&dir, "behind", "-3600s")),
        ("jumping", &jumping),
    ] {
        let env = clock.env();
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        workers.push(fleet.worker_with(name, &flags, &env).await.unwrap());
    }
    let names = systems(SERVERS);
    declared(&fleet, &names).await.unwrap();

    // Where the clock of a worker jumps to while all machines go off, and the database's before each round: its clock
    // also measures how long a power change takes, so a jump in the middle of one looks like a BMC that lies.
    // In the third one the database's clock stands before the jobs that have ended.
    let rounds = [("+7200s", Some("+3600s")), ("-7200s", None), ("+3600s", None), ("+0s", Some("+7200s"))];
    for (number, (of_worker, at_once)) in rounds.into_iter().enumerate() {
        let token = format!("t{number}");
        let slow =
            json!({ "method": "POST", "count": SERVERS, "behaviour": { "kind": "Delay", "ms": 3000 } });
        fleet.bmcs().fault(slow).await.unwrap();
        if let Some(off_by) = at_once {
            of_database.set(off_by);
        }
        ask_for_reboots(&fleet, &names, &token).await.unwrap();
        asked_for(&fleet, &names, 2 * number + 1).await.unwrap();
        jumping.set(of_worker);
        rebooted(&fleet, &names, &token).await.unwrap();
        if at_once.is_none() {
            crate::judge::at_rest(&fleet, workers.len()).await.unwrap();
            of_database.set("+0s");
        }
    }
    rebooted_so_often(&fleet, &names, rounds.len()).await.unwrap();
    for worker in &workers {
        let name = worker.process().name();
        let lost = counted(worker, "autobuild_leases_lost_total", &[]).await.unwrap();
        let taken = counted(worker, "autobuild_jobs_rescued_total", &[]).await.unwrap();
        assert!(lost == 0.0 && taken == 0.0, "{name} lost {lost} leases and took {taken} jobs of others");
        assert!(
            counted(worker, "autobuild_jobs_total", &[]).await.unwrap() > 0.0,
            "{name} got nothing to do"
        );
    }
    assert!(fleet.logged("panicked at").unwrap().is_empty());
    assert!(fleet.leaks().await.unwrap().is_empty());
    // The times in status are the database's, so they went back with it: nothing more is asked of them.
}
