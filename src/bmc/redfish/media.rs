//! The virtual CD drives of a system: where they are, what is in them, and which of them is used.

use serde_json::{Value, json};

use super::answer::Document;
use super::line::Line;
use crate::bmc::error::BmcError;
use crate::bmc::text::printable;
use crate::bmc::{ImageUrl, Media, Ours};

/// Managers of one system that are looked at.
const MANAGERS_MAX: usize = 4;
/// Drives of one manager that are looked at.
const DRIVES_MAX: usize = 16;
/// The longest address of an image that is read back.
const IMAGE_MAX: usize = 2048;

/// The links in a system's document that may lead to its drives: newer BMCs have them at the system, older ones at the
/// manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Links {
    own: Option<Value>,
    managers: Vec<Value>,
}

impl Links {
    /// Reads them. Some have `Managers` in place of `ManagedBy`.
    pub(super) fn of(system: &Value) -> Self {
        let named =
            |name: &str| system.get("Links").and_then(|links| links.get(name)).and_then(Value::as_array);
        let managers = ["ManagedBy", "Managers"].into_iter().filter_map(named).find(|all| !all.is_empty());
        Self {
            own: system.get("VirtualMedia").cloned(),
            managers: managers.into_iter().flatten().take(MANAGERS_MAX).cloned().collect(),
        }
    }
}

/// Finds the drives for CDs. Where there is none, what could not be read on the way is an error: it may be there.
pub(super) async fn drives(line: &mut Line<'_>, at: &str, links: &Links) -> Result<Vec<Document>, BmcError> {
    let mut unread = None;
    if let Some(own) = &links.own {
        let found = among(line, at, own, &mut unread).await;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    for manager in &links.managers {
        let manager = match line.optional(at, manager).await {
            Ok(Some(manager)) => manager,
            Ok(None) => continue,
            Err(error) => {
                unread = Some(error);
                continue;
            }
        };
        if let Some(link) = manager.value.get("VirtualMedia") {
            let found = among(line, &manager.path, link, &mut unread).await;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    unread.map_or(Ok(Vec::new()), Err)
}

async fn among(
    line: &mut Line<'_>,
    at: &str,
    collection: &Value,
    unread: &mut Option<BmcError>,
) -> Vec<Document> {
    let paths = match line.optional_members(at, Some(collection), DRIVES_MAX).await {
        Ok(paths) => paths,
        Err(error) => {
            *unread = Some(error);
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for path in paths {
        match line.optional("/", &json!({"@odata.id": path})).await {
            Ok(Some(drive)) if is_for_cds(&drive.value) => found.push(drive),
            Ok(_) => {}
            Err(error) => *unread = Some(error),
        }
    }
    found
}

/// The drive that is used: one with a medium of ours; else the one that was used before; else an empty one; else the first.
/// One that a browser feeds offers no action, and is left where another does.
pub(super) fn chosen(drives: Vec<Document>, used: Option<&str>, ours: Ours<'_>) -> Option<Document> {
    let has_action = |drive: &Document| action(&drive.value, "#VirtualMedia.InsertMedia").is_some();
    let fed_by_address = drives.iter().any(has_action);
    let rank = |drive: &Document| {
        let (is_ours, is_empty) = match read(&drive.value) {
            Media::Inserted(address) => (ours(address.as_deref()), false),
            Media::Empty | Media::NoDrive => (false, true),
        };
        (!is_ours, used != Some(drive.path.as_str()), !is_empty)
    };
    drives.into_iter().filter(|drive| !fed_by_address || has_action(drive)).min_by_key(rank)
}

fn is_for_cds(drive: &Value) -> bool {
    if let Some(types) = drive.get("MediaTypes").and_then(Value::as_array) {
        return types.iter().any(|kind| matches!(kind.as_str(), Some("CD" | "DVD")));
    }
    let id = drive.get("Id").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    id.contains("cd") || id.contains("dvd")
}

/// What is in it. Some write out that it is nothing.
pub(super) fn read(drive: &Value) -> Media {
    let image = drive.get("Image").and_then(Value::as_str).map(|image| printable(image, IMAGE_MAX));
    let nothing = ["", "none", "null", "n/a", "empty", "no media"];
    let image = image.filter(|image| !nothing.contains(&image.to_ascii_lowercase().as_str()));
    match (drive.get("Inserted").and_then(Value::as_bool), image) {
        (Some(false), _) | (None, None) => Media::Empty,
        (_, image) => Media::Inserted(image),
    }
}

/// One of its actions: the target, and where its parameters are described.
pub(super) fn action<'a>(drive: &'a Value, name: &str) -> Option<(&'a str, Option<Value>)> {
    let action = drive.get("Actions")?.get(name)?;
    let info = action.get("@Redfish.ActionInfo").and_then(Value::as_str);
    Some((action.get("target")?.as_str()?, info.map(|info| json!({"@odata.id": info}))))
}

/// The protocols that it fetches images by, where it says so: at the drive, at the action, or in what describes the action.
pub(super) fn protocols(drive: &Value, info: Option<&Value>) -> Option<Vec<String>> {
    const LIST: &str = "TransferProtocolType@Redfish.AllowableValues";
    let action = drive.get("Actions").and_then(|actions| actions.get("#VirtualMedia.InsertMedia"));
    let described = || {
        let parameters = info?.get("Parameters")?.as_array()?;
        let named = |one: &&Value| one.get("Name").and_then(Value::as_str) == Some("TransferProtocolType");
        parameters.iter().find(named)?.get("AllowableValues")
    };
    let told = action.and_then(|action| action.get(LIST)).or_else(|| drive.get(LIST)).or_else(described)?;
    super::system::texts(told)
}

/// Whether a drive that tells these protocols fetches this image.
pub(super) fn fetches(protocols: Option<&[String]>, image: &ImageUrl) -> bool {
    protocols.is_none_or(|all| all.iter().any(|one| one.eq_ignore_ascii_case(image.protocol())))
}

/// The body that inserts an image by a PATCH, for BMCs without the action.
pub(super) fn inserted(image: &ImageUrl) -> Value {
    json!({"Image": image.as_str(), "Inserted": true, "WriteProtected": true})
}

/// The body that ejects by a PATCH.
pub(super) fn ejected() -> Value {
    json!({"Image": null, "Inserted": false})
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::bmc::redfish::preconditions::Tags;

    #[test]
    fn a_drive_is_empty_unless_it_says_otherwise() {
        let inserted = |image: Option<&str>| Media::Inserted(image.map(str::to_owned));
        for (drive, expected) in [
            (json!({"Inserted": false, "Image": null}), Media::Empty),
            (json!({"Inserted": false, "Image": "https://a/b.iso"}), Media::Empty),
            (json!({"Inserted": true, "Image": "https://a/b.iso"}), inserted(Some("https://a/b.iso"))),
            (json!({"Inserted": true, "Image": ""}), inserted(None)),
            (json!({"Image": "https://a/b.iso"}), inserted(Some("https://a/b.iso"))),
            (json!({"Inserted": null, "Image": ""}), Media::Empty),
            (json!({"Inserted": null, "Image": "None"}), Media::Empty),
            (json!({"Image": "N/A"}), Media::Empty),
            (json!({}), Media::Empty),
        ] {
            assert_eq!(read(&drive), expected, "{drive}");
        }
    }

    #[test]
    fn a_drive_for_cds_says_so_or_has_a_name_like_it() {
        for (drive, expected) in [
            (json!({"Id": "1", "MediaTypes": ["CD", "DVD"]}), true),
            (json!({"Id": "CD1", "MediaTypes": ["Floppy", "USBStick"]}), false),
            (json!({"Id": "VirtualCD-1"}), true),
            (json!({"Id": "Removable"}), false),
        ] {
            assert_eq!(is_for_cds(&drive), expected, "{drive}");
        }
    }

    #[test]
    fn a_drive_that_is_fed_by_address_and_free_is_used_and_one_of_ours_before_all() {
        let drive = |path: &str, image: Option<&str>, with_action: bool| {
            let mut value = json!({"Image": image, "Inserted": image.is_some()});
            if with_action {
                value["Actions"] = json!({"#VirtualMedia.InsertMedia": {"target": "/x"}});
            }
            Document { path: path.to_owned(), tags: Tags::default(), value }
        };
        let path = |drives: Vec<Document>, used: Option<&str>| {
            chosen(drives, used, &|address| address == Some("ours")).map(|drive| drive.path)
        };
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(path(vec![drive("a", None, false), drive("b", None, true)], None), some("b"));
        assert_eq!(path(vec![drive("a", None, false), drive("b", Some("x"), true)], None), some("b"));
        assert_eq!(path(vec![drive("a", Some("x"), true), drive("b", None, true)], None), some("b"));
        assert_eq!(path(vec![drive("a", None, true), drive("b", Some("ours"), true)], None), some("b"));
        assert_eq!(path(vec![drive("a", None, true), drive("b", Some("x"), true)], Some("b")), some("b"));
        assert_eq!(path(vec![drive("a", Some("x"), true), drive("b", Some("y"), true)], None), some("a"));
        assert_eq!(path(vec![drive("a", None, false), drive("b", None, false)], None), some("a"));
        assert_eq!(path(Vec::new(), None), None);
    }

    #[test]
    fn a_drive_may_say_by_which_protocols_it_fetches_in_three_places() {
        let image = ImageUrl::parse("http://a/b.iso").unwrap();
        let only = json!(["HTTPS", "NFS"]);
        let info = json!({"Parameters": [{"Name": "TransferProtocolType", "AllowableValues": only}]});
        let list = json!({"TransferProtocolType@Redfish.AllowableValues": only});
        let at_action = json!({"Actions": {"#VirtualMedia.InsertMedia": list}});
        for (drive, info) in [(list.clone(), None), (at_action, None), (json!({}), Some(&info))] {
            assert!(!fetches(protocols(&drive, info).as_deref(), &image), "{drive}");
        }
        assert!(fetches(protocols(&json!({}), None).as_deref(), &image));
        let both = json!({"TransferProtocolType@Redfish.AllowableValues": ["HTTP", "HTTPS"]});
        assert!(fetches(protocols(&both, None).as_deref(), &image));
    }
}
