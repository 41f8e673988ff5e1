//! What a machine boots from next, as its BMC tells it.

/// For how long an override of the boot order holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideEnabled {
    /// The machine boots in its own order.
    Disabled,
    /// For the next start alone.
    Once,
    /// Until it is changed. Some BMCs tell this of a one-time override too.
    Continuous,
    /// The BMC does not say, or says something else.
    Unknown,
}

/// What an override makes the machine boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideTarget {
    /// Nothing special: its own order.
    None,
    /// The network, by PXE.
    Network,
    /// The network, by UEFI HTTP.
    Http,
    /// The CD drive, virtual media among them.
    Cd,
    /// The disk.
    Disk,
    /// Something else, such as a menu, or what the BMC does not say.
    Other,
}

/// The override of the boot order, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOverride {
    /// For how long it holds.
    pub enabled: OverrideEnabled,
    /// What it makes the machine boot from.
    pub target: OverrideTarget,
    /// From where UEFI HTTP boot fetches its boot program, empty where nothing is set; `None`: the BMC has no such setting, and
    /// DHCP tells.
    pub http_uri: Option<String>,
}

impl BootOverride {
    /// Whether the machine boots in its own order for certain.
    pub fn is_clear(&self) -> bool {
        self.enabled == OverrideEnabled::Disabled || self.target == OverrideTarget::None
    }
}
