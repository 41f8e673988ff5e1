//! What an installation takes from its `Server`. Pure.

use std::collections::BTreeMap;

use crate::api::Server;

/// A Secret key whose value the installed system fetches as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    /// Name of the Secret, in the namespace of the server.
    pub secret: String,
    /// The key in it.
    pub key: String,
    /// The SHA-256 that the value must have.
    pub sha256: Option<String>,
}

/// Which disk the system shall be installed on: what is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootDevice {
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// At least so many gibibytes.
    pub smallest_gib: Option<u64>,
}

/// A machine, as the installation needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Name of the server.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Values for the install data.
    pub vars: BTreeMap<String, String>,
    /// What the installed system is given.
    pub user_data: Option<UserData>,
    /// Where to install.
    pub root_device: RootDevice,
}

/// What this server's installation needs.
pub fn machine_of(server: &Server) -> Machine {
    Machine {
        name: server.metadata.name.clone().unwrap_or_default(),
        namespace: server.metadata.namespace.clone().unwrap_or_default(),
        uid: server.metadata.uid.clone().unwrap_or_default(),
        ..Machine::default()
    }
}
