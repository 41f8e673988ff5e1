//! The part of the control interface that is about hosts.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::control::{EffectsQuery, if_known, problem};
use super::fleet::Fleet;
use super::host::{BootUrl, Disk, HostBehaviour, HostRule};
use super::hosts::DiskChange;

/// The routes.
pub(super) fn routes() -> Router<Fleet> {
    Router::new()
        .route("/emulator/boot-url", get(boot_url).post(set_boot_url))
        .route("/emulator/systems/{name}/disk", post(disk))
        .route("/emulator/hosts", get(rules).post(add_rule).delete(clear_rules))
        .route("/emulator/hosts/behaviours", get(behaviours))
        .route("/emulator/hosts/{id}", delete(remove_rule))
        .route("/emulator/effects/hosts", get(acts))
}

async fn boot_url(State(fleet): State<Fleet>) -> Response {
    Json(json!({"url": fleet.boot_url()})).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BootUrlRequest {
    url: Option<BootUrl>,
}

async fn set_boot_url(State(fleet): State<Fleet>, Json(request): Json<BootUrlRequest>) -> Response {
    fleet.set_boot_url(request.url);
    StatusCode::NO_CONTENT.into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskRequest {
    disk: Disk,
}

async fn disk(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    Json(DiskRequest { disk }): Json<DiskRequest>,
) -> Response {
    match fleet.set_disk(&name, disk) {
        DiskChange::Done => if_known(true, &name),
        DiskChange::NoSuchSystem => if_known(false, &name),
        DiskChange::IsAFile => problem(
            StatusCode::CONFLICT,
            format!("system is '{name}', a virtual machine: change the file of its disk while it is off"),
        ),
    }
}

async fn rules(State(fleet): State<Fleet>) -> Response {
    Json(json!({"now_ms": fleet.now(), "rules": fleet.host_rules()})).into_response()
}

async fn add_rule(State(fleet): State<Fleet>, Json(rule): Json<HostRule>) -> Response {
    match fleet.add_host_rule(rule) {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id}))).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, error),
    }
}

async fn clear_rules(State(fleet): State<Fleet>) -> Response {
    Json(json!({"deleted": fleet.clear_host_rules()})).into_response()
}

async fn remove_rule(State(fleet): State<Fleet>, Path(id): Path<u64>) -> Response {
    if fleet.remove_host_rule(id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        problem(
            StatusCode::NOT_FOUND,
            format!("host rule {id} does not exist: GET /emulator/hosts lists them"),
        )
    }
}

async fn behaviours() -> Response {
    let all = HostBehaviour::examples().map(|behaviour| -> Value {
        json!({"kind": behaviour.as_str(), "explain": behaviour.explain(), "example": behaviour})
    });
    Json(json!(all)).into_response()
}

async fn acts(State(fleet): State<Fleet>, Query(query): Query<EffectsQuery>) -> Response {
    let limit = query.limit.unwrap_or(usize::MAX);
    let (entries, last) = fleet.0.log.acts(query.system.as_deref(), query.since, limit);
    Json(json!({
        "now_ms": fleet.now(),
        "last_seq": last,
        "dropped": fleet.counters().dropped,
        "entries": entries,
    }))
    .into_response()
}
