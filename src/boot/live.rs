//! What the boot service reads from the API: the `Server` and the `OSImage` as they stand now, and their data.
#![expect(clippy::disallowed_types, reason = "what is served is read live, and nothing is written")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use crate::api::foreign_status::{self, Record};
use crate::api::{DataRef, DataRefKind, OSImage, Server, names};
use crate::causes::causes;

/// Longest time of one read.
const READ: Duration = Duration::from_secs(10);

/// The API did not give an answer to decide on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API server gave no {what}: {why}")]
pub(super) struct Unavailable {
    what: &'static str,
    why: String,
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    /// The value.
    pub(super) bytes: Vec<u8>,
    /// The object and its version.
    pub(super) version: String,
}

/// Why a reference leads to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// There is no such object or no such key.
    Missing,
    /// A Secret that is for something else.
    OtherType {
        /// Its type.
        found: String,
        /// The type that is read.
        wanted: &'static str,
    },
    /// Nobody knows.
    Unavailable(Unavailable),
}

impl From<Unavailable> for Unread {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

/// Reads by name, in the namespace of a server.
#[derive(Clone)]
pub struct LiveReader {
    client: Client,
}

impl LiveReader {
    /// Reads through this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The server, without what others than the controller wrote into its status; `None`: there is none of that name.
    pub(super) async fn server(&self, namespace: &str, name: &str) -> Result<Option<Server>, Unavailable> {
        let mut server: Option<Server> = self.get("Server", namespace, name).await?;
        if let Some(server) = &mut server {
            foreign_status::ignore(server, Record::Kept);
        }
        Ok(server)
    }

    /// The image; `None`: there is none of that name.
    pub(super) async fn image(&self, namespace: &str, name: &str) -> Result<Option<OSImage>, Unavailable> {
        self.get("OSImage", namespace, name).await
    }

    /// The install data that a reference names. A ConfigMap has none that is secret, whoever may read it.
    pub(super) async fn data(&self, namespace: &str, reference: &DataRef) -> Result<Value, Unread> {
        let DataRef { kind, name, key } = reference;
        match kind {
            DataRefKind::ConfigMap => {
                let map: Option<ConfigMap> = self.get("ConfigMap", namespace, name).await?;
                let text = map.as_ref().and_then(|map| map.data.as_ref()?.get(key));
                let bytes = map.as_ref().and_then(|map| map.binary_data.as_ref()?.get(key));
                let bytes = text.map(|text| text.clone().into_bytes()).or(bytes.map(|bytes| bytes.0.clone()));
                // Its SHA-256 is in the image.
                Ok(Value { bytes: bytes.ok_or(Unread::Missing)?, version: format!("ConfigMap/{name}/{key}") })
            }
            DataRefKind::Secret => {
                self.secret_key((namespace, name), key, names::INSTALL_DATA_SECRET_TYPE).await
            }
        }
    }

    /// The value of a key of a Secret that is meant for it: of no other Secret is anything handed out.
    pub(super) async fn secret_key(
        &self,
        (namespace, name): (&str, &str),
        key: &str,
        kind: &'static str,
    ) -> Result<Value, Unread> {
        let secret: Secret = self.get("Secret", namespace, name).await?.ok_or(Unread::Missing)?;
        let found = secret.type_.unwrap_or_else(|| "Opaque".to_owned());
        if found != kind {
            return Err(Unread::OtherType { found, wanted: kind });
        }
        let bytes = secret.data.and_then(|mut data| data.remove(key)).ok_or(Unread::Missing)?.0;
        let of = |text: Option<String>| text.unwrap_or_default();
        let (uid, version) = (of(secret.metadata.uid), of(secret.metadata.resource_version));
        Ok(Value { bytes, version: format!("Secret/{name}/{key}/{uid}/{version}") })
    }

    async fn get<K>(&self, what: &'static str, namespace: &str, name: &str) -> Result<Option<K>, Unavailable>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(READ, api.get_opt(name)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(Unavailable { what, why: reason(&error) }),
            Err(_) => Err(Unavailable { what, why: format!("no answer within {} s", READ.as_secs()) }),
        }
    }
}

/// What the API server said, without any object's content.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        kube::Error::SerdeError(_) => "the object is not one that this release can read".to_owned(),
        other => causes(other),
    }
}
