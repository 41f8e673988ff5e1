//! What an installation takes from its `Server`. Pure.

use std::collections::BTreeMap;

use crate::api::{RootDevice, Server, UserDataRef};

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
    pub user_data: Option<UserDataRef>,
    /// Where to install.
    pub root_device: RootDevice,
}

/// What this server's installation needs.
pub fn machine_of(server: &Server) -> Machine {
    let wish = server.spec.image.clone().unwrap_or_default();
    Machine {
        name: server.metadata.name.clone().unwrap_or_default(),
        namespace: server.metadata.namespace.clone().unwrap_or_default(),
        uid: server.metadata.uid.clone().unwrap_or_default(),
        vars: wish.vars,
        user_data: wish.user_data_ref,
        root_device: wish.root_device.unwrap_or_default(),
    }
}
