//! Which `OSImage` erases disks: set by the operator, the same for all controllers and workers.

use super::{BootMethod, ImageKind};

/// The names of the `OSImage`s that erase disks, in the namespace of each `Server`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WipeImages {
    /// What machines boot from the network (`--wipe-image`).
    pub network: String,
    /// What machines boot from virtual media (`--wipe-iso`).
    pub iso: String,
}

impl WipeImages {
    /// The one for machines that boot like this.
    pub fn of(&self, method: BootMethod) -> &str {
        match method.image_kind() {
            ImageKind::Network => &self.network,
            ImageKind::Iso => &self.iso,
        }
    }

    /// Whether that name is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.network == name || self.iso == name
    }

    /// The flag that names the one for machines that boot like this.
    pub const fn flag(method: BootMethod) -> &'static str {
        match method.image_kind() {
            ImageKind::Network => "--wipe-image",
            ImageKind::Iso => "--wipe-iso",
        }
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_erased_by_what_it_can_boot() {
        let images = WipeImages { network: "wipe".into(), iso: "wipe-iso".into() };
        assert_eq!(images.of(BootMethod::PXE), "wipe");
        assert_eq!(images.of(BootMethod::HTTP), "wipe");
        assert_eq!(images.of(BootMethod::VirtualMedia), "wipe-iso");
        assert!(images.has("wipe") && images.has("wipe-iso") && !images.has("debian"));
    }
}
