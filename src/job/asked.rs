//! Whether an object asks for an action at all. An intent can be computed for what nobody asked for, by whoever can write
//! rows; controller and worker both ask the object itself.

use super::{Action, Deleting};
use crate::api::{Lifecycle, Provisioning, Server};

impl Action {
    /// Whether what destroys data is asked for by the object's own fields; what destroys nothing always may be.
    pub fn is_asked_by(self, server: &Server) -> bool {
        let spec = &server.spec;
        let in_service = spec.lifecycle == Lifecycle::InService;
        let deleting = Deleting::of(server);
        match self {
            Self::Inspect | Self::PowerOn | Self::PowerOff | Self::Reboot => true,
            Self::Build | Self::Reimage => {
                deleting == Deleting::No
                    && in_service
                    && spec.image.is_some()
                    && spec.provisioning == Provisioning::Install
            }
            Self::Decommission => deleting == Deleting::No && !in_service,
            Self::Wipe => deleting == Deleting::Wipe,
        }
    }
}
