//! What can go wrong between a worker and a BMC, in the classes that decide what to do about it.

use std::time::Duration;

use crate::api::Reason;
use crate::job::Problem;

/// The class of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcErrorKind {
    /// The address is not one that workers may talk to, or a redirect leads elsewhere.
    AddressNotAllowed,
    /// `spec.bmc.tls`, or the scheme, asks for something that is missing or that the operator does not allow.
    TlsConfig,
    /// No connection, or one that broke.
    Unreachable,
    /// The handshake was refused, by us or by the BMC.
    Tls,
    /// No answer in time.
    Timeout,
    /// The login was refused, or the account may not log in as it is: 401, or 403 where nothing was let in before. Counted,
    /// because BMCs lock out who tries too often.
    Credentials,
    /// The login is good, and the account lacks the right: 403 to one thing where others are let in.
    Forbidden,
    /// The system, or Redfish itself, is not there.
    NotFound,
    /// Not yet: nothing was done, and the same may be done a while later. 503 or 429, 409 in a transition, a self-test, an
    /// update; the BMC asks for so much patience.
    Busy(Option<Duration>),
    /// This BMC does not offer that, and never will: known from what it offers, or 405, 501 or its own words.
    Unsupported,
    /// The BMC understood the request and refused it, and asking again changes nothing.
    Refused,
    /// The answer is not what Redfish requires.
    Protocol,
    /// This process itself could not ask: no descriptor, no memory, no resolver. It says nothing about the BMC.
    Worker,
}

/// Whether the request that failed may have reached the BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Certainly not: it was never written to a connection.
    NotSent,
    /// Nobody knows: it may still take effect.
    Unknown,
    /// The BMC answered it: it takes no effect later.
    Answered,
}

/// An error. Its message names the field or the address and the way out, holds no credentials, and repeats of what a
/// BMC wrote only a short, printable part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BmcError {
    /// Its class.
    pub kind: BmcErrorKind,
    /// Whether the request may have arrived.
    pub delivery: Delivery,
    /// One sentence.
    pub message: String,
    /// The SHA-256 fingerprint of a certificate that was refused, as `spec.bmc.tls.certificateSHA256` takes it.
    pub certificate: Option<String>,
}

impl BmcErrorKind {
    /// The reason that stands for it everywhere.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::AddressNotAllowed => Reason::AddressNotAllowed,
            Self::TlsConfig => Reason::TLSConfigInvalid,
            Self::Unreachable | Self::Timeout => Reason::Unreachable,
            Self::Tls => Reason::TLSFailed,
            Self::Credentials => Reason::CredentialsInvalid,
            Self::NotFound => Reason::SystemNotFound,
            Self::Busy(_) => Reason::BMCBusy,
            Self::Forbidden => Reason::BMCPermissionDenied,
            Self::Unsupported | Self::Refused => Reason::RequestRefused,
            Self::Protocol => Reason::BMCProtocolError,
            Self::Worker => Reason::WorkerTrouble,
        }
    }

    /// A short name for the metric label.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::AddressNotAllowed => "address_not_allowed",
            Self::TlsConfig => "tls_config",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Credentials => "credentials",
            Self::NotFound => "not_found",
            Self::Busy(_) => "busy",
            Self::Forbidden => "forbidden",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Worker => "worker",
        }
    }
}

impl BmcError {
    /// An error of this class.
    pub fn new(kind: BmcErrorKind, delivery: Delivery, message: impl Into<String>) -> Self {
        Self { kind, delivery, message: message.into(), certificate: None }
    }

    /// What status, events and history tell of it.
    pub fn problem(&self) -> Problem {
        Problem::new(self.kind.reason(), self.message.clone())
    }

    /// How much patience the BMC asked for, in milliseconds.
    pub fn asked_ms(&self) -> i64 {
        match self.kind {
            BmcErrorKind::Busy(Some(after)) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            _ => 0,
        }
    }
}
