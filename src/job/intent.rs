//! Intents: what a job is for, as one value that controller and worker compute alike.
//!
//! The controller stores the intent with the job; the worker computes it again from the live `Server` right before
//! the first request that changes the machine, and goes on only if both are equal. The generation is not part of it:
//! a changed priority must not stop a job.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Action, ServerUid};
use crate::api::{DeletionPolicy, Lifecycle, Power, Provisioning, Server, ServerSpec};

/// SHA-256 over what a job is for, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intent(pub String);

/// SHA-256 over the circumstances of a failure, in lower-case hexadecimal: the spec without `priority` and `paused`,
/// the credentials Secret's uid and resourceVersion, and `autobuild.dev/reconcile-requested-at`. While neither the
/// intent nor the cause differs, a failed intent is not enqueued again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cause(pub String);

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cause {
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
        let mut hash = Hash::new("intent/1");
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

impl Cause {
    /// The cause for a spec, the version of its Secret and its `reconcile-requested-at` annotation.
    pub fn of(
        spec: &ServerSpec,
        secret: Option<&SecretVersion>,
        reconcile_requested_at: Option<&str>,
    ) -> Self {
        let mut bare = spec.clone();
        bare.priority = None;
        bare.paused = None;
        let mut hash = Hash::new("cause/1");
        // A struct of strings and enums always serialises; should it ever not, the cause is merely coarser.
        hash.text(&serde_json::to_string(&bare).unwrap_or_default());
        hash.optional(secret.map(SecretVersion::to_string).as_deref());
        hash.optional(reconcile_requested_at);
        Self(hash.finish())
    }
}

/// A hash over fields that cannot run into each other: each is preceded by its length.
pub(super) struct Hash(Sha256);

impl Hash {
    pub(super) fn new(domain: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.text(domain);
        hash
    }

    pub(super) fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    pub(super) fn optional(&mut self, text: Option<&str>) {
        self.0.update([u8::from(text.is_some())]);
        self.text(text.unwrap_or_default());
    }

    pub(super) fn finish(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
