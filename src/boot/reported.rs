//! Text that a machine reports. Pure.

/// So many characters are kept.
const LONGEST: usize = 200;

/// One line of at most 200 characters: what moves the cursor, hides text or turns its direction becomes a space.
pub fn reported(text: &str) -> String {
    let visible = |c: char| !(c.is_control() || unseen(c));
    let line: String = text.chars().take(LONGEST).map(|c| if visible(c) { c } else { ' ' }).collect();
    line.trim().to_owned()
}

/// Line separators, marks and overrides of direction, the byte order mark.
fn unseen(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
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
