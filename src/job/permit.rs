//! Permits: how many jobs of a kind may be in flight at once.

use super::Action;

/// What a permit is for. Each site has so many of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PermitClass {
    /// Booting a machine from the network to write to its disks.
    Install,
}

impl PermitClass {
    /// Every class.
    pub const ALL: [Self; 1] = [Self::Install];

    /// The name in the database, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "Install",
        }
    }

    /// The class of that name; `None` for a name of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl Action {
    /// The class whose permit a job of this action holds while it is in flight. What boots an installer loads the boot
    /// service and the network, whichever of them it is.
    pub const fn permit_class(self) -> Option<PermitClass> {
        match self {
            Self::Inspect | Self::PowerOn | Self::PowerOff | Self::Reboot => None,
            Self::Build | Self::Reimage | Self::Wipe | Self::Decommission => Some(PermitClass::Install),
        }
    }
}
