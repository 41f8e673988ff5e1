//! What a machine says of itself, by what its firmware has in SMBIOS, compared with what its BMC told. Pure.

use url::form_urlencoded;

use super::reported::reported;
use crate::api::hardware::HardwareIdentity;
use crate::api::placeholder::{is_placeholder_serial, is_placeholder_uuid};

/// UUID and serial number of the system. Absent: not said, or a text that a maker left there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smbios {
    uuid: Option<String>,
    serial: Option<String>,
}

impl Smbios {
    /// Out of a query or a form, by the names `uuid` and `serial`.
    pub fn of(pairs: &[u8]) -> Self {
        let field = |name: &str| {
            let mut fields = form_urlencoded::parse(pairs);
            let value = fields.find_map(|(key, value)| (key == name).then(|| reported(&value)))?;
            (!value.is_empty()).then_some(value)
        };
        Self {
            uuid: field("uuid").filter(|uuid| !is_placeholder_uuid(uuid)),
            serial: field("serial").filter(|serial| !is_placeholder_serial(serial)),
        }
    }

    /// Whether nothing is said.
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// What tells this machine from the one that the BMC told of; `None`: nothing does. The UUID decides where both have one:
    /// some BMCs call the number of a board what firmware calls that of the system. Else the serial number.
    pub fn differs_from(&self, known: &HardwareIdentity) -> Option<String> {
        let known_uuid = known.uuid.as_deref().filter(|uuid| !is_placeholder_uuid(uuid));
        let known_serial = known.serial_number.as_deref().filter(|serial| !is_placeholder_serial(serial));
        let (what, said, wanted, is_same) = match ((&self.uuid, known_uuid), (&self.serial, known_serial)) {
            ((Some(said), Some(wanted)), _) => ("UUID", said, wanted, is_same_uuid(said, wanted)),
            (_, (Some(said), Some(wanted))) => {
                ("serial number", said, wanted, said.trim().eq_ignore_ascii_case(wanted.trim()))
            }
            _ => return None,
        };
        (!is_same)
            .then(|| format!("it says that its {what} is {said}, and the BMC of the Server told of {wanted}"))
    }
}

/// SMBIOS has the first three fields of a UUID with their bytes the other way round, and not every firmware and BMC minds.
fn is_same_uuid(a: &str, b: &str) -> bool {
    match (digits(a), digits(b)) {
        (Some(a), Some(b)) => a == b || swapped(&a) == b,
        _ => false,
    }
}

fn digits(uuid: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        uuid.bytes().filter(u8::is_ascii_hexdigit).map(|digit| digit.to_ascii_lowercase()).collect();
    (digits.len() == 32).then_some(digits)
}

fn swapped(digits: &[u8]) -> Vec<u8> {
    let turned = |from: usize, to: usize| digits[from..to].chunks(2).rev().flatten().copied();
    turned(0, 8).chain(turned(8, 12)).chain(turned(12, 16)).chain(digits[16..].iter().copied()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use rstest::rstest;

    use super::*;

    const UUID: &str = "4c4c4544-0038-5a10-8053-b4c04f584b30";

    fn known(uuid: Option<&str>, serial: Option<&str>) -> HardwareIdentity {
        HardwareIdentity {
            uuid: uuid.map(str::to_owned),
            serial_number: serial.map(str::to_owned),
            system: None,
        }
    }

    #[rstest]
    #[case::the_same("uuid=4c4c4544-0038-5a10-8053-b4c04f584b30&serial=S1")]
    #[case::another_case("uuid=4C4C4544-0038-5A10-8053-B4C04F584B30&serial=s1")]
    #[case::bytes_the_other_way_round("uuid=44454c4c-3800-105a-8053-b4c04f584b30")]
    #[case::without_hyphens("uuid=4c4c454400385a108053b4c04f584b30")]
    #[case::the_uuid_decides("uuid=4c4c4544-0038-5a10-8053-b4c04f584b30&serial=board-7")]
    #[case::nothing("")]
    #[case::an_older_first_script("x=y")]
    #[case::empty("uuid=&serial=")]
    #[case::what_makers_leave("uuid=03000200-0400-0500-0006-000700080009&serial=To+be+filled+by+O.E.M.")]
    #[case::spaces_around("serial=+S1+")]
    fn a_machine_that_may_be_the_one_is_let_in(#[case] query: &str) {
        let smbios = Smbios::of(query.as_bytes());
        assert_eq!(smbios.differs_from(&known(Some(UUID), Some("S1"))), None, "{smbios:?}");
    }

    #[rstest]
    #[case::another_uuid("uuid=4c4c4544-0038-5a10-8053-b4c04f584b31&serial=S1", "UUID")]
    #[case::another_serial("serial=S2", "serial number")]
    #[case::a_placeholder_and_another_serial("uuid=ffffffff-ffff-ffff-ffff-ffffffffffff&serial=S2", "S2")]
    #[case::percent("serial=S%202", "S 2")]
    fn another_machine_is_told_by_what_differs(#[case] query: &str, #[case] said: &str) {
        let differs = Smbios::of(query.as_bytes()).differs_from(&known(Some(UUID), Some("S1"))).unwrap();
        assert!(differs.contains(said), "{differs}");
    }

    #[test]
    fn where_the_bmc_told_nothing_nothing_is_compared() {
        let smbios = Smbios::of(b"uuid=4c4c4544-0038-5a10-8053-b4c04f584b31&serial=S2");
        assert_eq!(smbios.differs_from(&HardwareIdentity::default()), None);
        assert_eq!(smbios.differs_from(&known(Some("Not Settable"), Some("None"))), None);
        assert!(Smbios::of(b"").is_silent() && !smbios.is_silent());
    }

    #[test]
    fn what_a_machine_says_is_one_short_line() {
        let query = format!("serial={}%0A%1b", "x1".repeat(2500));
        let differs = Smbios::of(query.as_bytes()).differs_from(&known(None, Some("S1"))).unwrap();
        assert!(differs.len() < 400 && !differs.contains(['\n', '\u{1b}']), "{differs}");
    }
}
