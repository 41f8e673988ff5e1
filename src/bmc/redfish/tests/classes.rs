//! Which misbehaviour is which class, and whether the request may have arrived.

use super::*;

async fn read(site: &Site, behaviour: Behaviour) -> Result<(), BmcError> {
    site.fleet.clear_faults();
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    site.behaves(behaviour);
    bmc.probe().await.map(|_| ())
}

async fn sent(site: &Site, behaviour: Behaviour) -> Result<(), BmcError> {
    site.fleet.clear_faults();
    site.fleet.press("system-0001", ButtonPower::Off);
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    site.behaves(behaviour);
    bmc.send(RequestKind::PowerOn, Duration::from_millis(300)).await
}

fn status(status: u16) -> Behaviour {
    Behaviour::Status { status, retry_after_s: None, body: None, message_id: None, message_args: Vec::new() }
}

#[tokio::test]
async fn reads_fail_in_the_class_that_says_what_to_do() {
    let site = site(|fleet| fleet, quick()).await;
    let busy = Behaviour::Status {
        status: 503,
        retry_after_s: Some(7),
        body: None,
        message_id: None,
        message_args: Vec::new(),
    };
    let elsewhere = Behaviour::Redirect { location: "http://192.0.2.1/redfish/v1".to_owned(), status: 307 };
    let secure = Behaviour::Redirect { location: "https://127.0.0.1/redfish/v1".to_owned(), status: 301 };
    let round = Behaviour::Redirect { location: "/redfish/v1/Systems/system-0001".to_owned(), status: 302 };
    for (behaviour, expected) in [
        (status(401), BmcErrorKind::Credentials),
        (status(403), BmcErrorKind::Forbidden),
        (Behaviour::WrongPassword {}, BmcErrorKind::Credentials),
        (status(404), BmcErrorKind::NotFound),
        (Behaviour::SystemMissing {}, BmcErrorKind::NotFound),
        (status(500), BmcErrorKind::Protocol),
        (busy, BmcErrorKind::Busy(Some(Duration::from_secs(7)))),
        (status(429), BmcErrorKind::Busy(None)),
        (Behaviour::Offline { by: crate::emulator::Away::ServiceUnavailable }, BmcErrorKind::Busy(None)),
        (Behaviour::Offline { by: crate::emulator::Away::Reset }, BmcErrorKind::Unreachable),
        (Behaviour::Close {}, BmcErrorKind::Unreachable),
        (Behaviour::Html { status: 200 }, BmcErrorKind::Protocol),
        (Behaviour::TruncatedJson {}, BmcErrorKind::Protocol),
        (Behaviour::WrongContentLength { by: 10 }, BmcErrorKind::Protocol),
        (Behaviour::WrongContentLength { by: -10 }, BmcErrorKind::Protocol),
        (Behaviour::HugeBody { bytes: 10_000_000 }, BmcErrorKind::Protocol),
        (Behaviour::Hang {}, BmcErrorKind::Timeout),
        (Behaviour::HangMidBody {}, BmcErrorKind::Timeout),
        (Behaviour::SlowBody { interval_ms: 100 }, BmcErrorKind::Timeout),
        (elsewhere, BmcErrorKind::AddressNotAllowed),
        (secure, BmcErrorKind::AddressNotAllowed),
        (round, BmcErrorKind::Protocol),
    ] {
        let told = format!("{behaviour:?}");
        let error = read(&site, behaviour).await.unwrap_err();
        assert_eq!(error.kind, expected, "{told}: {error}");
        assert!(error.message.contains("127.0.0.1:"), "{error}");
    }
}

#[tokio::test]
async fn a_request_fails_with_what_is_known_of_its_delivery() {
    let site = site(|fleet| fleet, settings()).await;
    let late = Behaviour::Late { effect_ms: 5, then: crate::emulator::NoAnswer::Hang };
    let away = Behaviour::Redirect { location: "http://192.0.2.1/".to_owned(), status: 307 };
    for (behaviour, kind, delivery) in [
        (status(400), BmcErrorKind::Refused, Delivery::Answered),
        (status(405), BmcErrorKind::Refused, Delivery::Answered),
        (status(409), BmcErrorKind::Busy(None), Delivery::Answered),
        (status(500), BmcErrorKind::Busy(None), Delivery::Answered),
        (status(501), BmcErrorKind::Refused, Delivery::Answered),
        (status(504), BmcErrorKind::Busy(None), Delivery::Unknown),
        (status(401), BmcErrorKind::Credentials, Delivery::Answered),
        (status(403), BmcErrorKind::Forbidden, Delivery::Answered),
        (status(404), BmcErrorKind::NotFound, Delivery::Answered),
        (status(412), BmcErrorKind::Busy(None), Delivery::Answered),
        (status(503), BmcErrorKind::Busy(None), Delivery::Answered),
        (Behaviour::Html { status: 500 }, BmcErrorKind::Busy(None), Delivery::Answered),
        (away, BmcErrorKind::Protocol, Delivery::Answered),
        (Behaviour::Close {}, BmcErrorKind::Unreachable, Delivery::Unknown),
        (Behaviour::AnswerLost {}, BmcErrorKind::Unreachable, Delivery::Unknown),
        (Behaviour::Hang {}, BmcErrorKind::Timeout, Delivery::Unknown),
        (late, BmcErrorKind::Timeout, Delivery::Unknown),
    ] {
        let told = format!("{behaviour:?}");
        let since = site.fleet.entries(Which::Mutating, None, 0).last().map_or(0, |entry| entry.seq);
        let error = sent(&site, behaviour).await.unwrap_err();
        assert_eq!((&error.kind, error.delivery), (&kind, delivery), "{told}: {error}");
        assert_eq!(site.fleet.entries(Which::Mutating, None, since).len(), 1, "{told}: sent once");
    }
    sent(&site, status(202)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_repeats_the_words_of_the_bmc() {
    let site = site(|fleet| fleet, settings()).await;
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    let error = bmc.send(RequestKind::ForceOff, LONG).await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Busy(None), Delivery::Answered));
    assert!(
        error.message.contains("does not do ForceOff yet (409): \"The change to the requested resource")
            && error.message.contains("The power state is Off"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_named_by_its_field() {
    let site = site(|fleet| fleet, settings()).await;
    let wrong = Credentials { username: "admin".to_owned(), password: "canary".to_owned().into() };
    let address = format!("redfish+http://{}", site.bound.own[0].http.unwrap());
    let bmc = site.connector.open(&address.parse().unwrap(), wrong, Trust::System).await.unwrap();
    let error = bmc.probe().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Credentials);
    assert!(
        error.message.contains("spec.bmc.credentialsRef") && !error.message.contains("canary"),
        "{error}"
    );
    assert!(!format!("{bmc:?}").contains("canary"));
    assert_eq!(site.fleet.counters().bad_logins, 1);
}

#[tokio::test]
async fn nobody_at_home_is_unreachable_and_nothing_was_sent() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap();
    drop(free);
    let error = at(&Connector::new(settings()), port, "").await.probe().await.unwrap_err();
    assert_eq!((error.kind, error.delivery), (BmcErrorKind::Unreachable, Delivery::NotSent));
    assert!(error.message.contains("connection refused"), "{}", error.message);
}
