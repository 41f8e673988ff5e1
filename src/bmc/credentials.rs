//! User name and password of a BMC, out of a Secret. Pure; neither `Debug` nor any error shows a value.

use hmac::{Hmac, Mac};
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::api::bmc_address::BmcAddress;
use crate::api::names::{BMC_HOSTS, CREDENTIALS_PASSWORD, CREDENTIALS_SECRET_TYPE, CREDENTIALS_USERNAME};
use crate::api::unseen::is_unseen;

/// What a BMC is logged in with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account.
    pub username: String,
    /// Its password; `secrecy` keeps it out of `Debug`.
    pub password: SecretString,
}

/// What is wrong with a credentials Secret. Names the field and the way out, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Another type; a Secret that was not made for this is never sent to a BMC.
    #[error(
        "the Secret of spec.bmc.credentialsRef has the type {0:?}, which cannot be changed in place: delete it and create it with type \
         {CREDENTIALS_SECRET_TYPE}"
    )]
    WrongType(String),
    /// The key is absent.
    #[error("the Secret of spec.bmc.credentialsRef has no key {0:?}: add it")]
    MissingKey(&'static str),
    /// The key is absent, and one is there that may be meant for it.
    #[error(
        "the Secret of spec.bmc.credentialsRef has no key {key:?}, but {near:?}: add it, or rename that one"
    )]
    NearKey {
        /// The key.
        key: &'static str,
        /// What is there instead.
        near: String,
    },
    /// The key holds nothing.
    #[error("the Secret of spec.bmc.credentialsRef has an empty {0:?}: fill it")]
    Empty(&'static str),
    /// The key holds other bytes than text.
    #[error("the Secret of spec.bmc.credentialsRef has a {0:?} that is not UTF-8: write it as UTF-8 text")]
    NotUtf8(&'static str),
    /// The annotation names other hosts.
    #[error(
        "the Secret of spec.bmc.credentialsRef is not for the BMC {0:?}: add this host to its {BMC_HOSTS}"
    )]
    OtherHosts(String),
}

impl Credentials {
    /// Reads a Secret for the BMC at `address`.
    pub fn from_secret(secret: &Secret, address: &BmcAddress) -> Result<Self, CredentialsError> {
        let kind = secret.type_.as_deref().unwrap_or("Opaque");
        if kind != CREDENTIALS_SECRET_TYPE {
            return Err(CredentialsError::WrongType(kind.to_owned()));
        }
        let hosts = secret.metadata.annotations.as_ref().and_then(|all| all.get(BMC_HOSTS));
        if hosts.is_some_and(|hosts| !names_host(hosts, address)) {
            return Err(CredentialsError::OtherHosts(address.claim_key().host));
        }
        Ok(Self {
            username: text(secret, CREDENTIALS_USERNAME)?,
            password: text(secret, CREDENTIALS_PASSWORD)?.into(),
        })
    }
}

impl Credentials {
    /// What is odd about them, without their values: asked where a BMC refused them.
    pub fn blemish(&self) -> Option<String> {
        let parts = [("user name", self.username.as_str()), ("password", self.password.expose_secret())];
        let odd: Vec<String> = parts
            .into_iter()
            .flat_map(|(what, text)| {
                let begins = text.chars().next().filter(|first| is_odd(*first));
                let ends = text.chars().next_back().filter(|last| is_odd(*last));
                let at = |verb: &str, found: char| format!("the {what} {verb} with {}", name_of(found));
                [begins.map(|found| at("begins", found)), ends.map(|found| at("ends", found))]
            })
            .flatten()
            .collect();
        let joined = odd.join(" and ");
        (!odd.is_empty()).then(|| format!("{joined}, which is sent as it is: is that meant?"))
    }
}

/// What nobody sees at an end of a text, and nobody types there.
fn is_odd(c: char) -> bool {
    c.is_whitespace() || is_unseen(c)
}

fn name_of(found: char) -> &'static str {
    match found {
        '\n' => "a line feed",
        '\r' => "a carriage return",
        ' ' => "a space",
        '\t' => "a tab",
        c if c.is_whitespace() => "white space",
        c if c.is_control() => "a control character",
        _ => "a character that is not seen",
    }
}

/// A keyed hash of the user name and the password: tells that they changed, and nothing about them without the key.
/// Other keys of the Secret are no part of it: a note beside a wrong password is no reason to try that one again.
pub fn content_hash(secret: &Secret, key: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length, so the error arm is never reached; all-zero would only mean "unchanged".
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    let part =
        |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.as_slice());
    for part in [CREDENTIALS_USERNAME, CREDENTIALS_PASSWORD].map(|name| part(name).unwrap_or_default()) {
        // Lengths first: no two different contents give the same bytes.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `hosts` is a list of hosts, each with or without port.
fn names_host(hosts: &str, address: &BmcAddress) -> bool {
    let (host, with_port) = (address.host().to_string(), address.claim_key().host);
    hosts
        .split(',')
        .map(|entry| entry.trim().to_ascii_lowercase())
        .any(|entry| entry == host || entry == with_port)
}

fn text(secret: &Secret, key: &'static str) -> Result<String, CredentialsError> {
    let value = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| absent(secret, key))?;
    let text = std::str::from_utf8(&value.0).map_err(|_| CredentialsError::NotUtf8(key))?;
    if text.is_empty() { Err(CredentialsError::Empty(key)) } else { Ok(text.to_owned()) }
}

/// A key that is missing, with the one that may be meant for it: other spellings of the same, and names of other tools.
fn absent(secret: &Secret, key: &'static str) -> CredentialsError {
    let parts: &[&str] = if key == CREDENTIALS_USERNAME { &["user", "login"] } else { &["pass", "pwd"] };
    let mut keys = secret.data.iter().flat_map(|data| data.keys());
    let near = keys.find(|name| {
        let name = name.to_ascii_lowercase();
        parts.iter().any(|part| name.contains(part))
    });
    match near {
        Some(near) => CredentialsError::NearKey { key, near: near.clone() },
        None => CredentialsError::MissingKey(key),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(username: &[u8], password: &[u8]) -> Secret {
        let data = [("username", username), ("password", password)];
        Secret {
            type_: Some(CREDENTIALS_SECRET_TYPE.into()),
            data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).into()),
            ..Secret::default()
        }
    }

    fn read(secret: &Secret) -> Result<Credentials, CredentialsError> {
        Credentials::from_secret(secret, &"redfish+https://bmc.example".parse().unwrap())
    }

    #[test]
    fn a_good_secret_gives_both_and_shows_no_password() {
        let good = read(&secret(b"root", b"canary")).unwrap();
        assert_eq!((good.username.as_str(), good.password.expose_secret()), ("root", "canary"));
        assert!(!format!("{good:?}").contains("canary"));
    }

    #[test]
    fn a_bad_secret_is_refused_by_kind() {
        assert_eq!(read(&secret(b"", b"x")).unwrap_err(), CredentialsError::Empty("username"));
        assert_eq!(read(&secret(b"x", b"\xff")).unwrap_err(), CredentialsError::NotUtf8("password"));
        let mut bad = secret(b"a", b"b");
        bad.data.as_mut().unwrap().remove("password");
        assert_eq!(read(&bad).unwrap_err(), CredentialsError::MissingKey("password"));
        bad.type_ = Some("Opaque".into());
        assert_eq!(read(&bad).unwrap_err(), CredentialsError::WrongType("Opaque".into()));
    }

    #[test]
    fn a_near_key_is_named_where_the_right_one_is_missing() {
        for (there, key, near) in [
            (["Username", "password"], "username", "Username"),
            (["user", "password"], "username", "user"),
            (["username", "PASS"], "password", "PASS"),
            (["username", "bmc-pwd"], "password", "bmc-pwd"),
        ] {
            let mut secret = secret(b"a", b"b");
            secret.data = Some(there.map(|name| (name.to_owned(), ByteString(b"secret".to_vec()))).into());
            let error = read(&secret).unwrap_err();
            assert_eq!(error, CredentialsError::NearKey { key, near: near.into() });
            assert!(!error.to_string().contains("secret\"") && error.to_string().contains(near), "{error}");
        }
        let mut far = secret(b"a", b"b");
        far.data = Some([("note".to_owned(), ByteString(Vec::new()))].into());
        assert_eq!(read(&far).unwrap_err(), CredentialsError::MissingKey("username"));
    }

    #[test]
    fn white_space_at_either_end_is_said_without_the_value() {
        for (username, password, said) in [
            ("root", "canary\n", "the password ends with a line feed"),
            ("root", " canary", "the password begins with a space"),
            ("root\r\n", "canary", "the user name ends with a line feed"),
            (
                "\troot",
                "canary\r",
                "the user name begins with a tab and the password ends with a carriage return",
            ),
        ] {
            let blemish = read(&secret(username.as_bytes(), password.as_bytes())).unwrap().blemish().unwrap();
            assert!(blemish.starts_with(said) && !blemish.contains("canary"), "{blemish}");
        }
        assert_eq!(read(&secret(b"ro ot", b"c an\nary")).unwrap().blemish(), None);
    }

    #[test]
    fn the_annotation_limits_the_hosts() {
        let mut bound = secret(b"a", b"b");
        for (hosts, allowed) in [
            ("other, BMC.example", true),
            ("bmc.example:443", true),
            ("bmc.example:8443", false),
            ("", false),
        ] {
            bound.metadata.annotations = Some([(BMC_HOSTS.to_owned(), hosts.to_owned())].into());
            assert_eq!(read(&bound).is_ok(), allowed, "{hosts:?}");
        }
    }

    #[test]
    fn the_hash_follows_content_and_key_alone() {
        let hash = content_hash(&secret(b"a", b"bc"), b"k");
        assert_eq!(content_hash(&secret(b"a", b"bc"), b"k"), hash);
        assert_ne!(content_hash(&secret(b"ab", b"c"), b"k"), hash);
        assert_ne!(content_hash(&secret(b"a", b"bc"), b"l"), hash);
        let mut noted = secret(b"a", b"bc");
        noted.data.as_mut().unwrap().insert("note".to_owned(), ByteString(b"touched".to_vec()));
        assert_eq!(content_hash(&noted, b"k"), hash);
    }
}
