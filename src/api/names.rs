//! The names that AutoBuild shares with the cluster: group, annotations, finalizer, field managers, Secret type.

/// The API group.
pub const GROUP: &str = "autobuild.dev";
/// The version of the API.
pub const VERSION: &str = "v1alpha1";
/// Keeps a `Server` until its machine was let go as `deletionPolicy` asks.
pub const FINALIZER: &str = "autobuild.dev/server";
/// Annotation: asks for a fresh look, for another try of what failed, and for one of credentials that were refused. Every new
/// value is one request; most take the time.
pub const RECONCILE_REQUESTED_AT: &str = "autobuild.dev/reconcile-requested-at";
/// Annotation: confirms what destroys data on a machine that AutoBuild did not install. Its value is the uid of this very
/// object, so that an old manifest confirms nothing in a new cluster.
pub const CONFIRM: &str = "autobuild.dev/confirm";
/// Annotation: ends a deletion with `deletionPolicy: Wipe` although nothing says that the disks were erased. Its value is the
/// uid of this very object.
pub const ABANDON: &str = "autobuild.dev/abandon";
/// Annotation on a new `Server`: brings a decommissioned machine back into service. Its value is the machine's serial number.
pub const RECOMMISSION: &str = "autobuild.dev/recommission";
/// Annotation on a credentials Secret: the BMC hosts that it may be used for, separated by commas.
pub const BMC_HOSTS: &str = "autobuild.dev/bmc-hosts";
/// The type of a Secret with a BMC's user name and password.
pub const CREDENTIALS_SECRET_TYPE: &str = "autobuild.dev/bmc-credentials";
/// The type of a Secret with the user data of installed systems.
pub const USER_DATA_SECRET_TYPE: &str = "autobuild.dev/user-data";
/// The type of a Secret with install data.
pub const INSTALL_DATA_SECRET_TYPE: &str = "autobuild.dev/install-data";
/// Key of the user name in a Secret with a BMC's credentials.
pub const CREDENTIALS_USERNAME: &str = "username";
/// Key of the password in it.
pub const CREDENTIALS_PASSWORD: &str = "password";
/// Field manager of everything that the controller writes into `status`.
pub const STATUS_MANAGER: &str = "autobuild-controller";
/// Field manager of the finalizer.
pub const FINALIZER_MANAGER: &str = "autobuild-finalizer";
/// The component that events name, and the requester of jobs that nobody asked for.
pub const CONTROLLER: &str = "autobuild-controller";
