//! How flags are written.

use std::time::Duration;

use jiff::{SignedDuration, Unit};

/// Reads a duration such as `10s`, `500ms`, `5m` or `90d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no duration: write a number with its unit, such as 10s, 500ms, 5m or 2h");
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        return Ok(Duration::from_hours(24) * days);
    }
    let signed: SignedDuration = text.parse().map_err(|_| wrong())?;
    signed.round(Unit::Nanosecond).ok().and_then(|whole| Duration::try_from(whole).ok()).ok_or_else(wrong)
}

/// Whether it is a label of RFC 1123: what names of namespaces and sites are made of.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A duration as milliseconds, for the pure parts that count in them.
pub fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The name of an `OSImage` (RFC 1123 subdomain).
pub fn image_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is no name of an OSImage: write 1 to 253 lower-case letters, digits, '-' and '.', such as wipe"
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, ms_wanted) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("90d", 7_776_000_000),
            ("0s", 0),
        ] {
            assert_eq!(ms(duration(text).unwrap()), ms_wanted, "{text}");
        }
    }

    #[test]
    fn a_label_has_lower_case_letters_digits_and_inner_hyphens() {
        for (text, holds) in
            [("a", true), ("a-1", true), ("", false), ("-a", false), ("a-", false), ("A", false)]
        {
            assert_eq!(is_dns_label(text), holds, "{text:?}");
        }
        assert!(is_dns_label(&"a".repeat(63)) && !is_dns_label(&"a".repeat(64)));
    }

    #[test]
    fn a_bad_duration_is_named_with_the_way_out() {
        for text in ["", "10", "ten", "-1s", "10 parsecs", "1y"] {
            let error = duration(text).unwrap_err();
            assert!(error.contains("such as 10s") && error.contains(text), "{error}");
        }
    }
}
