//! The checks.

use std::time::Duration;

use autobuild::api::hardware::PowerState;
use autobuild::bmc::credentials::Credentials;
use autobuild::bmc::network::BmcNetworks;
use autobuild::bmc::{
    Bmc, BmcError, BmcErrorKind, BootOverride, Connector, ConnectorSettings, Delivery, OverrideEnabled,
    OverrideTarget, PlainHttp, Trust, UnverifiedTls,
};
use autobuild::job::RequestKind;
use e2e::wait::{Look, say, wait_for};

/// A BMC with several machines, of which two, both off, may be used.
pub struct Subject {
    /// The address without a system.
    pub host: String,
    /// Two ids.
    pub systems: [String; 2],
    /// User name and password.
    pub login: (String, String),
    /// How its certificate is judged.
    pub trust: Trust,
    /// The longest time that it needs for a change of power.
    pub change: Duration,
}

/// A request is over within this.
const WITHIN: Duration = Duration::from_secs(30);
/// For a busy machine, on top of what the BMC needs.
const SLACK: Duration = Duration::from_mins(1);

/// Runs all checks; the two machines are off again at the end.
pub async fn run(subject: &Subject) {
    say(format!("BMC conformance of {}", subject.host));
    let connector = Connector::new(ConnectorSettings {
        networks: BmcNetworks::new(vec!["127.0.0.0/8".parse().unwrap()]),
        plain_http: PlainHttp::Allowed,
        unverified_tls: UnverifiedTls::Refused,
        ..ConnectorSettings::default()
    });
    let session = Session { subject, connector };
    session.probe_tells_which_machine_it_is().await;
    session.inspection_is_complete_and_repeats().await;
    session.several_systems_need_an_id().await;
    session.an_unknown_system_is_not_found().await;
    session.a_wrong_password_is_refused().await;
    session.power_follows_the_requests().await;
    session.a_one_time_network_boot_is_set_read_back_and_used_up_or_cleared().await;
}

struct Session<'a> {
    subject: &'a Subject,
    connector: Connector,
}

impl Session<'_> {
    async fn open(&self, path: &str, password: &str) -> Result<Box<dyn Bmc>, BmcError> {
        let address = format!("{}{path}", self.subject.host).parse().unwrap();
        let credentials =
            Credentials { username: self.subject.login.0.clone(), password: password.to_owned().into() };
        self.connector.open(&address, credentials, self.subject.trust.clone()).await
    }

    async fn system(&self, id: &str) -> Box<dyn Bmc> {
        self.open(&format!("/redfish/v1/Systems/{id}"), &self.subject.login.1).await.unwrap()
    }

    async fn probe_tells_which_machine_it_is(&self) {
        let [first, second] = &self.subject.systems;
        let (one, two) = (self.system(first).await, self.system(second).await);
        let (seen_one, seen_two) = (one.probe().await.unwrap(), two.probe().await.unwrap());
        assert_eq!(one.system().as_deref(), Some(first.as_str()));
        assert_eq!(seen_one.power, PowerState::PoweredOff);
        assert!(seen_one.identity.uuid.is_some());
        assert_ne!(seen_one.identity, seen_two.identity);
        assert_eq!(one.probe().await.unwrap(), seen_one, "the shorter way tells the same");
    }

    async fn inspection_is_complete_and_repeats(&self) {
        let bmc = self.system(&self.subject.systems[0]).await;
        let reading = bmc.inspect().await.unwrap();
        assert_eq!(bmc.inspect().await.unwrap(), reading);
        assert_eq!(self.system(&self.subject.systems[0]).await.inspect().await.unwrap(), reading);
        assert_eq!(reading.identity, bmc.probe().await.unwrap().identity);
        assert!(reading.hardware.manufacturer.is_some());
        assert!(reading.hardware.nics.iter().any(|nic| nic.mac_address.is_some()));
    }

    async fn several_systems_need_an_id(&self) {
        let bmc = self.open("", &self.subject.login.1).await.unwrap();
        let error = bmc.probe().await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::NotFound);
        assert!(error.message.contains(&self.subject.systems[0]), "{error}");
    }

    async fn an_unknown_system_is_not_found(&self) {
        let error = self.system("no-such-system").await.probe().await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::NotFound);
        assert!(error.message.contains("no-such-system"), "{error}");
    }

    async fn a_wrong_password_is_refused(&self) {
        let path = format!("/redfish/v1/Systems/{}", self.subject.systems[0]);
        let error = self.open(&path, "canary-password").await.unwrap().probe().await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::Credentials);
        assert!(!error.message.contains("canary"), "{error}");
    }

    async fn power_follows_the_requests(&self) {
        let bmc = self.system(&self.subject.systems[0]).await;
        let bystander = self.system(&self.subject.systems[1]).await;
        let unread = bmc.send(RequestKind::PowerOn, WITHIN).await.unwrap_err();
        assert_eq!(unread.delivery, Delivery::NotSent);
        for (request, power) in [
            (RequestKind::PowerOn, PowerState::PoweredOn),
            (RequestKind::GracefulShutdown, PowerState::PoweredOff),
            (RequestKind::PowerOn, PowerState::PoweredOn),
            (RequestKind::ForceOff, PowerState::PoweredOff),
        ] {
            bmc.probe().await.unwrap();
            bmc.send(request, WITHIN).await.unwrap();
            self.reaches(bmc.as_ref(), power).await;
        }
        assert_eq!(bystander.probe().await.unwrap().power, PowerState::PoweredOff);
    }

    async fn reaches(&self, bmc: &dyn Bmc, power: PowerState) {
        wait_for(power.as_str(), self.subject.change + SLACK, async || {
            let seen = bmc.probe().await?.power;
            Ok(if seen == power { Look::Holds(()) } else { Look::NotYet(seen.to_string()) })
        })
        .await
        .unwrap();
    }

    async fn a_one_time_network_boot_is_set_read_back_and_used_up_or_cleared(&self) {
        let bmc = self.system(&self.subject.systems[0]).await;
        let sent = async |request| {
            bmc.probe().await.unwrap();
            bmc.send(request, WITHIN).await.unwrap();
            bmc.boot_override().await.unwrap()
        };
        // A BMC that cannot do HTTP may fall back to PXE.
        let http = sent(RequestKind::BootFromHttpOnce).await;
        assert!(matches!(http.target, OverrideTarget::Http | OverrideTarget::Network), "{http:?}");
        assert!(sent(RequestKind::ClearBootOverride).await.is_clear());

        let set = sent(RequestKind::BootFromNetworkOnce).await;
        assert_eq!(set.target, OverrideTarget::Network);
        assert!(matches!(set.enabled, OverrideEnabled::Once | OverrideEnabled::Continuous), "{set:?}");
        sent(RequestKind::PowerOn).await;
        self.reaches(bmc.as_ref(), PowerState::PoweredOn).await;
        let started: BootOverride = bmc.boot_override().await.unwrap();
        if set.enabled == OverrideEnabled::Once {
            assert!(started.is_clear(), "{started:?} after the start that it was for");
        }
        assert!(sent(RequestKind::ClearBootOverride).await.is_clear());
        sent(RequestKind::ForceOff).await;
        self.reaches(bmc.as_ref(), PowerState::PoweredOff).await;
    }
}
