//! Characters that a text from outside may not bring along: they hide text, turn its direction or move a cursor. Pure.

/// Whether a character shows nothing of its own, or turns the direction of what follows: Unicode's
/// `Default_Ignorable_Code_Point`, `Bidi_Control` and the separators of lines. Control characters are not among them.
pub fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text as it may be shown in one line: every such character, and every control character, is a blank.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_unseen(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_or_moves_a_cursor_is_not_shown() {
        for c in "\u{1b}\u{7}\r\n\u{85}\u{ad}\u{200b}\u{200d}\u{200e}\u{202e}\u{2066}\u{2069}\u{feff}\u{3164}\u{fe0f}\u{e0041}".chars() {
            assert_eq!(shown(&format!("a{c}b")), "a b", "{c:?}");
        }
        assert_eq!(shown("Zürich 東京 ✓"), "Zürich 東京 ✓");
    }
}
