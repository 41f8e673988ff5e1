//! Addresses of Ethernet cards. Pure.

use std::fmt;
use std::str::FromStr;

/// The address of one network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

/// Text that is no address of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no MAC address: write six pairs of hexadecimal digits, such as 52-54-00-12-34-56")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    /// Takes hyphens or colons, and either case. Group addresses and all zeroes are nobody's.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut mac = [0; 6];
        let mut pairs = text.split(separator);
        for byte in &mut mac {
            let pair = pairs.next().ok_or(NotAMac)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotAMac);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotAMac)?;
        }
        let group = mac[0] & 1 == 1;
        if pairs.next().is_some() || group || mac == [0; 6] { Err(NotAMac) } else { Ok(Self(mac)) }
    }
}

impl Mac {
    /// Lower case, with colons: as the API, BMCs and the database have it.
    pub fn with_colons(&self) -> String {
        self.to_string().replace('-', ":")
    }
}

impl fmt::Display for Mac {
    /// Lower case, with hyphens, as iPXE's `${mac:hexhyp}` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&pairs.join("-"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hyphens_colons_and_either_case_are_one_address() {
        for text in ["52-54-00-ab-cd-ef", "52:54:00:AB:CD:EF", "52-54-00-AB-cd-EF"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "52-54-00-ab-cd-ef");
        }
    }

    #[test]
    fn what_is_no_address_of_a_card_is_refused() {
        for text in [
            "",
            "52-54-00-ab-cd",
            "52-54-00-ab-cd-ef-00",
            "52-54:00-ab-cd-ef",
            "525400abcdef",
            "52-54-00-ab-cd-+f",
            "52-54-00-ab-cd-é",
            "00-00-00-00-00-00",
            "ff-ff-ff-ff-ff-ff",
            "01-00-5e-00-00-01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_alike(text in "\\PC{0,24}") {
            if let Ok(mac) = text.parse::<Mac>() {
                prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
            }
        }
    }
}
