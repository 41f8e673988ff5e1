//! One page for each situation of a server: `golden/NAME.yaml` has what is known, `golden/NAME.txt` the page. The status is
//! that which the planner shows, so that the pages speak with its words.
//! `UPDATE_GENERATED=1 cargo test golden` writes the pages; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Facts, Form, Holder, Ink, Looked, NamespaceSeen, SecretSeen, Told, why};
use crate::api::{OSImage, Server};
use crate::job::{Cause, Circumstance, Deleting, Intent, ServerUid, Wish};
use crate::plan;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    server: Server,
    /// As `autobuild explain` reads them; absent: no controller has looked.
    #[serde(default)]
    facts: Option<plan::Facts>,
    /// How much later somebody asks.
    #[serde(default)]
    later_s: i64,
    #[serde(default)]
    image: Looked<OSImage>,
    #[serde(default)]
    secret: Looked<SecretSeen>,
    #[serde(default)]
    namespace: Looked<NamespaceSeen>,
    #[serde(default)]
    holders: Looked<Vec<Holder>>,
    #[serde(default)]
    events: Looked<Vec<Told>>,
}

fn page(given: &str) -> String {
    let value: serde_json::Value = serde_yaml::from_str(given).unwrap();
    let case: Case = serde_json::from_value(value).unwrap();
    let mut server = case.server;
    let mut now = Timestamp::from_second(1_795_000_000).unwrap();
    if let Some(mut facts) = case.facts {
        // A failure that stands: neither the wish nor what caused it has changed.
        if let Some(failure) = facts.known.as_mut().and_then(|known| known.failure.as_mut()) {
            failure.cause = Cause::of(
                failure.action,
                Circumstance { server: &server, secret: facts.secret.as_ref(), asked: None },
            );
            let (image, wipe) = (facts.image_digest.as_deref(), facts.wipe.digest.as_deref());
            let wish = Wish {
                uid: &ServerUid(server.metadata.uid.clone().unwrap_or_default()),
                spec: &server.spec,
                bmc_address: facts.address.as_deref().unwrap_or(&server.spec.bmc.address),
                image_digest: if failure.action.wipes() { wipe } else { image },
                deleting: Deleting::of(&server),
            };
            failure.intent = Intent::of(failure.action, wish);
        }
        now = Timestamp::from_millisecond(facts.now_ms).unwrap();
        server.status = Some(plan::explain(&facts.about(server.clone())).status);
    }
    let now = Timestamp::from_second(now.as_second() + case.later_s).unwrap();
    let facts = Facts {
        server,
        image: case.image,
        secret: case.secret,
        namespace: case.namespace,
        holders: case.holders,
        events: case.events,
        now,
    };
    why(&facts, Form { width: 100, ink: Ink::Plain })
}

#[test]
fn every_situation_has_its_golden_page() {
    let folder = Path::new("src/why/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= 12);
    for file in files {
        let page = page(&std::fs::read_to_string(&file).unwrap());
        let golden = file.with_extension("txt");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&golden, page).unwrap();
        } else {
            assert_eq!(page, std::fs::read_to_string(&golden).unwrap_or_default(), "{}", golden.display());
        }
    }
}
