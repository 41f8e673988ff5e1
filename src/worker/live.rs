//! What a worker reads from the API: the `Server` as it stands now, and what belongs to it.
#![expect(clippy::disallowed_types, reason = "the wish and the Secret are read live, and nothing is written")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use crate::api::foreign_status::{self, Record};
use crate::api::{CaRef, CaRefKind, OSImage, Server};
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

    /// The `OSImage`; `None`: there is none of that name.
    pub(super) async fn image(&self, namespace: &str, name: &str) -> Result<Option<OSImage>, Unavailable> {
        self.get("OSImage", namespace, name).await
    }

    /// The Secret; `None`: there is none of that name.
    pub(super) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Unavailable> {
        self.get("Secret", namespace, name).await
    }

    /// The bytes of a CA; `Ok(Err(_))`: it is not there, with the way out.
    pub(super) async fn ca(
        &self,
        namespace: &str,
        reference: &CaRef,
    ) -> Result<Result<Vec<u8>, String>, Unavailable> {
        let CaRef { kind, name, key } = reference;
        let (kind, found) = match kind {
            CaRefKind::ConfigMap => {
                let map: Option<ConfigMap> = self.get("ConfigMap", namespace, name).await?;
                let text = map.as_ref().and_then(|map| map.data.as_ref()?.get(key));
                let bytes = map.as_ref().and_then(|map| map.binary_data.as_ref()?.get(key));
                let found = text.map(|text| text.clone().into_bytes()).or(bytes.map(|bytes| bytes.0.clone()));
                ("ConfigMap", found)
            }
            CaRefKind::Secret => {
                let secret = self.secret(namespace, name).await?;
                let found = secret.and_then(|secret| secret.data?.get(key).map(|bytes| bytes.0.clone()));
                ("Secret", found)
            }
        };
        Ok(found.ok_or_else(|| {
            format!("spec.bmc.tls.caRef: there is no {kind} {name:?} with a key {key:?} in this namespace: create it")
        }))
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
