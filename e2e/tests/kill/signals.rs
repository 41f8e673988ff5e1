//! Processes that are asked to end.

use std::process::Stdio;

use e2e::fleet::LIMIT;
use e2e::process::Signal;
use e2e::wait::{Look, wait_for};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_log_nobody_reads_any_more_still_ends_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("listen");
    let mut process = Command::new(e2e::autobuild::binary().unwrap())
        .args(["emulate", "--listen", "127.0.0.1:0", "--listen-file"])
        .arg(&file)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for("its port", LIMIT, async || {
        Ok(if file.is_file() { Look::Holds(()) } else { Look::NotYet("no file".to_owned()) })
    })
    .await
    .unwrap();
    // The reader of its log is gone: every further line fails.
    drop(process.stderr.take());
    let pid = rustix::process::Pid::from_raw(process.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(LIMIT, process.wait()).await.expect("it does not end").unwrap();
    assert!(ended.success(), "{ended}");
}
