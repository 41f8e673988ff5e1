//! What a body that is no JSON says: its first line, or the title of a page. Pure.

/// What of a body is looked at, in bytes.
const LOOKED_AT: usize = 4096;

/// The first line with something in it, without tags; `None`: there is none, or it is no text at all.
pub(super) fn line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body.get(..LOOKED_AT).unwrap_or(body));
    let odd =
        text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER || (c.is_control() && !c.is_whitespace()));
    if odd.count() > 4 {
        return None;
    }
    let page = text.trim_start().starts_with('<');
    let told = if page {
        between(&text, "<title", "</title").unwrap_or_else(|| text.to_string())
    } else {
        text.into()
    };
    let plain = if page { without_tags(&told) } else { told };
    plain.lines().map(str::trim).find(|line| line.chars().any(char::is_alphanumeric)).map(str::to_owned)
}

/// What stands between the end of the tag `open` and the tag `close`.
fn between(text: &str, open: &str, close: &str) -> Option<String> {
    let low = text.to_ascii_lowercase();
    let start = low.find(open)?;
    let start = start + low.get(start..)?.find('>')? + 1;
    let end = start + low.get(start..)?.find(close)?;
    text.get(start..end).filter(|title| !title.trim().is_empty()).map(str::to_owned)
}

fn without_tags(text: &str) -> String {
    let mut inside = false;
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                plain.push('\n');
            }
            _ if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_its_title_and_a_text_its_first_line() {
        for (body, said) in [
            (&b"\r\n  Firmware update in progress\r\nmore\r\n"[..], Some("Firmware update in progress")),
            (
                b"<!DOCTYPE html>\n<HTML><head><TITLE lang=en>503 Busy</TITLE></head><body>x</body>",
                Some("503 Busy"),
            ),
            (b"<html><body><h1>Try again</h1>later</body></html>", Some("Try again")),
            (b"<html><title> </title><p>Not now", Some("Not now")),
            (b"", None),
            (b"---\n", None),
            (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xfe\xfd\xfc", None),
            (b"<", None),
        ] {
            assert_eq!(line(body).as_deref(), said, "{}", String::from_utf8_lossy(body));
        }
    }
}
