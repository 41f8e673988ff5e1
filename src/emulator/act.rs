//! The mutating requests: `ComputerSystem.Reset` and PATCH of a system.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use super::answer::{Answer, Refusal};
use super::effects::{Action, Effect};
use super::fault::Behaviour;
use super::fleet::{Fleet, SameState};
use super::power::{Acceptance, PowerState, ResetType};
use super::resources::etag;
use super::system::{State, System};
use super::time::Millis;

/// What a mutating request did, beside its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) action: Option<Action>,
    pub(super) effect: Effect,
    pub(super) at: Option<Millis>,
}

impl Deed {
    pub(super) const REFUSED: Self = Self { action: None, effect: Effect::Refused, at: None };
}

const RESET: &str = "ComputerSystem.Reset";

/// Reads the reset type of a request to the action.
pub(super) fn reset_type(body: &[u8]) -> Result<ResetType, Refusal> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Refusal::malformed())?;
    if let Some(unknown) = body.keys().find(|key| *key != "ResetType") {
        return Err(Refusal::parameter_unknown(RESET, unknown));
    }
    let value = body.get("ResetType").ok_or_else(|| Refusal::parameter_missing(RESET, "ResetType"))?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    ResetType::parse(&text).ok_or_else(|| {
        Refusal::parameter_not_in_list(RESET, "ResetType", &text, &ResetType::ALL.map(ResetType::as_str))
    })
}

fn unless_changed(headers: &HeaderMap, state: &State) -> Result<(), Refusal> {
    let Some(wanted) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let present = etag(state.version);
    let matches = wanted.to_str().is_ok_and(|wanted| {
        wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == present)
    });
    if matches { Ok(()) } else { Err(Refusal::precondition_failed()) }
}

/// How much later the effect starts than the request came.
pub(super) fn lateness(faults: &[Behaviour]) -> Millis {
    faults
        .iter()
        .map(|fault| match fault {
            Behaviour::AsyncDelay { ms } | Behaviour::Late { effect_ms: ms, .. } => *ms,
            _ => 0,
        })
        .sum()
}

/// Performs a reset as far as the misbehaviours of the request let it.
pub(super) fn reset(
    fleet: &Fleet,
    system: &System,
    reset: ResetType,
    headers: &HeaderMap,
    faults: &[Behaviour],
    now: Millis,
) -> (Answer, Deed) {
    let deed = |effect, at| Deed { action: Some(Action::Reset { reset_type: reset }), effect, at };
    let done = || Answer::empty(StatusCode::NO_CONTENT);
    system.at(now, |state| {
        if let Err(refusal) = unless_changed(headers, state) {
            return (refusal.into(), deed(Effect::Refused, None));
        }
        let before = state.power.state();
        match state.power.acceptance(reset) {
            Acceptance::SameState if fleet.0.same_state == SameState::NoContent => {
                return (done(), deed(Effect::None, None));
            }
            Acceptance::SameState | Acceptance::NeedsPower => {
                return (Refusal::in_use(before.as_str()).into(), deed(Effect::Refused, None));
            }
            Acceptance::Accepted => {}
        }
        if faults.contains(&Behaviour::Lie {}) {
            return (done(), deed(Effect::Pretended, None));
        }
        if faults.contains(&Behaviour::IgnoreGraceful {}) && reset.asks_the_guest() {
            return (done(), deed(Effect::Ignored, None));
        }
        if !system.reacts(state, now) {
            return (done(), deed(Effect::Ignored, None));
        }
        let at = now.saturating_add(lateness(faults));
        state.power.perform(reset, at);
        for fault in faults {
            if let Behaviour::Revert { after_ms } = fault {
                let ends = at.saturating_add(state.power.duration(reset));
                state.power.restore(settled(before), ends.saturating_add(*after_ms));
            }
        }
        (done(), deed(Effect::Applied, Some(at)))
    })
}

/// The state to which a reverting machine returns.
fn settled(state: PowerState) -> PowerState {
    match state {
        PowerState::On | PowerState::PoweringOn => PowerState::On,
        PowerState::Off | PowerState::PoweringOff => PowerState::Off,
    }
}

/// The properties of a system that exist and that nobody can write.
const READ_ONLY: [&str; 14] = [
    "Id",
    "Name",
    "SystemType",
    "Manufacturer",
    "Model",
    "SerialNumber",
    "UUID",
    "BiosVersion",
    "PowerState",
    "Status",
    "ProcessorSummary",
    "MemorySummary",
    "LastResetTime",
    "Links",
];

/// Changes a system as far as the misbehaviours of the request let it.
pub(super) fn patch(
    system: &System,
    body: &[u8],
    headers: &HeaderMap,
    faults: &[Behaviour],
    now: Millis,
) -> (Answer, Deed) {
    let refused =
        |refusal: Refusal, action| (refusal.into(), Deed { action, effect: Effect::Refused, at: None });
    let Ok(body) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return refused(Refusal::malformed(), None);
    };
    // The annotations of a document that was read before are no change: the specification lets them pass.
    let properties: Vec<String> = body.keys().filter(|key| !key.starts_with("@odata.")).cloned().collect();
    let action = Some(Action::Patch { properties: properties.clone() });
    if properties.is_empty() {
        return refused(Refusal::no_operation(), action);
    }
    for name in &properties {
        match (name.as_str(), &body[name]) {
            ("Boot", Value::Object(_)) => {}
            ("Boot", value) => return refused(Refusal::property_value_type(name, value), action),
            (name, _) if READ_ONLY.contains(&name) => {
                return refused(Refusal::property_not_writable(name), action);
            }
            _ => return refused(Refusal::property_unknown(name), action),
        }
    }
    let empty = Map::new();
    let wanted = body.get("Boot").and_then(Value::as_object).unwrap_or(&empty);
    system.at(now, |state| {
        if let Err(refusal) = unless_changed(headers, state) {
            return refused(refusal, action.clone());
        }
        let next = match state.boot.patched(wanted) {
            Ok(next) => next,
            Err(refusal) => return refused(refusal, action.clone()),
        };
        let done = Answer::empty(StatusCode::NO_CONTENT);
        if faults.contains(&Behaviour::Lie {}) {
            return (done, Deed { action: action.clone(), effect: Effect::Pretended, at: None });
        }
        let at = now.saturating_add(lateness(faults));
        state.set_boot(next, at);
        (done, Deed { action: action.clone(), effect: Effect::Applied, at: Some(at) })
    })
}
