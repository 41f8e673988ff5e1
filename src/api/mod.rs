//! The resources as users see them. Pure: no clock, no I/O.

pub mod hardware;
mod reason;
mod server;

pub use reason::Reason;
pub use server::{
    BmcSpec, BmcTls, CaRef, CaRefKind, CredentialsRef, DeletionPolicy, Power, Priority, ServerSpec,
    ShutdownMode, TlsVerify,
};
