//! `Server`: one physical machine, as its owner declares it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The wished power state.
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

/// How soon jobs of this server are done.
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
}

/// Which Secret holds the BMC's user name and password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsRef {
    /// Name of a Secret of type `autobuild.dev/bmc-credentials` in the same namespace.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// ConfigMap or Secret.
    pub kind: CaRefKind,
    /// Its name, in the same namespace.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// Whether certificates are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsVerify {
    /// They are not: whoever sits between can read the password.
    Disabled,
}

/// How the BMC's certificate is judged: exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmcTls {
    /// The CA that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// The SHA-256 fingerprint of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "certificateSHA256")]
    pub certificate_sha256: Option<String>,
    /// Switches verification off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<TlsVerify>,
}

/// The BMC of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmcSpec {
    /// Its address.
    pub address: String,
    /// Its credentials.
    pub credentials_ref: CredentialsRef,
    /// How its certificate is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BmcTls>,
}

/// The wish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The BMC network.
    #[serde(default)]
    pub site: String,
    /// The BMC.
    pub bmc: BmcSpec,
    /// The wished power state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// How the machine is switched off.
    #[serde(default)]
    pub shutdown_mode: ShutdownMode,
    /// A new value is one reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_token: Option<String>,
    /// How soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Nothing is enqueued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// What happens on deletion.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}
