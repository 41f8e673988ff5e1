//! Names that somebody may have meant.

/// How alike two names have to be, from 0 to 1.
const ALIKE: f64 = 0.75;
/// How many are offered.
const OFFERED: usize = 5;

/// The names that are most like `name`, the nearest first.
pub fn near<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut alike: Vec<(f64, &str)> = names
        .into_iter()
        .map(|other| (strsim::normalized_damerau_levenshtein(name, other), other))
        .map(|(score, other)| {
            // Somebody who types the beginning, or a part, means it.
            let holds = name.len() >= 3 && (other.contains(name) || name.contains(other));
            (if holds { score.max(ALIKE) } else { score }, other)
        })
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    alike.into_iter().take(OFFERED).map(|(_, other)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn a_misspelt_name_gives_the_one_that_was_meant_first() {
        let names = ["rack1-01", "rack1-02", "rack12-u07-compute-a", "db", "rack2-01"];
        assert_eq!(near("rakc1-02", names)[0], "rack1-02");
        assert_eq!(near("compute-a", names), ["rack12-u07-compute-a"]);
        assert_eq!(near("web", names), Vec::<&str>::new());
    }

    #[test]
    fn a_large_fleet_gives_a_few() {
        let names: Vec<String> = (0..1000).map(|number| format!("node-{number:04}")).collect();
        assert_eq!(near("node-0x00", names.iter().map(String::as_str)).len(), 5);
    }
}
