//! An error in full: what is behind it often says more than itself.

use std::error::Error;

/// The error with everything that is behind it, nothing twice.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        behind = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn what_is_behind_an_error_is_told_once() {
        let error = |text| Outer(text, std::io::Error::other("no route"));
        assert_eq!(causes(&error("not connected")), "not connected: no route");
        assert_eq!(causes(&error("no route to h")), "no route to h");
    }
}
