//! The documentation says what is there: links lead somewhere, and the tables of flags and metrics are complete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
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
    let there: BTreeSet<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with(&dir) && !page.ends_with("SUMMARY.md"))
        .collect();
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

#[test]
fn the_tables_of_flags_are_those_of_the_binary() {
    let binary = autobuild::cmd::Cli::command();
    for name in ["controller", "worker"] {
        let command = binary.find_subcommand(name).unwrap();
        let flags: BTreeMap<String, String> = command
            .get_arguments()
            .filter(|flag| !flag.is_hide_set() && flag.get_long() != Some("help"))
            .map(|flag| {
                let default: Vec<_> =
                    flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
                let takes_value = flag.get_action().takes_values();
                let default = if takes_value { default.join(",") } else { String::new() };
                (format!("--{}", flag.get_long().unwrap()), default)
            })
            .collect();
        assert_eq!(rows(&format!("Flags of `autobuild {name}`")), flags, "{name}");
    }
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
