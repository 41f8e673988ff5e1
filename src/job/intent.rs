//! Intents: what a job is for, as one value that controller and worker compute alike.
//!
//! The controller stores the intent with the job; the worker computes it again from the live `Server` right before
//! the first request that changes the machine, and goes on only if both are equal. The generation is not part of it:
//! a changed priority must not stop a job.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::named_hash::NamedHash;
use super::{Action, ServerUid};
use crate::api::{DeletionPolicy, Lifecycle, Power, Provisioning, Server, ServerSpec};

/// SHA-256 over what a job is for, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intent(pub String);

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which version of a Secret was seen; `None` where there is no such Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretVersion {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

impl fmt::Display for SecretVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.uid, self.resource_version)
    }
}

/// What an intent is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// `metadata.uid`.
    pub uid: &'a ServerUid,
    /// The spec as it stands.
    pub spec: &'a ServerSpec,
    /// The normalised BMC address, or the address as written where it cannot be parsed.
    pub bmc_address: &'a str,
    /// The digest of the `OSImage` that the action boots: what `spec.image` names, or what wipes; `None`: none is named, or
    /// there is none of that name.
    pub image_digest: Option<&'a str>,
    /// `PowerOff` when the object is being deleted with `deletionPolicy: PowerOff`: then the wished power is off,
    /// whatever the spec says.
    pub deleting: Deleting,
}

/// Whether, and how, the object is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deleting {
    /// It is not.
    No,
    /// It is let go as it is.
    Retain,
    /// It is powered off first.
    PowerOff,
    /// Its disks are erased first.
    Wipe,
}

impl Deleting {
    /// What is asked for a server.
    pub fn of(server: &Server) -> Self {
        match (&server.metadata.deletion_timestamp, server.spec.deletion_policy) {
            (None, _) => Self::No,
            (Some(_), DeletionPolicy::Retain) => Self::Retain,
            (Some(_), DeletionPolicy::PowerOff) => Self::PowerOff,
            (Some(_), DeletionPolicy::Wipe) => Self::Wipe,
        }
    }
}

/// Whether an object asks for a machine that is, or ends, off: by its power, its deletion or the end of its life.
pub fn asks_for_off(server: &Server) -> bool {
    let deleting = matches!(Deleting::of(server), Deleting::PowerOff | Deleting::Wipe);
    let spec = &server.spec;
    deleting || spec.power == Some(Power::PoweredOff) || spec.lifecycle == Lifecycle::Decommissioned
}

impl Intent {
    /// The intent of `action` for `wish`.
    pub fn of(action: Action, wish: Wish<'_>) -> Self {
        let token = action.token().and_then(|token| token.of(wish.spec));
        let power = match (action, wish.deleting) {
            // A look is a look, whatever power is wished; and what boots an installer goes to its end before the power follows.
            (Action::Inspect | Action::Build | Action::Reimage | Action::Wipe | Action::Decommission, _) => {
                None
            }
            (_, Deleting::PowerOff) => Some(Power::PoweredOff),
            _ => wish.spec.power,
        };
        let deleting = match wish.deleting {
            Deleting::No => "",
            Deleting::Retain => "Retain",
            Deleting::PowerOff => "PowerOff",
            Deleting::Wipe => "Wipe",
        };
        let mut hash = NamedHash::new("intent/1");
        // One wish, whether it is the first installation or not: what failed as one is not tried as the other.
        hash.text(if action.installs() { "Install" } else { action.as_str() });
        hash.text(wish.uid.as_str());
        hash.text(wish.bmc_address);
        hash.optional(token);
        hash.optional(power.map(Power::as_str));
        hash.text(deleting);
        if action.installs() {
            hash.optional(wish.spec.image.as_ref().map(|image| image.name.as_str()));
            hash.optional(wish.image_digest);
            hash.text(match wish.spec.provisioning {
                Provisioning::Install => "Install",
                Provisioning::Adopt => "Adopt",
            });
        }
        if action.wipes() {
            hash.optional(wish.image_digest);
        }
        if wish.spec.lifecycle == Lifecycle::Decommissioned {
            hash.text("Decommissioned");
        }
        Self(hash.finish())
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;
    use crate::api::ImageWish;

    /// A changed value stops every running job of a fleet when this release is installed, half-way installations included: a
    /// new field is hashed only where it is set.
    #[test]
    fn the_values_are_those_of_the_release_before() {
        let image = ImageWish { name: "debian".into(), ..ImageWish::default() };
        let spec = ServerSpec {
            power: Some(Power::PoweredOn),
            image: Some(image),
            reimage_token: Some("i".into()),
            reboot_token: Some("b".into()),
            ..ServerSpec::default()
        };
        let wish = Wish {
            uid: &ServerUid("u".into()),
            spec: &spec,
            bmc_address: "redfish+https://192.0.2.10:443",
            image_digest: Some("sha256:1"),
            deleting: Deleting::No,
        };
        for (action, value) in [
            (Action::Inspect, "6ed217632886bc0b93de57df00173b7313020649d66a02a89e6956000cf2baff"),
            (Action::PowerOn, "3150854039174bb659028e5070f03ef81d8c97b41e53f184fd32637a13b007f2"),
            (Action::PowerOff, "d873dccc62e1a7adf42e3e8026040e7c0605735b9ad8b7c24057072e7bfe858b"),
            (Action::Reboot, "acf53339277269fb19f13085700d866a2e87a9752ece333d852c85258e6546f2"),
            (Action::Build, "317bf4b26cc629ee743dc56c892a91b66aa1b82f4be27fd6669fc4a0b5407b3c"),
            (Action::Reimage, "317bf4b26cc629ee743dc56c892a91b66aa1b82f4be27fd6669fc4a0b5407b3c"),
            (Action::Wipe, "0e8dbb265ee60fe2657a6582c235451ee58753e7c5c6fb6761282dea7b9dfaef"),
            (Action::Decommission, "dcf05ab9421b7d2a8eae9a34cfc4dd110b1f975b03a5f3f9dda503cfbd78e82b"),
        ] {
            assert_eq!(Intent::of(action, wish).0, value, "{action}");
        }
    }

    /// What a job is for, and nothing else, is in its intent: named one by one, and a new field of spec is in none.
    #[test]
    fn what_says_nothing_about_what_a_job_is_for_stops_none() {
        let spec = ServerSpec::default();
        let changed = ServerSpec {
            priority: Some(crate::api::Priority::Urgent),
            boot_mac_address: Some("52:54:00:12:34:56".into()),
            boot_method: crate::api::BootMethod::HTTP,
            shutdown_mode: crate::api::ShutdownMode::Forced,
            deletion_policy: DeletionPolicy::Wipe,
            ..ServerSpec::default()
        };
        let uid = ServerUid("u".into());
        for action in Action::ALL {
            let intent = |spec| {
                let (bmc_address, image_digest, deleting) = ("a", None, Deleting::No);
                Intent::of(action, Wish { uid: &uid, spec, bmc_address, image_digest, deleting })
            };
            assert_eq!(intent(&spec), intent(&changed), "{action}");
        }
    }
}
