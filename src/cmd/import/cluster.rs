//! `--check`: what the cluster has already, and what it lacks.
#![expect(clippy::disallowed_types, reason = "it reads from the API server as the user who runs it")]

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client};

use super::{Args, Imported};
use crate::api::{OSImage, Server};
use crate::causes::causes;
use crate::cmd::connect::ClusterError;
use crate::cmd::kubeconfig;
use crate::import::{Planned, objections};

/// Why the cluster cannot be compared with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "the Servers of namespace {namespace} cannot be listed: {why}; your user needs the right to list servers.autobuild.dev"
    )]
    List { namespace: String, why: String },
}

/// Everything that stands in the way, one line each.
pub(super) async fn check(args: &Args, imported: &[Imported]) -> Result<Vec<String>, Error> {
    let (client, namespace) = kubeconfig::connect(&args.cluster).await?;
    let servers = servers(&client, &namespace).await?;
    let mut told = Vec::new();
    for one in imported {
        let planned = Planned {
            namespace: &namespace,
            name: &one.name,
            address: &one.entry.parsed,
            identity: &one.found.reading.identity,
        };
        let found = objections(planned, &servers);
        told.extend(found.into_iter().map(|why| format!("line {} ({}): {why}", one.entry.line, one.name)));
    }
    let images: BTreeSet<&str> = imported.iter().filter_map(|one| one.image.as_deref()).collect();
    for name in images {
        let found = Api::<OSImage>::namespaced(client.clone(), &namespace).get_opt(name).await;
        told.extend(missing("OSImage", name, &namespace, found.map(|found| found.is_some())));
    }
    let secrets: BTreeSet<&str> = imported.iter().map(|one| one.secret.as_str()).collect();
    for name in secrets {
        let found = Api::<Secret>::namespaced(client.clone(), &namespace).get_metadata_opt(name).await;
        told.extend(missing("Secret", name, &namespace, found.map(|found| found.is_some())));
    }
    Ok(told)
}

/// Those of all namespaces, or of this one where no more may be seen: a BMC is held by one Server, wherever that is.
async fn servers(client: &Client, namespace: &str) -> Result<Vec<Server>, Error> {
    let all = ListParams::default();
    if let Ok(list) = Api::<Server>::all(client.clone()).list(&all).await {
        return Ok(list.items);
    }
    super::say(&format!(
        "only the Servers of namespace {namespace} may be seen: those of others are not compared with"
    ));
    let list = Api::<Server>::namespaced(client.clone(), namespace).list(&all).await;
    let list = list.map_err(|error| Error::List { namespace: namespace.to_owned(), why: causes(&error) })?;
    Ok(list.items)
}

fn missing(kind: &str, name: &str, namespace: &str, found: kube::Result<bool>) -> Option<String> {
    match found {
        Ok(true) => None,
        Ok(false) => Some(format!("there is no {kind} {name:?} in namespace {namespace}: create it first")),
        Err(error) => {
            super::say(&format!("the {kind} {name:?} could not be looked at: {}", causes(&error)));
            None
        }
    }
}
