//! Flags that cannot work: one line that names the flag and the way out, and a status that is not 0.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::says;

const URL: &str = "mysql://user:geheim@127.0.0.1:1/autobuild";
const CONTROLLER: &[&str] = &[
    "controller",
    "--database-url",
    URL,
    "--lease-namespace",
    "a",
    "--watch-namespaces",
    "a",
    "--listen",
    "127.0.0.1:0",
];
const WORKER: &[&str] = &[
    "worker",
    "--database-url",
    URL,
    "--bmc-cidr",
    "192.0.2.0/24",
    "--login-key-file",
    "KEY",
    "--listen",
    "127.0.0.1:0",
];

/// Arguments (`KEY`: a good key file; `SHORT`, `SCENARIO`: bad files), and what standard error has to say.
#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(Vec<&'static str>, &'static [&'static str])> {
    let controller = |more: &[&'static str]| [CONTROLLER, more].concat();
    let worker = |more: &[&'static str]| [WORKER, more].concat();
    vec![
        (vec!["worker"], &["--database-url", "--login-key-file", "--bmc-cidr"]),
        (
            worker(&["--database-url-file", "/does/not/exist"]),
            &["--database-url", "cannot be used with", "--database-url-file"],
        ),
        (worker(&["--heartbeat", "5"]), &["--heartbeat", "\"5\" is no duration", "such as 10s"]),
        (worker(&["--heartbeat", "5s", "--lease", "10s"]), &["--lease", "--heartbeat", "three times"]),
        (worker(&["--heartbeat", "0s"]), &["--heartbeat is 0", "2s"]),
        (worker(&["--power-poll", "0s"]), &["--power-poll is 0"]),
        (worker(&["--site", "Berlin 1"]), &["--site \"Berlin 1\"", "lower-case"]),
        (worker(&["--slots", "0"]), &["--slots", "1..=2000"]),
        (worker(&["--slots", "-1"]), &["-1"]),
        (worker(&["--slots", "100000"]), &["--slots", "1..=2000"]),
        (worker(&["--lease=-5s"]), &["--lease", "\"-5s\" is no duration", "such as 10s"]),
        (worker(&["--heartbeat", "1s", "--lease", "99999999999999999999d"]), &["--lease", "is no duration"]),
        (worker(&["--database-connections", "0"]), &["--database-connections", "0 is not in"]),
        (worker(&["--processes", "1000"]), &["--processes", "1..=64"]),
        (worker(&["--bmc-cidr", "10.0.0.0/99"]), &["--bmc-cidr", "10.0.0.0/99"]),
        (worker(&["--listen", "nowhere"]), &["--listen"]),
        (worker(&["--levitate"]), &["--levitate"]),
        (
            worker(&["--allow-ipmi", "--request-timeout", "5s"]),
            &["--request-timeout 5 s", "--allow-ipmi", "at least 6 s"],
        ),
        (
            vec![
                "worker",
                "--database-url",
                URL,
                "--bmc-cidr",
                "::/0",
                "--login-key-file",
                "/does/not/exist",
            ],
            &["--login-key-file", "/does/not/exist", "16 random bytes"],
        ),
        (
            vec!["worker", "--database-url", URL, "--bmc-cidr", "::/0", "--login-key-file", "SHORT"],
            &["fewer than 16 bytes"],
        ),
        (
            vec![
                "worker",
                "--database-url",
                "postgres://user:geheim@h/d",
                "--bmc-cidr",
                "192.0.2.0/24",
                "--login-key-file",
                "KEY",
                "--listen",
                "127.0.0.1:0",
            ],
            &["--database-url", "not mysql", "mysql://USER:PASSWORD@HOST:PORT/DATABASE"],
        ),
        (vec!["controller"], &["--database-url", "--watch-namespaces", "--lease-namespace"]),
        (controller(&["--concurrency", "0"]), &["--concurrency", "1..=1000"]),
        (controller(&["--lease-name", ""]), &["--lease-name"]),
        (controller(&["--inspect-period", "0s"]), &["--inspect-period is 0", "10s"]),
        (controller(&["--lease-duration", "6s"]), &["--lease-duration", "three times --renew-period"]),
        (
            vec![
                "controller",
                "--database-url",
                URL,
                "--lease-namespace",
                "a",
                "--watch-namespaces",
                "Bad_Name",
            ],
            &["--watch-namespaces", "\"Bad_Name\"", "lower-case letters"],
        ),
        (
            vec![
                "controller",
                "--database-url",
                "mysql://user:geheim@h",
                "--lease-namespace",
                "a",
                "--watch-namespaces",
                "a",
                "--listen",
                "127.0.0.1:0",
            ],
            &["--database-url", "names no database"],
        ),
        (vec!["migrate"], &["--database-url"]),
        (
            vec!["migrate", "--database-url", "mysql://user:geheim@db.example.com/d"],
            &["--database-url", "db.example.com", "ssl-mode=VERIFY_IDENTITY", "ssl-mode=DISABLED"],
        ),
        (vec!["migrate", "--database-url", URL], &["the database does not answer"]),
        (
            vec!["migrate", "--database-url", "mysql://user:geheim@h:port/d"],
            &["--database-url", "expected mysql://"],
        ),
        (vec!["migrate", "--database-url", "user:geheim@h/d"], &["--database-url", "scheme is not mysql"]),
        (vec!["emulate"], &["no address to listen on", "--listen ADDR"]),
        (vec!["emulate", "--listen", "127.0.0.1:0", "--systems", "-1"], &["-1"]),
        (vec!["emulate", "--listen", "127.0.0.1:0", "--systems", "many"], &["--systems", "many"]),
        (vec!["emulate", "--listen", "127.0.0.1:0", "--systems", "2", "--own-ports", "3"], &["3"]),
        (
            vec!["emulate", "--listen", "127.0.0.1:0", "--scenario", "/does/not/exist"],
            &["--scenario", "readable YAML"],
        ),
        (
            vec!["emulate", "--listen", "127.0.0.1:0", "--scenario", "SCENARIO"],
            &["--scenario", "docs/src/emulator.md"],
        ),
        (
            vec!["emulate", "--listen", "127.0.0.1:0", "--ca-out", "/does/not/exist"],
            &["--ca-out", "writable directory"],
        ),
        (vec!["emulate", "--listen-file", "/tmp/x", "--listen-https", "127.0.0.1:0"], &["--listen <ADDR>"]),
        (vec!["levitate"], &["levitate"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_flags_end_the_process_with_the_way_out_and_without_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let files = [
        ("KEY", file("key", "0123456789abcdef")),
        ("SHORT", file("short", "short")),
        ("SCENARIO", file("scenario.yaml", "systems:\n  - name: system-0001\n    levitates: true\n")),
    ];
    let cluster = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                   contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    let kubeconfig = file("kubeconfig", cluster);
    let broken = file("broken", "nothing");
    for (args, parts) in table() {
        let args: Vec<&str> = args
            .into_iter()
            .map(|arg| files.iter().find(|(name, _)| *name == arg).map_or(arg, |(_, path)| path.as_str()))
            .collect();
        ends_badly(&args, parts, Path::new(&kubeconfig)).await;
    }
    let key = files[0].1.as_str();
    let worker: Vec<&str> = WORKER.iter().map(|arg| if *arg == "KEY" { key } else { arg }).collect();
    for args in [CONTROLLER, &worker] {
        ends_badly(args, &["no cluster", "set KUBECONFIG to a readable kubeconfig"], Path::new(&broken))
            .await;
    }
}

async fn ends_badly(args: &[&str], parts: &[&str], kubeconfig: &Path) {
    let mut command = Command::new(e2e::autobuild::binary().unwrap());
    command.args(args).env_remove("DATABASE_URL").env("KUBECONFIG", kubeconfig).kill_on_drop(true);
    // Why it ended is told whatever the log shows.
    command.env("RUST_LOG", "sqlx=warn");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = tokio::time::timeout(e2e::fleet::LIMIT, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{args:?} runs on"))
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{args:?} ended with 0: {text}");
    says(&text, parts).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    assert!(!text.contains("geheim"), "{args:?}: {text}");
}
