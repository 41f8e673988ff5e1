//! What a system's document says. Pure.

use serde_json::Value;

use super::answer::Document;
use crate::api::hardware::{HardwareIdentity, PowerState};
use crate::api::placeholder;
use crate::bmc::text::{printable, serial};

/// The longest `LastResetTime` that is kept: a date with time, fraction and zone.
const TIME_MAX: usize = 64;
/// Reset types that are looked at.
const TYPES_MAX: usize = 64;

/// What asks the operating system to shut down, best first: `Off` is Cray EX's name for it; a press of the power button means
/// the same to an operating system, and is all that iLO 5 1.x and iDRAC 8 offer.
pub(super) const SOFT: &[&str] = &["GracefulShutdown", "Off", BUTTON];
/// A press of the power button: what is off goes on with it.
pub(super) const BUTTON: &str = "PushPowerButton";
/// The reset types that are known to be glued together by some firmware, longest first where one begins another.
const RESET_TYPES: &[&str] = &[
    "GracefulShutdown",
    "GracefulRestart",
    "PushPowerButton",
    "ForceRestart",
    "FullPowerCycle",
    "PowerCycle",
    "ForceOff",
    "ForceOn",
    "Nmi",
    "On",
];

/// The reset action of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reset {
    /// Where it is sent, as the BMC writes it.
    pub(super) target: String,
    /// The types that the BMC offers; `None` where it does not say.
    pub(super) offered: Option<Vec<String>>,
}

pub(super) fn power(system: &Value) -> PowerState {
    match system.get("PowerState").and_then(Value::as_str) {
        Some("On") => PowerState::PoweredOn,
        Some("Off") => PowerState::PoweredOff,
        Some("PoweringOn") => PowerState::PoweringOn,
        Some("PoweringOff") => PowerState::PoweringOff,
        _ => PowerState::Unknown,
    }
}

pub(super) fn identity(system: &Value) -> HardwareIdentity {
    let uuid = system.get("UUID").and_then(Value::as_str).map(|uuid| printable(uuid, 64).to_lowercase());
    HardwareIdentity {
        serial_number: serial(system, "SerialNumber"),
        uuid: uuid.filter(|uuid| !placeholder::is_placeholder_uuid(uuid)),
        system: None,
    }
}

pub(super) fn last_reset_time(system: &Value) -> Option<String> {
    let time = printable(system.get("LastResetTime")?.as_str()?, TIME_MAX);
    (!time.is_empty()).then_some(time)
}

fn action(system: &Value) -> Option<&Value> {
    system.get("Actions")?.get("#ComputerSystem.Reset")
}

/// The reset action, where the system has one.
pub(super) fn reset(system: &Value) -> Option<Reset> {
    let action = action(system)?;
    let target = action.get("target")?.as_str()?.to_owned();
    Some(Reset { target, offered: action.get("ResetType@Redfish.AllowableValues").and_then(types) })
}

/// The document that tells the offered reset types, where the system does not tell them itself.
pub(super) fn action_info(system: &Value) -> Option<Value> {
    let action = action(system)?;
    let told = action.get("ResetType@Redfish.AllowableValues").is_some();
    let link = action.get("@Redfish.ActionInfo").filter(|_| !told)?;
    Some(serde_json::json!({"@odata.id": link.as_str()?}))
}

/// The reset types in an ActionInfo.
pub(super) fn offered(info: &Document) -> Option<Vec<String>> {
    let parameters = info.value.get("Parameters")?.as_array()?;
    let named = |parameter: &&Value| parameter.get("Name").and_then(Value::as_str) == Some("ResetType");
    parameters.iter().find(named)?.get("AllowableValues").and_then(types)
}

/// A list of reset types; one text of several that a comma was forgotten in is all of them.
fn types(value: &Value) -> Option<Vec<String>> {
    let all = texts(value)?;
    Some(all.into_iter().flat_map(|text| apart(&text).unwrap_or_else(|| vec![text])).collect())
}

/// The known reset types that `text` is made of, and of nothing else.
fn apart(text: &str) -> Option<Vec<String>> {
    let mut rest = text;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let first = RESET_TYPES.iter().find(|known| rest.starts_with(**known))?;
        found.push((*first).to_owned());
        rest = rest.get(first.len()..)?;
    }
    (!found.is_empty()).then_some(found)
}

/// A list of texts, without what is none; `None` for an empty one.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    let all = value.as_array()?.iter().filter_map(Value::as_str);
    let texts: Vec<String> = all.take(TYPES_MAX).map(|text| printable(text, 64)).collect();
    (!texts.is_empty()).then_some(texts)
}

/// The first of the reset types that the BMC offers, or the ones that are offered instead.
pub(super) fn reset_type(
    candidates: &[&'static str],
    offered: Option<&[String]>,
) -> Result<&'static str, String> {
    let offers = |name: &&&str| offered.is_none_or(|all| all.iter().any(|text| text == **name));
    candidates
        .iter()
        .find(offers)
        .copied()
        .ok_or_else(|| printable(&offered.unwrap_or_default().join(", "), 240))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_four_states_of_redfish_are_known() {
        for (told, expected) in [
            (json!({"PowerState": "On"}), PowerState::PoweredOn),
            (json!({"PowerState": "Off"}), PowerState::PoweredOff),
            (json!({"PowerState": "PoweringOn"}), PowerState::PoweringOn),
            (json!({"PowerState": "PoweringOff"}), PowerState::PoweringOff),
            (json!({"PowerState": "Paused"}), PowerState::Unknown),
            (json!({"PowerState": "on"}), PowerState::Unknown),
            (json!({"PowerState": null}), PowerState::Unknown),
            (json!({"PowerState": true}), PowerState::Unknown),
            (json!({}), PowerState::Unknown),
        ] {
            assert_eq!(power(&told), expected, "{told}");
        }
    }

    #[test]
    fn an_identity_leaves_placeholders_out_and_spells_uuids_low() {
        let told =
            identity(&json!({"SerialNumber": " ABC123 ", "UUID": "4C4C4544-0038-5A10-8053-B4C04F584B30"}));
        assert_eq!(told.serial_number.as_deref(), Some("ABC123"));
        assert_eq!(told.uuid.as_deref(), Some("4c4c4544-0038-5a10-8053-b4c04f584b30"));
        let nobody =
            json!({"SerialNumber": "Default string", "UUID": "00000000-0000-0000-0000-000000000000"});
        assert_eq!(identity(&nobody), HardwareIdentity::default());
        assert_eq!(identity(&json!({"SerialNumber": 5, "UUID": []})), HardwareIdentity::default());
    }

    #[test]
    fn what_shuts_down_softly_is_found_under_each_of_its_names() {
        let system = |types: Value| json!({"Actions": {"#ComputerSystem.Reset": {"target": "/x", "ResetType@Redfish.AllowableValues": types}}});
        for (types, expected) in [
            (json!(["On", "ForceOff", "GracefulShutdown", "PushPowerButton"]), Some("GracefulShutdown")),
            (json!(["On", "ForceOff", "ForceRestart", "Nmi", "PushPowerButton"]), Some("PushPowerButton")),
            (json!(["On", "Off", "ForceOff"]), Some("Off")),
            (json!(["On", "ForceOff", "GracefulShutdownGracefulRestart", "Nmi"]), Some("GracefulShutdown")),
            (json!(["On", "ForceOff"]), None),
            (json!(["On", "GracefulShutdownLater"]), None),
        ] {
            let offered = reset(&system(types.clone())).unwrap().offered;
            assert_eq!(reset_type(SOFT, offered.as_deref()).ok(), expected, "{types}");
        }
    }

    #[test]
    fn a_reset_type_is_one_that_the_bmc_offers() {
        let some = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let on: &[&'static str] = &["On", "ForceOn"];
        for (wanted, offered, expected) in [
            (on, None, Ok("On")),
            (on, Some(some(&["ForceOff", "ForceOn"])), Ok("ForceOn")),
            (on, Some(some(&["ForceOn", "On"])), Ok("On")),
            (&["GracefulShutdown"], Some(some(&["ForceOff", "On"])), Err("ForceOff, On")),
            (&["GracefulShutdown"], None, Ok("GracefulShutdown")),
            (&["ForceOff"], Some(some(&["ForceOff"])), Ok("ForceOff")),
            (&["ForceOff"], Some(some(&["PushPowerButton"])), Err("PushPowerButton")),
        ] {
            let chosen = reset_type(wanted, offered.as_deref());
            assert_eq!(chosen, expected.map_err(str::to_owned), "{wanted:?} {offered:?}");
        }
    }

    #[test]
    fn the_action_is_where_the_system_says() {
        let system = json!({"Actions": {"#ComputerSystem.Reset": {
            "target": "/x/reset", "@Redfish.ActionInfo": "/x/info"}}});
        assert_eq!(reset(&system), Some(Reset { target: "/x/reset".to_owned(), offered: None }));
        assert_eq!(action_info(&system), Some(json!({"@odata.id": "/x/info"})));
        let info = Document {
            path: "/x/info".to_owned(),
            tags: crate::bmc::redfish::preconditions::Tags::default(),
            value: json!({"Parameters": [{"Name": "Other"}, {"Name": "ResetType", "AllowableValues": ["On", 5]}]}),
        };
        assert_eq!(offered(&info), Some(vec!["On".to_owned()]));
        assert_eq!(reset(&json!({"Actions": {"#ComputerSystem.Reset": {}}})), None);
        assert_eq!(reset(&json!({"Actions": []})), None);
    }
}
