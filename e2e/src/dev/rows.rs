//! The rows of `kubectl get servers`, as `--watch` shows them: the heading once, then what changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The rows that were shown already, and how wide their columns are.
#[derive(Debug, Default)]
pub(super) struct Rows {
    shown: BTreeMap<String, Vec<String>>,
    widths: Vec<usize>,
}

/// Wide enough for what is usual, so that later rows stand under earlier ones.
const WIDTHS: [usize; 6] = [8, 12, 12, 7, 18, 8];

impl Rows {
    /// The lines to show after this table was read. The last column is the age, or when it was created: it counts
    /// for nothing.
    pub(super) fn changes(&mut self, table: &str) -> Vec<String> {
        let mut lines = table.lines();
        let Some(heading) = lines.next() else { return Vec::new() };
        let starts = starts(heading);
        let mut new = Vec::new();
        for line in std::iter::once(heading).chain(lines) {
            let cells = cells(line, &starts);
            let Some((name, rest)) = cells.split_first() else { continue };
            let told = rest[..rest.len().saturating_sub(1)].to_vec();
            if told.iter().all(String::is_empty) || self.shown.get(name) == Some(&told) {
                continue;
            }
            self.shown.insert(name.clone(), told);
            new.push(self.aligned(&cells));
        }
        new
    }

    fn aligned(&mut self, cells: &[String]) -> String {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            if self.widths.len() == column {
                self.widths.push(WIDTHS.get(column).copied().unwrap_or(0));
            }
            self.widths[column] = self.widths[column].max(cell.len());
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}   ", width = self.widths[column]);
        }
        line.trim_end().to_owned()
    }
}

/// Where the columns begin.
fn starts(heading: &str) -> Vec<usize> {
    let mut before = ' ';
    let mut found = Vec::new();
    for (at, letter) in heading.char_indices() {
        if letter != ' ' && before == ' ' {
            found.push(at);
        }
        before = letter;
    }
    found
}

fn cells(line: &str, starts: &[usize]) -> Vec<String> {
    let ends = starts.iter().skip(1).copied().chain([line.len()]);
    let cell = |(start, end): (&usize, usize)| line.get(*start..end.min(line.len())).unwrap_or_default();
    // Where nothing is known, columns of one's own say so in a word, and the usual ones stay empty.
    let known = |text: &str| if text == "<none>" { String::new() } else { text.to_owned() };
    starts.iter().zip(ends).map(|both| known(cell(both).trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn a_row_is_shown_when_something_but_its_age_changed() {
        let mut rows = Rows::default();
        let first = "NAME   PHASE   POWER   AGE\na                      0s\nb      Ready   On      0s\n";
        assert_eq!(rows.changes(first).len(), 2, "the heading and b: nothing is known of a");
        assert!(rows.changes("NAME   PHASE    POWER    AGE\na      <none>   <none>   0s\n").is_empty());
        assert!(rows.changes("NAME   PHASE   POWER   AGE\nb      Ready   On      9s\n").is_empty());
        let wider = "NAME   PHASE         POWER   AGE\na      Unreachable           9s\nb      Ready         Off     9s\n";
        let lines = rows.changes(wider);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0].find("9s"), lines[1].find("9s"), "{lines:?}");
    }
}
