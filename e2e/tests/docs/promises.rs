//! Whoever reads "once", "never" or "at most" counts on it. So every sentence of the documentation with such a word was
//! judged: it is quoted in a row of `docs/src/promises.md`, with the tests that show it, or it promises nothing and stands in
//! `no_promises.txt`, beside this file.

use std::collections::{BTreeMap, BTreeSet};

use e2e::paths;

/// What a promise says, most often. "At once" is none of it: that is "soon", or "together".
const WORDS: [&str; 13] = [
    "alone",
    "always",
    "at most",
    "ever",
    "exactly",
    "never",
    "no more than",
    "no other",
    "nobody",
    "nothing",
    "once",
    "only",
    "twice",
];

/// What was, and what only repeats the other pages.
const LEFT_OUT: [&str; 3] = ["CHANGELOG", "SUMMARY", "promises"];

const NO_PROMISES: &str = include_str!("no_promises.txt");

fn promises() -> String {
    std::fs::read_to_string(paths::root().join("docs/src/promises.md")).unwrap()
}

/// The sentences of each page, and of what `kubectl explain` prints, by the name of the file.
fn sentences() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let explained = std::fs::read_dir(paths::root().join("crds")).unwrap().map(|entry| entry.unwrap().path());
    for page in super::pages().into_iter().chain(explained) {
        let name = page.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&page).unwrap();
        let is_markdown = page.extension().is_some_and(|extension| extension == "md");
        let said = if is_markdown { of_markdown(&text) } else { of_definition(&text) };
        if !LEFT_OUT.contains(&name.as_str()) {
            assert!(found.insert(name.clone(), said).is_none(), "two pages are called {name}");
        }
    }
    found
}

/// Headings and code are left out, and so are the rules of the protocol: `e2e/model/tests/protocol_model` shows what each is for.
fn of_markdown(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in text.lines() {
        let is_text = !line.starts_with("    ") && !line.starts_with('#') && !is_rule(line);
        let begins = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        let is_item = ["- ", ". "].iter().any(|mark| begins.starts_with(mark));
        if !is_text || is_item || line.is_empty() || line.starts_with('|') {
            paragraphs.push(String::new());
        }
        if let (true, Some(paragraph)) = (is_text, paragraphs.last_mut()) {
            *paragraph += line.trim();
            paragraph.push(' ');
        }
    }
    paragraphs.iter().flat_map(|paragraph| split(paragraph)).collect()
}

fn is_rule(line: &str) -> bool {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [rule, _, steps] = cells.as_slice() else { return false };
    rule.ends_with('`') && steps.parse::<u32>().is_ok()
}

/// What `kubectl explain` and refusals say.
fn of_definition(text: &str) -> Vec<String> {
    let mut said = BTreeSet::new();
    let mut left: Vec<serde_yaml::Value> = serde_yaml::Deserializer::from_str(text)
        .map(|one| serde::Deserialize::deserialize(one).unwrap())
        .collect();
    while let Some(value) = left.pop() {
        match value {
            serde_yaml::Value::Mapping(fields) => {
                for (field, value) in fields {
                    match (field.as_str(), value) {
                        (Some("description" | "message"), serde_yaml::Value::String(text)) => {
                            said.extend(split(&text));
                        }
                        (_, value) => left.push(value),
                    }
                }
            }
            serde_yaml::Value::Sequence(values) => left.extend(values),
            _ => {}
        }
    }
    said.into_iter().collect()
}

fn split(paragraph: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let sentence = found.last_mut().unwrap();
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        *sentence += word;
        if word.trim_end_matches(['*', ')']).ends_with(['.', '?', '!']) {
            found.push(String::new());
        }
    }
    found
}

/// Whether a sentence has one of the words, code apart.
fn may_promise(sentence: &str) -> bool {
    let prose: String = sentence.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
    let words: Vec<&str> =
        prose.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let text = format!(" {} ", words.join(" ")).replace(" at once ", " ");
    WORDS.iter().any(|word| text.contains(&format!(" {word} ")))
}

/// The cells of each row of the tables of promises.
fn rows(page: &str) -> Vec<[&str; 3]> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| pages |"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        <[&str; 3]>::try_from(cells).unwrap_or_else(|_| panic!("pages, words and tests: {row}"))
    })
    .collect()
}

/// The names of pages and the quotes of each judgement.
fn judgements(page: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let promised = rows(page).into_iter().map(|[pages, words, _]| {
        let quotes: Vec<&str> = words.split('"').skip(1).step_by(2).collect();
        assert!(!quotes.is_empty(), "no words of a page in quotation marks: {words}");
        (pages.split(", ").collect(), quotes)
    });
    let others = NO_PROMISES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let (page, quote) = line.split_once(": ").unwrap_or_else(|| panic!("PAGE: WORDS: {line}"));
        (vec![page], vec![quote])
    });
    promised.chain(others).collect()
}

#[test]
fn every_sentence_that_may_promise_something_was_judged() {
    let page = promises();
    let judgements = judgements(&page);
    let mut left = Vec::new();
    for (page, sentences) in sentences() {
        for sentence in sentences.iter().filter(|sentence| may_promise(sentence)) {
            let is_judged = judgements.iter().any(|(pages, quotes)| {
                pages.contains(&page.as_str()) && quotes.iter().any(|quote| sentence.contains(quote))
            });
            if !is_judged {
                left.push(format!("{page}: {sentence}"));
            }
        }
    }
    assert!(
        left.is_empty(),
        "{} sentences have one of the words {WORDS:?}, and nobody judged them. If one promises something, quote it in a row of \
         docs/src/promises.md with the test that shows it. If not, copy its line into e2e/tests/docs/no_promises.txt:\n{}",
        left.len(),
        left.join("\n")
    );
}

#[test]
fn every_judgement_quotes_its_page() {
    let page = promises();
    let sentences = sentences();
    let mut gone = Vec::new();
    for (pages, quotes) in judgements(&page) {
        let says = |page: &&str, quote: &&str| {
            let sentences = sentences.get(*page).unwrap_or_else(|| panic!("there is no page {page}"));
            sentences.iter().any(|sentence| sentence.contains(*quote))
        };
        let unsaid = quotes.iter().filter(|quote| !pages.iter().any(|page| says(page, quote)));
        gone.extend(unsaid.map(|quote| format!("{}: {quote}", pages.join(", "))));
        let silent = pages.iter().filter(|page| !quotes.iter().any(|quote| says(page, quote)));
        gone.extend(silent.map(|page| format!("{page}: none of {quotes:?}")));
    }
    assert!(
        gone.is_empty(),
        "these words are not there any more; judge what is there now:\n{}",
        gone.join("\n")
    );
}

#[test]
fn every_promise_has_tests_that_are_there_and_one_that_runs_unasked() {
    for [_, words, tests] in rows(&promises()) {
        let spans: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(
            !spans.is_empty() && spans.len().is_multiple_of(2),
            "file and test by turns: {words}: {tests}"
        );
        let mut is_run = false;
        for pair in spans.chunks(2) {
            let [file, test] = pair else { continue };
            let code = std::fs::read_to_string(paths::root().join(file)).unwrap_or_default();
            match found(file, &code, test) {
                Found::Absent => panic!("{file} has no test {test:?}: {words}"),
                Found::LeftOut => {}
                Found::Run => is_run = true,
            }
        }
        assert!(is_run, "`make test` runs no test of {words}");
    }
}

enum Found {
    Absent,
    /// It runs with `make soak` alone.
    LeftOut,
    Run,
}

fn found(file: &str, code: &str, test: &str) -> Found {
    if file.starts_with("e2e/tests/queue/") {
        // These are named by their sentences.
        let is_case = code.contains(&format!("\"{test}\"")) || code.contains(&format!("\"{{}}: {test}\""));
        return if is_case { Found::Run } else { Found::Absent };
    }
    let Some((before, _)) = code.split_once(&format!("fn {test}(")) else { return Found::Absent };
    let attributes = before.rsplit("}\n").next().unwrap();
    let is_test = ["#[test]", "#[tokio::test", "#[rstest]"].iter().any(|one| attributes.contains(one));
    match attributes.contains("#[ignore") {
        _ if !is_test => Found::Absent,
        true => Found::LeftOut,
        false => Found::Run,
    }
}

#[test]
fn sentences_are_found_in_paragraphs_lists_tables_and_definitions() {
    let page = "# Never\n\nOne is\nonce. Two, `never`.\n\n    only code\n\n1. Three at once.\n- **Four.** Five ever\n  on.\n\n| a. B | only c |\n| Rule. `R` | never | 4 |\n";
    let found: Vec<String> = of_markdown(page).into_iter().filter(|sentence| may_promise(sentence)).collect();
    assert_eq!(found, ["One is once.", "Five ever on.", "B | only c |"]);
    let definition = "a:\n- description: Never this. Not that.\n  message: at most 2\n  only: x\n";
    let found: Vec<String> =
        of_definition(definition).into_iter().filter(|sentence| may_promise(sentence)).collect();
    assert_eq!(found, ["Never this.", "at most 2"]);
}
