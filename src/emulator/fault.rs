//! Declared misbehaviour: a closed set of what real BMCs do wrong, and the rule that says when.

use serde::{Deserialize, Serialize};

use super::power::ResetType;
use super::time::Millis;

/// One rule: requests that match it meet the behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names of systems (`*` stands for any text). Absent: every request, those that belong to no system included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Paths (`*` stands for any text). Absent: every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The HTTP method. Absent: every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The name of the worker that asks (`*` stands for any text). Absent: whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The reset that is asked for. Absent: every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetType>,
    /// How many matching requests pass before it acts.
    #[serde(default)]
    pub skip: u32,
    /// On how many requests it acts. Absent: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// For how long after it was set it acts. Absent: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<Millis>,
    /// On which share of the matching requests it acts, 1 to 100; the choice follows from the fleet's seed.
    #[serde(default = "always")]
    pub percent: u8,
    /// What it does.
    pub behaviour: Behaviour,
}

const fn always() -> u8 {
    100
}

/// What a machine does wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Behaviour {
    /// Does what was asked at once, and answers `ms` later.
    Delay {
        /// How much later.
        ms: Millis,
    },
    /// Reads the request, does nothing and never answers.
    Hang {},
    /// Accepts the connection and never reads from it. For systems with their own port; without `system`, for all.
    HangOnAccept {},
    /// Sends half of the body and then nothing more.
    HangMidBody {},
    /// Sends the body one byte at a time.
    SlowBody {
        /// The time between two bytes.
        #[serde(default = "one_second")]
        interval_ms: Millis,
    },
    /// Answers this status without doing anything.
    Status {
        /// 200 to 599.
        status: u16,
        /// The `Retry-After` header in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u32>,
        /// A body in place of the Redfish error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// The MessageId of the Redfish error, registry and version included. Then it has no text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
        /// The arguments that go with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        message_args: Vec<String>,
    },
    /// Compresses the body, whatever the client accepts.
    Compressed {
        /// `gzip` or `deflate`; any other name is only said, and the body is as ever.
        #[serde(default = "gzip")]
        encoding: String,
    },
    /// Begins the body with a byte order mark.
    ByteOrderMark {},
    /// Tells everything too long: texts with control characters and emojis in them, numbers of 64 bits.
    LongTexts {
        /// How many characters each text has.
        #[serde(default = "two_thousand")]
        length: u64,
    },
    /// Answers a page of HTML.
    Html {
        /// The status.
        #[serde(default = "ok")]
        status: u16,
    },
    /// Sends half of the JSON as if it were all.
    TruncatedJson {},
    /// Sends a `Content-Length` that is wrong by this many bytes.
    WrongContentLength {
        /// Positive: promises more than it sends. Negative: sends more than it promises.
        by: i64,
    },
    /// Sends a valid JSON document of this size.
    HugeBody {
        /// The size.
        #[serde(default = "ten_megabytes")]
        bytes: u64,
    },
    /// Redirects.
    Redirect {
        /// An address, or a path on the same host.
        location: String,
        /// 301, 302, 303, 307 or 308.
        #[serde(default = "temporary_redirect")]
        status: u16,
    },
    /// Answers that the change is done, and does nothing.
    Lie {},
    /// Does what was asked, and `after_ms` after the end of the transition the old state is back.
    Revert {
        /// How long the new state holds.
        after_ms: Millis,
    },
    /// The guest does not react to a graceful shutdown or restart.
    IgnoreGraceful {},
    /// Answers at once and starts to act `ms` later.
    AsyncDelay {
        /// How much later.
        ms: Millis,
    },
    /// Locks a system's accounts after some bad logins in a row.
    LockOut {
        /// How many.
        #[serde(default = "three")]
        after: u32,
        /// For how long all logins are then refused.
        lock_ms: Millis,
        /// 401 or 403.
        #[serde(default = "forbidden")]
        status: u16,
    },
    /// No password is right.
    WrongPassword {},
    /// Basic authentication is switched off: only sessions are let in.
    BasicRefused {},
    /// The BMC is away: every request, logged in or not.
    Offline {
        /// How the client sees it.
        #[serde(default)]
        by: Away,
    },
    /// Closes the connection without an answer; does nothing.
    Close {},
    /// Does what was asked, then drops the connection without an answer.
    AnswerLost {},
    /// Never answers, and does what was asked `effect_ms` later.
    Late {
        /// How much later.
        effect_ms: Millis,
        /// What the client sees meanwhile.
        #[serde(default)]
        then: NoAnswer,
    },
    /// Cannot tell the power state.
    PowerUnknown {
        /// How it says so.
        #[serde(default)]
        shown: UnknownPower,
    },
    /// The system does not exist (404), for instance after a firmware update that renamed it.
    SystemMissing {},
    /// Another machine answers.
    OtherIdentity {
        /// Its serial number; absent: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial_number: Option<String>,
        /// Its UUID; absent: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uuid: Option<String>,
    },
}

const fn one_second() -> Millis {
    1_000
}
fn gzip() -> String {
    "gzip".to_owned()
}
const fn two_thousand() -> u64 {
    2_000
}
const fn ok() -> u16 {
    200
}
const fn ten_megabytes() -> u64 {
    10_000_000
}
const fn temporary_redirect() -> u16 {
    307
}
const fn three() -> u32 {
    3
}
const fn forbidden() -> u16 {
    403
}

/// How a BMC that is away looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Away {
    /// 503 on every path.
    #[default]
    ServiceUnavailable,
    /// The connection is reset.
    Reset,
}

/// What a client sees that gets no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoAnswer {
    /// Nothing, until it gives up.
    #[default]
    Hang,
    /// The end of the connection.
    Close,
}

/// How a BMC says that it does not know the power state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownPower {
    /// The text `Unknown`.
    #[default]
    Unknown,
    /// `null`.
    Null,
    /// No such property.
    Absent,
}

/// A rule that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A number out of its range.
    #[error("{field} is {value}: use {allowed}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A system pattern that names nobody.
    #[error(
        "system is '{0}', and no system of the fleet matches it: use a name as GET /emulator/systems lists them; * stands for any text"
    )]
    NoSuchSystem(String),
}

impl Behaviour {
    /// The name, as in the JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "Delay",
            Self::Hang {} => "Hang",
            Self::HangOnAccept {} => "HangOnAccept",
            Self::HangMidBody {} => "HangMidBody",
            Self::SlowBody { .. } => "SlowBody",
            Self::Status { .. } => "Status",
            Self::Compressed { .. } => "Compressed",
            Self::ByteOrderMark {} => "ByteOrderMark",
            Self::LongTexts { .. } => "LongTexts",
            Self::Html { .. } => "Html",
            Self::TruncatedJson {} => "TruncatedJson",
            Self::WrongContentLength { .. } => "WrongContentLength",
            Self::HugeBody { .. } => "HugeBody",
            Self::Redirect { .. } => "Redirect",
            Self::Lie {} => "Lie",
            Self::Revert { .. } => "Revert",
            Self::IgnoreGraceful {} => "IgnoreGraceful",
            Self::AsyncDelay { .. } => "AsyncDelay",
            Self::LockOut { .. } => "LockOut",
            Self::WrongPassword {} => "WrongPassword",
            Self::BasicRefused {} => "BasicRefused",
            Self::Offline { .. } => "Offline",
            Self::Close {} => "Close",
            Self::AnswerLost {} => "AnswerLost",
            Self::Late { .. } => "Late",
            Self::PowerUnknown { .. } => "PowerUnknown",
            Self::SystemMissing {} => "SystemMissing",
            Self::OtherIdentity { .. } => "OtherIdentity",
        }
    }

    /// Whether it can act on such a request at all. What cannot does not use up its `count`.
    pub(super) fn applies(&self, mutating: bool, reset: Option<ResetType>) -> bool {
        match self {
            Self::Lie {} | Self::AsyncDelay { .. } | Self::AnswerLost {} | Self::Late { .. } => mutating,
            Self::Revert { .. } => reset.is_some(),
            Self::IgnoreGraceful {} => reset.is_some_and(ResetType::asks_the_guest),
            Self::HangOnAccept {} => false,
            Self::PowerUnknown { .. } | Self::LongTexts { .. } => !mutating,
            _ => true,
        }
    }
}

impl Rule {
    /// A rule for all requests to the systems that match `system`, until it is deleted.
    pub fn on_system(system: impl Into<String>, behaviour: Behaviour) -> Self {
        Self {
            system: Some(system.into()),
            path: None,
            method: None,
            worker: None,
            reset: None,
            skip: 0,
            count: None,
            for_ms: None,
            percent: 100,
            behaviour,
        }
    }

    /// The same rule for this path only (`*` stands for any text).
    #[must_use]
    pub fn path(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// The same rule for this HTTP method only.
    #[must_use]
    pub fn method(self, method: impl Into<String>) -> Self {
        Self { method: Some(method.into()), ..self }
    }

    /// The same rule for this reset only.
    #[must_use]
    pub fn reset(self, reset: ResetType) -> Self {
        Self { reset: Some(reset), ..self }
    }

    /// The same rule for this many requests only.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), RuleError> {
        let range = |field, value: &dyn ToString, allowed, good| {
            if good {
                Ok(())
            } else {
                Err(RuleError::OutOfRange { field, value: value.to_string(), allowed })
            }
        };
        range("percent", &self.percent, "1 to 100", (1..=100).contains(&self.percent))?;
        let answer = "200 to 599";
        match &self.behaviour {
            Behaviour::Status { status, .. } | Behaviour::Html { status } => {
                range("behaviour.status", status, answer, (200..600).contains(status))
            }
            Behaviour::Redirect { status, .. } => range(
                "behaviour.status",
                status,
                "301, 302, 303, 307 or 308",
                matches!(status, 301 | 302 | 303 | 307 | 308),
            ),
            Behaviour::LockOut { status, after, .. } => {
                range("behaviour.status", status, "401 or 403", matches!(status, 401 | 403))?;
                range("behaviour.after", after, "1 or more", *after > 0)
            }
            Behaviour::SlowBody { interval_ms } => {
                range("behaviour.interval_ms", interval_ms, "1 or more", *interval_ms > 0)
            }
            Behaviour::LongTexts { length } => {
                range("behaviour.length", length, "1 to 100000", (1..=100_000).contains(length))
            }
            Behaviour::HugeBody { bytes } => {
                range("behaviour.bytes", bytes, "1 to 1000000000", (1..=1_000_000_000).contains(bytes))
            }
            Behaviour::WrongContentLength { by } => range("behaviour.by", by, "any number but 0", *by != 0),
            _ => Ok(()),
        }
    }
}
