//! BMCs that refuse Basic authentication.

use super::*;

/// How many sessions were opened and ended, and how many logins were refused.
fn sessions(site: &Site) -> (usize, usize, u64) {
    let all = site.fleet.entries(Which::All, None, 0);
    let of = |method: &str| {
        all.iter()
            .filter(|entry| entry.method == method && entry.path.contains("/SessionService/Sessions"))
            .count()
    };
    (of("POST"), of("DELETE"), site.fleet.counters().bad_logins)
}

#[tokio::test]
async fn a_bmc_without_basic_authentication_is_spoken_to_in_sessions_and_each_is_ended() {
    let site = site(|fleet| fleet, settings()).await;
    site.behaves(Behaviour::BasicRefused {});
    let bmc = site.one().await;
    assert_eq!(bmc.probe().await.unwrap().power, PowerState::PoweredOff);
    assert_eq!(sessions(&site), (1, 1, 0));
    bmc.inspect().await.unwrap();
    bmc.send(RequestKind::PowerOn, LONG).await.unwrap();
    assert_eq!(bmc.probe().await.unwrap().power, PowerState::PoweredOn);
    assert_eq!(sessions(&site), (4, 4, 0));
    // The next one knows already, and asks for nothing in vain.
    let refused = |site: &Site| {
        site.fleet.entries(Which::All, None, 0).iter().filter(|entry| entry.status == Some(401)).count()
    };
    let before = refused(&site);
    site.one().await.probe().await.unwrap();
    assert_eq!(refused(&site), before);
}

#[tokio::test]
async fn a_session_is_ended_on_every_way_out() {
    let site = site(|fleet| fleet, settings()).await;
    site.behaves(Behaviour::BasicRefused {});
    let bmc = site.one().await;
    bmc.probe().await.unwrap();
    let gone = Rule::on_system(
        "system-0001",
        Behaviour::Status {
            status: 500,
            retry_after_s: None,
            body: None,
            message_id: None,
            message_args: Vec::new(),
        },
    );
    site.fleet.add_fault(gone.path("*/Systems/system-0001")).unwrap();
    bmc.probe().await.unwrap_err();
    let (opened, ended, refused) = sessions(&site);
    assert_eq!((opened, refused), (ended, 0));
}

#[tokio::test]
async fn a_wrong_password_costs_one_login_and_leaves_no_session() {
    let site = site(|fleet| fleet, settings()).await;
    site.behaves(Behaviour::BasicRefused {});
    let wrong = Credentials { username: "admin".to_owned(), password: "wrong".to_owned().into() };
    let address = format!("redfish+http://{}", site.bound.own[0].http.unwrap());
    let bmc = site.connector.open(&address.parse().unwrap(), wrong, Trust::System).await.unwrap();
    let error = bmc.probe().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Credentials, "{error}");
    assert_eq!(sessions(&site), (1, 0, 1));
    assert!(!error.message.contains("wrong"), "{error}");
}

#[tokio::test]
async fn a_bmc_that_keeps_no_more_sessions_is_asked_again_later() {
    let site = site(|fleet| fleet.session_limit(0), settings()).await;
    site.behaves(Behaviour::BasicRefused {});
    let error = site.one().await.probe().await.unwrap_err();
    assert!(matches!(error.kind, BmcErrorKind::Busy(_)), "{error}");
}
