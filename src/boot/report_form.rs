//! What a machine reports, out of the form that it posts. Pure.

use url::form_urlencoded;

use super::asked::Report;
use super::reported::reported;
use super::sessions::CallHome;

/// Longest form.
pub const LONGEST: usize = 16 * 1024;

/// The report; `None`: the form lacks what the report needs.
pub fn read(report: Report, form: &[u8]) -> Option<CallHome> {
    let field = |name: &str| {
        let mut fields = form_urlencoded::parse(form);
        fields.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    match report {
        Report::Booted => Some(CallHome::Booted),
        Report::Installed => Some(CallHome::Installed),
        Report::Progress => {
            let percent = field("percent")?.parse::<u8>().ok().filter(|percent| *percent <= 100)?;
            Some(CallHome::Progress { percent, line: reported(&field("message").unwrap_or_default()) })
        }
        Report::Failed => Some(CallHome::Failed { reason: reported(&field("reason")?) }),
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_form_gives_percent_and_one_line() {
        let progress = |percent, line: &str| Some(CallHome::Progress { percent, line: line.to_owned() });
        for (form, wanted) in [
            ("percent=42&message=writing+the+disk%0Anow", progress(42, "writing the disk now")),
            ("message=x&percent=100", progress(100, "x")),
            ("percent=0", progress(0, "")),
            ("percent=101", None),
            ("percent=-1", None),
            ("message=x", None),
            ("", None),
        ] {
            assert_eq!(read(Report::Progress, form.as_bytes()), wanted, "{form}");
        }
        let reason = "no disk".to_owned();
        assert_eq!(read(Report::Failed, b"reason=no%20disk"), Some(CallHome::Failed { reason }));
        assert_eq!(read(Report::Failed, b""), None);
        assert_eq!(read(Report::Installed, b""), Some(CallHome::Installed));
    }
}
