//! The fleet as a Redfish client sees it: without sockets where that is enough, and on the paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests stand on the other side of the wall"
)]

mod media;

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;

const ONE: &str = "/redfish/v1/Systems/system-0001";

fn fleet() -> Fleet {
    Fleet::builder().systems(3).delays(Duration::from_secs(2), Duration::from_secs(1)).build().unwrap()
}

fn request(method: &str, path: &str, body: &Value) -> http::request::Builder {
    let builder = Request::builder().method(method).uri(path);
    let builder = if body.is_null() { builder } else { builder.header("content-type", "application/json") };
    builder.header("authorization", format!("Basic {}", STANDARD.encode("admin:password")))
}

async fn ask(fleet: &Fleet, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    answer(fleet, request(method, path, &body).body(Body::from(text)).unwrap()).await
}

async fn answer(fleet: &Fleet, request: Request<Body>) -> (StatusCode, Value) {
    let response = fleet.router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn read(fleet: &Fleet, path: &str) -> Value {
    let (status, body) = ask(fleet, "GET", path, Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

async fn reset(fleet: &Fleet, reset_type: &str) -> StatusCode {
    let path = format!("{ONE}/Actions/ComputerSystem.Reset");
    ask(fleet, "POST", &path, json!({"ResetType": reset_type})).await.0
}

async fn fault(fleet: &Fleet, rule: Value) {
    let (status, body) = ask(fleet, "POST", "/emulator/faults", rule).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

fn power(fleet: &Fleet) -> PowerState {
    fleet.system("system-0001").unwrap().power
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn the_service_root_is_open_and_everything_else_asks_for_credentials() {
    let fleet = fleet();
    let bare = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
    assert_eq!(answer(&fleet, bare("/redfish/v1/")).await.0, StatusCode::OK);
    let (status, body) = answer(&fleet, bare("/redfish/v1/Systems")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(body["error"]["@Message.ExtendedInfo"][0]["MessageId"].as_str().unwrap().starts_with("Base."));
    assert_eq!(answer(&fleet, bare("/redfish/v1/Nothing")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&fleet, "GET", "/redfish/v1/Nothing", Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_link_of_the_tree_leads_to_a_document_that_names_itself() {
    let fleet = fleet();
    let mut open = vec!["/redfish/v1/".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let document = read(&fleet, &path).await;
        assert_eq!(document["@odata.id"], json!(path));
        links(&document, &mut open);
    }
    assert!(seen.len() > 40, "{}", seen.len());
}

fn links(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "@odata.id" => found.push(text.clone()),
                    _ => links(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| links(value, found)),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn powering_on_takes_its_time_and_is_logged_with_who_asked() {
    let fleet = fleet();
    assert_eq!(reset(&fleet, "On").await, StatusCode::NO_CONTENT);
    assert_eq!(read(&fleet, ONE).await["PowerState"], "PoweringOn");
    pass(2).await;
    assert_eq!(read(&fleet, ONE).await["PowerState"], "On");
    let entries = fleet.entries(Which::Mutating, Some("system-0001"), 0);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].action, Some(Action::Reset { reset_type: ResetType::On }));
    assert_eq!((entries[0].effect, entries[0].status), (Effect::Applied, Some(204)));
    assert_eq!(entries[0].user.as_deref(), Some("admin"));
}

#[tokio::test]
async fn a_reset_into_the_state_that_is_there_is_refused_or_void_as_declared() {
    let conflict = fleet();
    assert_eq!(reset(&conflict, "ForceOff").await, StatusCode::CONFLICT);
    assert_eq!(reset(&conflict, "ForceRestart").await, StatusCode::CONFLICT);
    let void = Fleet::builder().same_state(SameState::NoContent).build().unwrap();
    assert_eq!(reset(&void, "ForceOff").await, StatusCode::NO_CONTENT);
    assert_eq!(void.entries(Which::Mutating, None, 0)[0].effect, Effect::None);
}

#[tokio::test]
async fn bad_bodies_are_refused_with_extended_information() {
    let fleet = fleet();
    let action = format!("{ONE}/Actions/ComputerSystem.Reset");
    for (method, path, body, message) in [
        ("POST", action.as_str(), json!({"ResetType": "Explode"}), "ActionParameterValueNotInList"),
        ("POST", action.as_str(), json!({}), "ActionParameterMissing"),
        ("POST", action.as_str(), json!({"ResetType": "On", "Delay": 1}), "ActionParameterUnknown"),
        ("POST", action.as_str(), json!([]), "MalformedJSON"),
        ("PATCH", ONE, json!({"Colour": "red"}), "PropertyUnknown"),
        ("PATCH", ONE, json!({"PowerState": "On"}), "PropertyNotWritable"),
        ("PATCH", ONE, json!({"Boot": {"BootSourceOverrideTarget": "Moon"}}), "PropertyValueNotInList"),
        ("PATCH", ONE, json!({}), "NoOperation"),
    ] {
        let (status, answer) = ask(&fleet, method, path, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let id = answer["error"]["@Message.ExtendedInfo"][0]["MessageId"].as_str().unwrap().to_owned();
        assert!(id.ends_with(message), "{body}: {id}");
    }
    assert_eq!(ask(&fleet, "DELETE", ONE, Value::Null).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(fleet.counters().applied, 0);
}

#[tokio::test(start_paused = true)]
async fn a_one_time_boot_override_holds_for_one_start() {
    let fleet = fleet();
    let boot = json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}});
    assert_eq!(ask(&fleet, "PATCH", ONE, boot).await.0, StatusCode::NO_CONTENT);
    assert_eq!(read(&fleet, ONE).await["Boot"]["BootSourceOverrideTarget"], "Pxe");
    reset(&fleet, "On").await;
    pass(2).await;
    assert_eq!(read(&fleet, ONE).await["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    assert_eq!(fleet.system("system-0001").unwrap().booted_from, Some(BootTarget::Pxe));
}

#[tokio::test]
async fn a_change_under_a_stale_etag_is_refused_and_under_the_present_one_done() {
    let fleet = fleet();
    let patch = |etag: &str| {
        let body = json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Hdd"}});
        request("PATCH", ONE, &body).header("if-match", etag).body(Body::from(body.to_string())).unwrap()
    };
    let etag = read(&fleet, ONE).await["@odata.etag"].as_str().unwrap().to_owned();
    assert_eq!(answer(&fleet, patch(&etag)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(answer(&fleet, patch(&etag)).await.0, StatusCode::PRECONDITION_FAILED);
    assert_ne!(read(&fleet, ONE).await["@odata.etag"], json!(etag));
}

#[tokio::test(start_paused = true)]
async fn every_third_system_says_when_it_was_started() {
    let fleet = Fleet::builder().systems(3).initial_power(InitialPower::On).build().unwrap();
    let third = "/redfish/v1/Systems/system-0003";
    assert!(read(&fleet, ONE).await.get("LastResetTime").is_none());
    let before = read(&fleet, third).await["LastResetTime"].clone();
    assert!(before.is_string());
    pass(1).await;
    let path = format!("{third}/Actions/ComputerSystem.Reset");
    ask(&fleet, "POST", &path, json!({"ResetType": "ForceRestart"})).await;
    assert_ne!(read(&fleet, third).await["LastResetTime"], before);
}

#[tokio::test(start_paused = true)]
async fn a_liar_answers_that_it_is_done_and_does_nothing() {
    let fleet = fleet();
    fault(&fleet, json!({"system": "system-0001", "count": 1, "behaviour": {"kind": "Lie"}})).await;
    assert_eq!(reset(&fleet, "On").await, StatusCode::NO_CONTENT);
    pass(10).await;
    assert_eq!(power(&fleet), PowerState::Off);
    assert_eq!(fleet.entries(Which::Mutating, Some("system-0001"), 0)[0].effect, Effect::Pretended);
    reset(&fleet, "On").await;
    pass(10).await;
    assert_eq!(power(&fleet), PowerState::On, "the rule counted one request only");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_reverts_is_reached_first() {
    let fleet = fleet();
    fault(&fleet, json!({"behaviour": {"kind": "Revert", "after_ms": 5000}})).await;
    reset(&fleet, "On").await;
    pass(2).await;
    assert_eq!(power(&fleet), PowerState::On);
    pass(5).await;
    assert_eq!(power(&fleet), PowerState::Off);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ignores_the_button_stays_on_until_it_is_forced() {
    let fleet = fleet();
    fleet.press("system-0001", ButtonPower::On);
    fault(&fleet, json!({"behaviour": {"kind": "IgnoreGraceful"}})).await;
    assert_eq!(reset(&fleet, "GracefulShutdown").await, StatusCode::NO_CONTENT);
    pass(60).await;
    assert_eq!(power(&fleet), PowerState::On);
    reset(&fleet, "ForceOff").await;
    pass(1).await;
    assert_eq!(power(&fleet), PowerState::Off);
}

#[tokio::test(start_paused = true)]
async fn a_late_request_gets_no_answer_and_takes_effect_afterwards() {
    let fleet = fleet();
    fault(&fleet, json!({"count": 1, "behaviour": {"kind": "Late", "effect_ms": 30000}})).await;
    let gave_up = tokio::time::timeout(Duration::from_secs(10), reset(&fleet, "On")).await;
    assert!(gave_up.is_err(), "nobody answers");
    assert_eq!(power(&fleet), PowerState::Off);
    pass(22).await;
    assert_eq!(power(&fleet), PowerState::On);
    let entry = fleet.entries(Which::Mutating, Some("system-0001"), 0).remove(0);
    assert_eq!((entry.status, entry.effect, entry.effect_at_ms), (None, Effect::Applied, Some(30_000)));
    assert_eq!(entry.faults, ["Late"]);
}

#[tokio::test(start_paused = true)]
async fn a_locked_account_refuses_the_right_password_until_the_lock_ends() {
    let fleet = fleet();
    let rule = json!({"behaviour": {"kind": "LockOut", "after": 3, "lock_ms": 60000}});
    fault(&fleet, rule).await;
    let bad = || {
        let login = format!("Basic {}", STANDARD.encode("admin:guess"));
        Request::builder().uri(ONE).header("authorization", login).body(Body::empty()).unwrap()
    };
    for _ in 0..3 {
        assert_eq!(answer(&fleet, bad()).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(ask(&fleet, "GET", ONE, Value::Null).await.0, StatusCode::FORBIDDEN);
    let other = "/redfish/v1/Systems/system-0002";
    assert_eq!(ask(&fleet, "GET", other, Value::Null).await.0, StatusCode::OK, "locks are per system");
    pass(60).await;
    assert_eq!(ask(&fleet, "GET", ONE, Value::Null).await.0, StatusCode::OK);
    assert_eq!(fleet.counters().bad_logins, 4);
}

#[tokio::test]
async fn statuses_and_redirects_are_answered_as_declared() {
    let fleet = fleet();
    fault(&fleet, json!({"count": 1, "behaviour": {"kind": "Status", "status": 503, "retry_after_s": 7}}))
        .await;
    let get = || request("GET", ONE, &Value::Null).body(Body::empty()).unwrap();
    let response = fleet.router().oneshot(get()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    let location = "http://192.0.2.1/redfish/v1";
    fault(&fleet, json!({"count": 1, "behaviour": {"kind": "Redirect", "location": location}})).await;
    let response = fleet.router().oneshot(get()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (307, &location.parse().unwrap())
    );
    assert_eq!(fleet.router().oneshot(get()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_machine_can_hide_its_power_change_its_identity_and_vanish() {
    let fleet = fleet();
    for (shown, expected) in
        [("Unknown", Some(json!("Unknown"))), ("Null", Some(Value::Null)), ("Absent", None)]
    {
        fault(&fleet, json!({"count": 1, "behaviour": {"kind": "PowerUnknown", "shown": shown}})).await;
        assert_eq!(read(&fleet, ONE).await.get("PowerState").cloned(), expected, "{shown}");
    }
    fault(&fleet, json!({"count": 1, "behaviour": {"kind": "OtherIdentity", "serial_number": "X"}})).await;
    assert_eq!(read(&fleet, ONE).await["SerialNumber"], "X");
    assert_ne!(read(&fleet, ONE).await["SerialNumber"], "X");
    fault(&fleet, json!({"system": "system-0001", "behaviour": {"kind": "SystemMissing"}})).await;
    assert_eq!(ask(&fleet, "GET", ONE, Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_control_interface_refuses_what_it_does_not_know_by_name() {
    let fleet = fleet();
    let (status, body) =
        ask(&fleet, "POST", "/emulator/faults", json!({"system": "x", "behaviour": {"kind": "Hang"}})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"].as_str().unwrap().contains("system is 'x'"), "{body}");
    let (status, _) = ask(&fleet, "POST", "/emulator/systems/x/power", json!({"state": "On"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) =
        ask(&fleet, "POST", "/emulator/faults", json!({"behaviour": {"kind": "Explode"}})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

struct Served {
    url: String,
    client: reqwest::Client,
    fleet: Fleet,
    _bound: Bound,
}

async fn served() -> Served {
    let fleet = fleet();
    let listeners = Listeners { http: Some("127.0.0.1:0".parse().unwrap()), ..Listeners::default() };
    let bound = serve(fleet.clone(), listeners, CancellationToken::new()).await.unwrap();
    let url = format!("http://{}{ONE}", bound.http.unwrap());
    Served { url, client: client().build().unwrap(), fleet, _bound: bound }
}

fn client() -> reqwest::ClientBuilder {
    // Another test may have been first; either way it is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none())
}

impl Served {
    fn behaves(&self, behaviour: Behaviour) {
        self.fleet.clear_faults();
        self.fleet.add_fault(Rule::on_system("system-0001", behaviour)).unwrap();
    }

    async fn get(&self) -> Result<reqwest::Response, reqwest::Error> {
        self.client.get(&self.url).basic_auth("admin", Some("password")).send().await
    }
}

#[tokio::test]
async fn bodies_are_spoilt_as_declared() {
    let served = served().await;
    served.behaves(Behaviour::TruncatedJson {});
    let text = served.get().await.unwrap().text().await.unwrap();
    assert!(!text.is_empty() && serde_json::from_str::<Value>(&text).is_err());
    served.behaves(Behaviour::WrongContentLength { by: 10 });
    assert!(served.get().await.unwrap().text().await.is_err(), "the body ends before its length");
    served.behaves(Behaviour::WrongContentLength { by: -10 });
    let text = served.get().await.unwrap().text().await.unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_err());
    served.behaves(Behaviour::HugeBody { bytes: 10_000_000 });
    let body = served.get().await.unwrap().bytes().await.unwrap();
    assert!(body.len() >= 10_000_000 && serde_json::from_slice::<Value>(&body).is_ok());
    served.behaves(Behaviour::SlowBody { interval_ms: 1 });
    assert!(served.get().await.unwrap().json::<Value>().await.is_ok());
    served.behaves(Behaviour::HangMidBody {});
    let mut response = served.get().await.unwrap();
    assert!(!response.chunk().await.unwrap().unwrap().is_empty());
    served.behaves(Behaviour::Html { status: 200 });
    assert_eq!(served.get().await.unwrap().headers()["content-type"], "text/html");
}

#[tokio::test]
async fn connections_end_without_an_answer_and_an_answer_can_be_lost_after_the_effect() {
    let served = served().await;
    for behaviour in [Behaviour::Close {}, Behaviour::Offline { by: Away::Reset }] {
        served.behaves(behaviour);
        assert!(served.get().await.is_err());
    }
    let action = format!("{}/Actions/ComputerSystem.Reset", served.url);
    let on = served
        .client
        .post(action)
        .basic_auth("admin", Some("password"))
        .header("content-type", "application/json")
        .header("x-autobuild-worker", "worker-1")
        .body(r#"{"ResetType":"On"}"#);
    served.behaves(Behaviour::Hang {});
    let hangs = on.try_clone().unwrap().timeout(Duration::from_millis(200)).send().await;
    assert!(hangs.is_err_and(|error| error.is_timeout()));
    let entry = served.fleet.entries(Which::Mutating, None, 0).remove(0);
    assert_eq!((entry.effect, entry.status), (Effect::None, None));
    assert_eq!(power(&served.fleet), PowerState::Off);
    served.behaves(Behaviour::AnswerLost {});
    assert!(on.send().await.is_err());
    let entry = served.fleet.entries(Which::Mutating, None, 0).remove(1);
    assert_eq!((entry.effect, entry.status), (Effect::Applied, None));
    assert_eq!(entry.worker.as_deref(), Some("worker-1"));
    assert_ne!(power(&served.fleet), PowerState::Off);
}

#[tokio::test]
async fn https_is_trusted_with_the_ca_and_refused_when_self_signed_or_of_another_name() {
    let any = Some("127.0.0.1:0".parse().unwrap());
    let listeners =
        Listeners { http: None, https: any, https_self_signed: any, https_wrong_name: any, own_ports: 1 };
    let shutdown = CancellationToken::new();
    let bound = serve(fleet(), listeners, shutdown.clone()).await.unwrap();
    let ca = reqwest::Certificate::from_pem(bound.ca_pem.as_bytes()).unwrap();
    let client = client().tls_certs_only([ca]).build().unwrap();
    let get = |address: std::net::SocketAddr, path: &'static str| {
        client.get(format!("https://{address}{path}")).basic_auth("admin", Some("password")).send()
    };
    let good = bound.https.unwrap();
    assert_eq!(get(good, "/redfish/v1/Systems").await.unwrap().status(), 200);
    assert!(get(bound.https_self_signed.unwrap(), "/redfish/v1").await.is_err());
    assert!(get(bound.https_wrong_name.unwrap(), "/redfish/v1").await.is_err());

    let own = bound.own[0].https.unwrap();
    let systems: Value = get(own, "/redfish/v1/Systems").await.unwrap().json().await.unwrap();
    assert_eq!(systems["Members@odata.count"], 1);
    assert_eq!(get(own, "/redfish/v1/Systems/system-0002").await.unwrap().status(), 404);
    assert_eq!(get(own, "/emulator/systems").await.unwrap().status(), 404);

    shutdown.cancel();
    tokio::time::timeout(Duration::from_mins(1), bound.stopped()).await.unwrap();
    assert!(get(good, "/redfish/v1").await.is_err());
}

#[tokio::test]
async fn a_port_can_accept_connections_and_never_read_from_them() {
    let fleet = fleet();
    let http = Some("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners { http, own_ports: 1, ..Listeners::default() };
    let bound = serve(fleet.clone(), listeners, CancellationToken::new()).await.unwrap();
    fleet.add_fault(Rule::on_system("system-0001", Behaviour::HangOnAccept {})).unwrap();
    let client = client().build().unwrap();
    let get = |address: std::net::SocketAddr| client.get(format!("http://{address}/redfish/v1")).send();
    let hanging = tokio::spawn(get(bound.own[0].http.unwrap()));
    let accepted = async {
        while fleet.faults()[0].acted == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), accepted).await.unwrap();
    assert_eq!(get(bound.http.unwrap()).await.unwrap().status(), 200, "the fleet's port is another one");
    assert!(!hanging.is_finished());
    assert_eq!(fleet.counters().requests, 1, "the other request was never read");
    hanging.abort();
}
