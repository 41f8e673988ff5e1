//! A machine that a job switched off and that has to be on again: a debt, until the machine was read on or is wished off.

use serde::{Deserialize, Serialize};

use super::asked::is_unhandled;
use super::{Action, Cause, Deleting, JobId, Problem};
use crate::api::condition::{ConditionType, find};
use crate::api::hardware::PowerState;
use crate::api::{Lifecycle, Reason, Server};

/// First and longest pause between two tries to switch a machine on whose job has ended, in milliseconds.
const PAUSES_MS: (i64, i64) = (30_000, 900_000);

/// A machine that a job switched off, or may have, and that has to be on again. It is recorded with the request that
/// switches off and outlives the job, however that ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    /// The job that switched it off.
    pub job: JobId,
    /// What that job does.
    pub action: Action,
    /// When the first request that switches off was stored, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Until when the last such request may still take effect, milliseconds since the Unix epoch.
    pub settles_ms: i64,
    /// Whether the machine was read off since.
    #[serde(default)]
    pub seen_off: bool,
    /// How the last job ended that should have switched it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
}

/// A job ended, and the machine was not on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// How many jobs have ended so.
    pub times: u32,
    /// When the last one did, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The circumstances then: others are worth another try at once.
    #[serde(flatten)]
    pub cause: Cause,
    /// What was in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl Debt {
    /// The debt of a job whose request to switch off is stored at `now_ms` and may take effect for `takes_ms`.
    pub const fn begun(job: JobId, action: Action, now_ms: i64, takes_ms: i64) -> Self {
        Self { job, action, since_ms: now_ms, settles_ms: now_ms + takes_ms, seen_off: false, tried: None }
    }

    /// What is left of it after a good reading. A machine that still reads on shortly after an off was sent may be about
    /// to go down: that pays nothing.
    #[must_use]
    pub fn after_reading(self, power: PowerState, now_ms: i64) -> Option<Self> {
        match power {
            PowerState::PoweredOn if self.seen_off || now_ms >= self.settles_ms => None,
            PowerState::PoweredOff => Some(Self { seen_off: true, ..self }),
            PowerState::PoweredOn
            | PowerState::PoweringOn
            | PowerState::PoweringOff
            | PowerState::Unknown => Some(self),
        }
    }

    /// Whether the live object bears it out: status shows its job as begun, or the machine as left off. A row of the database alone
    /// switches nothing on, nor one that names a job which ended some time ago.
    pub fn is_witnessed(&self, server: &Server) -> bool {
        let Some(status) = &server.status else { return false };
        let is_this = |id: &str| JobId::parse(id) == Some(self.job);
        let begun = status.job.as_ref().is_some_and(|job| is_this(&job.id) && job.started_at.is_some());
        let stalled = find(&status.conditions, ConditionType::Stalled);
        begun
            || status.left_off_by.as_deref().is_some_and(is_this)
            || stalled.is_some_and(|stalled| stalled.reason == Reason::LeftPoweredOff.as_str())
    }

    /// Whether spec has what asks for such a job, and status does not show it as handled: one that began and ended before status
    /// could show it. Whoever writes rows can name any job that has ended.
    pub fn is_asked_for(&self, server: &Server) -> bool {
        match self.action {
            Action::Reboot | Action::Build | Action::Reimage => is_unhandled(self.action, server),
            Action::Decommission => server.spec.lifecycle == Lifecycle::Decommissioned,
            Action::Wipe => Deleting::of(server) == Deleting::Wipe,
            // Nothing in spec tells any more that one was asked for which was taken back.
            Action::PowerOff => true,
            Action::Inspect | Action::PowerOn => false,
        }
    }

    /// The same after one more job ended without the machine being on.
    #[must_use]
    pub fn tried_again(self, cause: Cause, problem: Option<Problem>, at_ms: i64) -> Self {
        let times = self.tried.as_ref().map_or(0, |tried| tried.times).saturating_add(1);
        Self { tried: Some(Tried { times, at_ms, cause, problem }), ..self }
    }

    /// When the next job that switches it on is due, milliseconds since the Unix epoch. `cause`: the circumstances as they
    /// are; `read_at_ms`: when the BMC last gave a good reading.
    pub fn due_at_ms(&self, cause: &Cause, read_at_ms: Option<i64>) -> i64 {
        let Some(tried) = &self.tried else { return self.since_ms };
        if !tried.cause.same(cause) || read_at_ms.is_some_and(|at| at > tried.at_ms) {
            return tried.at_ms;
        }
        let (first, longest) = PAUSES_MS;
        tried.at_ms + first.saturating_mul(1 << tried.times.saturating_sub(1).min(16)).min(longest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use PowerState::{PoweredOff, PoweredOn, PoweringOff, PoweringOn, Unknown};

    fn debt() -> Debt {
        Debt::begun(JobId(1), Action::Reboot, 1_000, 5_000)
    }

    #[test]
    fn a_machine_that_reads_on_before_the_off_had_its_time_still_owes_its_on() {
        for power in [PoweredOn, PoweringOff, PoweringOn, Unknown] {
            assert_eq!(debt().after_reading(power, 5_999), Some(debt()), "{power}");
        }
        assert_eq!(debt().after_reading(PoweredOn, 6_000), None);
    }

    #[test]
    fn a_machine_that_was_read_off_is_on_again_when_it_reads_on() {
        let off = debt().after_reading(PoweredOff, 1_100).unwrap();
        assert_eq!(off.clone().after_reading(PoweringOn, 1_200), Some(off.clone()));
        assert_eq!(off.after_reading(PoweredOn, 1_300), None);
    }

    #[test]
    fn it_is_tried_with_growing_pauses_and_at_once_when_something_changed() {
        let of = |named: &str| Cause { named: named.to_owned(), whole: String::new() };
        let cause = of("a");
        assert_eq!(debt().due_at_ms(&cause, None), 1_000);
        let mut tried = debt();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            tried = tried.tried_again(cause.clone(), None, 100_000);
            pauses.push((tried.due_at_ms(&cause, Some(100_000)) - 100_000) / 1_000);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(tried.due_at_ms(&of("b"), None), 100_000, "a person's word, or another wish");
        assert_eq!(tried.due_at_ms(&cause, Some(100_001)), 100_000, "the BMC was read since");
    }
}
