//! What is known of a server: the pure form of a `server_state` row.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::named_hash::NamedHash;
use super::{
    Action, Cause, Contents, Debt, Effect, Event, Intent, JobId, JobResult, Problem, ReadThrough, Step,
};
use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};
use crate::api::{Reason, Server, ServerSpec, ServerStatus, names};

/// How many handled values of each token are shown. That a value was handled is never forgotten.
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
    /// Through which address and login it was asked; `None`: a worker of an older release asked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<ReadThrough>,
}

/// An intent that failed for good. It is not enqueued again until the intent or the cause differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFailure {
    /// The action that failed.
    pub action: Action,
    /// The wish that failed.
    pub intent: Intent,
    /// The circumstances: see [`Cause`].
    #[serde(flatten)]
    pub cause: Cause,
    /// Why.
    pub problem: Problem,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// A failure of what destroys data, before this one of something that does not: it still stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Box<StoredFailure>>,
}

impl StoredFailure {
    /// This one, with the one before it where that must not be forgotten: what destroys data is not begun again because a
    /// look or a change of power failed since.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        let destroys = |failure: &Self| failure.action.effect() == Effect::Destructive;
        if destroys(&self) {
            return self;
        }
        let kept = before.and_then(|before| {
            if destroys(&before) { Some(Box::new(Self { behind: None, ..before })) } else { before.behind }
        });
        Self { behind: kept, ..self }
    }

    /// What is left of it, and of the one before it, once `event` has happened.
    #[must_use]
    pub fn left_after(self, event: &Event) -> Option<Self> {
        let behind = self.behind.as_deref().cloned().filter(|behind| !event.ends(behind));
        if event.ends(&self) { behind } else { Some(Self { behind: behind.map(Box::new), ..self }) }
    }
}

/// The newest value of `autobuild.dev/reconcile-requested-at` that was acted on. Every other value is a new request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileRequest {
    /// The value, as [`ReconcileRequest::bounded`] has it; empty: there was none when the machine was last asked.
    pub value: String,
    /// When it was acted on, milliseconds since the Unix epoch; 0: it was there before anybody kept count.
    pub at_ms: i64,
}

impl ReconcileRequest {
    /// The longest value that is kept as it is, in bytes.
    const LONGEST: usize = 128;

    /// The value of the annotation as it is kept and compared: one that is long or no plain text by its hash.
    pub fn bounded(value: &str) -> String {
        if value.len() <= Self::LONGEST && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return value.to_owned();
        }
        let mut hash = NamedHash::new("reconcile-requested-at");
        hash.text(value);
        format!("sha256:{}", hash.finish())
    }

    /// What an object asks for now; empty: nothing.
    pub fn of(server: &Server) -> String {
        let annotations = server.metadata.annotations.as_ref();
        let value = annotations.and_then(|all| all.get(names::RECONCILE_REQUESTED_AT));
        value.map(|value| Self::bounded(value)).unwrap_or_default()
    }

    /// A word of a person that nobody has acted on yet, as a hash that no other object and no other word has; `None`: there is
    /// none, or nobody kept count before.
    pub fn new_word(server: &Server, before: Option<&Self>) -> Option<String> {
        let value = Self::of(server);
        let new = !value.is_empty() && before.is_some_and(|before| before.value != value);
        new.then(|| {
            let mut hash = NamedHash::new("word");
            hash.text(server.metadata.uid.as_deref().unwrap_or_default());
            hash.text(&value);
            hash.finish()
        })
    }

    /// The newest word that there is: what the object says, or, where it says nothing any more, what was acted on.
    pub fn newest(server: &Server, before: Option<&Self>) -> Option<String> {
        let now = Some(Self::of(server)).filter(|value| !value.is_empty());
        now.or_else(|| before.map(|before| before.value.clone()).filter(|value| !value.is_empty()))
    }
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

/// Token values that count as handled, the oldest first: the last [`HANDLED_TOKENS_KEPT`] of each, and of the older ones those
/// that were asked about.
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

    /// The tokens that a spec has.
    pub fn all_of(spec: &ServerSpec) -> Vec<Self> {
        let value = |kind: TokenKind| Some(Self { kind, value: kind.of(spec)?.to_owned() });
        TokenKind::ALL.into_iter().filter_map(value).collect()
    }

    /// The first eight bytes of the SHA-256 of the value: by that it is remembered.
    pub fn hash(&self) -> i64 {
        let digest = Sha256::digest(self.value.as_bytes());
        digest.iter().take(8).fold(0, |number: i64, byte| (number << 8) | i64::from(*byte))
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

    /// Records `token` as handled, as the newest of its kind.
    pub fn record(&mut self, kind: TokenKind, token: &str) {
        if !self.is_handled(kind, Some(token)) {
            self.of_mut(kind).push(token.to_owned());
        }
    }

    /// Counts a value of long ago as handled, which is not among the last ones.
    pub fn recall(&mut self, token: &TokenValue) {
        if !self.is_handled(token.kind, Some(&token.value)) {
            self.of_mut(token.kind).insert(0, token.value.clone());
        }
    }

    /// All values, of both.
    pub fn values(&self) -> Vec<TokenValue> {
        let of = |kind: TokenKind| {
            self.of(kind).iter().map(move |value| TokenValue { kind, value: value.clone() })
        };
        TokenKind::ALL.into_iter().flat_map(of).collect()
    }

    /// A value that asks again.
    pub fn give_back(&mut self, token: &TokenValue) {
        self.of_mut(token.kind).retain(|value| *value != token.value);
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
        }
        both
    }

    /// The last values of each, [`HANDLED_TOKENS_KEPT`] at most; the one that `spec` has is always among them.
    #[must_use]
    pub fn last(mut self, spec: Option<&ServerSpec>) -> Self {
        for kind in TokenKind::ALL {
            let values = self.of_mut(kind);
            let surplus = values.len().saturating_sub(HANDLED_TOKENS_KEPT);
            let present = spec.and_then(|spec| kind.of(spec));
            let at = present.and_then(|present| values.iter().position(|value| value == present));
            if let Some(at) = at.filter(|at| *at < surplus) {
                let present = values.remove(at);
                values.push(present);
            }
            values.drain(..surplus);
        }
        self
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
    /// Through which address and login that came; `None`: a worker of an older release read it, at the claimed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_through: Option<ReadThrough>,
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
    /// Which request for a look was acted on; `None`: an earlier release asked the BMC last, or nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile_request: Option<ReconcileRequest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nine() -> HandledTokens {
        let mut handled = HandledTokens::default();
        for token in 0..9 {
            handled.record(TokenKind::Reboot, &token.to_string());
        }
        handled
    }

    #[test]
    fn eight_values_are_shown_and_the_present_one_is_among_them() {
        let spec = ServerSpec { reboot_token: Some("0".into()), ..ServerSpec::default() };
        for (present, first, last) in [(None, "1", "8"), (Some(&spec), "2", "0")] {
            let shown = nine().last(present);
            assert_eq!(shown.reboot.len(), HANDLED_TOKENS_KEPT);
            assert_eq!((shown.reboot[0].as_str(), shown.reboot[7].as_str()), (first, last));
            assert_eq!(shown.clone().last(present), shown, "and again the same");
        }
        assert!(!nine().is_handled(TokenKind::Reimage, Some("8")), "each token has its own values");
        assert!(nine().is_handled(TokenKind::Reboot, None));
    }

    #[test]
    fn a_value_of_long_ago_is_handled_once_it_is_recalled_and_asks_again_once_it_is_given_back() {
        let mut handled = nine().last(None);
        let old = TokenValue::reboot("0");
        assert!(!handled.is_handled(old.kind, Some(&old.value)));
        handled.recall(&old);
        assert!(handled.is_handled(old.kind, Some(&old.value)));
        assert_eq!(handled.reboot[8], "8", "it is not the newest");
        handled.give_back(&old);
        assert!(!handled.is_handled(old.kind, Some(&old.value)));
    }

    #[test]
    fn values_are_remembered_by_a_short_hash() {
        assert_eq!(TokenValue::reboot("yes").hash(), TokenValue::reimage("yes").hash());
        assert_ne!(TokenValue::reboot("yes").hash(), TokenValue::reboot("yes ").hash());
        // sha256("a") is ca978112ca1bbdca…
        assert_eq!(
            TokenValue::reboot("a").hash(),
            i64::from_be_bytes([0xca, 0x97, 0x81, 0x12, 0xca, 0x1b, 0xbd, 0xca])
        );
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
