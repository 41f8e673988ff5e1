//! Which module may know which: `src/lib.rs` has the map, and `clippy.toml` bans what opens connections, reads clocks
//! and starts tasks. This looks at the names that each module's files use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use e2e::paths;

fn files(part: &str) -> Vec<PathBuf> {
    let found = files_below(&[paths::root().join("src").join(part)]);
    assert!(!found.is_empty(), "src/{part} has no files");
    found
}

fn files_below(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = folders.to_vec();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file: no comments, and nothing of the tests in it.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\n#[allow").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Files of tests, which may know more.
fn is_test(file: &Path) -> bool {
    let name = file.to_string_lossy();
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("_test.rs")
}

#[test]
#[expect(clippy::too_many_lines, reason = "the table of every module")]
fn no_module_knows_one_that_is_not_its_own() {
    let pure = ["crate::queue", "crate::bmc::", "crate::controller", "crate::worker", "crate::emulator"];
    let no_io =
        ["sqlx::", "tokio::", "hyper", "reqwest::", "std::fs", "std::net::Tcp", "std::env", "async fn"];
    for (part, banned) in [
        ("api", [pure.as_slice(), &no_io, &["crate::plan"]].concat()),
        ("job", [pure.as_slice(), &no_io, &["crate::plan", "kube::"]].concat()),
        ("plan", [pure.as_slice(), &no_io].concat()),
        ("why", [pure.as_slice(), &no_io, &["crate::plan"]].concat()),
        ("shard.rs", [pure.as_slice(), &no_io, &["crate::plan", "kube::"]].concat()),
        (
            "queue",
            vec!["crate::plan", "crate::bmc::", "crate::controller", "crate::worker", "kube::", "hyper"],
        ),
        (
            "bmc",
            vec!["crate::plan", "crate::queue", "crate::controller", "crate::worker", "kube::", "sqlx::"],
        ),
        // A person's command, which reads BMCs: all that it may know of them is what workers know.
        (
            "import",
            vec![
                "crate::plan",
                "crate::queue",
                "crate::controller",
                "crate::worker",
                "crate::emulator",
                "kube::",
                "sqlx::",
                ".send",
            ],
        ),
        (
            "boot",
            vec![
                "crate::plan",
                "crate::queue",
                "crate::bmc",
                "crate::controller",
                "crate::worker",
                "crate::emulator",
                "sqlx::",
            ],
        ),
        (
            "controller",
            vec!["crate::bmc", "crate::worker", "crate::emulator", "sqlx::", "hyper", "reqwest::"],
        ),
        (
            "worker",
            vec!["crate::plan", "crate::controller", "crate::emulator", "sqlx::", "hyper", "reqwest::"],
        ),
        (
            "emulator",
            vec![
                "crate::api",
                "crate::job",
                "crate::plan",
                "crate::queue",
                "crate::bmc",
                "crate::controller",
                "crate::worker",
                "kube::",
                "sqlx::",
            ],
        ),
        (
            "bench",
            vec![
                "crate::plan",
                "crate::bmc::",
                "crate::controller",
                "crate::worker",
                "crate::emulator",
                "kube::",
                "sqlx::",
                "hyper",
                "reqwest::",
            ],
        ),
        (
            "bench/fleet",
            vec![
                "crate::plan",
                "crate::bmc::",
                "crate::controller",
                "crate::worker",
                "crate::emulator",
                "sqlx::",
                "hyper",
            ],
        ),
        ("cmd", vec!["sqlx::", "hyper", "reqwest::"]),
    ] {
        // It plays the user, and so it alone of the benchmarks speaks to the API server.
        let is_elsewhere =
            |file: &Path| part == "bench" && file.starts_with(paths::root().join("src/bench/fleet"));
        for file in files(part).into_iter().filter(|file| !is_test(file) && !is_elsewhere(file)) {
            let code = code(&file);
            for name in &banned {
                assert!(!code.contains(name), "{} uses {name}", file.display());
            }
        }
    }
}

/// Tests run beside each other: of two that install something, apt-get refuses one.
#[test]
fn nothing_is_installed_but_by_the_one_step_before_the_tests() {
    let e2e = paths::root().join("e2e");
    let installs = ["\"apt-get\"", "packages::install", "\"pip\""];
    for file in files_below(&[e2e.join("src"), e2e.join("tests")]) {
        let own = ["src/packages", "src/bin/dev.rs", "tests/walls.rs"].map(|part| e2e.join(part));
        if own.iter().any(|own| file.starts_with(own)) {
            continue;
        }
        let code = code(&file);
        for word in installs {
            assert!(!code.contains(word), "{} has {word}", file.display());
        }
    }
}

/// A clone that is copied with what was built in it would work on the first one.
#[test]
fn no_path_of_a_checkout_is_compiled_in() {
    let root = paths::root();
    for file in files_below(&["src", "e2e/src", "e2e/tests", "e2e/model/tests"].map(|part| root.join(part))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for variable in ["CARGO_MANIFEST_DIR", "CARGO_BIN_EXE", "CARGO_TARGET_TMPDIR", "OUT_DIR"] {
            let compiled_in = text.contains(&format!("env!(\"{variable}"));
            assert!(!compiled_in, "{} has the path {variable} of the build in it", file.display());
        }
    }
}

/// Lines of code that name something, with their files.
fn lines_with(part: &str, name: &str) -> Vec<String> {
    let code = files(part).into_iter().filter(|file| !is_test(file)).flat_map(|file| {
        code(&file).lines().map(|line| format!("{}: {line}", file.display())).collect::<Vec<_>>()
    });
    code.filter(|line| line.contains(name)).collect()
}

#[test]
fn the_controller_asks_for_no_more_of_a_secret_than_its_metadata() {
    let naming: Vec<String> = lines_with("controller", "Secret>")
        .into_iter()
        .filter(|line| !line.contains("PartialObjectMeta<Secret>"))
        .collect();
    assert_eq!(naming, Vec::<String>::new());
    assert!(!lines_with("controller", "PartialObjectMeta<Secret>").is_empty());
}

#[test]
fn the_name_of_a_bmc_is_resolved_in_one_place_and_what_connects_is_given_an_address() {
    let resolving: Vec<String> =
        ["bmc", "worker", "import", "cmd"].iter().flat_map(|part| lines_with(part, "lookup_host(")).collect();
    assert!(resolving.len() == 1 && resolving[0].contains("connector.rs"), "{resolving:#?}");
    let connecting = lines_with("bmc", "TcpStream::connect(");
    assert!(!connecting.is_empty() && connecting.iter().all(|line| line.contains("peer")), "{connecting:#?}");
}

#[test]
fn no_file_is_longer_than_a_person_reads() {
    for file in files("") {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines: split it by what its parts do", file.display());
    }
}
