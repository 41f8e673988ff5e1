//! The page of the documentation that lists every reason.

use std::fmt::Write as _;

use super::Reason;

/// The page, in Markdown.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Reasons\n\nThe reason of a condition, an event, a log line or a metric label is one of these.\n\
         `kubectl autobuild why NAME` says which one it is and what to try.\n\
         This page is generated: `UPDATE_GENERATED=1 cargo test -p autobuild --lib reason_page`.\n\n\
         | reason | meaning | what to try |\n|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let remedy = reason.remedy().map(|remedy| remedy.text).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{reason}` | {} | {remedy} |", reason.sentence());
    }
    page
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_lists_every_reason() {
        let path = std::path::Path::new("docs/src/reasons.md");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), markdown());
    }

    #[test]
    fn every_reason_has_a_sentence() {
        for reason in Reason::ALL {
            assert!(reason.sentence().ends_with('.'), "{reason}: {}", reason.sentence());
        }
    }
}
