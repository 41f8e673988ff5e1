//! Sessions, accounts, tasks and the reboot of a BMC, as a Redfish client sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::control::router;
use super::redfish::Scope;
use super::*;

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const SYSTEM: &str = "/redfish/v1/Systems/system-0001";

/// The router of the first system's own port.
fn own() -> (Fleet, Router) {
    let fleet = Fleet::builder().systems(2).build().unwrap();
    let router = router(&fleet, Scope::Own(0));
    (fleet, router)
}

enum By<'a> {
    Nobody,
    Password(&'a str),
    Token(&'a str),
}

async fn ask(
    router: &Router,
    by: By<'_>,
    method: &str,
    path: &str,
    body: Value,
) -> (StatusCode, HeaderMap, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = match by {
        By::Nobody => request,
        By::Password(password) => {
            request.header("authorization", format!("Basic {}", STANDARD.encode(format!("admin:{password}"))))
        }
        By::Token(token) => request.header("x-auth-token", token),
    };
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let response = router.clone().oneshot(request.body(Body::from(text)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn log_in(router: &Router, password: &str) -> (StatusCode, HeaderMap, Value) {
    ask(router, By::Nobody, "POST", SESSIONS, json!({"UserName": "admin", "Password": password})).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

#[tokio::test]
async fn a_session_opens_the_tree_until_it_is_deleted_and_a_bmc_keeps_four() {
    let (_, router) = own();
    assert_eq!(log_in(&router, "guess").await.0, StatusCode::UNAUTHORIZED);
    let (status, headers, session) = log_in(&router, "password").await;
    assert_eq!((status, &session["UserName"]), (StatusCode::CREATED, &json!("admin")));
    let (token, location) = (text(&headers, "x-auth-token"), text(&headers, "location"));
    assert_eq!(session["@odata.id"], location);
    assert_eq!(ask(&router, By::Token(token), "GET", SYSTEM, Value::Null).await.0, StatusCode::OK);
    assert_eq!(ask(&router, By::Token("none"), "GET", SYSTEM, Value::Null).await.0, StatusCode::UNAUTHORIZED);

    for _ in 0..3 {
        assert_eq!(log_in(&router, "password").await.0, StatusCode::CREATED);
    }
    let (status, _, body) = log_in(&router, "password").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"]["code"].as_str().unwrap().ends_with("SessionLimitExceeded"), "{body}");
    let (_, _, list) = ask(&router, By::Token(token), "GET", SESSIONS, Value::Null).await;
    assert_eq!(list["Members@odata.count"], 4);
    let (status, ..) = ask(&router, By::Token(token), "DELETE", location, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(ask(&router, By::Token(token), "GET", SYSTEM, Value::Null).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in(&router, "password").await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_changed_password_ends_what_the_old_one_opened() {
    let (_, router) = own();
    let (_, headers, _) = log_in(&router, "password").await;
    let token = text(&headers, "x-auth-token");
    let account = "/redfish/v1/AccountService/Accounts/1";
    let (_, _, shown) = ask(&router, By::Token(token), "GET", account, Value::Null).await;
    assert_eq!((&shown["UserName"], &shown["Password"]), (&json!("admin"), &Value::Null));
    let (status, ..) = ask(&router, By::Token(token), "PATCH", account, json!({"UserName": "root"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, ..) = ask(&router, By::Token(token), "PATCH", account, json!({"Password": "other"})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(ask(&router, By::Token(token), "GET", SYSTEM, Value::Null).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&router, By::Password("other"), "GET", SYSTEM, Value::Null).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_starts_again_is_away_and_forgets_its_sessions_but_not_its_host() {
    let (fleet, router) = own();
    fleet.press("system-0001", ButtonPower::On);
    let (_, headers, _) = log_in(&router, "password").await;
    let token = text(&headers, "x-auth-token");
    let action = "/redfish/v1/Managers/system-0001/Actions/Manager.Reset";
    for (body, status) in [
        (json!({"ResetType": "ForceOff"}), StatusCode::BAD_REQUEST),
        (json!({"ResetType": "ForceRestart"}), StatusCode::NO_CONTENT),
    ] {
        assert_eq!(ask(&router, By::Token(token), "POST", action, body).await.0, status);
    }
    let read = || ask(&router, By::Password("password"), "GET", SYSTEM, Value::Null);
    let gave_up = tokio::time::timeout(Duration::from_secs(89), read()).await;
    assert!(gave_up.is_err(), "the connection ends, which a request without one waits for");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(read().await.0, StatusCode::OK);
    assert_eq!(ask(&router, By::Token(token), "GET", SYSTEM, Value::Null).await.0, StatusCode::UNAUTHORIZED);
    let view = fleet.system("system-0001").unwrap();
    assert_eq!((view.power, view.resets), (PowerState::On, 1));
    let done = fleet.entries(Which::Mutating, None, 0).into_iter().filter(|e| e.effect == Effect::Applied);
    let reset_type = ManagerReset::ForceRestart;
    assert_eq!(done.map(|e| e.action.unwrap()).collect::<Vec<_>>(), [Action::ManagerReset { reset_type }]);
}
