//! What is known of a server: the pure form of a `server_state` row.

use serde::{Deserialize, Serialize};

use super::{Action, Cause, Contents, Debt, Intent, JobId, JobResult, Problem, Step};
use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};
use crate::api::{Reason, ServerSpec, ServerStatus};

/// How many handled values of each token are kept.
pub const HANDLED_TOKENS_KEPT: usize = 8;

/// One good reading of a BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The power state.
    pub power: PowerState,
    /// Which machine answered.
    pub identity: HardwareIdentity,
    /// What is in it.
    pub hardware: Hardware,
    /// `LastResetTime` as the BMC writes it, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset_time: Option<String>,
}

/// The BMC did not give a good reading the last time that it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// What was met.
    pub problem: Problem,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// An intent that failed for good. It is not enqueued again until the intent or the cause differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFailure {
    /// The action that failed.
    pub action: Action,
    /// The wish that failed.
    pub intent: Intent,
    /// The circumstances: see [`Cause`].
    pub cause: Cause,
    /// Why.
    pub problem: Problem,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// The last job that ended and was worth telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedJob {
    /// Its id.
    pub id: JobId,
    /// What it did.
    pub action: Action,
    /// The wish that it was made for.
    pub intent: Intent,
    /// How it ended.
    pub result: JobResult,
    /// Why, where it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The step in which it ended.
    pub step: Step,
    /// When it was enqueued, milliseconds since the Unix epoch.
    pub enqueued_at_ms: i64,
    /// When it was first claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// When it ended.
    pub finished_at_ms: i64,
}

/// The token values that count as handled, the oldest first, at most [`HANDLED_TOKENS_KEPT`] of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandledTokens {
    /// Values of `spec.rebootToken`.
    #[serde(default)]
    pub reboot: Vec<String>,
    /// Values of `spec.reimageToken`.
    #[serde(default)]
    pub reimage: Vec<String>,
}

/// Which token of spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TokenKind {
    /// `spec.rebootToken`.
    Reboot,
    /// `spec.reimageToken`.
    Reimage,
}

impl TokenKind {
    /// Both, in a fixed order.
    pub const ALL: [Self; 2] = [Self::Reboot, Self::Reimage];

    /// The field of spec.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Reboot => "rebootToken",
            Self::Reimage => "reimageToken",
        }
    }

    /// What one of its values asks for.
    pub const fn action(self) -> Action {
        match self {
            Self::Reboot => Action::Reboot,
            Self::Reimage => Action::Reimage,
        }
    }

    /// Its value in a spec.
    pub fn of(self, spec: &ServerSpec) -> Option<&str> {
        match self {
            Self::Reboot => spec.reboot_token.as_deref(),
            Self::Reimage => spec.reimage_token.as_deref(),
        }
    }
}

/// A value of one of the tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenValue {
    /// Which token.
    pub kind: TokenKind,
    /// Its value.
    pub value: String,
}

impl TokenValue {
    /// A value of `spec.rebootToken`.
    pub fn reboot(value: impl Into<String>) -> Self {
        Self { kind: TokenKind::Reboot, value: value.into() }
    }

    /// A value of `spec.reimageToken`.
    pub fn reimage(value: impl Into<String>) -> Self {
        Self { kind: TokenKind::Reimage, value: value.into() }
    }
}

impl HandledTokens {
    /// What a status shows as handled.
    pub fn shown(status: Option<&ServerStatus>) -> Self {
        status.map_or_else(Self::default, |status| Self {
            reboot: status.reboot_tokens.clone(),
            reimage: status.reimage_tokens.clone(),
        })
    }

    /// The values of one token, the oldest first.
    pub fn of(&self, kind: TokenKind) -> &[String] {
        match kind {
            TokenKind::Reboot => &self.reboot,
            TokenKind::Reimage => &self.reimage,
        }
    }

    fn of_mut(&mut self, kind: TokenKind) -> &mut Vec<String> {
        match kind {
            TokenKind::Reboot => &mut self.reboot,
            TokenKind::Reimage => &mut self.reimage,
        }
    }

    /// Whether `token` asks for nothing: it is absent or handled.
    pub fn is_handled(&self, kind: TokenKind, token: Option<&str>) -> bool {
        token.is_none_or(|token| self.of(kind).iter().any(|handled| handled == token))
    }

    /// Records `token` as handled; the oldest value goes when there are too many.
    pub fn record(&mut self, kind: TokenKind, token: &str) {
        if self.is_handled(kind, Some(token)) {
            return;
        }
        let values = self.of_mut(kind);
        values.push(token.to_owned());
        let surplus = values.len().saturating_sub(HANDLED_TOKENS_KEPT);
        values.drain(..surplus);
    }

    /// The values of both, those of `self` the newest.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = other.clone();
        for kind in TokenKind::ALL {
            let newest = self.of(kind);
            let values = both.of_mut(kind);
            values.retain(|token| !newest.contains(token));
            values.extend(newest.iter().cloned());
            let surplus = values.len().saturating_sub(HANDLED_TOKENS_KEPT);
            values.drain(..surplus);
        }
        both
    }
}

/// The BMC, or the machine behind it, is claimed by another `Server`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRefusal {
    /// [`Reason::BMCClaimed`], [`Reason::IdentityConflict`] or [`Reason::MachineDecommissioned`].
    pub reason: Reason,
    /// The holder's name, only where it lives in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The normalised address for which the refusal holds; another address is a new question.
    pub address: String,
    /// The machine, where its life has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<EndedMachine>,
}

/// A machine that was decommissioned under another `Server`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedMachine {
    /// Its hardware identity, as machines are recorded by.
    pub identity: String,
    /// Its serial number, or what it has instead: what a person must repeat to bring it back.
    pub serial_number: String,
}

/// A `server_state` row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Raised by every transaction that changes what is known; decisions are conditional on it.
    pub version: i64,
    /// The last good reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// When the last good reading was made, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_read_ms: Option<i64>,
    /// When the BMC was last asked, whatever came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_try_ms: Option<i64>,
    /// Present while the BMC gives no good reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<Unanswered>,
    /// Token values that count as handled.
    #[serde(default)]
    pub handled: HandledTokens,
    /// What is on the machine's disks; `None`: it was only ever seen off, and counts as blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// Present while a job has switched the machine off and it is not on again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debt: Option<Debt>,
    /// The last failure for good that still stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<StoredFailure>,
    /// The last job that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_job: Option<FinishedJob>,
    /// The normalised BMC address that is claimed for this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_address: Option<String>,
    /// Present while a claim of the BMC is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<ClaimRefusal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ninth_token_drops_the_oldest() {
        let mut handled = HandledTokens::default();
        for token in 0..9 {
            handled.record(TokenKind::Reboot, &token.to_string());
        }
        assert_eq!(handled.reboot.len(), HANDLED_TOKENS_KEPT);
        assert!(!handled.is_handled(TokenKind::Reboot, Some("0")));
        assert!(handled.is_handled(TokenKind::Reboot, Some("8")));
        assert!(handled.is_handled(TokenKind::Reboot, None));
        assert!(!handled.is_handled(TokenKind::Reimage, Some("8")), "each token has its own values");
    }

    #[test]
    fn what_both_sides_handled_counts() {
        let row = HandledTokens { reboot: vec!["b".into(), "c".into()], reimage: vec![] };
        let status = HandledTokens { reboot: vec!["a".into(), "b".into()], reimage: vec!["d".into()] };
        let both = row.union(&status);
        assert_eq!(
            (both.reboot, both.reimage),
            (vec!["a".into(), "b".into(), "c".into()], vec!["d".to_owned()])
        );
    }
}
