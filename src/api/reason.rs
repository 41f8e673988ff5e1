//! Why something is as it is: one closed set for conditions, events, log fields and metric labels.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A reason. Its name is the condition reason, the event reason, the log field and the metric label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// One sentence for the documentation.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc,)+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// Nothing is known of the machine yet.
    Pending,
    /// The first inspection of the machine is under way.
    Inspecting,
    /// The machine is as declared.
    AsDeclared,
    /// The BMC answered the last time that it was asked.
    Answered,
    /// The power state is the wished one.
    InSync,
    /// The power state is not the wished one yet.
    OutOfSync,
    /// The last good reading of the BMC is recent.
    RecentlyRead,
    /// The last good reading of the BMC is older than its bound.
    ReadingTooOld,
    /// The job waits for a worker.
    Queued,
    /// The job is not enqueued yet: the message says what comes first.
    NotEnqueuedYet,
    /// No live worker serves this site.
    NoWorkerForSite,
    /// The machine is being powered on.
    PoweringOn,
    /// The machine is being powered off.
    PoweringOff,
    /// The machine is being rebooted.
    Rebooting,
    /// An operating system is being installed for the first time.
    Building,
    /// An operating system is being installed again.
    Reimaging,
    /// The disks are being erased.
    Wiping,
    /// The machine's life is being ended: its disks are being erased.
    Decommissioning,
    /// The machine's life has ended: its disks were erased, and nothing is done to it any more.
    Decommissioned,
    /// The machine was decommissioned under this very object, and `spec.lifecycle` no longer says so: an older definition, or a backup, lost the field.
    LifecycleForgotten,
    /// A person must confirm that the machine's life ends here.
    ConfirmDecommission,
    /// A person must confirm that the disks are erased before the object goes.
    ConfirmWipe,
    /// There is no `OSImage` that erases disks: see `--wipe-image` and `--wipe-iso`.
    WipeImageNotFound,
    /// As many machines of this namespace had their data destroyed in this hour as may: time to take a mistake back.
    DestructionBudget,
    /// The machine was decommissioned under another `Server`: a person must say that it comes back.
    MachineDecommissioned,
    /// The machine has the image that `spec.image` names.
    ImageInSync,
    /// The machine does not have the image that `spec.image` names yet.
    ImageOutOfSync,
    /// There is no `OSImage` of the name in `spec.image`.
    ImageNotFound,
    /// The `OSImage` of that name is another one than was installed: the machine is left as it is until the name or the token changes.
    ImageReplaced,
    /// What is on the machine was not put there for this `Server`: a person must confirm that it may be overwritten.
    ConfirmBuild,
    /// Whether the wished image still is on the machine is in doubt: nothing is installed before a person says so.
    ContentsUnknown,
    /// No network interface is known from which the machine could boot.
    BootMACMissing,
    /// Another machine has the network card that is to boot, or is being installed under its MAC address.
    BootMACConflict,
    /// The network card that is to boot is not one of this machine, or another machine asks with its MAC address.
    BootMACMismatch,
    /// `spec.bootMethod` and the `OSImage` do not fit: an ISO boots from virtual media, a kernel from the network.
    BootMethodMismatch,
    /// The BMC accepted a boot override and does not show it.
    BootOverrideIgnored,
    /// The BMC has no virtual CD drive, or does not take the ISO.
    MediaNotInserted,
    /// The machine did not fetch its boot script in time.
    NeverBooted,
    /// The boot service cannot give the machine what its image names.
    ImageUnusable,
    /// The installer, or what erases the disks, gave up.
    InstallFailed,
    /// The machine was not installed, or its disks were not erased, in time.
    InstallTimedOut,
    /// The job was asked to stop and undoes what it had begun.
    Cancelling,
    /// `spec.paused` is true: nothing is enqueued.
    Paused,
    /// The object is being deleted.
    Deleting,
    /// The BMC does not answer; it is tried again for ever.
    Unreachable,
    /// The TLS handshake with the BMC was refused; it is tried again for ever.
    TLSFailed,
    /// The BMC answers, but not as Redfish requires; it is tried again for ever.
    BMCProtocolError,
    /// The BMC answered "not yet": it is busy, in a self-test, an update or another transition.
    BMCBusy,
    /// The BMC refused the user name and password of the Secret.
    CredentialsInvalid,
    /// The BMC lets the account of the Secret in, and forbids it what is needed (403); it is tried again, slowly.
    BMCPermissionDenied,
    /// The credentials Secret, or a key in it, is missing, or the Secret is of another type.
    CredentialsMissing,
    /// `spec.bmc.address` cannot be used.
    InvalidAddress,
    /// The BMC's address is outside of what the operator allows.
    AddressNotAllowed,
    /// `spec.bmc.tls` asks for something that is missing or that the operator does not allow.
    TLSConfigInvalid,
    /// The BMC has no system of that id.
    SystemNotFound,
    /// Another machine answers at this address than before.
    IdentityMismatch,
    /// Another `Server` holds this machine under another address.
    IdentityConflict,
    /// Another `Server` holds this BMC.
    BMCClaimed,
    /// The BMC refused the request.
    RequestRefused,
    /// The power was cut, because the BMC has no graceful shutdown or refused it for as long as one may take.
    ShutdownForced,
    /// The BMC accepted the request, but the power state did not follow in time.
    PowerStateMismatch,
    /// A job switched the machine off, and it could not be switched on again yet; it is tried again by itself.
    LeftPoweredOff,
    /// The step did not end before its deadline.
    DeadlineExceeded,
    /// The step crashed its worker too often; the job was set aside.
    CrashLimit,
    /// The job is of another release of AutoBuild: this one does not know how to run it.
    UnsupportedJob,
    /// The API server does not answer; nothing is sent before the wish was read again.
    APIUnavailable,
    /// The API server refuses what the controller writes into this object: a right is missing, a policy or a webhook forbids it, or the definition is of another release. Status stays as it was.
    StatusRefused,
    /// The worker itself could not ask the BMC: it has no file descriptor or memory left, its resolver fails, or a program is missing; it says nothing about the BMC.
    WorkerTrouble,
    /// The wish changed before the job sent its first request.
    WishChanged,
    /// The wish was fulfilled already.
    AlreadyDone,
    /// The request makes no sense for a machine that is, or shall be, off; it counts as handled.
    NotApplicable,
    /// The `Server` is gone.
    ServerGone,
    /// A wish of higher precedence replaced the job.
    Replaced,
    /// The database's record of this server was missing and was rebuilt from its status; pending tokens count as handled.
    RecordRebuilt,
    /// The database was failed over or restored, and lost what became of a job that status shows as begun or ended.
    HistoryLost,
    /// The database has a job as begun that no worker of this installation wrote and that `status` does not show: nothing more was done for it.
    UnexplainedJob,
    /// The `Server` was let go without undoing what a job had begun.
    ReleasedWithoutUndo,
    /// The `Server` was let go although its machine could not be powered off.
    ReleasedWithoutPowerOff,
    /// The `Server` was let go although nothing says that its disks were erased.
    ReleasedWithoutWipe,
    /// A certificate is not verified: `spec.bmc.tls.verify` is `Disabled`.
    VerificationDisabled,
    /// The job did what it was for.
    Succeeded,
    /// A token value was seen that is handled already, or that came with a `Server` that was new.
    TokenAlreadyHandled,
}

/// What a failure for good stands in the way of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureScope {
    /// Only the intent that failed.
    Intent,
    /// Everything that would talk to this BMC.
    Bmc,
}

impl Reason {
    /// The reason of that name; `None` for one of another release.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// What a stored failure with this reason stands in the way of.
    pub const fn failure_scope(self) -> FailureScope {
        match self {
            Self::CredentialsInvalid
            | Self::CredentialsMissing
            | Self::InvalidAddress
            | Self::AddressNotAllowed
            | Self::TLSConfigInvalid
            | Self::SystemNotFound
            | Self::IdentityMismatch
            | Self::IdentityConflict
            | Self::MachineDecommissioned
            | Self::BMCClaimed => FailureScope::Bmc,
            _ => FailureScope::Intent,
        }
    }
}

impl Reason {
    /// The word that is stored and shown for it where the oldest release that the schema serves reads closed words: a new one
    /// is written a release after it is first understood, so that there is a way back. Conditions and events have the
    /// exact one: they are free.
    #[must_use]
    pub const fn served(self) -> Self {
        match self {
            Self::NotEnqueuedYet => Self::Queued,
            Self::StatusRefused => Self::APIUnavailable,
            Self::LifecycleForgotten => Self::Decommissioned,
            Self::ContentsUnknown => Self::ConfirmBuild,
            Self::BootMACMismatch => Self::BootMACConflict,
            Self::BMCPermissionDenied => Self::CredentialsInvalid,
            Self::ShutdownForced => Self::Succeeded,
            Self::LeftPoweredOff => Self::PowerStateMismatch,
            Self::WorkerTrouble => Self::APIUnavailable,
            Self::UnexplainedJob => Self::HistoryLost,
            other => other,
        }
    }

    /// The exact word behind a stored pair. What another release wrote beside a word that it does not belong to says nothing.
    pub fn exact(served: Self, exact: Option<&str>) -> Self {
        exact.and_then(Self::parse).filter(|exact| exact.served() == served).unwrap_or(served)
    }

    /// The second word of the pair; `None`: the first one is exact.
    pub fn beside_served(self) -> Option<Self> {
        (self != self.served()).then_some(self)
    }

    /// Whether another Secret, or another content of it, can cure this. A label on a Secret cures nothing else.
    pub const fn is_cured_by_access(self) -> bool {
        matches!(
            self,
            Self::CredentialsInvalid
                | Self::CredentialsMissing
                | Self::BMCPermissionDenied
                | Self::TLSConfigInvalid
                | Self::TLSFailed
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
