//! The types of conditions, and how one is set without moving its time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::Reason;

/// A condition of a `Server`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The machine is as declared.
    Ready,
    /// The BMC answered the last time that it was asked.
    Reachable,
    /// The last good reading is recent. Never feeds `Ready`.
    Fresh,
    /// The power state is the wished one; absent where none is wished.
    PowerSynced,
    /// What is installed is the wished image; absent where none is wished.
    ImageSynced,
    /// Something is being done; present only while true.
    Reconciling,
    /// A person is needed; present only while true.
    Stalled,
    /// `spec.paused`; present only while true.
    Paused,
    /// Certificates are not verified; present only while true.
    InsecureTLS,
}

impl ConditionType {
    /// Every type, in the order of `status.conditions`.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::Reachable,
        Self::Fresh,
        Self::PowerSynced,
        Self::ImageSynced,
        Self::Reconciling,
        Self::Stalled,
        Self::Paused,
        Self::InsecureTLS,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reachable => "Reachable",
            Self::Fresh => "Fresh",
            Self::PowerSynced => "PowerSynced",
            Self::ImageSynced => "ImageSynced",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Paused => "Paused",
            Self::InsecureTLS => "InsecureTLS",
        }
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Truth {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}

impl Truth {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The condition of that type.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// One condition as it shall be. Its time moves only when its truth does: `before` are the conditions shown so far.
pub fn condition(
    before: &[Condition],
    kind: ConditionType,
    truth: Truth,
    because: (Reason, String),
    observed_generation: Option<i64>,
    now: &Time,
) -> Condition {
    let (reason, message) = because;
    let last_transition_time = find(before, kind)
        .filter(|shown| shown.status == truth.as_str())
        .map_or_else(|| now.clone(), |shown| shown.last_transition_time.clone());
    Condition {
        type_: kind.as_str().to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation,
        last_transition_time,
    }
}

/// Milliseconds since the Unix epoch as a time of the API, which counts whole seconds.
pub fn time(ms: i64) -> Time {
    Time(Timestamp::from_second(ms.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH))
}
