//! The override of the boot order in a system's document. Pure.

use serde_json::{Value, json};

use super::system::texts;
use crate::bmc::text::printable;
use crate::bmc::{BootOverride, OverrideEnabled, OverrideTarget};

/// An override that is to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// For the next start, from this Redfish target.
    Once(&'static str),
    /// None any more.
    Clear,
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
            Some("Cd") => OverrideTarget::Cd,
            Some("Hdd") => OverrideTarget::Disk,
            _ => OverrideTarget::Other,
        },
    }
}

/// The targets that the BMC offers; `None` where it does not say.
pub(super) fn offered(system: &Value) -> Option<Vec<String>> {
    system.get("Boot")?.get("BootSourceOverrideTarget@Redfish.AllowableValues").and_then(texts)
}

/// The body of the PATCH, or the targets that are offered instead.
pub(super) fn body(wish: Wish, offered: Option<&[String]>) -> Result<Value, String> {
    let (enabled, target) = match wish {
        Wish::Once(target) => match offered {
            Some(offered) if !offered.iter().any(|text| text == target) => {
                return Err(printable(&offered.join(", "), 240));
            }
            _ => ("Once", target),
        },
        // Sent although some BMCs do not list it: others do nothing without a target.
        Wish::Clear => ("Disabled", "None"),
    };
    Ok(json!({"Boot": {"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target}}))
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
            assert_eq!(read(&json!({"Boot": boot})), BootOverride { enabled, target }, "{boot}");
        }
        assert_eq!(read(&json!({})).enabled, OverrideEnabled::Unknown);
    }

    #[test]
    fn a_target_is_one_that_the_bmc_offers() {
        let offered: Vec<String> = ["Pxe", "Cd"].map(str::to_owned).into();
        let expected =
            json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}});
        assert_eq!(body(Wish::Once("Pxe"), Some(&offered)), Ok(expected.clone()));
        assert_eq!(body(Wish::Once("Pxe"), None), Ok(expected));
        assert_eq!(body(Wish::Once("UefiHttp"), Some(&offered)), Err("Pxe, Cd".to_owned()));
        assert!(body(Wish::Clear, Some(&offered)).is_ok());
    }
}
