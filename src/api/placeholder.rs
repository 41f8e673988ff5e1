//! What makers leave in SMBIOS fields that nobody filled. Such a text is no identity: thousands of machines share it.
//! Pure.

/// Texts that stand for "nobody filled this", in lower case with everything but letters and digits taken out.
const TEXTS: [&str; 31] = [
    "assettagtobefilledbyoem",
    "baseboardserialnumber",
    "chassisserialnumber",
    "default",
    "defaultstring",
    "empty",
    "insydecorp",
    "invalid",
    "na",
    "nil",
    "noassettag",
    "none",
    "noserialnumber",
    "notapplicable",
    "notavailable",
    "notpresent",
    "notset",
    "notspecified",
    "null",
    "oem",
    "productserialnumber",
    "serial",
    "serialnumber",
    "systemmanufacturer",
    "systemproductname",
    "systemserialnumber",
    "systemversion",
    "tobefilled",
    "tobefilledbyoem",
    "unknown",
    "unspecified",
];

/// Serial numbers that look like ones and are not.
const SERIALS: [&str; 6] =
    ["0123456789", "1234567890", "123456789", "12345678", "abcdefghij", "c1xxxxxxxxxxxxx"];

/// UUIDs that board makers ship on every board, without hyphens.
const UUIDS: [&str; 4] = [
    "03000200040005000006000700080009",
    "00020003000400050006000700080009",
    "12345678123456781234567812345678",
    "0102030405060708090a0b0c0d0e0f10",
];

/// Whether a text (a manufacturer, a model, a serial number) says nothing.
pub fn is_placeholder(text: &str) -> bool {
    let bare = bare(text);
    bare.is_empty() || (bare.len() >= 4 && is_one_character(&bare)) || TEXTS.contains(&bare.as_str())
}

/// Whether a serial number says nothing.
pub fn is_placeholder_serial(text: &str) -> bool {
    let bare = bare(text);
    is_placeholder(text) || is_one_character(&bare) || SERIALS.contains(&bare.as_str())
}

/// Whether a UUID says nothing, or is none.
pub fn is_placeholder_uuid(text: &str) -> bool {
    let bare = bare(text);
    bare.len() != 32
        || !bare.bytes().all(|byte| byte.is_ascii_hexdigit())
        || is_one_character(&bare)
        || UUIDS.contains(&bare.as_str())
}

fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// `0000…`, `FFFF…`, `XXXX…`: the same letter or digit all over. A single digit may be an honest serial number of a
/// laboratory machine, but not one to tell machines apart by.
fn is_one_character(bare: &str) -> bool {
    let mut chars = bare.chars();
    chars.next().is_some_and(|first| chars.all(|c| c == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_nobody_filled_are_no_identity() {
        for text in [
            "",
            " ",
            "0",
            "0000000000",
            "-",
            "...",
            "To be filled by O.E.M.",
            "TO BE FILLED BY O.E.M",
            "Default string",
            "None",
            "N/A",
            "Not Specified",
            "System Serial Number",
            "0123456789",
            "unknown",
            "Chassis Serial Number",
            "XXXXXXXX",
            "NULL",
            "(null)",
            "Not Available",
        ] {
            assert!(is_placeholder_serial(text), "{text:?}");
        }
    }

    #[test]
    fn real_serial_numbers_are_kept() {
        for text in ["CZJ1234567", "5XK0T93", "S4M3-0123456789", "EMU0011223344", "10", "NONE-1", "2102310"] {
            assert!(!is_placeholder_serial(text), "{text:?}");
        }
    }

    #[test]
    fn uuids_of_nobody_are_no_identity() {
        for text in [
            "",
            "x",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "Not Settable",
            "4c4c4544-0038-5a10-8053",
        ] {
            assert!(is_placeholder_uuid(text), "{text:?}");
        }
        for text in ["4c4c4544-0038-5a10-8053-b4c04f584b30", "4C4C454400385A108053B4C04F584B30"] {
            assert!(!is_placeholder_uuid(text), "{text:?}");
        }
    }

    #[test]
    fn manufacturers_models_and_versions_may_be_short_numbers() {
        assert!(!is_placeholder("0123456789"));
        assert!(!is_placeholder("2"));
        assert!(is_placeholder("System manufacturer"));
    }
}
