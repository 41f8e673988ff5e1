//! Whether a text repeats a login: as it is, or in a form that anybody turns back. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;

use super::credentials::Credentials;

/// A password of fewer letters and digits is looked for only as it is: in another form it would be in every text.
const SHORTEST: usize = 4;
/// So many times an encoded text is decoded.
const DECODINGS: usize = 3;

/// The forms of one login.
#[derive(Clone)]
pub(super) struct Login {
    /// As it is; of any length.
    plain: String,
    /// In letters and digits alone, upper and lower case apart: Base64 in each of its three positions.
    exact: Vec<String>,
    /// The same without case: the password, backwards, in hexadecimal.
    folded: Vec<String>,
}

impl Login {
    pub(super) fn of(credentials: &Credentials) -> Self {
        let password = credentials.password.expose_secret();
        let bare = bare(password).to_lowercase();
        let backwards: String = bare.chars().rev().collect();
        let hex = |bytes: &mut dyn Iterator<Item = &u8>| {
            bytes.fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
        };
        let (mut exact, mut folded) = (Vec::new(), Vec::new());
        if password.len() >= SHORTEST {
            exact.extend((0..3).filter_map(|at| inside_base64(password.as_bytes(), at)));
            folded.push(hex(&mut password.as_bytes().iter()));
            folded.push(hex(&mut password.as_bytes().iter().rev()));
        }
        if bare.chars().count() >= SHORTEST {
            folded.extend([bare, backwards]);
        }
        Self { plain: password.to_owned(), exact, folded }
    }

    /// Whether `text` has the password in it, in one of its forms. An empty password is in no text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let mut text = text.to_owned();
        for _ in 0..DECODINGS {
            if self.is_in_as_it_is(&text) {
                return true;
            }
            let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
            if decoded == text {
                return false;
            }
            text = decoded;
        }
        self.is_in_as_it_is(&text)
    }

    fn is_in_as_it_is(&self, text: &str) -> bool {
        if !self.plain.is_empty() && text.contains(&self.plain) {
            return true;
        }
        // Bytes in hexadecimal are often written 0x63 or \x63.
        let unmarked = text.replace("0x", " ").replace("0X", " ").replace("\\x", " ");
        [bare(text), bare(&unmarked)].iter().any(|bare| {
            let folded = bare.to_lowercase();
            self.exact.iter().any(|form| bare.contains(form.as_str()))
                || self.folded.iter().any(|form| folded.contains(form.as_str()))
        })
    }
}

/// Letters and digits alone.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// What of Base64 is always the same where `secret` stands `at` bytes behind a multiple of three, whatever is around it.
fn inside_base64(secret: &[u8], at: usize) -> Option<String> {
    let padded: Vec<u8> = std::iter::repeat_n(0, at).chain(secret.iter().copied()).collect();
    let text = STANDARD.encode(&padded);
    // The first characters hold bits of what is before it, and the last ones of what is behind it.
    let (first, last) = ((at * 8).div_ceil(6), padded.len() * 8 / 6);
    let form = bare(text.get(first..last)?);
    (form.len() >= SHORTEST).then_some(form)
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    fn login(password: &str) -> Login {
        Login::of(&Credentials { username: "root".into(), password: password.to_owned().into() })
    }

    #[test]
    fn a_password_is_found_in_every_form_that_anybody_turns_back() {
        let password = "Canary+/7 ü";
        let login = login(password);
        let hex: Vec<String> = password.bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent = format!("%{}", hex.join("%").to_uppercase());
        let twice = percent.replace('%', "%25");
        let spaced: String = password.chars().flat_map(|c| [c, ' ']).collect();
        let dashed: String = password.chars().flat_map(|c| [c, '-']).collect();
        let forms = [
            password.to_owned(),
            password.to_uppercase(),
            password.chars().rev().collect(),
            hex.concat(),
            hex.concat().to_uppercase(),
            hex.join(" "),
            hex.join(":"),
            format!("0x{}", hex.join(", 0x")),
            format!("\\x{}", hex.join("\\x")),
            hex.iter().rev().cloned().collect(),
            percent,
            twice,
            spaced,
            dashed,
            STANDARD.encode(password),
            STANDARD.encode(format!("root:{password}")),
            STANDARD.encode(format!("a:{password}:b")),
            STANDARD.encode(format!("ab:{password}")).replace('+', "-").replace('/', "_"),
        ];
        for form in forms {
            assert!(login.is_in(&format!("you said <{form}>, I think")), "{form}");
        }
    }

    #[test]
    fn other_words_are_not_taken_for_it() {
        let text =
            "The request failed: 63 of 616 properties of %7B id %7D are not writable (0x1F), see MessageId";
        for password in ["canary", "Calvin+1", "", "-_-"] {
            assert!(!login(password).is_in(text), "{password}");
        }
        assert!(login("-_-").is_in("a -_- b"));
        assert!(!login("ab1").is_in("a b 1"), "too short to be told apart from other words");
    }
}
