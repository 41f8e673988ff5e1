//! Misbehaviours of how an answer is written: compressed, with a mark before it, or with everything too long in it.

use std::io::Write as _;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use super::fault::Behaviour;

/// What clients find their way by stays as it is.
const KEPT: &[&str] = &["target", "PowerState", "Actions", "Boot", "Links", "MediaTypes", "error"];

/// Every text of a document longer than anybody keeps, with what no text should hold; every number larger than any machine's.
pub(super) fn overdone(value: Value, faults: &[Behaviour]) -> Value {
    let asked = faults.iter().find_map(|fault| match fault {
        Behaviour::LongTexts { length } => Some(*length),
        _ => None,
    });
    match asked {
        Some(length) => long(value, "", usize::try_from(length).unwrap_or(usize::MAX)),
        None => value,
    }
}

fn long(value: Value, name: &str, length: usize) -> Value {
    if name.contains('@') || KEPT.contains(&name) {
        return value;
    }
    match value {
        // Hexadecimal digits stay so: they are an address or a UUID of too many bytes.
        Value::String(text) if matches!(name, "MACAddress" | "PermanentMACAddress" | "UUID") => {
            json!(text.chars().cycle().take(length).collect::<String>())
        }
        Value::String(text) => {
            let odd = "\u{0}\u{1b}[31m\u{1f980}\u{202e}\r\n'\"\\%s";
            json!(text.chars().chain(odd.chars()).cycle().take(length.max(text.len())).collect::<String>())
        }
        Value::Number(_) => json!(u64::MAX),
        Value::Array(all) => all.into_iter().map(|one| long(one, name, length)).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            Value::Object(members.map(|(name, one)| (name.clone(), long(one, &name, length))).collect())
        }
        other => other,
    }
}

/// The bytes of a body as they go over the wire, and the encoding that its head names.
pub(super) fn written(bytes: Bytes, faults: &[Behaviour]) -> (Bytes, Option<String>) {
    let mut written = (bytes, None);
    for fault in faults {
        match fault {
            Behaviour::ByteOrderMark {} => {
                written.0 = [&b"\xef\xbb\xbf"[..], &written.0].concat().into();
            }
            Behaviour::Compressed { encoding } => {
                let bytes = match encoding.as_str() {
                    "gzip" => {
                        let mut to = GzEncoder::new(Vec::new(), Compression::default());
                        to.write_all(&written.0).and_then(|()| to.finish())
                    }
                    "deflate" => {
                        let mut to = ZlibEncoder::new(Vec::new(), Compression::default());
                        to.write_all(&written.0).and_then(|()| to.finish())
                    }
                    _ => Ok(written.0.to_vec()),
                };
                // Nothing fails that is written into memory.
                written = (bytes.unwrap_or_default().into(), Some(encoding.clone()));
            }
            _ => {}
        }
    }
    written
}
