//! `spec.image`: the operating system that the machine should run, and what its installer is given.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ImageKind;

/// Whether the named image is put onto the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Provisioning {
    /// It is installed.
    #[default]
    Install,
    /// It is recorded as what is there already: the machine is not touched.
    Adopt,
}

/// How the machine boots its installer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BootMethod {
    /// From the network by PXE.
    #[default]
    PXE,
    /// From the network by UEFI HTTP boot.
    HTTP,
    /// From an ISO in the virtual CD drive of its BMC.
    VirtualMedia,
}

impl BootMethod {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PXE => "PXE",
            Self::HTTP => "HTTP",
            Self::VirtualMedia => "VirtualMedia",
        }
    }

    /// How an image has to be made for this method.
    pub const fn image_kind(self) -> ImageKind {
        match self {
            Self::PXE | Self::HTTP => ImageKind::Network,
            Self::VirtualMedia => ImageKind::Iso,
        }
    }

    /// What is wrong with this method for an image of that kind, with the way out; `None`: they fit.
    pub fn mismatch(self, image: &str, kind: ImageKind) -> Option<String> {
        match (self, kind) {
            (Self::PXE | Self::HTTP, ImageKind::Network) | (Self::VirtualMedia, ImageKind::Iso) => None,
            (Self::PXE | Self::HTTP, ImageKind::Iso) => Some(format!(
                "spec.bootMethod is {}, and the OSImage {image:?} has spec.source.iso, which no machine boots \
                 from the network: set spec.bootMethod to VirtualMedia, or name an OSImage with kernel and initrd",
                self.as_str()
            )),
            (Self::VirtualMedia, ImageKind::Network) => Some(format!(
                "spec.bootMethod is VirtualMedia, and the OSImage {image:?} has spec.source.kernel, which is no \
                 medium: set spec.bootMethod to PXE or HTTP, or name an OSImage with an iso"
            )),
        }
    }
}

/// Where the user data of an installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserDataRef {
    /// Name of a Secret in the same namespace, of type autobuild.dev/user-data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in it whose value is handed to the installer as it is.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// The SHA-256 of that value, 64 hexadecimal digits; another value is then not handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// A hint for the installer which disk to install on: the first that fits all that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootDevice {
    /// Its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub serial_number: Option<String>,
    /// Its World Wide Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[-.:_a-zA-Z0-9]+$"))]
    pub wwn: Option<String>,
    /// Its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[- ._a-zA-Z0-9]+$"))]
    pub model: Option<String>,
    /// Its smallest size in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "minSizeGiB")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub min_size_gib: Option<i64>,
}

/// The operating system that the machine should run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.vars) || self.vars.all(name, name.matches('^[a-z][a-z0-9_]{0,62}$') && self.vars[name].size() <= 256 && !self.vars[name].matches('[[:cntrl:]]'))",
    "vars have names of lower-case letters, digits and '_', and values of at most 256 characters without control characters"
))]
pub struct ImageWish {
    /// Name of an OSImage in the same namespace. Another name installs the machine again.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The user data that the installer may fetch. A change takes effect with the next installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_ref: Option<UserDataRef>,
    /// Values for the image's install data, such as a host name. A change takes effect with the next installation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "short_texts")]
    pub vars: BTreeMap<String, String>,
    /// A hint which disk to install on. A change takes effect with the next installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_device: Option<RootDevice>,
}

fn short_texts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 256}
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_method_and_an_image_that_do_not_fit_are_told_with_both_fields() {
        for (method, kind) in [
            (BootMethod::PXE, ImageKind::Iso),
            (BootMethod::HTTP, ImageKind::Iso),
            (BootMethod::VirtualMedia, ImageKind::Network),
        ] {
            let said = method.mismatch("debian", kind).unwrap();
            assert!(said.contains(&format!("spec.bootMethod is {}", method.as_str())), "{said}");
            assert!(said.contains("spec.source.") && said.contains("debian"), "{said}");
        }
        assert_eq!(BootMethod::PXE.mismatch("a", ImageKind::Network), None);
        assert_eq!(BootMethod::VirtualMedia.mismatch("a", ImageKind::Iso), None);
        for method in [BootMethod::PXE, BootMethod::HTTP, BootMethod::VirtualMedia] {
            assert_eq!(serde_json::to_value(method).unwrap(), method.as_str());
        }
    }
}
