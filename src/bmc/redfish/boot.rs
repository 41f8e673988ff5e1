//! The override of the boot order in a system's document. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::system::texts;
use crate::bmc::text::printable;
use crate::bmc::{BootOverride, OverrideEnabled, OverrideTarget};

/// An override that is to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// For the next start, from the first of these Redfish targets that the BMC offers.
    Once(&'static [&'static str]),
    /// None any more.
    Clear,
}

/// The longest address that is read back.
const URI_MAX: usize = 1024;

/// The properties of an override.
pub(super) const ENABLED: &str = "BootSourceOverrideEnabled";
pub(super) const TARGET: &str = "BootSourceOverrideTarget";
pub(super) const MODE: &str = "BootSourceOverrideMode";
pub(super) const URI: &str = "HttpBootUri";

/// The mode that the machine boots in, as the BMC shows it; `None`: it has no such property. Empty: it shows none now.
pub(super) fn mode(system: &Value) -> Option<String> {
    let told = system.get("Boot")?.get(MODE)?;
    Some(told.as_str().map(|mode| printable(mode, 32)).unwrap_or_default())
}

/// The modes that it offers; `None` where it does not say.
pub(super) fn modes(system: &Value) -> Option<Vec<String>> {
    system.get("Boot")?.get("BootSourceOverrideMode@Redfish.AllowableValues").and_then(texts)
}

/// The link to the resource that takes what the next start is to be, where there is one.
pub(super) fn settings(system: &Value) -> Option<Value> {
    system.get("@Redfish.Settings")?.get("SettingsObject").filter(|link| link.is_object()).cloned()
}

/// Whether a settings resource has that property of an override: some have the boot order alone.
pub(super) fn has(settings: &Value, property: &str) -> bool {
    settings.get("Boot").is_some_and(|boot| boot.get(property).is_some())
}

/// The system with what its settings resource shows of the override, where that is to come. `learnt`: which properties the
/// settings resource alone takes; `None`: nobody knows, and what is pending there counts.
pub(super) fn with_settings(mut system: Value, settings: &Value, learnt: Option<&BTreeSet<String>>) -> Value {
    let pending = has(settings, ENABLED) && has(settings, TARGET) && !read(settings).is_clear();
    for property in [ENABLED, TARGET, URI] {
        let counts = learnt.map_or(pending, |all| all.contains(property));
        let told = settings.get("Boot").and_then(|boot| boot.get(property));
        if let (true, Some(told)) = (counts, told)
            && let Some(boot) = system.get_mut("Boot").and_then(Value::as_object_mut)
        {
            boot.insert(property.to_owned(), told.clone());
        }
    }
    system
}

/// What the document tells of the override.
pub(super) fn read(system: &Value) -> BootOverride {
    let told = |name: &str| system.get("Boot").and_then(|boot| boot.get(name)).and_then(Value::as_str);
    BootOverride {
        enabled: match told("BootSourceOverrideEnabled") {
            Some("Disabled") => OverrideEnabled::Disabled,
            Some("Once") => OverrideEnabled::Once,
            Some("Continuous") => OverrideEnabled::Continuous,
            _ => OverrideEnabled::Unknown,
        },
        target: match told("BootSourceOverrideTarget") {
            Some("None") => OverrideTarget::None,
            Some("Pxe") => OverrideTarget::Network,
            Some("UefiHttp") => OverrideTarget::Http,
            // Where virtual media are a CD drive on USB, and no other is offered.
            Some("Cd" | "UsbCd") => OverrideTarget::Cd,
            Some("Hdd") => OverrideTarget::Disk,
            _ => OverrideTarget::Other,
        },
        http_uri: http_uri(system),
    }
}

/// `HttpBootUri`, where the BMC has it.
pub(super) fn http_uri(system: &Value) -> Option<String> {
    let told = system.get("Boot")?.get("HttpBootUri")?;
    Some(told.as_str().map(|uri| printable(uri, URI_MAX)).unwrap_or_default())
}

/// The targets that the BMC offers; `None` where it does not say.
pub(super) fn offered(system: &Value) -> Option<Vec<String>> {
    system.get("Boot")?.get("BootSourceOverrideTarget@Redfish.AllowableValues").and_then(texts)
}

/// The properties that are to be set, or the targets that are offered instead. `uri`: what `HttpBootUri` becomes; `mode`: what
/// `BootSourceOverrideMode` becomes.
pub(super) fn body(
    wish: Wish,
    offered: Option<&[String]>,
    uri: Option<&str>,
    mode: Option<&str>,
) -> Result<Map<String, Value>, String> {
    let (enabled, target) = match wish {
        Wish::Once(targets) => {
            let known = |target: &&str| offered.is_none_or(|all| all.iter().any(|text| text == target));
            match targets.iter().copied().find(known) {
                Some(target) => ("Once", target),
                None => return Err(printable(&offered.unwrap_or_default().join(", "), 240)),
            }
        }
        // Sent although some BMCs do not list it: others do nothing without a target.
        Wish::Clear => ("Disabled", "None"),
    };
    let all = [(ENABLED, Some(enabled)), (TARGET, Some(target)), (MODE, mode), (URI, uri)];
    Ok(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect())
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bmc_does_not_tell_is_unknown() {
        for (boot, enabled, target) in [
            (json!({}), OverrideEnabled::Unknown, OverrideTarget::Other),
            (json!([]), OverrideEnabled::Unknown, OverrideTarget::Other),
            (
                json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}),
                OverrideEnabled::Once,
                OverrideTarget::Network,
            ),
            (
                json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "UefiHttp"}),
                OverrideEnabled::Continuous,
                OverrideTarget::Http,
            ),
            (
                json!({"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "BiosSetup"}),
                OverrideEnabled::Disabled,
                OverrideTarget::Other,
            ),
            (
                json!({"BootSourceOverrideEnabled": null, "BootSourceOverrideTarget": 7}),
                OverrideEnabled::Unknown,
                OverrideTarget::Other,
            ),
        ] {
            let expected = BootOverride { enabled, target, http_uri: None };
            assert_eq!(read(&json!({"Boot": boot})), expected, "{boot}");
        }
        assert_eq!(read(&json!({})).enabled, OverrideEnabled::Unknown);
    }

    #[test]
    fn a_target_is_one_that_the_bmc_offers() {
        let offered: Vec<String> = ["Pxe", "Cd"].map(str::to_owned).into();
        let expected = json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"});
        let body = |wish, offered: Option<&[String]>| body(wish, offered, None, None).map(Value::Object);
        assert_eq!(body(Wish::Once(&["Pxe"]), Some(&offered)), Ok(expected.clone()));
        assert_eq!(body(Wish::Once(&["Pxe"]), None), Ok(expected));
        assert_eq!(body(Wish::Once(&["UefiHttp"]), Some(&offered)), Err("Pxe, Cd".to_owned()));
        assert!(body(Wish::Clear, Some(&offered)).is_ok());
        let media = |offered: &[&str]| {
            let offered: Vec<String> = offered.iter().map(|&text| text.to_owned()).collect();
            let body = body(Wish::Once(&["Cd", "UsbCd"]), Some(&offered));
            body.map(|body| body["BootSourceOverrideTarget"].clone())
        };
        assert_eq!(media(&["Pxe", "UsbCd", "Cd"]), Ok(json!("Cd")));
        assert_eq!(media(&["Pxe", "UsbCd"]), Ok(json!("UsbCd")));
        assert!(media(&["Pxe"]).is_err());
    }

    #[test]
    fn the_address_of_the_boot_program_is_told_apart_from_a_bmc_without_one() {
        for (boot, expected) in [
            (json!({}), None),
            (json!({"HttpBootUri": null}), Some("")),
            (json!({"HttpBootUri": "http://a/ipxe.efi"}), Some("http://a/ipxe.efi")),
        ] {
            assert_eq!(http_uri(&json!({"Boot": boot})).as_deref(), expected);
        }
        let set = body(Wish::Once(&["UefiHttp"]), None, Some("http://a/ipxe.efi"), None);
        assert_eq!(set.map(|body| body["HttpBootUri"].clone()), Ok(json!("http://a/ipxe.efi")));
        let kept = body(Wish::Clear, None, None, None);
        assert_eq!(kept.map(|body| body.get("HttpBootUri").is_none()), Ok(true));
    }
}
