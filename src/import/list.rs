//! The list: one BMC a line, or a table with a header. Pure.
//!
//! Without a header a line is `ADDRESS [NAME [SECRET]]`, as the host lists of ipmitool loops are. With a comma, a semicolon
//! or a tab in its first line it is a table as inventories export it.

use csv::{ReaderBuilder, Trim};

use super::address::address;
use super::columns::{Column, Columns};
use crate::api::bmc_address::BmcAddress;

/// One BMC of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of its line, counted from 1.
    pub line: u64,
    /// Its address as `spec.bmc.address` takes it.
    pub address: String,
    /// What that means.
    pub parsed: BmcAddress,
    /// The name that the list has for the machine.
    pub name: Option<String>,
    /// The Secret that the list names.
    pub secret: Option<String>,
    /// The OSImage that the list names.
    pub image: Option<String>,
    /// The site that the list names.
    pub site: Option<String>,
    /// The MAC address that the machine boots from, as the list has it.
    pub boot_mac: Option<String>,
}

/// A line that is no BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The number of the line.
    pub line: u64,
    /// What is wrong with it, and the way out.
    pub why: String,
}

/// What is in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// In their order.
    pub entries: Vec<Entry>,
    /// In their order.
    pub refused: Vec<Refused>,
    /// Columns that nobody reads.
    pub ignored: Vec<String>,
}

/// A text that is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Nothing in it.
    #[error("the list is empty: write one BMC address a line, or a CSV table with a header")]
    Empty,
    /// A table that does not say where the BMCs are.
    #[error("the header has the columns {0}, and none is an address: call one bmc_address")]
    NoAddress(String),
}

/// Reads a list.
pub fn list(text: &str) -> Result<List, ListError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = text.lines().find(is_content).ok_or(ListError::Empty)?;
    match [b',', b';', b'\t'].into_iter().find(|delimiter| first.as_bytes().contains(delimiter)) {
        Some(delimiter) => table(text, delimiter),
        None => Ok(plain(text)),
    }
}

#[derive(Default)]
struct Words<'a> {
    address: &'a str,
    name: Option<&'a str>,
    secret: Option<&'a str>,
    image: Option<&'a str>,
    site: Option<&'a str>,
    boot_mac: Option<&'a str>,
}

impl List {
    fn add(&mut self, line: u64, words: &Words<'_>) {
        match entry(line, words) {
            Ok(entry) => self.entries.push(entry),
            Err(why) => self.refused.push(Refused { line, why }),
        }
    }
}

fn entry(line: u64, words: &Words<'_>) -> Result<Entry, String> {
    let text = |word: Option<&str>| word.map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned);
    let (address, parsed) = address(words.address.trim()).map_err(|error| error.to_string())?;
    let boot_mac = text(words.boot_mac).map(|written| {
        mac(&written).ok_or_else(|| {
            format!("the MAC address {written:?} is none: write 52:54:00:12:34:56, or leave it out")
        })
    });
    Ok(Entry {
        line,
        address,
        parsed,
        name: text(words.name),
        secret: text(words.secret),
        image: text(words.image),
        site: text(words.site),
        boot_mac: boot_mac.transpose()?,
    })
}

/// A MAC address as the API takes it, from any of its spellings: with colons, hyphens, dots or nothing between.
fn mac(written: &str) -> Option<String> {
    let digits: String = written.chars().filter(|c| !":-.".contains(*c)).collect();
    let is_one = digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let pairs = digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_ascii_lowercase());
    is_one.then(|| pairs.collect::<Vec<_>>().join(":"))
}

fn plain(text: &str) -> List {
    let mut list = List::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [address, rest @ ..] if rest.len() <= 2 => list.add(
                number,
                &Words {
                    address,
                    name: rest.first().copied(),
                    secret: rest.get(1).copied(),
                    ..Words::default()
                },
            ),
            _ => list.refused.push(Refused {
                line: number,
                why: format!(
                    "{} words: write ADDRESS [NAME [SECRET]], or a CSV table with a header",
                    words.len()
                ),
            }),
        }
    }
    list
}

fn table(text: &str, delimiter: u8) -> Result<List, ListError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .comment(Some(b'#'))
        .flexible(true)
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let columns = reader.headers().map(Columns::of).map_err(|_| ListError::Empty)?;
    let Some(at) = columns.place(Column::Address) else {
        return Err(ListError::NoAddress(columns.header()));
    };
    let mut list = List { ignored: columns.ignored(), ..List::default() };
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                list.refused.push(Refused { line, why: format!("it is no line of a CSV table: {error}") });
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |column| record.get(columns.place(column)?);
        let Some(address) = record.get(at).filter(|address| !address.is_empty()) else {
            list.refused
                .push(Refused { line, why: "it has no BMC address: fill it, or remove the line".to_owned() });
            continue;
        };
        list.add(
            line,
            &Words {
                address,
                name: cell(Column::Name),
                secret: cell(Column::Secret),
                image: cell(Column::Image),
                site: cell(Column::Site),
                boot_mac: cell(Column::BootMac),
            },
        );
    }
    Ok(list)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_list_has_an_address_and_maybe_a_name_and_a_secret_a_line() {
        let list =
            list("# rack 1\n10.0.0.1\n\n10.0.0.2 rack1-02   # spare\n10.0.0.3 rack1-03 rack1-bmc\na b c d\n")
                .unwrap();
        let told: Vec<_> =
            list.entries.iter().map(|one| (one.line, one.name.as_deref(), one.secret.as_deref())).collect();
        assert_eq!(
            told,
            [(2, None, None), (4, Some("rack1-02"), None), (5, Some("rack1-03"), Some("rack1-bmc"))]
        );
        assert_eq!(list.refused[0].line, 6);
        assert!(list.refused[0].why.contains("ADDRESS [NAME [SECRET]]"));
    }

    #[test]
    fn a_table_of_an_inventory_is_understood_by_its_header() {
        let text = "Name;Status;OOB IP;Boot MAC;Password\nrack1-01;active;10.0.0.1/24;52:54:00:12:34:56;geheim\n\
                    rack1-02;planned;;;\nrack1-03;active;admin:pw@10.0.0.3;;\n";
        let list = list(text).unwrap();
        assert_eq!(list.entries.len(), 1);
        let one = &list.entries[0];
        assert_eq!((one.line, one.address.as_str()), (2, "redfish+https://10.0.0.1"));
        assert_eq!(one.boot_mac.as_deref(), Some("52:54:00:12:34:56"));
        assert_eq!(list.refused.iter().map(|one| one.line).collect::<Vec<_>>(), [3, 4]);
        assert!(list.refused.iter().all(|one| !one.why.contains("pw")), "{:?}", list.refused);
        assert_eq!(list.ignored, ["Status", "Password"]);
    }

    #[test]
    fn quoted_cells_and_missing_ones_are_no_trouble() {
        let list = list("bmc_address,name,image\n\"10.0.0.1\",\"rack1-01\"\n10.0.0.2,,debian-12\n").unwrap();
        assert_eq!(list.entries[0].image, None);
        assert_eq!(
            (list.entries[1].name.as_deref(), list.entries[1].image.as_deref()),
            (None, Some("debian-12"))
        );
    }

    #[test]
    fn mac_addresses_of_every_spelling_are_written_in_one() {
        for written in ["52:54:00:AB:34:56", "52-54-00-ab-34-56", "5254.00ab.3456", "525400ab3456"] {
            assert_eq!(mac(written).as_deref(), Some("52:54:00:ab:34:56"), "{written}");
        }
        let list = list("bmc,mac\n10.0.0.1,52:54\n").unwrap();
        assert!(list.entries.is_empty() && list.refused[0].why.contains("\"52:54\" is none"), "{list:?}");
    }

    #[test]
    fn what_is_no_list_says_so() {
        assert_eq!(list("# nothing\n\n"), Err(ListError::Empty));
        let error = list("name,rack\na,1\n").unwrap_err().to_string();
        assert!(error.contains("name, rack") && error.contains("bmc_address"), "{error}");
    }
}
