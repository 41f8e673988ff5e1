//! The BMC itself: it starts again when it is told to, and is away meanwhile.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::act::Deed;
use super::answer::{Answer, Refusal};
use super::effects::{Action, Effect};
use super::fault::{Away, Behaviour, Rule};
use super::fleet::Fleet;
use super::redfish::Scope;
use super::system::System;
use super::time::Millis;

/// `ResetType` of `Manager.Reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ManagerReset {
    /// In order.
    GracefulRestart,
    /// At once.
    ForceRestart,
}

const RESET: &str = "Manager.Reset";

impl ManagerReset {
    pub(super) const ALL: [Self; 2] = [Self::GracefulRestart, Self::ForceRestart];

    /// The name in Redfish.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GracefulRestart => "GracefulRestart",
            Self::ForceRestart => "ForceRestart",
        }
    }
}

/// Reads the reset type of a request to the action.
pub(super) fn reset_type(body: &[u8]) -> Result<ManagerReset, Refusal> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Refusal::malformed())?;
    if let Some(unknown) = body.keys().find(|key| *key != "ResetType") {
        return Err(Refusal::parameter_unknown(RESET, unknown));
    }
    let value = body.get("ResetType").ok_or_else(|| Refusal::parameter_missing(RESET, "ResetType"))?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    ManagerReset::ALL.into_iter().find(|reset| reset.as_str() == text).ok_or_else(|| {
        Refusal::parameter_not_in_list(
            RESET,
            "ResetType",
            &text,
            &ManagerReset::ALL.map(ManagerReset::as_str),
        )
    })
}

/// Starts the BMC again; the host behind it notices nothing.
pub(super) fn reset(
    fleet: &Fleet,
    system: &System,
    reset_type: ManagerReset,
    faults: &[Behaviour],
    now: Millis,
) -> (Answer, Deed) {
    let deed = |effect, at| Deed { action: Some(Action::ManagerReset { reset_type }), effect, at };
    let done = Answer::empty(StatusCode::NO_CONTENT);
    if faults.contains(&Behaviour::Lie {}) {
        return (done, deed(Effect::Pretended, None));
    }
    fleet.send_bmc_away(system, None);
    (done, deed(Effect::Applied, Some(now)))
}

impl Fleet {
    /// Starts a BMC again: it is away for that long, or as long as its kind takes. Whether there is such a machine.
    pub fn reboot_bmc(&self, name: &str, for_ms: Option<Millis>) -> bool {
        let Some(system) = self.find(name) else { return false };
        self.send_bmc_away(system, for_ms);
        true
    }

    fn send_bmc_away(&self, system: &System, for_ms: Option<Millis>) {
        let away = Rule::on_system(&system.name, Behaviour::Offline { by: Away::Reset });
        let away = Rule { for_ms: Some(for_ms.unwrap_or(self.0.bmc_reboot)), ..away };
        self.0.rules.add(away, self.now());
        self.0.sessions.close_all(Scope::Own(system.index));
    }
}
