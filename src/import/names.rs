//! Names for Servers: valid, unique, and those of the list where it has any. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::bmc_address::BmcHost;

/// What a name can come from.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// The name in the list.
    pub name: Option<&'a str>,
    /// The serial number, where it is one.
    pub serial: Option<&'a str>,
    /// The host of the BMC.
    pub host: &'a BmcHost,
}

/// Longest name of an object, and longest part between two dots.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A name for each, in their order. Names of the list come before made ones, earlier lines before later ones; the same
/// list gives the same names.
pub fn names(wants: &[Want<'_>]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let given: Vec<Option<String>> =
        wants.iter().map(|want| Some(free(valid(want.name?)?, &mut taken))).collect();
    wants
        .iter()
        .zip(given)
        .map(|(want, given)| given.unwrap_or_else(|| free(made(want), &mut taken)))
        .collect()
}

fn made(want: &Want<'_>) -> String {
    let serial = want.serial.and_then(valid);
    serial.unwrap_or_else(|| match want.host {
        BmcHost::Name(name) => name.split('.').next().unwrap_or(name).to_owned(),
        BmcHost::Ip(IpAddr::V4(ip)) => format!("bmc-{}", ip.to_string().replace('.', "-")),
        BmcHost::Ip(IpAddr::V6(ip)) => {
            let parts: Vec<String> = ip.segments().iter().map(|part| format!("{part:x}")).collect();
            format!("bmc-{}", parts.join("-"))
        }
    })
}

/// The text as a name of an object; `None`: nothing of it can stand in one.
fn valid(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let cut = |label: &str| -> String {
        let label: String = label.trim_matches('-').chars().take(LABEL_MAX).collect();
        label.trim_end_matches('-').to_owned()
    };
    let labels: Vec<String> = plain.split('.').map(cut).filter(|label| !label.is_empty()).collect();
    let mut name = labels.join(".");
    name.truncate(NAME_MAX);
    let name = name.trim_end_matches(['-', '.']);
    (!name.is_empty()).then(|| name.to_owned())
}

fn free(name: String, taken: &mut BTreeSet<String>) -> String {
    if taken.insert(name.clone()) {
        return name;
    }
    let numbered = |number: u32| {
        let end = format!("-{number}");
        let last = name.rsplit('.').next().unwrap_or(&name).len();
        let surplus = (last + end.len())
            .saturating_sub(LABEL_MAX)
            .max((name.len() + end.len()).saturating_sub(NAME_MAX));
        let kept = &name[..name.len() - surplus];
        format!("{}{end}", kept.trim_end_matches('-'))
    };
    // There are more numbers than lines.
    let free = (2..=u32::MAX).map(numbered).find(|name| taken.insert(name.clone()));
    free.unwrap_or(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn all(wants: &[(Option<&str>, Option<&str>, &str)]) -> Vec<String> {
        let hosts: Vec<BmcHost> = wants
            .iter()
            .map(|(_, _, host)| host.parse().map_or_else(|_| BmcHost::Name((*host).to_owned()), BmcHost::Ip))
            .collect();
        let wants: Vec<Want<'_>> = wants
            .iter()
            .zip(&hosts)
            .map(|((name, serial, _), host)| Want { name: *name, serial: *serial, host })
            .collect();
        names(&wants)
    }

    #[test]
    fn names_come_from_the_list_then_from_the_serial_number_then_from_the_host() {
        assert_eq!(
            all(&[
                (Some("Rack 1/U07_compute"), Some("S1"), "10.0.0.1"),
                (Some("node.example.com."), None, "10.0.0.2"),
                (None, Some("CZJ 1234"), "10.0.0.3"),
                (None, None, "10.0.0.4"),
                (None, None, "ilo-7.example.com"),
                (Some("---"), None, "2001:db8::1"),
            ]),
            [
                "rack-1-u07-compute",
                "node.example.com",
                "czj-1234",
                "bmc-10-0-0-4",
                "ilo-7",
                "bmc-2001-db8-0-0-0-0-0-1"
            ]
        );
    }

    #[test]
    fn no_two_are_equal_and_the_list_comes_first() {
        assert_eq!(
            all(&[
                (None, Some("a"), "h"),
                (Some("A"), None, "h"),
                (Some("a"), None, "h"),
                (None, Some("a"), "h")
            ]),
            ["a-3", "a", "a-2", "a-4"]
        );
        let long = "x".repeat(300);
        let names = all(&[(Some(&long), None, "h"), (Some(&long), None, "h")]);
        assert!(names.iter().all(|name| name.len() <= 63) && names[0] != names[1], "{names:?}");
    }
}
