//! The virtual CD drive of a system: where it is, what is in it, and what is sent to it.

use serde_json::{Value, json};

use super::answer::Document;
use super::line::Line;
use crate::bmc::error::BmcError;
use crate::bmc::text::printable;
use crate::bmc::{ImageUrl, Media};

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
    /// Reads them.
    pub(super) fn of(system: &Value) -> Self {
        let managers = system.get("Links").and_then(|links| links.get("ManagedBy")).and_then(Value::as_array);
        Self {
            own: system.get("VirtualMedia").cloned(),
            managers: managers.into_iter().flatten().take(MANAGERS_MAX).cloned().collect(),
        }
    }
}

/// Finds the first drive for CDs. Where there is none, what could not be read on the way is an error: it may be there.
pub(super) async fn drive(
    line: &mut Line<'_>,
    at: &str,
    links: &Links,
) -> Result<Option<Document>, BmcError> {
    let mut unread = None;
    if let Some(own) = &links.own
        && let Some(found) = among(line, at, own, &mut unread).await
    {
        return Ok(Some(found));
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
        if let Some(link) = manager.value.get("VirtualMedia")
            && let Some(found) = among(line, &manager.path, link, &mut unread).await
        {
            return Ok(Some(found));
        }
    }
    unread.map_or(Ok(None), Err)
}

async fn among(
    line: &mut Line<'_>,
    at: &str,
    collection: &Value,
    unread: &mut Option<BmcError>,
) -> Option<Document> {
    let paths = match line.optional_members(at, Some(collection), DRIVES_MAX).await {
        Ok(paths) => paths,
        Err(error) => {
            *unread = Some(error);
            return None;
        }
    };
    for path in paths {
        match line.optional("/", &json!({"@odata.id": path})).await {
            Ok(Some(drive)) if is_for_cds(&drive.value) => return Some(drive),
            Ok(_) => {}
            Err(error) => *unread = Some(error),
        }
    }
    None
}

fn is_for_cds(drive: &Value) -> bool {
    if let Some(types) = drive.get("MediaTypes").and_then(Value::as_array) {
        return types.iter().any(|kind| matches!(kind.as_str(), Some("CD" | "DVD")));
    }
    let id = drive.get("Id").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    id.contains("cd") || id.contains("dvd")
}

/// What is in it.
pub(super) fn read(drive: &Value) -> Media {
    let image = drive.get("Image").and_then(Value::as_str).map(|image| printable(image, IMAGE_MAX));
    let image = image.filter(|image| !image.is_empty());
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

/// The body that inserts an image by the action. `info` describes the action, where the BMC does: some want to be told
/// what others find out, and others refuse to be told it.
pub(super) fn insertion(image: &ImageUrl, info: Option<&Value>) -> Value {
    let mut body = inserted(image);
    let required = |name: &str| {
        let parameters = info.and_then(|info| info.get("Parameters")).and_then(Value::as_array);
        parameters.into_iter().flatten().any(|parameter| {
            parameter.get("Name").and_then(Value::as_str) == Some(name)
                && parameter.get("Required").and_then(Value::as_bool) == Some(true)
        })
    };
    if let Some(object) = body.as_object_mut() {
        if required("TransferProtocolType") {
            object.insert("TransferProtocolType".to_owned(), json!(image.protocol()));
        }
        if required("TransferMethod") {
            object.insert("TransferMethod".to_owned(), json!("Stream"));
        }
    }
    body
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
    fn a_bmc_is_told_the_protocol_only_where_it_requires_it() {
        let image = ImageUrl::parse("https://a/b.iso").unwrap();
        let info =
            |required: bool| json!({"Parameters": [{"Name": "TransferProtocolType", "Required": required}]});
        assert_eq!(insertion(&image, Some(&info(true)))["TransferProtocolType"], "HTTPS");
        assert_eq!(insertion(&image, Some(&info(false))), insertion(&image, None));
    }
}
