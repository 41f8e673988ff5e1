//! What is under way: bars on a terminal, plain lines elsewhere. Both on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Says what is under way.
#[derive(Debug)]
pub(super) struct Progress {
    bars: Option<MultiProgress>,
}

/// One thing that takes its time.
#[derive(Debug)]
pub(super) struct Bar {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// As standard error is a terminal or not.
    pub(super) fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.bars {
            // A bar that cannot be drawn is nothing to end for.
            Some(bars) => bars.println(line).unwrap_or_default(),
            None => writeln!(std::io::stderr(), "{line}").unwrap_or_default(),
        }
    }

    /// A bar of `length` parts.
    pub(super) fn bar(&self, what: &str, length: u64) -> Bar {
        let Some(bars) = &self.bars else {
            self.say(what);
            return Bar { bar: None };
        };
        let bar = bars.add(ProgressBar::new(length));
        if let Ok(style) = ProgressStyle::with_template("{msg:34} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        Bar { bar: Some(bar) }
    }
}

impl Bar {
    /// `parts` more are done.
    pub(super) fn advance(&self, parts: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(parts);
        }
    }

    /// It is done.
    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
