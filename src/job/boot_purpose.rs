//! What a machine boots from the network for.

use serde::{Deserialize, Serialize};

/// What a boot session is for: who serves it compares that with what the live `Server` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootPurpose {
    /// Its disks are written.
    Install,
    /// Its disks are erased.
    Wipe,
}

impl BootPurpose {
    /// Both, in a fixed order.
    pub const ALL: [Self; 2] = [Self::Install, Self::Wipe];

    /// The name in the database, and the value of `autobuild.action`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "Install",
            Self::Wipe => "Wipe",
        }
    }

    /// The purpose of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == name)
    }
}
