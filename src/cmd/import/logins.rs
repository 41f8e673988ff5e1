//! Which user name and password go with which Secret: out of manifests, or out of the environment.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize as _;

use crate::api::bmc_address::BmcAddress;
use crate::api::names::{CREDENTIALS_PASSWORD, CREDENTIALS_SECRET_TYPE, CREDENTIALS_USERNAME};
use crate::bmc::credentials::{Credentials, CredentialsError};

/// The variables of the Secret that `--secret` names.
const VARIABLES: [(&str, &str); 2] =
    [(CREDENTIALS_USERNAME, "AUTOBUILD_BMC_USERNAME"), (CREDENTIALS_PASSWORD, "AUTOBUILD_BMC_PASSWORD")];

/// Why there are no logins.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "--secrets-file {path} cannot be read: {why}; give the manifests of the credentials Secrets (YAML)"
    )]
    File { path: String, why: String },
    #[error(
        "there is no user name and password: set AUTOBUILD_BMC_USERNAME and AUTOBUILD_BMC_PASSWORD, or give --secrets-file"
    )]
    None,
}

/// Why there is none for one BMC.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLogin {
    #[error("the Secret {0:?} is not in --secrets-file, and not the one of --secret: add it there")]
    Unknown(String),
    #[error("the Secret {0:?}: {1}")]
    Bad(String, CredentialsError),
}

/// Secrets by their names.
pub(super) struct Logins(BTreeMap<String, Secret>);

impl Logins {
    /// What the file and the environment have. The environment wins: it is what was typed last.
    pub(super) fn load(file: Option<&Path>, default: &str) -> Result<Self, Error> {
        let mut secrets = file.map(read).transpose()?.unwrap_or_default();
        let given = VARIABLES.map(|(key, variable)| Some((key.to_owned(), std::env::var(variable).ok()?)));
        if let [Some(username), Some(password)] = given {
            let data = [username, password].map(|(key, value)| (key, ByteString(value.into_bytes())));
            let secret = Secret {
                type_: Some(CREDENTIALS_SECRET_TYPE.to_owned()),
                data: Some(data.into()),
                ..Secret::default()
            };
            secrets.insert(default.to_owned(), secret);
        }
        if secrets.is_empty() { Err(Error::None) } else { Ok(Self(secrets)) }
    }

    /// What the BMC at that address is logged in with.
    pub(super) fn of(&self, name: &str, address: &BmcAddress) -> Result<Credentials, NoLogin> {
        let secret = self.0.get(name).ok_or_else(|| NoLogin::Unknown(name.to_owned()))?;
        Credentials::from_secret(secret, address).map_err(|error| NoLogin::Bad(name.to_owned(), error))
    }

    /// The login of a Secret, whichever hosts it is for.
    pub(super) fn any_of(&self, name: &str) -> Option<Credentials> {
        let data = self.0.get(name)?.data.as_ref()?;
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        Some(Credentials {
            username: text(CREDENTIALS_USERNAME)?,
            password: text(CREDENTIALS_PASSWORD)?.into(),
        })
    }
}

/// Every Secret of a file, whatever else is in it.
fn read(path: &Path) -> Result<BTreeMap<String, Secret>, Error> {
    let wrong = |why: String| Error::File { path: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut secrets = BTreeMap::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        // What the parser says of a document may repeat a value, and values are passwords here.
        let value = serde_json::Value::deserialize(document).map_err(|error| {
            wrong(format!("it is no YAML near line {}", error.location().map_or(0, |at| at.line())))
        })?;
        if value["kind"] != "Secret" {
            continue;
        }
        let mut secret: Secret = serde_json::from_value(value)
            .map_err(|_| wrong("a document in it is no valid Secret".to_owned()))?;
        let written = secret.string_data.take().unwrap_or_default();
        let written = written.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes())));
        secret.data.get_or_insert_default().extend(written);
        let name = secret.metadata.name.clone().unwrap_or_default();
        secrets.insert(name, secret);
    }
    Ok(secrets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const FILE: &str = r"
apiVersion: v1
kind: ConfigMap
metadata: {name: bmc}
data: {username: not-this, password: nor-this}
---
apiVersion: v1
kind: Secret
type: autobuild.dev/bmc-credentials
metadata: {name: bmc}
stringData: {username: admin, password: hunter2}
---
apiVersion: v1
kind: Secret
type: autobuild.dev/bmc-credentials
metadata: {name: rack2, annotations: {autobuild.dev/bmc-hosts: 192.0.2.2}}
data: {username: cm9vdA==, password: Y2FsdmlO}
---
apiVersion: v1
kind: Secret
metadata: {name: tls}
stringData: {username: a, password: b}
";

    fn load(text: &str) -> Result<Logins, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets.yaml");
        std::fs::write(&file, text).unwrap();
        Logins::load(Some(&file), "bmc")
    }

    fn login(logins: &Logins, name: &str, host: &str) -> Result<(String, String), String> {
        let address = BmcAddress::parse(&format!("redfish+https://{host}")).unwrap();
        let credentials = logins.of(name, &address).map_err(|error| error.to_string())?;
        Ok((credentials.username, credentials.password.expose_secret().to_owned()))
    }

    #[test]
    fn every_secret_of_a_file_is_found_by_its_name_and_nothing_else() {
        let logins = load(FILE).unwrap();
        assert_eq!(login(&logins, "bmc", "192.0.2.1"), Ok(("admin".into(), "hunter2".into())));
        assert_eq!(login(&logins, "rack2", "192.0.2.2"), Ok(("root".into(), "calviN".into())));
        let elsewhere = login(&logins, "rack2", "192.0.2.1").unwrap_err();
        assert!(
            elsewhere.contains("\"rack2\"") && elsewhere.contains("is not for the BMC \"192.0.2.1"),
            "{elsewhere}"
        );
        assert!(login(&logins, "tls", "192.0.2.1").unwrap_err().contains("has the type \"Opaque\""));
        assert!(login(&logins, "none", "192.0.2.1").unwrap_err().contains("is not in --secrets-file"));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_no_password_of_it_is_repeated() {
        let broken = "kind: Secret\nstringData: {password: hunter2\nmetadata: [";
        let odd = "kind: Secret\nmetadata: {name: bmc}\ndata: {password: hunter2-is-no-base64!}";
        for text in [broken, odd] {
            let error = load(text).err().unwrap().to_string();
            assert!(error.contains("secrets.yaml") && !error.contains("hunter2"), "{error}");
        }
        let missing = Logins::load(Some(Path::new("no/such/file.yaml")), "bmc").err().unwrap().to_string();
        assert!(missing.contains("--secrets-file no/such/file.yaml cannot be read"), "{missing}");
        assert!(load("kind: ConfigMap").err().unwrap().to_string().contains("there is no user name"));
    }
}
