//! Patterns over names and paths: `*` stands for any text, everything else for itself.

/// Whether `text` matches `pattern` as a whole.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    while let Some((part, after)) = rest.split_once('*') {
        let Some(position) = text.find(part) else { return false };
        text = &text[position + part.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_the_rest_for_itself() {
        for (pattern, text, expected) in [
            ("node-0001", "node-0001", true),
            ("node-0001", "node-00012", false),
            ("node-*", "node-7", true),
            ("*", "", true),
            ("*/Actions/*", "/redfish/v1/Systems/a/Actions/ComputerSystem.Reset", true),
            ("*Reset", "/redfish/v1/Systems/a/Actions/ComputerSystem.Reset", true),
            ("*Reset", "/redfish/v1/Systems/a", false),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
