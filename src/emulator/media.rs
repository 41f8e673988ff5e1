//! The virtual CD drive of one system.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::act::{Deed, lateness};
use super::answer::{Answer, Refusal};
use super::effects::{Action, Effect};
use super::fault::Behaviour;
use super::system::System;
use super::time::Millis;

/// The id of the drive.
pub(super) const DRIVE: &str = "CD1";

/// What is in the drive.
#[derive(Debug, Default)]
pub(super) struct Media {
    image: Option<String>,
    /// Changes that take effect later, in order of time.
    to_come: Vec<(Millis, Option<String>)>,
}

impl Media {
    fn set(&mut self, image: Option<String>, at: Millis) {
        let position = self.to_come.partition_point(|(other, _)| *other <= at);
        self.to_come.insert(position, (at, image));
    }

    /// Takes in what has come true by `now`.
    pub(super) fn advance(&mut self, now: Millis) {
        let due = self.to_come.partition_point(|(at, _)| *at <= now);
        if let Some((_, image)) = self.to_come.drain(..due).next_back() {
            self.image = image;
        }
    }

    /// The address of the image that is inserted.
    pub(super) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }
}

/// The Redfish resource at `path`.
pub(super) fn render(path: &str, image: Option<&str>) -> Value {
    let name = image.and_then(|image| image.rsplit('/').next());
    json!({
        "@odata.type": "#VirtualMedia.v1_6_0.VirtualMedia",
        "@odata.id": path,
        "Id": DRIVE,
        "Name": "Virtual CD",
        "MediaTypes": ["CD", "DVD"],
        "Image": image,
        "ImageName": name,
        "Inserted": image.is_some(),
        "WriteProtected": true,
        "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" },
        "Actions": {
            "#VirtualMedia.InsertMedia": {"target": format!("{path}/Actions/VirtualMedia.InsertMedia")},
            "#VirtualMedia.EjectMedia": {"target": format!("{path}/Actions/VirtualMedia.EjectMedia")},
        },
    })
}

/// Reads the image of a request to insert one. Only a host that boots from it fetches it.
fn image_asked(body: &[u8]) -> Result<String, Refusal> {
    const ACTION: &str = "VirtualMedia.InsertMedia";
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Refusal::malformed())?;
    for (name, value) in &body {
        let known = match name.as_str() {
            "Image" => value.is_string(),
            // Nothing else is offered, so nothing else may be asked for.
            "Inserted" | "WriteProtected" => value == true,
            "TransferMethod" => value == "Stream",
            "TransferProtocolType" => value == "HTTP" || value == "HTTPS",
            _ => return Err(Refusal::parameter_unknown(ACTION, name)),
        };
        if !known {
            return Err(Refusal::parameter_not_in_list(ACTION, name, &value.to_string(), &["true"]));
        }
    }
    let image = body.get("Image").and_then(Value::as_str).unwrap_or_default();
    match image {
        "" => Err(Refusal::parameter_missing(ACTION, "Image")),
        image if image.starts_with("http://") || image.starts_with("https://") => Ok(image.to_owned()),
        image => Err(Refusal::parameter_not_in_list(ACTION, "Image", image, &["http://…", "https://…"])),
    }
}

/// Inserts an image into an empty drive.
pub(super) fn insert(system: &System, body: &[u8], faults: &[Behaviour], now: Millis) -> (Answer, Deed) {
    let image = match image_asked(body) {
        Ok(image) => image,
        Err(refusal) => return (refusal.into(), Deed::REFUSED),
    };
    let action = Action::InsertMedia { image: image.clone() };
    if system.at(now, |state| state.media.image().is_some()) {
        let deed = Deed { action: Some(action), effect: Effect::Refused, at: None };
        return (Refusal::media_in_use().into(), deed);
    }
    change(system, action, Some(image), faults, now)
}

/// Empties the drive; one that is empty already stays so.
pub(super) fn eject(system: &System, faults: &[Behaviour], now: Millis) -> (Answer, Deed) {
    change(system, Action::EjectMedia, None, faults, now)
}

fn change(
    system: &System,
    action: Action,
    image: Option<String>,
    faults: &[Behaviour],
    now: Millis,
) -> (Answer, Deed) {
    let done = Answer::empty(StatusCode::NO_CONTENT);
    if faults.contains(&Behaviour::Lie {}) {
        return (done, Deed { action: Some(action), effect: Effect::Pretended, at: None });
    }
    let at = now.saturating_add(lateness(faults));
    system.at(now, |state| state.media.set(image, at));
    (done, Deed { action: Some(action), effect: Effect::Applied, at: Some(at) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_an_address_that_can_be_fetched() {
        let asked = |value: Value| image_asked(value.to_string().as_bytes());
        let whole =
            json!({"Image": "https://images.example/a.iso", "Inserted": true, "WriteProtected": true});
        assert_eq!(asked(whole).unwrap(), "https://images.example/a.iso");
        for refused in [
            json!({}),
            json!({"Image": null}),
            json!({"Image": "file:///etc/passwd"}),
            json!({"Image": "http://a/b.iso", "Inserted": false}),
            json!({"Image": "http://a/b.iso", "Colour": "red"}),
            json!([]),
        ] {
            assert!(asked(refused.clone()).is_err(), "{refused}");
        }
    }

    #[test]
    fn the_last_change_that_has_come_true_counts() {
        let mut media = Media::default();
        media.set(Some("http://a/1".to_owned()), 10);
        media.set(None, 20);
        media.advance(9);
        assert_eq!(media.image(), None);
        media.advance(10);
        assert_eq!(media.image(), Some("http://a/1"));
        media.advance(30);
        assert_eq!(media.image(), None);
    }
}
