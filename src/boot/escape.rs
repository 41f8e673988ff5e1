//! How a value is written into install data, so that it stays one value. Pure.

use crate::api::InstallFormat;

/// How values are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoting {
    /// One word of a shell, which is how Anaconda takes a line of kickstart apart.
    Shell,
    /// As it is: Debian's installer takes all that stands behind the type of a question, quotes too.
    Line,
    /// A string of JSON, which is one of YAML too.
    Json,
}

impl Quoting {
    /// What the readers of a format understand.
    pub const fn of(format: InstallFormat) -> Self {
        match format {
            InstallFormat::Kickstart => Self::Shell,
            InstallFormat::Preseed => Self::Line,
            InstallFormat::Autoinstall
            | InstallFormat::CloudInit
            | InstallFormat::Ignition
            | InstallFormat::None => Self::Json,
        }
    }

    /// The value as it stands in the data; `None`: it has a character that cannot stand there.
    pub fn quote(self, value: &str) -> Option<String> {
        match self {
            Self::Shell => shell(value),
            Self::Line => line(value),
            Self::Json => Some(json(value)),
        }
    }
}

/// As it is, between two marks where it is no plain word of a shell: some questions are run by one ([`unmarked`] says which).
/// What Debian's installer would change is refused: it takes spaces before a value away, and a backslash at the end for a value
/// that goes on in the next line.
fn line(value: &str) -> Option<String> {
    let quoted = shell(value)?;
    if value.starts_with(char::is_whitespace) || value.ends_with('\\') || value.contains(MARKS) {
        return None;
    }
    let [begins, ends] = MARKS;
    Some(if quoted == value { quoted } else { format!("{begins}{value}{ends}") })
}

/// Two characters that no text means anything by.
pub const MARKS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// The data without marks. `Err`: a value that is no plain word stands in a question whose value a shell runs, unquoted.
pub fn unmarked(data: &str) -> Result<String, String> {
    let mut whole = String::new();
    for piece in data.split_inclusive('\n') {
        // As Debian's installer does: comments and empty lines are left out first, also where a line goes on.
        let text = piece.trim_end_matches(['\n', '\r']);
        if text.starts_with('#') || text.trim().is_empty() {
            continue;
        }
        let goes_on = text.strip_suffix('\\');
        whole.push_str(goes_on.unwrap_or(text));
        if goes_on.is_some() {
            whole.push(' ');
            continue;
        }
        let question = whole.split_whitespace().nth(1).unwrap_or_default();
        if question.ends_with("_command") && whole.contains(MARKS) {
            return Err(question.to_owned());
        }
        whole.clear();
    }
    Ok(data.replace(MARKS, ""))
}

/// One word of a shell. These formats are read line by line: a line break has no place in a value, quoted or not.
pub fn shell(value: &str) -> Option<String> {
    if value.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return None;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@,=-".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        return Some(value.to_owned());
    }
    Some(format!("'{}'", value.replace('\'', r"'\''")))
}

/// A string of JSON. Whatever means something to YAML or to a shell is written as its number, so that the value stays
/// where it is even where the template's author wrote it into the middle of other text.
pub fn json(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        // A colon before a space makes a key of what is before it.
        let colon = c == ':' && chars.peek().is_some_and(|next| !next.is_whitespace());
        let number = u32::from(c);
        // Beyond four digits JSON and YAML write numbers differently, and nothing there means anything to either.
        if c.is_alphanumeric() || colon || " ._/=+@~-".contains(c) || number > 0xffff {
            text.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\u{number:04x}");
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads one word as a shell does: outside of quotes a backslash takes the next character, single quotes take all.
    fn shell_word(text: &str) -> Option<String> {
        let mut word = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\'' => loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                },
                '\\' => word.push(chars.next()?),
                c if c.is_ascii_alphanumeric() || "_./:@,=-".contains(c) => word.push(c),
                // Anything else means something to a shell.
                _ => return None,
            }
        }
        Some(word)
    }

    #[test]
    fn plain_values_stay_plain_and_others_are_quoted() {
        assert_eq!(shell("http://10.0.0.5:8080/s/ab").unwrap(), "http://10.0.0.5:8080/s/ab");
        assert_eq!(shell("").unwrap(), "''");
        assert_eq!(shell("it's $(reboot)").unwrap(), r"'it'\''s $(reboot)'");
        assert_eq!(shell("%end").unwrap(), "'%end'");
        assert_eq!(shell("a\n%include http://evil"), None);
        assert_eq!(json("node-1.example.com"), r#""node-1.example.com""#);
        assert_eq!(json("http://10.0.0.5:8080/x"), r#""http://10.0.0.5:8080/x""#);
        assert_eq!(json("a: \"b\""), r#""a\u003a \u0022b\u0022""#);
    }

    #[test]
    fn debians_installer_is_given_values_as_they_are() {
        for value in ["$6$salt$hash", "John Doe", "", "it's", "a \\ b", "#1", "x "] {
            assert_eq!(unmarked(&line(value).unwrap()).unwrap(), value);
        }
        for value in [" x", "x\\", "x\nd-i evil", "x\u{f8f0}"] {
            assert_eq!(line(value), None, "{value:?}");
        }
    }

    #[test]
    fn what_a_shell_runs_has_no_value_that_means_something_to_it() {
        let value = line("x; reboot").unwrap();
        for data in [
            format!("d-i preseed/late_command string echo {value}\n"),
            format!("d-i preseed/late_command string a; \\\n  # no end \\\n\n#c\n  echo {value}"),
            format!("d-i \\\n preseed/early_command string \\\n echo {value}\n"),
        ] {
            assert!(unmarked(&data).unwrap_err().ends_with("_command"), "{data}");
        }
        let data = format!("# _command {value}\nd-i a/b string {value}\nd-i c/d_command string echo x\n");
        assert_eq!(unmarked(&data).unwrap(), data.replace(MARKS, ""));
    }

    proptest! {
        #[test]
        fn a_shell_reads_exactly_the_value(value in "\\PC{0,40}") {
            if let Some(quoted) = shell(&value) {
                prop_assert_eq!(shell_word(&quoted), Some(value));
            }
        }

        #[test]
        fn json_and_yaml_read_exactly_the_value(value in any::<String>()) {
            let quoted = json(&value);
            prop_assert_eq!(&serde_json::from_str::<String>(&quoted).unwrap(), &value);
            let whole: serde_yaml::Value = serde_yaml::from_str(&format!("a: {quoted}\nb: 1\n")).unwrap();
            prop_assert_eq!(whole["a"].as_str().unwrap(), value.as_str());
            prop_assert_eq!(whole.as_mapping().unwrap().len(), 2);
        }

        #[test]
        fn in_the_middle_of_text_a_value_changes_nothing_around_it(value in any::<String>()) {
            let text = format!("- curl {}/installed\n- second\n", json(&value));
            let whole: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
            prop_assert_eq!(whole.as_sequence().unwrap().len(), 2);
            prop_assert!(whole[0].as_str().is_some_and(|line| line.starts_with("curl ")), "{whole:?}");
        }
    }
}
