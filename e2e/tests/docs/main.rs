//! The documentation says what is there: links lead somewhere, the tables of flags and metrics are complete, and what is
//! promised is shown by tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod examples;
mod network;
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use e2e::paths;

fn pages() -> Vec<PathBuf> {
    let root = paths::root();
    let mut found = Vec::new();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// The targets of Markdown links, code blocks and code spans left out.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("    ")) {
        for part in line.split("](").skip(1) {
            found.push(part.split(')').next().unwrap());
        }
    }
    found
}

/// As mdBook and code hosts make them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                assert!(
                    anchors(&target).contains(anchor),
                    "{}: {link} names no heading of that page",
                    page.display()
                );
            }
        }
    }
}

#[test]
fn every_page_is_in_the_summary() {
    let dir = paths::root().join("docs/src");
    let summary = std::fs::read_to_string(dir.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = links(&summary).into_iter().map(|link| dir.join(link)).collect();
    let there: BTreeSet<PathBuf> =
        pages().into_iter().filter(|page| page.starts_with(&dir) && !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(listed, there);
}

/// The first two cells of each row of the table under a heading of docs/src/operating.md.
fn rows(heading: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(paths::root().join("docs/src/operating.md")).unwrap();
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            (cells[1].to_owned(), cells[2].to_owned())
        })
        .collect()
}

/// The page of flags, as the binary knows them.
fn flags_page() -> String {
    let mut page = String::from(
        "# Flags\n\nA time is written with its unit: `500ms`, `10s`, `5m`, `2h`, `90d`. The emulator's flags are on [its \
         page](emulator.md).\nThis page is generated: `make generate`.\n",
    );
    let binary = autobuild::cmd::Cli::command();
    for name in
        ["controller", "worker", "boot", "check-database", "migrate", "import", "bench queue", "bench fleet"]
    {
        let command = name.split(' ').fold(&binary, |command, part| command.find_subcommand(part).unwrap());
        let about = command.get_about().unwrap();
        write!(page, "\n## `autobuild {name}`\n\n{about}.\n\n").unwrap();
        page += "| flag | default | meaning |\n|---|---|---|\n";
        for flag in command.get_arguments().filter(|flag| !flag.is_hide_set() && flag.get_id() != "help") {
            let takes_value = flag.get_action().takes_values();
            let value = flag.get_value_names().map(|names| format!(" {}", names[0])).unwrap_or_default();
            let defaults: Vec<_> =
                flag.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
            let default = match flag.get_env() {
                Some(variable) => format!("variable `{}`", variable.display()),
                None if flag.is_required_set() => "required".to_owned(),
                None if takes_value => defaults.join(","),
                None => String::new(),
            };
            let help = flag.get_help().unwrap().to_string().replace('|', "\\|");
            let value = if takes_value { value } else { String::new() };
            let name = match (flag.get_long(), flag.get_short()) {
                (Some(long), None) => format!("--{long}{value}"),
                (Some(long), Some(short)) => format!("-{short}, --{long}{value}"),
                (None, _) => value.trim().to_owned(),
            };
            writeln!(page, "| `{name}` | {default} | {help} |").unwrap();
        }
    }
    page
}

#[test]
fn the_page_of_flags_is_that_of_the_binary() {
    let file = paths::root().join("docs/src/flags.md");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&file, flags_page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), flags_page());
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    // Families are declared in one file, each by its name and its labels.
    let code = std::fs::read_to_string(paths::root().join("src/metrics.rs")).unwrap();
    let families: BTreeMap<String, String> = code
        .split("::new(")
        .skip(1)
        .filter_map(|rest| {
            let name = rest.trim_start().strip_prefix('"')?.split('"').next()?;
            let labels = rest.split_once("&[")?.1.split(']').next()?.replace('"', "");
            Some((name.to_owned(), labels.trim().trim_end_matches(',').to_owned()))
        })
        .collect();
    let rows: BTreeMap<String, String> =
        rows("Metrics").into_iter().map(|(name, labels)| (name, labels.replace('`', ""))).collect();
    assert_eq!(rows, families);
}

/// The names of what a page or a comment puts into backticks, in their order.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The order in which locks are taken, by a text that says it.
fn lock_order(text: &str) -> Vec<&str> {
    let begin = [" locks in one order: ", " are taken in one order, "];
    let rest = begin.iter().find_map(|begin| text.split_once(begin)).unwrap().1;
    spans(rest.split("`permit`").next().unwrap())
}

/// The rows of the table of transactions: names in logs, files, locks.
fn transactions(page: &str) -> Vec<[&str; 3]> {
    let table = page.split("\n| transaction | in logs").nth(1).unwrap().split("\n\n").next().unwrap();
    table
        .lines()
        .skip(2)
        .map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            [cells[1], cells[2], cells[3]]
        })
        .collect()
}

#[test]
fn the_page_of_the_protocol_has_the_locks_and_transactions_of_the_code() {
    let root = paths::root();
    let page = std::fs::read_to_string(root.join("docs/src/protocol.md")).unwrap();
    let code = std::fs::read_to_string(root.join("src/queue/mod.rs")).unwrap();
    let order = lock_order(&page);
    assert!(order.len() > 5, "{order:?}");
    assert_eq!(order, lock_order(&code), "docs/src/protocol.md and src/queue/mod.rs");

    let mut left: BTreeSet<(String, String)> = BTreeSet::new();
    for file in std::fs::read_dir(root.join("src/queue")).unwrap() {
        let path = file.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let file = path.file_name().unwrap().display().to_string();
        let names = text.split("const NAME: &'static str = \"").skip(1);
        left.extend(names.map(|rest| (rest.split('"').next().unwrap().to_owned(), file.clone())));
    }
    assert!(left.len() > 25, "{left:?}");
    let there = left.clone();
    for [names, files, locks] in transactions(&page) {
        for name in spans(names) {
            let one = (name.to_owned(), spans(files)[0].to_owned());
            assert!(there.contains(&one), "the page has {one:?}, and the code has no such transaction");
            left.remove(&one);
        }
        let places: Vec<usize> =
            spans(locks).iter().filter_map(|lock| order.iter().position(|one| one == lock)).collect();
        assert!(places.is_sorted(), "{names} takes its locks in another order: {locks}");
    }
    assert!(left.is_empty(), "docs/src/protocol.md lacks the transactions {left:?}");
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let root = paths::root();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for span in text.split('`').skip(1).step_by(2) {
            let path = span.trim_end_matches('/');
            let is_path = ["src/", "e2e/", "docs/", "manifests/", "crds/", "migrations/"]
                .iter()
                .any(|start| path.starts_with(start));
            if is_path && !path.contains([' ', '*', '\n']) {
                assert!(root.join(path).exists(), "{}: there is no {path}", page.display());
            }
        }
    }
}
