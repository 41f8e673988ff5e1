//! `kubectl autobuild why`: reads a Server and what belongs to it with the rights of whoever asks, and prints the page
//! of [`crate::why`]. It reads only, and of the Secret no more than its metadata.
#![expect(clippy::disallowed_types, reason = "it reads from the API server as the user who runs it")]
#![expect(clippy::disallowed_methods, reason = "ages are those of the moment at which somebody looks")]

use std::fmt::Debug;
use std::io::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::connect::ClusterError;
use super::kubeconfig;
use crate::api::bmc_address::BmcAddress;
use crate::api::condition::{ConditionType, find};
use crate::api::{OSImage, Reason, Server, names};
use crate::causes::causes;
use crate::why::{Facts, Form, Holder, Ink, Looked, NamespaceSeen, SecretSeen, Told, near, why};

/// Columns where the output is no terminal.
const WIDTH: usize = 100;

/// Flags of `kubectl autobuild why`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Names of Servers, or server/NAME as kubectl prints them
    #[arg(required = true, value_name = "NAME")]
    servers: Vec<String>,
    #[command(flatten)]
    cluster: kubeconfig::ClusterArgs,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("there is no Server {name:?} in namespace {namespace}{beside}")]
    NotThere { name: String, namespace: String, beside: String },
    #[error(
        "the Server {name:?} in namespace {namespace} cannot be read: {why}; your user needs the right to get servers.autobuild.dev"
    )]
    Refused { name: String, namespace: String, why: String },
    #[error("the API server cannot be asked: {0}; check --kubeconfig and --context")]
    Api(String),
    #[error(
        "the Server {name:?} cannot be understood: {why}; use the kubectl-autobuild of the release that the controller runs"
    )]
    Release { name: String, why: String },
    #[error("the page cannot be written: {0}")]
    Write(std::io::Error),
}

/// Prints a page for each name, in their order. One that is not there does not keep the others back.
#[expect(clippy::print_stderr, reason = "an error is for the person at the terminal")]
pub async fn run(args: Args) -> Result<(), Error> {
    let (client, namespace) = kubeconfig::connect(&args.cluster).await?;
    let form = form();
    let mut first = true;
    let mut last_error = None;
    for name in &args.servers {
        match facts(&client, &namespace, bare(name)).await {
            Ok(facts) => {
                let gap = if first { "" } else { "\n" };
                first = false;
                match write!(std::io::stdout(), "{gap}{}", why(&facts, form)) {
                    // Whoever reads has seen enough.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(Error::Write)?,
                }
            }
            Err(error) => {
                if let Some(before) = last_error.replace(error) {
                    eprintln!("error: {before}");
                }
            }
        }
    }
    last_error.map_or(Ok(()), Err)
}

/// `server/NAME` is how kubectl writes it.
fn bare(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, name)| name)
}

fn form() -> Form {
    let stdout = std::io::stdout();
    let width = terminal_size::terminal_size_of(&stdout).map_or(WIDTH, |(width, _)| usize::from(width.0));
    let ink = match anstream::AutoStream::choice(&stdout) {
        anstream::ColorChoice::Never => Ink::Plain,
        _ => Ink::Coloured,
    };
    Form { width, ink }
}

async fn facts(client: &Client, namespace: &str, name: &str) -> Result<Facts, Error> {
    let servers: Api<Server> = Api::namespaced(client.clone(), namespace);
    let server = match servers.get_opt(name).await {
        Ok(Some(server)) => server,
        Ok(None) => return Err(not_there(client, namespace, name).await),
        Err(kube::Error::Api(status)) => {
            let (name, namespace) = (name.to_owned(), namespace.to_owned());
            return Err(Error::Refused { name, namespace, why: status.message });
        }
        Err(kube::Error::SerdeError(error)) => {
            return Err(Error::Release { name: name.to_owned(), why: error.to_string() });
        }
        Err(error) => return Err(Error::Api(causes(&error))),
    };
    let (image, secret, namespace_seen, holders, events) = tokio::join!(
        image(client, namespace, &server),
        secret(client, namespace, &server),
        namespace_seen(client, namespace),
        holders(client, &server),
        events(client, namespace, &server)
    );
    let now = Timestamp::now();
    Ok(Facts { server, image, secret, namespace: namespace_seen, holders, events, now })
}

/// What there is beside the name that is not there. Rights that are missing make the message shorter, no more.
async fn not_there(client: &Client, namespace: &str, name: &str) -> Error {
    let here: Api<Server> = Api::namespaced(client.clone(), namespace);
    let there = here.list_metadata(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    let names: Vec<String> = there.into_iter().filter_map(|one| one.metadata.name).collect();
    let mut beside = match near(name, names.iter().map(String::as_str)).join(", ") {
        near if near.is_empty() => format!(": it has {} Servers, and none of a name like that", names.len()),
        near => format!("; there is {near}"),
    };
    let everywhere: Api<Server> = Api::all(client.clone());
    let same = ListParams::default().fields(&format!("metadata.name={name}"));
    let elsewhere = everywhere.list_metadata(&same).await.map(|list| list.items).unwrap_or_default();
    let elsewhere: Vec<String> = elsewhere.into_iter().filter_map(|one| one.metadata.namespace).collect();
    if !elsewhere.is_empty() {
        beside = format!("; there is one in namespace {}: give -n", elsewhere.join(", "));
    }
    Error::NotThere { name: name.to_owned(), namespace: namespace.to_owned(), beside }
}

async fn image(client: &Client, namespace: &str, server: &Server) -> Looked<OSImage> {
    let Some(wish) = &server.spec.image else { return Looked::NotNamed };
    get(client, namespace, &wish.name).await
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Looked<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let found = Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await;
    looked(found)
}

fn looked<T>(found: kube::Result<Option<T>>) -> Looked<T> {
    match found {
        Ok(Some(found)) => Looked::Found(found),
        Ok(None) => Looked::Missing,
        Err(kube::Error::Api(status)) => Looked::Refused(status.message),
        Err(error) => Looked::Refused(causes(&error)),
    }
}

async fn secret(client: &Client, namespace: &str, server: &Server) -> Looked<SecretSeen> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let name = &server.spec.bmc.credentials_ref.name;
    let found = secrets.get_metadata_opt(name).await;
    looked(found.map(|found| found.map(|secret| seen(&secret.metadata))))
}

/// Whether the namespace is being deleted. Who may not read it is told less, no more.
async fn namespace_seen(client: &Client, namespace: &str) -> Looked<NamespaceSeen> {
    let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await;
    let seen = |metadata: &ObjectMeta| NamespaceSeen {
        deleted: metadata.deletion_timestamp.as_ref().map(|at| at.0),
    };
    looked(found.map(|found| found.map(|namespace| seen(&namespace.metadata))))
}

/// How many Servers are read at a time.
const PAGE: u32 = 500;

/// The other Servers with the BMC of one that is refused, as far as its user may see them. Who may not is told less, no more.
async fn holders(client: &Client, server: &Server) -> Looked<Vec<Holder>> {
    let stalled = server.status.as_ref().and_then(|status| find(&status.conditions, ConditionType::Stalled));
    if stalled.is_none_or(|stalled| stalled.reason != Reason::BMCClaimed.as_str()) {
        return Looked::NotNamed;
    }
    let host = |server: &Server| BmcAddress::parse(&server.spec.bmc.address).ok().map(|at| at.claim_key());
    let Some(ours) = host(server) else { return Looked::NotNamed };
    let everywhere: Api<Server> = Api::all(client.clone());
    let mut found = Vec::new();
    let mut pages = ListParams::default().limit(PAGE);
    loop {
        let list = match everywhere.list(&pages).await {
            Ok(list) => list,
            Err(error) => return looked(Err(error)),
        };
        let overlaps = |other: &Server| {
            host(other).is_some_and(|other| {
                let systems = [&other.system, &ours.system];
                other.host == ours.host && (other == ours || systems.iter().any(|system| system.is_empty()))
            })
        };
        let others = list.items.iter().filter(|other| other.metadata.uid != server.metadata.uid);
        found.extend(others.filter(|other| overlaps(other)).map(|other| Holder {
            namespace: other.metadata.namespace.clone().unwrap_or_default(),
            name: other.metadata.name.clone().unwrap_or_default(),
        }));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => pages = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Looked::Found(found),
        }
    }
}

fn seen(metadata: &ObjectMeta) -> SecretSeen {
    let written = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    let changed = written.chain(&metadata.creation_timestamp).map(|time| time.0).max();
    let hosts = metadata.annotations.as_ref().and_then(|all| all.get(names::BMC_HOSTS)).cloned();
    SecretSeen { changed, hosts }
}

async fn events(client: &Client, namespace: &str, server: &Server) -> Looked<Vec<Told>> {
    let Some(uid) = &server.metadata.uid else { return Looked::NotNamed };
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let found = events.list(&about).await;
    looked(found.map(|found| Some(found.items.into_iter().map(Told::from_event).collect())))
}
