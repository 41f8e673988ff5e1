//! The golden cases: one file each in `golden/`, read and answered as `autobuild explain` does it.
//! `UPDATE_GENERATED=1 cargo test golden` writes the answers; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

use serde::Deserialize;

use super::{Facts, explain};
use crate::api::Server;

const MARK: &str = "# --- what comes of it (written by the test; read it before you commit it)\n";

#[derive(Deserialize)]
struct Case {
    server: Server,
    facts: Facts,
}

#[test]
fn every_golden_case_is_answered_as_before() {
    let folder = Path::new("src/plan/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (given, answer) = text.split_once(MARK).unwrap_or((&text, ""));
        let value: serde_json::Value =
            serde_yaml::from_str(given).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let case: Case = serde_json::from_value(value).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let explanation = explain(&case.facts.about(case.server));
        let now = serde_yaml::to_string(&serde_json::to_value(explanation).unwrap()).unwrap();
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&file, format!("{given}{MARK}{now}")).unwrap();
        } else {
            assert_eq!(now, answer, "{}", file.display());
        }
    }
}
