//! Text of a BMC before anybody sees it: printable, short, and without the login.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::repeats::Login;
use crate::api::placeholder;
use crate::api::unseen::is_unseen;
use crate::bmc::credentials::Credentials;

/// The longest part of a BMC's words that a message repeats, in characters.
const QUOTE_MAX: usize = 320;
/// The longest text that `status` takes from a BMC, in characters.
pub(super) const FIELD_MAX: usize = 128;

/// Printable characters only, runs of white space as one blank, at most `max` characters.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut clean = String::new();
    let mut length = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !clean.is_empty();
            continue;
        }
        if is_unseen(c) {
            continue;
        }
        let needed = 1 + usize::from(gap);
        if length + needed > max {
            break;
        }
        if gap {
            clean.push(' ');
        }
        gap = false;
        clean.push(c);
        length += needed;
    }
    clean
}

/// A text property for `status`; nothing where nobody filled it.
pub(super) fn field(document: &Value, name: &str) -> Option<String> {
    told(document.get(name)?.as_str()?)
}

/// A text for `status`; nothing where nobody filled it.
pub(super) fn told(text: &str) -> Option<String> {
    let text = printable(text, FIELD_MAX);
    (!placeholder::is_placeholder(&text)).then_some(text)
}

/// A serial number for `status`; nothing where nobody filled it.
pub(super) fn serial(document: &Value, name: &str) -> Option<String> {
    identifying(document.get(name)?.as_str()?)
}

/// A serial number for `status`; nothing where nobody filled it.
pub(super) fn identifying(text: &str) -> Option<String> {
    told(text).filter(|text| !placeholder::is_placeholder_serial(text))
}

/// What speaks of a BMC in messages, and keeps the login out of them.
#[derive(Clone)]
pub(super) struct Voice {
    /// `host:port`.
    pub(super) name: String,
    secret: Login,
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Voice({})", self.name)
    }
}

impl Voice {
    pub(super) fn new(name: String, credentials: &Credentials) -> Self {
        Self { name, secret: Login::of(credentials) }
    }

    /// The words of the BMC as a message may repeat them. A BMC that repeats the login, in
    /// whatever form, is not quoted at all.
    pub(super) fn quote(&self, text: &str) -> String {
        let text = printable(text, text.len());
        if self.secret.is_in(&text) {
            return "(not shown: it repeats the login)".to_owned();
        }
        printable(&text, QUOTE_MAX)
    }
}

/// The login as Basic authentication carries it.
pub(super) fn login(credentials: &Credentials) -> String {
    STANDARD.encode(format!("{}:{}", credentials.username, credentials.password.expose_secret()))
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_and_direction_characters_never_come_through() {
        assert_eq!(printable("a\u{1b}[31mb\r\n\tc\u{202e}d\0e", 100), "a [31mb cd e");
        assert_eq!(printable("  x  ", 100), "x");
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(printable("äöü", 2), "äö");
        assert_eq!(printable("ab cd", 3), "ab");
        assert_eq!(printable(&"é".repeat(500), FIELD_MAX).chars().count(), FIELD_MAX);
    }

    #[test]
    fn a_field_is_a_text_that_somebody_filled() {
        let document = json!({"a": " Example ", "b": 5, "c": "To be filled by O.E.M.", "d": "0123456789"});
        assert_eq!(field(&document, "a").as_deref(), Some("Example"));
        for name in ["b", "c", "missing"] {
            assert_eq!(field(&document, name), None, "{name}");
        }
        assert_eq!(serial(&document, "d"), None);
    }

    #[test]
    fn a_bmc_that_repeats_the_login_is_not_quoted() {
        let credentials = Credentials { username: "root".into(), password: "canary".to_owned().into() };
        let voice = Voice::new("bmc.example:443".into(), &credentials);
        assert_eq!(voice.quote("no\u{7}thing"), "no thing");
        for text in [format!("you said canary {}", "x".repeat(300)), format!("x {}", login(&credentials))] {
            assert!(!voice.quote(&text).contains("canary") && voice.quote(&text).starts_with("(not shown"));
        }
        assert!(!format!("{voice:?}").contains("canary"));
    }
}
