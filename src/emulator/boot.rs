//! The boot source override of one system.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::Refusal;

/// Redfish `BootSourceOverrideEnabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverrideEnabled {
    /// No override.
    Disabled,
    /// For the next start of the host.
    Once,
    /// Until it is changed.
    Continuous,
}

/// Redfish `BootSourceOverrideTarget`, as far as the emulated machines know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootTarget {
    /// The machine's own order.
    None,
    /// The network, by PXE.
    Pxe,
    /// The CD (or virtual media).
    Cd,
    /// The disk.
    Hdd,
    /// The network, by HTTP.
    UefiHttp,
}

/// Redfish `BootSourceOverrideMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootMode {
    /// BIOS.
    Legacy,
    /// UEFI.
    #[serde(rename = "UEFI")]
    Uefi,
}

const TARGETS: [&str; 5] = ["None", "Pxe", "Cd", "Hdd", "UefiHttp"];
const MODES: [&str; 2] = ["Legacy", "UEFI"];
const ENABLED: [&str; 3] = ["Disabled", "Once", "Continuous"];

/// What the machine boots from next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// For how long the override holds.
    pub enabled: OverrideEnabled,
    /// Where to boot from.
    pub target: BootTarget,
    /// Firmware mode.
    pub mode: BootMode,
    /// The address for `UefiHttp`; empty when none is set.
    pub http_boot_uri: String,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            enabled: OverrideEnabled::Disabled,
            target: BootTarget::None,
            mode: BootMode::Uefi,
            http_boot_uri: String::new(),
        }
    }
}

impl Boot {
    /// The Redfish object.
    pub(super) fn render(&self) -> Value {
        json!({
            "BootSourceOverrideEnabled": self.enabled,
            "BootSourceOverrideEnabled@Redfish.AllowableValues": ENABLED,
            "BootSourceOverrideTarget": self.target,
            "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
            "BootSourceOverrideMode": self.mode,
            "BootSourceOverrideMode@Redfish.AllowableValues": MODES,
            "HttpBootUri": self.http_boot_uri,
        })
    }

    /// The override after a PATCH of `Boot`; refused as a whole when one property is not known or not valid.
    pub(super) fn patched(&self, patch: &Map<String, Value>) -> Result<Self, Refusal> {
        let mut next = self.clone();
        for (name, value) in patch {
            match name.as_str() {
                "BootSourceOverrideEnabled" => next.enabled = one_of(name, value, &ENABLED)?,
                "BootSourceOverrideTarget" => next.target = one_of(name, value, &TARGETS)?,
                "BootSourceOverrideMode" => next.mode = one_of(name, value, &MODES)?,
                "HttpBootUri" => {
                    let uri = if value.is_null() { Some("") } else { value.as_str() };
                    uri.ok_or_else(|| Refusal::property_value_type(name, value))?
                        .clone_into(&mut next.http_boot_uri);
                }
                _ => return Err(Refusal::property_unknown(&format!("Boot/{name}"))),
            }
        }
        if next.enabled == OverrideEnabled::Disabled {
            next.target = BootTarget::None;
        }
        Ok(next)
    }

    /// The host starts: the target that it boots from. A one-time override is used up.
    pub(super) fn start(&mut self) -> BootTarget {
        match self.enabled {
            OverrideEnabled::Disabled => BootTarget::None,
            OverrideEnabled::Continuous => self.target,
            OverrideEnabled::Once => {
                self.enabled = OverrideEnabled::Disabled;
                std::mem::replace(&mut self.target, BootTarget::None)
            }
        }
    }
}

fn one_of<T: for<'de> Deserialize<'de>>(name: &str, value: &Value, known: &[&str]) -> Result<T, Refusal> {
    let text = value.as_str().ok_or_else(|| Refusal::property_value_type(name, value))?;
    serde_json::from_value(value.clone()).map_err(|_| Refusal::property_not_in_list(name, text, known))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn patch(boot: &Boot, value: Value) -> Result<Boot, Refusal> {
        boot.patched(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_one_time_override_is_used_up_by_the_next_start() {
        let mut boot = patch(
            &Boot::default(),
            json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}),
        )
        .unwrap();
        assert_eq!(boot.start(), BootTarget::Pxe);
        assert_eq!(boot, Boot::default());
        assert_eq!(boot.start(), BootTarget::None);
    }

    #[test]
    fn a_continuous_override_stays() {
        let mut boot = patch(
            &Boot::default(),
            json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Hdd"}),
        )
        .unwrap();
        assert_eq!(boot.start(), BootTarget::Hdd);
        assert_eq!(boot.start(), BootTarget::Hdd);
    }

    #[test]
    fn an_unknown_property_and_an_unknown_value_are_refused() {
        assert!(patch(&Boot::default(), json!({"BootOrder": []})).is_err());
        assert!(patch(&Boot::default(), json!({"BootSourceOverrideTarget": "Floppy"})).is_err());
        assert!(patch(&Boot::default(), json!({"BootSourceOverrideTarget": 5})).is_err());
    }
}
