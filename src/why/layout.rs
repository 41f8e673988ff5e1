//! A page of short sections: words wrap at the width, commands never do.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use textwrap::{Options, WordSplitter};

use crate::api::unseen;

/// Whether colours are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Letters only.
    Plain,
    /// With the colours of a terminal.
    Coloured,
}

/// What the page is written for.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Columns.
    pub width: usize,
    /// Colours.
    pub ink: Ink,
}

/// How a text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Title,
    Good,
    Waiting,
    Bad,
}

impl Tone {
    const fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Plain => style,
            Self::Title => style.bold(),
            Self::Good => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green))),
            Self::Waiting => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))),
            Self::Bad => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))),
        }
    }
}

/// One entry of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A label and what there is to say.
    Row { label: String, text: String, tone: Tone },
    /// A paragraph.
    Text(String),
    /// A command to be copied, with what it is for before it.
    Command { purpose: &'static str, command: String },
}

impl Entry {
    pub(super) fn row(label: impl Into<String>, text: impl Into<String>) -> Self {
        Self::toned(label, text, Tone::Plain)
    }

    pub(super) fn toned(label: impl Into<String>, text: impl Into<String>, tone: Tone) -> Self {
        Self::Row { label: label.into(), text: text.into(), tone }
    }
}

/// A title and what is under it. An empty one is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) entries: Vec<Entry>,
}

/// Everything about one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) head: String,
    pub(super) tone: Tone,
    pub(super) sections: Vec<Section>,
}

/// Columns of a label and of the gap behind it.
const LABEL: usize = 14;
/// Narrower terminals get lines that are cut by the terminal.
const NARROWEST: usize = 40;

impl Page {
    pub(super) fn lay_out(&self, form: Form) -> String {
        let form = Form { width: form.width.max(NARROWEST), ..form };
        let mut text = String::new();
        wrapped(&mut text, &self.head, ["", "  "], self.tone, form);
        for section in self.sections.iter().filter(|section| !section.entries.is_empty()) {
            text.push('\n');
            wrapped(&mut text, section.title, ["", ""], Tone::Title, form);
            for entry in &section.entries {
                entry.lay_out(&mut text, form);
            }
        }
        text
    }
}

impl Entry {
    fn lay_out(&self, page: &mut String, form: Form) {
        match self {
            Self::Row { label, text, tone } => {
                let first = format!("  {label:<LABEL$}");
                let first = if first.ends_with(' ') { first } else { first + " " };
                let rest = " ".repeat(LABEL + 2);
                wrapped(page, text, [&first, &rest], *tone, form);
            }
            Self::Text(text) => wrapped(page, text, ["  ", "  "], Tone::Plain, form),
            Self::Command { purpose, command } => {
                wrapped(page, &format!("{purpose}:"), ["  ", "  "], Tone::Plain, form);
                // Whoever copies it gets one line.
                let _ = writeln!(page, "    {}", paint(&unseen::shown(command), Tone::Title, form.ink));
            }
        }
    }
}

fn wrapped(page: &mut String, text: &str, [first, rest]: [&str; 2], tone: Tone, form: Form) {
    // Addresses and fingerprints stay whole.
    let options = Options::new(form.width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    for (number, line) in textwrap::wrap(&unseen::shown(text), options).into_iter().enumerate() {
        let indent = if number == 0 { first } else { rest };
        let words = line.strip_prefix(indent).unwrap_or(&line);
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{indent}{}", paint(words, tone, form.ink));
    }
}

fn paint(text: &str, tone: Tone, ink: Ink) -> String {
    let style = tone.style();
    match ink {
        Ink::Coloured if !style.is_plain() && !text.is_empty() => {
            format!("{}{text}{}", style.render(), style.render_reset())
        }
        Ink::Coloured | Ink::Plain => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    fn page() -> Page {
        let long = "the BMC at redfish+https://192.0.2.10:443/redfish/v1/Systems/system-0001 does not answer, and it \
                    is tried again for ever";
        Page {
            head: "a: Stalled".to_owned(),
            tone: Tone::Bad,
            sections: vec![
                Section { title: "Why", entries: vec![Entry::row("told", long)] },
                Section { title: "Nothing", entries: vec![] },
                Section {
                    title: "Try",
                    entries: vec![Entry::Command { purpose: "go on", command: "kubectl ".repeat(12) }],
                },
            ],
        }
    }

    #[test]
    fn words_wrap_at_the_width_and_addresses_and_commands_stay_whole() {
        let text = page().lay_out(Form { width: 60, ink: Ink::Plain });
        for line in text.lines() {
            let whole = line.contains("kubectl") || line.contains("redfish+https");
            assert!(line.chars().count() <= 60 || whole, "{line}");
        }
        assert!(text.contains("redfish+https://192.0.2.10:443/redfish/v1/Systems/system-0001"));
        assert!(!text.contains("Nothing"), "{text}");
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let plain = page().lay_out(Form { width: 60, ink: Ink::Plain });
        let coloured = page().lay_out(Form { width: 60, ink: Ink::Coloured });
        assert!(!plain.contains('\u{1b}') && coloured.contains('\u{1b}'));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
    }

    #[test]
    fn what_moves_the_cursor_or_hides_text_does_not_reach_the_terminal() {
        let page =
            Page { head: "a\u{1b}[2J\u{202e}b\u{200b}".to_owned(), tone: Tone::Plain, sections: vec![] };
        assert_eq!(page.lay_out(Form { width: 60, ink: Ink::Plain }), "a [2J b\n");
    }
}
