//! `make up` and `make down`, as the Makefile runs them, with a target folder of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::Output;

use e2e::autobuild::get;
use e2e::given::{OUR_DATABASE_URL, OUR_KUBECONFIG};
use e2e::kubectl::Kubectl;
use tokio::process::Command;

async fn dev(command: &str, target: &Path, env: &[(&str, &str)]) -> Output {
    let mut dev = Command::new(e2e::paths::built("dev").unwrap());
    dev.arg(command).env("CARGO_TARGET_DIR", target).envs(env.iter().copied());
    dev.kill_on_drop(true).output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the file sets for a shell.
fn variables(target: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(target.join("dev/env")).unwrap();
    let pair = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('\'').to_owned()))
    };
    text.lines().map(|line| pair(line).unwrap()).collect()
}

#[tokio::test]
async fn make_up_starts_everything_once_and_make_down_stops_it_all() {
    let target = e2e::paths::private("dev").unwrap();
    let up = dev("up", &target, &[]).await;
    // Whatever fails from here on, nothing is left running.
    let outcome = tokio::spawn(look(target.clone())).await;
    let down = dev("down", &target, &[]).await;
    assert!(up.status.success(), "{}", said(&up));
    let metrics = outcome.unwrap();
    assert!(
        down.status.success() && said(&down).contains("stopped boot, worker, controller"),
        "{}",
        said(&down)
    );
    assert!(!target.join("dev").exists());
    for url in metrics {
        assert!(get(&url).await.is_err(), "{url} answers after make down");
    }
    let again = dev("down", &target, &[]).await;
    assert!(again.status.success() && said(&again).contains("nothing was up"), "{}", said(&again));
}

/// Looks at what runs; returns the addresses that answer no more afterwards.
async fn look(target: std::path::PathBuf) -> Vec<String> {
    let variables = variables(&target);
    let value = |name: &str| {
        variables.iter().find(|(one, _)| one == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let metrics: Vec<String> = value("METRICS_URLS").split(' ').map(str::to_owned).collect();
    assert_eq!(metrics.len(), 3, "{metrics:?}");
    for url in &metrics {
        assert!(get(url).await.unwrap().1.contains("autobuild_build_info"), "{url}");
    }
    let systems = get(&format!("{}/emulator/systems", value("EMULATOR_URL"))).await.unwrap();
    assert_eq!(systems.0, 200, "{}", systems.1);
    let kubectl = Kubectl::new(Path::new(&value("KUBECONFIG")));
    for folder in ["dev/examples", "dev/install-examples"] {
        let examples = target.join(folder).display().to_string();
        kubectl.run(&["apply", "--dry-run=server", "-f", &examples]).await.unwrap();
    }

    // In a shell that has sourced the file, and in one that has not.
    let sourced: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for env in [sourced.as_slice(), &[]] {
        let again = dev("up", &target, env).await;
        assert!(again.status.success() && said(&again).contains("it is up already"), "{}", said(&again));
    }
    for (ours, theirs) in [(OUR_KUBECONFIG, "KUBECONFIG"), (OUR_DATABASE_URL, "DATABASE_URL")] {
        // Only what the user gave stays the user's.
        let given = std::env::var(theirs).is_ok_and(|value| !value.is_empty());
        assert!(given || value(ours) == value(theirs), "{ours}");
    }
    metrics
}

/// Several clones run side by side: whatever listens takes a port that is free.
#[test]
fn nothing_that_is_started_for_trials_has_a_port_of_its_own() {
    let source = e2e::paths::root().join("e2e/src");
    let mut folders = vec![source];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for line in text.lines().filter(|line| line.contains("listen") || line.contains("bind(")) {
                for address in line.split("127.0.0.1:").skip(1) {
                    seen += 1;
                    assert!(address.starts_with(['0', '{']), "{}: {line}", path.display());
                }
            }
        }
    }
    assert!(seen > 5, "{seen} addresses");
}
