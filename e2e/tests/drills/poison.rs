//! A job whose step panics again and again is set aside with its reason; everybody else's jobs go on, in the same process.

use autobuild::api::Reason;
use autobuild::api::condition::ConditionType;
use e2e::fleet::{Fleet, Layout};

use crate::steps::{ask_for_reboots, controller_flags, counted, declared, rebooted, systems};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_panics_is_set_aside_with_its_reason_and_the_others_go_on() {
    let fleet = Fleet::with(Layout::new(4).emulator(&["--initial-power", "on"])).await.unwrap();
    let flags = controller_flags(&fleet);
    let _controller = fleet.controller_with("controller", &flags, &[]).await.unwrap();
    // Whoever sends anything panics; looks are no sending.
    let armed = [("FAILPOINTS", "worker.send.before=panic")];
    let flags = fleet.worker_flags().set("--request-timeout", "500ms");
    let worker = fleet.worker_with("worker", &flags, &armed).await.unwrap();
    let names = systems(4);
    let (poisoned, others) = names.split_at(1);
    declared(&fleet, poisoned).await.unwrap();

    ask_for_reboots(&fleet, poisoned, "one").await.unwrap();
    // Jobs come and are done while it crashes.
    declared(&fleet, others).await.unwrap();
    let said = fleet.wait_reason(&poisoned[0], ConditionType::Stalled, Reason::CrashLimit).await.unwrap();
    assert!(said.contains("PowerOff crashed its worker 5 times"), "{said}");
    assert!(worker.process().ended().unwrap().is_none(), "the process died of a job");
    assert_eq!(worker.get("/livez").await.unwrap().0, 200);
    assert_eq!(worker.get("/readyz").await.unwrap().0, 200);
    assert!(counted(&worker, "autobuild_jobs_total", &[("action", "Inspect")]).await.unwrap() >= 3.0);
    // It is left alone from then on.
    let ends = fleet.records().finished(&poisoned[0], "Reboot").await.unwrap();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!((ends[0].result.as_str(), ends[0].reason.as_str()), ("Failed", "CrashLimit"), "{ends:?}");
    assert!(fleet.bmcs().resets(&poisoned[0]).await.unwrap().is_empty());

    // A release that does not panic carries out the next wish.
    worker.process().stop(e2e::fleet::LIMIT).await.unwrap();
    let _mended = fleet.worker("mended").await.unwrap();
    ask_for_reboots(&fleet, &names, "two").await.unwrap();
    rebooted(&fleet, &names, "two").await.unwrap();
    assert_eq!(fleet.bmcs().resets(&poisoned[0]).await.unwrap(), ["off", "on"]);
    assert!(!fleet.logged("panicked at").unwrap().is_empty());
    assert!(fleet.leaks().await.unwrap().is_empty());
    assert!(fleet.shown().contradictions().is_empty());
}
