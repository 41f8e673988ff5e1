//! The control interface under `/emulator`: the log, the rules, and the hands of a person at the machine.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::control_hosts;
use super::deliver::Connection;
use super::effects::Which;
use super::fault::{Away, Behaviour, Rule};
use super::fleet::{ButtonPower, Fleet};
use super::redfish::{self, Scope};
use super::system::Credentials;
use super::time::Millis;

/// The routes of a listener.
pub(super) fn router(fleet: &Fleet, scope: Scope) -> Router {
    let control = match scope {
        Scope::Own(_) => Router::new(),
        Scope::Fleet => Router::new()
            .route("/emulator/systems", get(systems))
            .route("/emulator/systems/{name}", get(system))
            .route("/emulator/systems/{name}/power", post(power))
            .route("/emulator/systems/{name}/offline", post(offline))
            .route("/emulator/systems/{name}/bmc-reboot", post(bmc_reboot))
            .route("/emulator/systems/{name}/identity", post(identity))
            .route("/emulator/systems/{name}/credentials", post(credentials))
            .route("/emulator/faults", get(faults).post(add_fault).delete(clear_faults))
            .route("/emulator/faults/{id}", delete(remove_fault))
            .route("/emulator/effects", get(effects))
            .route("/emulator/effects/mutating", get(mutating_effects))
            .route("/emulator/counters", get(counters))
            .merge(control_hosts::routes()),
    };
    let redfish = fleet.clone();
    control.with_state(fleet.clone()).fallback(move |request: Request<axum::body::Body>| {
        let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
        redfish::handle(redfish.clone(), scope, connection, request)
    })
}

impl Fleet {
    /// The routes of the whole fleet, for tests without a socket. Behaviours that end a connection hang here.
    pub fn router(&self) -> Router {
        router(self, Scope::Fleet)
    }
}

pub(super) fn problem(status: StatusCode, error: impl std::fmt::Display) -> Response {
    (status, Json(json!({"error": error.to_string()}))).into_response()
}

pub(super) fn if_known(known: bool, name: &str) -> Response {
    if known {
        StatusCode::NO_CONTENT.into_response()
    } else {
        problem(
            StatusCode::NOT_FOUND,
            format!("system is '{name}', which does not exist: GET /emulator/systems lists them"),
        )
    }
}

async fn systems(State(fleet): State<Fleet>) -> Response {
    Json(json!({"now_ms": fleet.now(), "systems": fleet.systems()})).into_response()
}

async fn system(State(fleet): State<Fleet>, Path(name): Path<String>) -> Response {
    match fleet.system(&name) {
        Some(view) => Json(view).into_response(),
        None => if_known(false, &name),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PowerRequest {
    state: ButtonPower,
}

async fn power(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    Json(PowerRequest { state }): Json<PowerRequest>,
) -> Response {
    if_known(fleet.press(&name, state), &name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfflineRequest {
    for_ms: Millis,
    #[serde(default)]
    by: Away,
}

async fn offline(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    Json(OfflineRequest { for_ms, by }): Json<OfflineRequest>,
) -> Response {
    let rule = Rule { for_ms: Some(for_ms), ..Rule::on_system(name, Behaviour::Offline { by }) };
    add(&fleet, rule)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BmcRebootRequest {
    for_ms: Option<Millis>,
}

async fn bmc_reboot(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    Json(BmcRebootRequest { for_ms }): Json<BmcRebootRequest>,
) -> Response {
    if_known(fleet.reboot_bmc(&name, for_ms), &name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityRequest {
    serial_number: Option<String>,
    uuid: Option<String>,
}

async fn identity(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    Json(IdentityRequest { serial_number, uuid }): Json<IdentityRequest>,
) -> Response {
    if_known(fleet.set_identity(&name, serial_number, uuid), &name)
}

async fn credentials(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    Json(credentials): Json<Credentials>,
) -> Response {
    if_known(fleet.set_credentials(&name, credentials), &name)
}

async fn faults(State(fleet): State<Fleet>) -> Response {
    Json(json!({"now_ms": fleet.now(), "faults": fleet.faults()})).into_response()
}

fn add(fleet: &Fleet, rule: Rule) -> Response {
    match fleet.add_fault(rule) {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id}))).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, error),
    }
}

async fn add_fault(State(fleet): State<Fleet>, Json(rule): Json<Rule>) -> Response {
    add(&fleet, rule)
}

async fn clear_faults(State(fleet): State<Fleet>) -> Response {
    Json(json!({"deleted": fleet.clear_faults()})).into_response()
}

async fn remove_fault(State(fleet): State<Fleet>, Path(id): Path<u64>) -> Response {
    if fleet.remove_fault(id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        problem(StatusCode::NOT_FOUND, format!("fault {id} does not exist: GET /emulator/faults lists them"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EffectsQuery {
    pub(super) system: Option<String>,
    #[serde(default)]
    pub(super) since: u64,
    pub(super) limit: Option<usize>,
}

fn page(fleet: &Fleet, which: Which, query: &EffectsQuery) -> Response {
    let limit = query.limit.unwrap_or(usize::MAX);
    let (entries, last) = fleet.0.log.entries(which, query.system.as_deref(), query.since, limit);
    Json(json!({
        "now_ms": fleet.now(),
        "last_seq": last,
        "dropped": fleet.counters().dropped,
        "entries": entries,
    }))
    .into_response()
}

async fn effects(State(fleet): State<Fleet>, Query(query): Query<EffectsQuery>) -> Response {
    page(&fleet, Which::All, &query)
}

async fn mutating_effects(State(fleet): State<Fleet>, Query(query): Query<EffectsQuery>) -> Response {
    page(&fleet, Which::Mutating, &query)
}

async fn counters(State(fleet): State<Fleet>) -> Response {
    Json(fleet.counters()).into_response()
}
