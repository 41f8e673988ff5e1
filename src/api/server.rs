//! `Server`: one physical machine, as its owner declares it.
//!
//! The doc comments of fields are what `kubectl explain` prints (of an optional enum, that of its type): they speak to
//! whoever writes a manifest.
#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BootMethod, ImageWish, Provisioning, ServerStatus};

/// The power state that the machine should be in: PoweredOn or PoweredOff. Without it the power is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Power {
    /// The machine shall be on.
    PoweredOn,
    /// The machine shall be off.
    PoweredOff,
}

impl Power {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoweredOn => "PoweredOn",
            Self::PoweredOff => "PoweredOff",
        }
    }
}

/// How soon jobs of this server are done, compared with others. Without it power changes and reboots are High.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Priority {
    /// Before everything else.
    Urgent,
    /// Before normal work.
    High,
    /// In turn.
    Normal,
    /// After everything else.
    Low,
}

/// How a machine is switched off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ShutdownMode {
    /// The operating system is asked first; the power is cut after a deadline.
    #[default]
    Graceful,
    /// The power is cut at once.
    Forced,
}

/// What happens to the machine when its `Server` is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is let go as it is.
    #[default]
    Retain,
    /// It is powered off first.
    PowerOff,
    /// Its disks are erased first, and the object stays until that is verified.
    Wipe,
}

/// Whether the machine is in use. Decommissioned erases its disks, powers it off and is for ever: it needs the annotation
/// autobuild.dev/confirm, and only a new Server can bring the machine back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Lifecycle {
    /// The machine is in use.
    #[default]
    InService,
    /// The machine's life has ended.
    Decommissioned,
}

/// Which Secret holds the BMC's user name and password. There is no namespace field: it is always the Server's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsRef {
    /// Name of a Secret in the same namespace, of type autobuild.dev/bmc-credentials, with the keys username and
    /// password.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// The kind of object that holds a CA certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CaRefKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Where a CA certificate (PEM) is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// The kind of the object that holds the certificate: ConfigMap or Secret.
    pub kind: CaRefKind,
    /// Name of that object, in the same namespace as the Server.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in it whose value is one or more certificates in PEM form.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Disabled switches verification off: whoever sits between can read the password. Works only where the operator
/// allows it, and shows as the condition InsecureTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsVerify {
    /// They are not: whoever sits between can read the password.
    Disabled,
}

/// How the BMC's certificate is judged: exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.caRef) ? 1 : 0) + (has(self.certificateSHA256) ? 1 : 0) + (has(self.verify) ? 1 : 0) == 1",
    "set exactly one of caRef, certificateSHA256 and verify"
))]
pub struct BmcTls {
    /// The CA that signed the BMC's certificate, where it is not one that the workers trust already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// The SHA-256 fingerprint of the BMC's certificate, 64 hexadecimal digits with or without colons. It takes the
    /// place of chain and name; for self-signed certificates. A refused handshake reports the fingerprint that it saw.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "certificateSHA256")]
    #[schemars(length(max = 95), regex(pattern = r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$"))]
    pub certificate_sha256: Option<String>,
    /// Disabled switches verification off: whoever sits between can read the password. Works only where the operator
    /// allows it, and shows as the condition InsecureTLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<TlsVerify>,
}

/// The BMC of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
// Rules of the object, not a pattern of the field: the API server repeats a value that fails its pattern.
#[x_kube(validation = (
    "!self.address.matches('^([^/]*//)?[^/]*@')",
    "address has user information before an '@': put it into the Secret of credentialsRef"
))]
#[x_kube(validation = (
    "self.address.matches('^(redfish[+]https?|ipmi)://[^[:space:]]+$')",
    "address is written redfish+https://HOST[:PORT] (what others write https://HOST), redfish+http://HOST or ipmi://HOST, with \
     /redfish/v1/Systems/ID behind the host where the BMC has several systems"
))]
pub struct BmcSpec {
    /// Where the BMC is: redfish+https://HOST or redfish+https://HOST:PORT, with /redfish/v1/Systems/ID behind it where the BMC serves
    /// more than one system; redfish+http://... and ipmi://HOST only where the operator allows them. May be changed: another
    /// machine than before is then noticed (IdentityMismatch) and left alone.
    #[schemars(length(min = 1, max = 512))]
    pub address: String,
    /// The Secret with the BMC's user name and password.
    pub credentials_ref: CredentialsRef,
    /// How the BMC's certificate is judged. Without it the certificate is verified against the CAs that the workers
    /// trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BmcTls>,
    /// The mode that overrides of the boot order are in: UEFI or Legacy. Without it the mode is left as the BMC shows it. On some
    /// makers' machines (Dell) a change of it costs further restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
}

/// The mode that overrides of the boot order are in: UEFI or Legacy. Without it the mode is left as the BMC shows it. On some
/// makers' machines (Dell) a change of it costs further restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BootMode {
    /// By UEFI.
    UEFI,
    /// As a BIOS does.
    Legacy,
}

impl BootMode {
    /// The name in the API, and in Redfish.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UEFI => "UEFI",
            Self::Legacy => "Legacy",
        }
    }
}

/// The site of a Server that names none.
pub const DEFAULT_SITE: &str = "default";

fn default_site() -> String {
    DEFAULT_SITE.to_owned()
}

/// The state that the machine should be in.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "autobuild.dev",
    version = "v1alpha1",
    kind = "Server",
    plural = "servers",
    shortname = "bms",
    category = "autobuild",
    namespaced,
    status = "ServerStatus",
    derive = "PartialEq",
    cel,
    doc = "One physical machine, reached through its BMC: spec says how it should be, status how it was found.",
    selectable = ".spec.power",
    selectable = ".spec.site",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where it stands"
    ),
    printcolumn(
        name = "Power",
        type_ = "string",
        json_path = ".status.power",
        description = "Power as last read"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether it is as declared"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why Ready is as it is"
    ),
    printcolumn(
        name = "Job",
        type_ = "string",
        json_path = ".status.job.action",
        description = "The live job"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.image.name",
        description = "What is installed",
        priority = 1
    ),
    printcolumn(
        name = "BMC",
        type_ = "string",
        json_path = ".spec.bmc.address",
        description = "Address of the BMC",
        priority = 1
    ),
    printcolumn(
        name = "Serial",
        type_ = "string",
        json_path = ".status.hardware.serialNumber",
        description = "Serial number",
        priority = 1
    ),
    printcolumn(
        name = "Step",
        type_ = "string",
        json_path = ".status.job.step",
        description = "Step of the live job",
        priority = 1
    ),
    printcolumn(
        name = "Waiting",
        type_ = "string",
        json_path = ".status.job.waitingFor",
        description = "What the live job waits for",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The BMC network (data centre) that the machine is in. Only workers started for this site work on it. Cannot be
    /// changed.
    #[serde(default = "default_site")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = (
        "self == oldSelf",
        "site cannot be changed: delete this Server (deletionPolicy Retain leaves the machine as it is) and create it again"
    ))]
    pub site: String,
    /// The machine's BMC (baseboard management controller): where it is and how to log in.
    pub bmc: BmcSpec,
    /// InService, or Decommissioned: then the disks are erased, the machine is powered off, and nothing else is done to it
    /// ever again. Decommissioned needs the annotation autobuild.dev/confirm and cannot be taken back.
    #[serde(default)]
    #[x_kube(validation = (
        "oldSelf != 'Decommissioned' || self == 'Decommissioned'",
        "lifecycle is Decommissioned for ever: to use the machine again, delete this Server and create a new one with the \
         annotation autobuild.dev/recommission and the machine's serial number as its value"
    ))]
    pub lifecycle: Lifecycle,
    /// The power state that the machine should be in. Without it the power is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// The operating system that the machine should run. Without it nothing is installed, and what is there is left
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageWish>,
    /// Install puts the named image onto the machine; Adopt records it as what is there already and touches nothing.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// The MAC address of the network interface from which the machine boots its installer. Without it the first one
    /// that the BMC reports.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "bootMACAddress")]
    #[schemars(length(max = 17), regex(pattern = r"^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$"))]
    pub boot_mac_address: Option<String>,
    /// How the machine boots its installer: PXE, HTTP (UEFI HTTP boot), or VirtualMedia, where the BMC shows the ISO of the
    /// OSImage as a CD. Takes effect with the next installation.
    #[serde(default)]
    pub boot_method: BootMethod,
    /// A new value is one request to install the image again; write it in quotes, a date is a good one ("2026-03-01").
    /// The same value again, an earlier one or none asks for nothing; a value that comes with a new Server is taken note
    /// of only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-._:+/a-zA-Z0-9]+$"))]
    pub reimage_token: Option<String>,
    /// How the machine is switched off, for power, reboots and deletionPolicy: Graceful asks the operating system
    /// first and cuts the power after a deadline, Forced cuts it at once.
    #[serde(default)]
    pub shutdown_mode: ShutdownMode,
    /// A new value is one request to reboot; write it in quotes, a date is a good one ("2026-03-01"). The same value
    /// again, an earlier one or none asks for nothing; a value that comes with a new Server is taken note of only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-._:+/a-zA-Z0-9]+$"))]
    pub reboot_token: Option<String>,
    /// How soon jobs of this server are done, compared with others. Without it power changes and reboots are High.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// While true nothing is begun; a job under way is asked to stop at its next safe step, and switches on again what it has
    /// switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// What happens to the machine when this object is deleted: Retain leaves it as it is, PowerOff powers it off
    /// first, Wipe erases its disks first and keeps the object until that is verified. Wipe needs the annotation
    /// autobuild.dev/confirm.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server::new(
            "rack1-node1",
            ServerSpec {
                site: "default".into(),
                bmc: BmcSpec {
                    address: "redfish+https://192.0.2.10".into(),
                    credentials_ref: CredentialsRef { name: "bmc".into() },
                    tls: None,
                    boot_mode: None,
                },
                ..ServerSpec::default()
            },
        )
    }

    #[test]
    fn a_plain_server_is_accepted() {
        server().validate_cel().unwrap();
    }

    #[test]
    fn an_address_of_another_scheme_is_refused_with_the_way_out() {
        let mut server = server();
        for address in
            ["redfish+https://a:8443/redfish/v1/Systems/1", "redfish+http://[2001:db8::1]", "ipmi://a"]
        {
            server.spec.bmc.address = address.to_owned();
            server.validate_cel().unwrap();
        }
        for address in [
            "https://a",
            "http://a",
            "ftp://a",
            "redfish://a",
            "a",
            "idrac+https://a",
            "xipmi://a",
            "ipmi://",
        ] {
            server.spec.bmc.address = address.to_owned();
            let errors = server.validate_cel().unwrap_err().to_string();
            assert!(
                errors.contains("redfish+https://HOST[:PORT] (what others write https://HOST)"),
                "{errors}"
            );
        }
    }

    #[test]
    fn a_missing_site_is_the_default_one() {
        let spec: ServerSpec = serde_json::from_str(
            r#"{"bmc": {"address": "redfish+https://a", "credentialsRef": {"name": "b"}}}"#,
        )
        .unwrap();
        assert_eq!(spec.site, DEFAULT_SITE);
        assert_eq!(spec.deletion_policy, DeletionPolicy::Retain);
    }

    #[test]
    fn the_site_cannot_be_changed_and_the_message_says_what_to_do() {
        let old = server();
        let mut new = server();
        new.spec.site = "elsewhere".into();
        let errors = new.validate_cel_update(&old).unwrap_err().to_string();
        assert!(errors.contains("site cannot be changed"), "{errors}");
        new.spec.site.clone_from(&old.spec.site);
        new.spec.power = Some(Power::PoweredOff);
        new.validate_cel_update(&old).unwrap();
    }

    #[test]
    fn a_decommissioned_server_stays_one_and_the_message_says_how_its_machine_comes_back() {
        let mut old = server();
        let mut new = server();
        new.spec.lifecycle = Lifecycle::Decommissioned;
        new.validate_cel_update(&old).unwrap();
        std::mem::swap(&mut old, &mut new);
        let errors = new.validate_cel_update(&old).unwrap_err().to_string();
        assert!(errors.contains("autobuild.dev/recommission"), "{errors}");
        new.spec.lifecycle = Lifecycle::Decommissioned;
        new.validate_cel_update(&old).unwrap();
    }

    #[test]
    fn values_for_the_install_data_are_short_and_have_plain_names() {
        let with = |name: &str, value: &str| {
            let mut server = server();
            let vars = [(name.to_owned(), value.to_owned())].into();
            server.spec.image = Some(ImageWish { name: "debian".into(), vars, ..ImageWish::default() });
            server.validate_cel()
        };
        with("rack_1", &"v".repeat(256)).unwrap();
        for (name, value) in [("rack_1", "v".repeat(257)), ("rack_1", "a\nb".into()), ("Rack", "v".into())] {
            let refused = with(name, &value).unwrap_err().to_string();
            assert!(refused.contains("at most 256 characters"), "{refused}");
        }
    }

    #[test]
    fn tls_takes_exactly_one_way_to_judge_a_certificate() {
        let mut server = server();
        server.spec.bmc.tls = Some(BmcTls::default());
        assert!(server.validate_cel().is_err());
        server.spec.bmc.tls = Some(BmcTls { verify: Some(TlsVerify::Disabled), ..BmcTls::default() });
        server.validate_cel().unwrap();
        server.spec.bmc.tls = Some(BmcTls {
            verify: Some(TlsVerify::Disabled),
            certificate_sha256: Some("aa".repeat(32)),
            ca_ref: None,
        });
        assert!(server.validate_cel().unwrap_err().to_string().contains("exactly one"));
    }
}
