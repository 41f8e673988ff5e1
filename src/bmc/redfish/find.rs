//! From the service root to the system that an address means.

use serde_json::Value;

use super::answer::Document;
use super::line::Line;
use super::origin::last_segment;
use super::quirks::Habit;
use super::read::link_of;
use super::system::reset;
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};
use crate::bmc::text::printable;

/// Where Redfish begins: the only path that is known beforehand.
const ROOT: &str = "/redfish/v1/";
/// Systems behind one BMC address that are looked through.
const SYSTEMS_MAX: usize = 20_000;
/// Systems whose documents are read to find one by its `Id`, where no path ends in it.
const READ_MAX: usize = 8;
/// Ids that a message lists.
const LISTED_MAX: usize = 5;

/// A system that was found, and whether its BMC has others.
pub(super) struct Sought {
    pub(super) document: Document,
    pub(super) has_siblings: bool,
}

/// Finds the system `wanted`, or the only one that can be switched.
pub(super) async fn system(line: &mut Line<'_>, wanted: Option<&str>) -> Result<Sought, BmcError> {
    let members = members(line).await?;
    let has_siblings = members.len() > 1;
    let document = match (wanted, members.as_slice()) {
        (None, [only]) => known(line, only, None).await,
        (None, []) => Err(line.route.error(BmcErrorKind::NotFound, Delivery::Answered, "has no system")),
        (None, several) => only_switchable(line, several).await,
        (Some(wanted), members) => match members.iter().find(|path| last_segment(path) == wanted) {
            Some(path) => known(line, path, Some(wanted)).await,
            None => by_own_id(line, members, wanted).await,
        },
    }?;
    Ok(Sought { document, has_siblings })
}

/// Reads the service root, and keeps of it how collections are expanded.
pub(super) async fn root(line: &mut Line<'_>) -> Result<Document, BmcError> {
    let root = line.document(ROOT, "Redfish service root").await?;
    let host = line.route.peers.host().to_owned();
    line.learnt.of(&host, |facts| {
        if !facts.root_read {
            (facts.root_read, facts.expand) = (true, expand(&root.value));
        }
    });
    Ok(root)
}

/// How a collection is asked for with its members, where the service offers it (DSP0266 on `$expand`).
fn expand(root: &Value) -> Option<&'static str> {
    let query = root.get("ProtocolFeaturesSupported")?.get("ExpandQuery")?;
    let has = |name: &str| query.get(name).and_then(Value::as_bool) == Some(true);
    match (has("NoLinks"), has("ExpandAll"), has("Levels")) {
        (true, _, true) => Some("$expand=.($levels=1)"),
        (false, true, true) => Some("$expand=*($levels=1)"),
        (true, _, false) => Some("$expand=."),
        (false, true, false) => Some("$expand=*"),
        (false, false, _) => None,
    }
}

/// The paths of all systems.
pub(super) async fn members(line: &mut Line<'_>) -> Result<Vec<String>, BmcError> {
    let root = root(line).await?;
    let systems = root.value.get("Systems").and_then(link_of);
    let systems = systems.and_then(|link| line.route.origin.follow(&root.path, link).ok());
    let Some(systems) = systems else {
        return Err(line.route.error(
            BmcErrorKind::NotFound,
            Delivery::Answered,
            "has no systems in its service root",
        ));
    };
    let first = line.document(&systems, "collection of systems").await?;
    line.members(first, "collection of systems", SYSTEMS_MAX).await
}

/// The systems among these that have a reset action: the board of accelerators beside a host has none.
pub(super) async fn switchable(line: &mut Line<'_>, members: &[String]) -> Result<Vec<Document>, BmcError> {
    let mut found = Vec::new();
    if members.len() > READ_MAX {
        return Ok(found);
    }
    for path in members {
        let document = known(line, path, None).await?;
        if reset(&document.value).is_some() {
            found.push(document);
        }
    }
    Ok(found)
}

/// Of several systems the only one that can be switched.
async fn only_switchable(line: &mut Line<'_>, several: &[String]) -> Result<Document, BmcError> {
    if several.len() <= READ_MAX {
        let mut found = switchable(line, several).await?;
        if found.len() == 1
            && let Some(only) = found.pop()
        {
            let host = line.route.peers.host().to_owned();
            line.learnt.met(&host, Habit::SystemsOfOneMachine);
            return Ok(only);
        }
    }
    let text = format!(
        "has {} systems ({}): write /redfish/v1/Systems/ID of one of them into spec.bmc.address",
        several.len(),
        listed(several)
    );
    Err(line.route.error(BmcErrorKind::NotFound, Delivery::Answered, &text))
}

/// Reads the system at a path that was found before. A BMC that shows another system there is not obeyed.
pub(super) async fn known(
    line: &mut Line<'_>,
    path: &str,
    wanted: Option<&str>,
) -> Result<Document, BmcError> {
    let segment = last_segment(path);
    let document = line.document(path, &format!("system {:?}", printable(&segment, 128))).await?;
    let own_link = link_of(&document.value).map(last_segment);
    let own_id = document.value.get("Id").and_then(Value::as_str);
    let expected = [Some(segment.as_str()), wanted];
    let agrees = |told: Option<&str>| {
        expected.iter().flatten().any(|expected| told.is_some_and(|told| told.eq_ignore_ascii_case(expected)))
    };
    let told_nothing = own_link.is_none() && own_id.is_none();
    if told_nothing || agrees(own_link.as_deref()) || agrees(own_id) {
        return Ok(document);
    }
    let text = format!(
        "was asked for the system {:?} and shows {:?}",
        printable(&segment, 128),
        line.route.voice.quote(own_id.or(own_link.as_deref()).unwrap_or_default())
    );
    Err(line.route.error(BmcErrorKind::Protocol, Delivery::Answered, &text))
}

/// For BMCs whose paths are not their ids.
async fn by_own_id(line: &mut Line<'_>, members: &[String], wanted: &str) -> Result<Document, BmcError> {
    let mut unread = None;
    if members.len() <= READ_MAX {
        for path in members {
            let member = serde_json::json!({"@odata.id": path});
            match line.optional("/", &member).await {
                Ok(Some(document)) if document.value.get("Id").and_then(Value::as_str) == Some(wanted) => {
                    return Ok(document);
                }
                Ok(_) => {}
                Err(error) => unread = Some(error),
            }
        }
    }
    // One that could not be read may be the one.
    if let Some(error) = unread {
        return Err(error);
    }
    let has = match members {
        [] => "it has none".to_owned(),
        some => format!("it has {}", listed(some)),
    };
    let text = format!("has no system {wanted:?} ({has}): correct the id in spec.bmc.address");
    Err(line.route.error(BmcErrorKind::NotFound, Delivery::Answered, &text))
}

fn listed(members: &[String]) -> String {
    let shown: Vec<String> =
        members.iter().take(LISTED_MAX).map(|path| printable(&last_segment(path), 64)).collect();
    let more = if members.len() > LISTED_MAX { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
