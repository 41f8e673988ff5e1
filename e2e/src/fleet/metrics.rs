//! Metrics pages, as far as tests read them.

/// The sum of all samples of a family whose labels contain all of `labels`; nothing counted is 0.
pub fn metric(page: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    page.lines()
        .filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (name, set) = sample.split_once('{').unwrap_or((sample, ""));
            let holds = |(label, value): &(&str, &str)| set.contains(&format!("{label}=\"{value}\""));
            if name != family || !labels.iter().all(holds) {
                return None;
            }
            value.parse::<f64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::metric;

    #[test]
    fn samples_of_a_family_are_summed_by_their_labels() {
        let page = "# HELP a\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab{x=\"1\"} 9\nb 5\n";
        assert!((metric(page, "a", &[]) - 7.0).abs() < f64::EPSILON);
        assert!((metric(page, "a", &[("x", "1")]) - 3.0).abs() < f64::EPSILON);
        assert!((metric(page, "b", &[]) - 5.0).abs() < f64::EPSILON);
    }
}
