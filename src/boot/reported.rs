//! Text that a machine reports. Pure.

use crate::api::unseen;

/// So many characters are kept.
const LONGEST: usize = 200;

/// One line of at most 200 characters: what moves the cursor, hides text or turns its direction becomes a space.
pub fn reported(text: &str) -> String {
    let start: String = text.chars().take(LONGEST).collect();
    unseen::shown(&start).trim().to_owned()
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_short_line() {
        assert_eq!(reported("partitioning\r\nsda\u{1b}[2J\u{202e}"), "partitioning  sda [2J");
        assert_eq!(reported(&"ä".repeat(300)).chars().count(), LONGEST);
    }
}
