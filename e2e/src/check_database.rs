//! What `autobuild check-database` says, compared with a file that a person has read.

use std::process::Command;

use crate::{autobuild, paths};

/// Compares what is said of a database with `e2e/tests/check_database/NAME.txt`; `UPDATE_GENERATED=1` writes the file.
///
/// # Panics
/// Where it is otherwise.
#[expect(clippy::unwrap_used, reason = "it is a check of tests")]
pub async fn check(url: &str, name: &str) {
    let program = autobuild::binary().unwrap();
    let url = url.to_owned();
    let run = move || Command::new(program).arg("check-database").env("DATABASE_URL", url).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let text = format!("{}exit status {}\n", plain(&said), output.status.code().unwrap_or(-1));
    let file = paths::root().join(format!("e2e/tests/check_database/{name}.txt"));
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, golden, "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
}

/// Without what differs from run to run: versions, host and ports, names of schemas.
fn plain(said: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let words = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let is_version = words.last().is_some_and(|before| before == "MySQL" || before == "MariaDB")
                && word.starts_with(|first: char| first.is_ascii_digit());
            let word = if is_version { "VERSION".to_owned() } else { without_names(word, host.trim()) };
            words.push(word);
        }
        words.join(" ")
    };
    said.lines().map(|line| words(line) + "\n").collect()
}

fn without_names(word: &str, host: &str) -> String {
    let mut text = word.to_owned();
    if let Some((before, after)) = word.split_once(&format!("{host}:")) {
        let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        text = format!("{before}HOST:PORT{rest}");
    }
    text.strip_suffix(".*").map_or(text.clone(), |_| "SCHEMA.*".to_owned())
}
