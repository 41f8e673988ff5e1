//! The manifests: the fewest fields that say what is meant, and what was seen as comments. Pure.

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::list::Entry;
use crate::api::hardware::PowerState;
use crate::api::names::{
    CREDENTIALS_PASSWORD, CREDENTIALS_SECRET_TYPE, CREDENTIALS_USERNAME, GROUP, VERSION,
};
use crate::api::{CaRef, CaRefKind};
use crate::bmc::credentials::Credentials;
use crate::job::Reading;

/// How a manifest says that the BMC's certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing is said: by the CAs that the workers trust.
    Trusted,
    /// By a CA in the cluster.
    Ca(CaRef),
    /// It is the one with this SHA-256 fingerprint.
    Pinned(String),
}

/// A machine that was read.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// Its line.
    pub entry: &'a Entry,
    /// The name of its Server.
    pub name: &'a str,
    /// The namespace of its Server; `None`: that of whoever applies it.
    pub namespace: Option<&'a str>,
    /// The Secret of its BMC.
    pub secret: &'a str,
    /// The image that is on it, if that is known.
    pub image: Option<&'a str>,
    /// The site, if it is not the default one.
    pub site: Option<&'a str>,
    /// How the certificate is judged.
    pub certificate: &'a Certificate,
    /// What was read.
    pub reading: &'a Reading,
}

/// One YAML document that adopts the machine and asks for no change of it.
pub fn manifest(machine: &Machine<'_>) -> Result<String, serde_yaml::Error> {
    let entry = machine.entry;
    let mut bmc = json!({ "address": entry.address, "credentialsRef": { "name": machine.secret } });
    match machine.certificate {
        Certificate::Trusted => {}
        Certificate::Ca(CaRef { kind, name, key }) => {
            let kind = match kind {
                CaRefKind::ConfigMap => "ConfigMap",
                CaRefKind::Secret => "Secret",
            };
            bmc["tls"] = json!({ "caRef": { "kind": kind, "name": name, "key": key } });
        }
        Certificate::Pinned(fingerprint) => bmc["tls"] = json!({ "certificateSHA256": fingerprint }),
    }
    let mut spec = json!({ "bmc": bmc, "provisioning": "Adopt" });
    if let Some(image) = machine.image {
        spec["image"] = json!({ "name": image });
    }
    if let Some(site) = machine.site {
        spec["site"] = json!(site);
    }
    if let Some(mac) = &entry.boot_mac {
        spec["bootMACAddress"] = json!(mac);
    }
    let document = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Server",
        "metadata": metadata(machine.name, machine.namespace),
        "spec": spec,
    });
    Ok(format!("---\n{}{}", comments(machine), serde_yaml::to_string(&document)?))
}

fn metadata(name: &str, namespace: Option<&str>) -> Value {
    match namespace {
        Some(namespace) => json!({ "name": name, "namespace": namespace }),
        None => json!({ "name": name }),
    }
}

fn comments(machine: &Machine<'_>) -> String {
    let reading = machine.reading;
    let hardware = &reading.hardware;
    let kind =
        [&hardware.manufacturer, &hardware.model].map(|text| text.as_deref().unwrap_or_default()).join(" ");
    let count = |number: Option<i64>, unit: &str| number.map(|number| format!("{number} {unit}"));
    let power = match reading.power {
        PowerState::Unknown => None,
        power => Some(power.as_str().to_owned()),
    };
    let machine_is = [
        Some(kind.trim().to_owned()).filter(|kind| !kind.is_empty()),
        reading.identity.serial_number.as_ref().map(|serial| format!("serial number {serial}")),
        reading.identity.uuid.as_ref().map(|uuid| format!("UUID {uuid}")),
        count(hardware.cpus, "processors"),
        count(hardware.memory_gib, "GiB"),
        power,
    ];
    let nics =
        hardware.nics.iter().filter_map(|nic| Some(format!("{} {}", nic.name, nic.mac_address.as_deref()?)));
    let nics: Vec<String> = nics.collect();
    let mut text = format!(
        "# Line {} of the list: {}\n",
        machine.entry.line,
        one_line(&machine_is.into_iter().flatten().collect::<Vec<_>>().join(", "))
    );
    if !nics.is_empty() {
        text = format!("{text}# {}\n", one_line(&nics.join(", ")));
    }
    text
}

/// What a BMC wrote stays in its comment.
fn one_line(text: &str) -> String {
    crate::api::unseen::shown(text)
}

/// The Secret of a BMC, password and all.
pub fn secret_manifest(
    name: &str,
    namespace: Option<&str>,
    credentials: &Credentials,
) -> Result<String, serde_yaml::Error> {
    let document = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(name, namespace),
        "type": CREDENTIALS_SECRET_TYPE,
        "stringData": {
            CREDENTIALS_USERNAME: credentials.username,
            CREDENTIALS_PASSWORD: credentials.password.expose_secret(),
        },
    });
    Ok(format!("---\n# Keep this out of Git.\n{}", serde_yaml::to_string(&document)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::hardware::{Hardware, HardwareIdentity, Nic};
    use crate::api::{DeletionPolicy, Provisioning, Server};
    use crate::import::list;

    #[test]
    fn a_manifest_is_a_valid_server_that_asks_for_no_change() {
        let list = list("bmc,name,bootmac\n10.0.0.1,a,52:54:00:12:34:56\n").unwrap();
        let reading = Reading {
            power: PowerState::PoweredOn,
            identity: HardwareIdentity {
                serial_number: Some("S1\n# x".to_owned()),
                uuid: None,
                system: None,
            },
            hardware: Hardware {
                manufacturer: Some("Contoso".to_owned()),
                cpus: Some(2),
                nics: vec![Nic {
                    name: "NIC.1".to_owned(),
                    mac_address: Some("52:54:00:12:34:56".to_owned()),
                    ..Nic::default()
                }],
                ..Hardware::default()
            },
            last_reset_time: None,
        };
        let machine = Machine {
            entry: &list.entries[0],
            name: "a",
            namespace: Some("lab"),
            secret: "bmc",
            image: Some("debian-12"),
            site: None,
            certificate: &Certificate::Pinned("ab".repeat(32)),
            reading: &reading,
        };
        let text = manifest(&machine).unwrap();
        assert!(text.starts_with("---\n# Line 2 of the list: Contoso, serial number S1 # x, 2 processors, PoweredOn\n# NIC.1 52:54:00:12:34:56\n"), "{text}");
        let server: Server = serde_yaml::from_str(&text).unwrap();
        server.validate_cel().unwrap();
        assert_eq!((server.spec.power, server.spec.deletion_policy), (None, DeletionPolicy::Retain));
        assert_eq!(server.spec.provisioning, Provisioning::Adopt);
        assert_eq!(server.spec.image.unwrap().name, "debian-12");
        assert_eq!(server.spec.boot_mac_address.as_deref(), Some("52:54:00:12:34:56"));
    }

    #[test]
    fn a_secret_is_of_the_type_that_is_asked_for_and_survives_odd_passwords() {
        let credentials =
            Credentials { username: "root".to_owned(), password: "- a: 'b' # \u{e4}".to_owned().into() };
        let text = secret_manifest("bmc", None, &credentials).unwrap();
        let value: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(value["type"], CREDENTIALS_SECRET_TYPE);
        assert_eq!(value["stringData"]["password"], "- a: 'b' # \u{e4}");
    }
}
