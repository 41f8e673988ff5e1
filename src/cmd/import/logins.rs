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
