//! Figures, and the targets that they are held against.

use serde::{Serialize, Serializer};

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().serialize(serializer)
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(0.0) => "0".to_owned(),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figure {
    /// What was measured; a ratio names both sides.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit; `ratio` has none.
    pub unit: &'static str,
    /// What it is held against, if anything.
    pub target: Option<Target>,
    /// Whether it holds; `None` without a target.
    pub holds: Option<bool>,
}

impl Figure {
    /// A figure without a target. Rounded to what a reader can use.
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value: rounded(value), unit, target: None, holds: None }
    }

    /// The figure, held against a target.
    #[must_use]
    pub(super) fn held_against(mut self, target: Target) -> Self {
        self.holds = Some(target.holds(self.value));
        self.target = Some(target);
        self
    }
}

/// Three digits behind the point below ten, none from a thousand on.
fn rounded(value: f64) -> f64 {
    let factor = match value.abs() {
        size if size < 10.0 => 1_000.0,
        size if size < 1_000.0 => 10.0,
        _ => 1.0,
    };
    (value * factor).round() / factor
}

/// The middle of some values; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share of the values lies (the nearest one); 0 of none.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).ceil() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(0.0)
}

/// The table for people.
pub(super) fn table(figures: &[Figure]) -> String {
    let mut rows = vec![["figure", "value", "unit", "target", "holds"].map(str::to_owned)];
    for figure in figures {
        rows.push([
            figure.name.clone(),
            figure.value.to_string(),
            figure.unit.to_owned(),
            figure.target.map(Target::text).unwrap_or_default(),
            match figure.holds {
                Some(true) => "yes".to_owned(),
                Some(false) => "NO".to_owned(),
                None => String::new(),
            },
        ]);
    }
    aligned(&rows)
}

fn aligned(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for [name, value, unit, target, holds] in rows {
        let [a, b, c, d, _] = widths;
        let line = format!("{name:a$}  {value:>b$}  {unit:c$}  {target:d$}  {holds}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).rev().collect();
        assert_eq!((median(&values), quantile(&values, 0.99)), (51.0, 100.0));
        assert_eq!((median(&[3.0]), median(&[])), (3.0, 0.0));
    }

    #[test]
    fn a_figure_carries_its_target_as_text_and_whether_it_holds() {
        let slow = Figure::new("a / b", 0.123_456, "ratio").held_against(Target::AtLeast(0.25));
        let json = serde_json::to_value(&slow).ok();
        let wanted = serde_json::json!(
            {"name": "a / b", "value": 0.123, "unit": "ratio", "target": ">= 0.25", "holds": false}
        );
        assert_eq!(json, Some(wanted));
        let lost = Figure::new("lost", 0.0, "jobs").held_against(Target::AtMost(0.0));
        assert_eq!(lost.holds, Some(true));
        let text = table(&[slow, lost]);
        assert!(text.contains(">= 0.25  NO") && text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
