//! The resources as users see them. Pure: no clock, no I/O.

pub mod bmc_address;
pub mod condition;
pub mod crd;
pub mod foreign_status;
pub mod hardware;
mod image_wish;
pub mod kernel_args;
mod mac;
pub mod names;
mod os_image;
pub mod placeholder;
mod reason;
pub mod reason_page;
mod remedy;
pub mod served_schema;
mod server;
mod status;
pub mod unseen;
mod wipe_images;

pub use image_wish::{BootMethod, ImageWish, Provisioning, RootDevice, UserDataRef};
pub use mac::{Mac, NotAMac};
pub use os_image::{
    Artifact, DataRef, DataRefKind, ImageKind, ImageSource, Install, InstallFormat, OSImage, OSImageSpec,
};
pub use reason::{FailureScope, Reason};
pub use remedy::{Answer, Remedy};
pub use server::{
    BmcSpec, BmcTls, BootMode, CaRef, CaRefKind, CredentialsRef, DEFAULT_SITE, DeletionPolicy, Lifecycle,
    Power, Priority, Server, ServerSpec, ShutdownMode, TlsVerify,
};
pub use status::{DiskContents, ImageStatus, JobProgress, JobStatus, LastJobStatus, Phase, ServerStatus};
pub use wipe_images::WipeImages;
