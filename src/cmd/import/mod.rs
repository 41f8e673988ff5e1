//! `autobuild import`: from a list of BMCs to the manifests of a fleet that exists. A person's command, which reads BMCs and
//! changes no machine: see [`crate::import`].

mod args;
mod cluster;
mod logins;
mod output;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;

pub use args::Args;
use logins::Logins;
use output::Output;

use crate::api::bmc_address::BmcAddress;
use crate::bmc::{BmcError, Connector};
use crate::import::{Certificate, Entry, Found, Judge, Machine, Refused, Seen, Want};

/// Why nothing, or not everything, was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the list {path} cannot be read: {source}; give a file, or - for standard input")]
    List { path: String, source: std::io::Error },
    #[error(transparent)]
    NoList(#[from] crate::import::ListError),
    #[error(transparent)]
    Logins(#[from] logins::Error),
    #[error(
        "--ca-file {path} cannot be read: {source}; give the CA that signed the BMCs' certificates, in PEM form"
    )]
    Ca { path: String, source: std::io::Error },
    #[error("--ca-ref {0:?} is no reference: write ConfigMap/NAME/KEY or Secret/NAME/KEY")]
    CaRef(String),
    #[error("a manifest cannot be written as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error(transparent)]
    Output(#[from] output::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(
        "{bad} of {all} lines are not imported: see above; correct them and run it again with those alone"
    )]
    Incomplete { bad: usize, all: usize },
    #[error("--check found {0} objections: see above")]
    Objections(usize),
}

/// A machine that is to be imported.
struct Imported {
    entry: Entry,
    name: String,
    secret: String,
    image: Option<String>,
    site: Option<String>,
    certificate: Certificate,
    found: Found,
}

/// Reads the list and the BMCs; writes manifests, or with `--check` compares with a cluster.
pub async fn run(args: Args) -> Result<(), Error> {
    let text = args.text()?;
    let list = crate::import::list(&text)?;
    let (judge, ca) = (args.judge()?, args.ca_ref()?);
    let logins = Logins::load(args.secrets_file.as_deref(), &args.secret)?;
    let all = list.entries.len() + list.refused.len();
    for column in &list.ignored {
        say(&format!("the column {column:?} is not read"));
    }
    let mut bad = Vec::new();
    let mut unread = list.refused;
    let entries = without_repetitions(list.entries, &mut unread);
    unread.sort_by_key(|one| one.line);
    for one in unread {
        refuse(one, &mut bad);
    }
    let read = read_all(&args, &args.connector(), &logins, entries, &judge, &mut bad).await;
    let imported = one_each(&args, ca.as_ref(), read, &mut bad);
    say(&format!("{} of {all} lines are read and can be imported", imported.len()));
    if args.check {
        let objections = cluster::check(&args, &imported).await?;
        for objection in &objections {
            say(objection);
        }
        if !objections.is_empty() {
            return Err(Error::Objections(objections.len()));
        }
        say("nothing in the cluster is in the way");
    } else {
        write(&args, &logins, &imported)?;
    }
    if bad.is_empty() { Ok(()) } else { Err(Error::Incomplete { bad: bad.len(), all }) }
}

/// The report is for people, and apart from the manifests.
#[expect(clippy::print_stderr, reason = "the report is for the person at the terminal")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Takes out lines whose address an earlier one has: no BMC is asked twice.
fn without_repetitions(entries: Vec<Entry>, bad: &mut Vec<Refused>) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    let mut hosts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for entry in entries {
        let before = hosts.entry(entry.parsed.claim_key().host).or_default();
        let same = before.iter().filter_map(|place| kept.get(*place));
        let earlier = same.into_iter().find(|one| crate::import::same_address(&one.parsed, &entry.parsed));
        if let Some(earlier) = earlier {
            let why = format!("it has the BMC address of line {}: remove one of them", earlier.line);
            bad.push(Refused { line: entry.line, why });
        } else {
            before.push(kept.len());
            kept.push(entry);
        }
    }
    kept
}

/// How often it says whom it waits for.
const PROGRESS: Duration = Duration::from_secs(5);

/// Reads all of them, so many at once, whichever answers first; what cannot be read is said at once.
async fn read_all(
    args: &Args,
    connector: &Connector,
    logins: &Logins,
    entries: Vec<Entry>,
    judge: &Judge,
    bad: &mut Vec<Refused>,
) -> Vec<(Entry, Found)> {
    let all = entries.len();
    let mut waiting: BTreeMap<u64, String> =
        entries.iter().map(|entry| (entry.line, entry.address.clone())).collect();
    let looks = entries.into_iter().map(async |entry| {
        let found = look(args, connector, logins, &entry, judge).await;
        (entry, found)
    });
    let mut looks = futures::stream::iter(looks).buffer_unordered(usize::from(args.parallel));
    let mut progress = tokio::time::interval(PROGRESS);
    // The first one comes at once.
    progress.tick().await;
    let mut read = Vec::new();
    loop {
        let (entry, found) = tokio::select! {
            done = looks.next() => match done {
                Some(done) => done,
                None => break,
            },
            _ = progress.tick() => {
                say(&still_reading(all, &waiting));
                continue;
            }
        };
        waiting.remove(&entry.line);
        for one in found {
            match one {
                Ok(found) => read.push(found),
                Err(why) => refuse(Refused { line: entry.line, why }, bad),
            }
        }
    }
    // Of two lines that are one machine, the first one counts.
    read.sort_by_key(|(entry, _)| entry.line);
    read
}

async fn look(
    args: &Args,
    connector: &Connector,
    logins: &Logins,
    entry: &Entry,
    judge: &Judge,
) -> Vec<Result<(Entry, Found), String>> {
    let secret = entry.secret.as_deref().unwrap_or(&args.secret);
    let credentials = match logins.of(secret, &entry.parsed) {
        Ok(credentials) => credentials,
        Err(error) => return vec![Err(error.to_string())],
    };
    let said = |address: &str, error: &BmcError| format!("{address}: {}: {error}", error.kind.reason());
    let machines = match crate::import::machines(connector, &entry.parsed, credentials.clone(), judge).await {
        Ok(machines) => machines,
        Err(error) => return vec![Err(said(&entry.address, &error))],
    };
    let several = machines.len() > 1;
    let mut all = Vec::new();
    for parsed in machines {
        let found = crate::import::read(connector, &parsed, credentials.clone(), judge).await;
        let entry = if several { node(entry, parsed) } else { entry.clone() };
        all.push(found.map_err(|error| said(&entry.address, &error)).map(|found| (entry, found)));
    }
    all
}

/// The line of one of several nodes behind one BMC: a name is that of the line and the node's.
fn node(entry: &Entry, parsed: BmcAddress) -> Entry {
    let system = parsed.system().unwrap_or_default();
    let name = entry.name.as_ref().map(|name| format!("{name}-{}", system.to_lowercase()));
    // One address of the list cannot be that of each node.
    Entry { address: parsed.normalised(), name, boot_mac: None, parsed, ..entry.clone() }
}

/// The first few of those that are waited for are named.
fn still_reading(all: usize, waiting: &BTreeMap<u64, String>) -> String {
    const NAMED: usize = 3;
    let named: Vec<String> =
        waiting.iter().take(NAMED).map(|(line, address)| format!("line {line} ({address})")).collect();
    let more = if waiting.len() > NAMED { " and others" } else { "" };
    format!("{} of {all} BMCs have answered; waiting for {}{more}", all - waiting.len(), named.join(", "))
}

/// Says what is wrong with a line, in the words of the list and the flags.
fn refuse(mut refused: Refused, bad: &mut Vec<Refused>) {
    refused.why = crate::import::in_flags(&refused.why);
    say(&format!("line {}: {}", refused.line, refused.why));
    bad.push(refused);
}

/// One of each machine, with its name.
fn one_each(
    args: &Args,
    ca: Option<&crate::api::CaRef>,
    read: Vec<(Entry, Found)>,
    bad: &mut Vec<Refused>,
) -> Vec<Imported> {
    let seen: Vec<Seen<'_>> = read
        .iter()
        .map(|(entry, found)| Seen { address: &entry.parsed, identity: &found.reading.identity })
        .collect();
    let repeated = crate::import::later_ones(&seen);
    let lines: Vec<u64> = read.iter().map(|(entry, _)| entry.line).collect();
    let mut kept = Vec::new();
    for ((entry, found), repeated) in read.into_iter().zip(repeated) {
        match repeated.and_then(|(place, by)| Some((lines.get(place)?, by))) {
            Some((line, by)) => {
                let why = format!("it is the machine of line {line}, by {}: remove one of them", by.text());
                refuse(Refused { line: entry.line, why }, bad);
            }
            None => kept.push((entry, found)),
        }
    }
    let wants: Vec<Want<'_>> = kept
        .iter()
        .map(|(entry, found)| Want {
            name: entry.name.as_deref(),
            serial: found.reading.identity.serial_number.as_deref(),
            host: entry.parsed.host(),
        })
        .collect();
    let names = crate::import::names(&wants);
    kept.into_iter()
        .zip(names)
        .map(|((entry, found), name)| {
            let shown: Vec<&str> =
                found.reading.hardware.nics.iter().filter_map(|nic| nic.mac_address.as_deref()).collect();
            if let Some(mac) =
                entry.boot_mac.as_deref().filter(|mac| !shown.is_empty() && !shown.contains(mac))
            {
                say(&format!(
                    "line {}: the BMC shows no network interface {mac}, but {}",
                    entry.line,
                    shown.join(", ")
                ));
            }
            if let Some(wish) = entry.name.as_ref().filter(|wish| **wish != name) {
                say(&format!("line {}: the name {wish:?} becomes {name:?}", entry.line));
            }
            Imported {
                name,
                secret: entry.secret.clone().unwrap_or_else(|| args.secret.clone()),
                image: entry.image.clone().or_else(|| args.image.clone()),
                site: entry.site.clone().or_else(|| args.site.clone()),
                certificate: match (&found.pinned, ca) {
                    (Some(pinned), _) => Certificate::Pinned(pinned.clone()),
                    (None, Some(ca)) => Certificate::Ca(ca.clone()),
                    (None, None) => Certificate::Trusted,
                },
                entry,
                found,
            }
        })
        .collect()
}

fn write(args: &Args, logins: &Logins, imported: &[Imported]) -> Result<(), Error> {
    let mut output = Output::new(args.output.as_deref())?;
    let namespace = args.cluster.namespace.as_deref();
    output.expect_none_of(imported.iter().map(|one| format!("{}.yaml", one.name)))?;
    if args.write_secrets {
        let mut used: Vec<&str> = imported.iter().map(|one| one.secret.as_str()).collect();
        used.sort_unstable();
        used.dedup();
        for name in used {
            if let Some(credentials) = logins.any_of(name) {
                let text = crate::import::secret_manifest(name, namespace, &credentials)?;
                output.secret(&format!("secret-{name}.yaml"), &text)?;
            }
        }
    }
    for one in imported {
        let machine = Machine {
            entry: &one.entry,
            name: &one.name,
            namespace,
            secret: &one.secret,
            image: one.image.as_deref(),
            site: one.site.as_deref(),
            certificate: &one.certificate,
            reading: &one.found.reading,
        };
        output.document(&format!("{}.yaml", one.name), &crate::import::manifest(&machine)?)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn whom_it_waits_for_is_named() {
        let waiting = |lines: &[u64]| -> BTreeMap<u64, String> {
            lines.iter().map(|line| (*line, format!("redfish+https://10.0.0.{line}"))).collect()
        };
        assert_eq!(
            still_reading(128, &waiting(&[7])),
            "127 of 128 BMCs have answered; waiting for line 7 (redfish+https://10.0.0.7)"
        );
        assert!(
            still_reading(128, &waiting(&[1, 2, 3, 4]))
                .ends_with("line 3 (redfish+https://10.0.0.3) and others")
        );
    }
}
