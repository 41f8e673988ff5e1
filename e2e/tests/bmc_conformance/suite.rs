//! The checks.

use std::time::Duration;

use autobuild::api::hardware::PowerState;
use autobuild::bmc::credentials::Credentials;
use autobuild::bmc::network::BmcNetworks;
use autobuild::bmc::{
    Beside, Bmc, BmcError, BmcErrorKind, BootOverride, Connector, ConnectorSettings, Delivery, IpmiLan,
    Media, OverrideEnabled, OverrideTarget, PlainHttp, Trust, UnverifiedTls,
};
use autobuild::job::RequestKind;
use e2e::wait::{Look, say, wait_for};

use crate::image::Images;

/// What stands behind an address.
pub enum Machines {
    /// Redfish: several systems, of which these two, both off, may be used.
    Systems([String; 2]),
    /// IPMI: one machine, off. IPMI knows no NICs, no boot over HTTP and no virtual media.
    One,
}

/// A BMC.
pub struct Subject {
    /// The address without a system.
    pub host: String,
    /// What is behind it.
    pub machines: Machines,
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
        ipmi: IpmiLan::Allowed,
        unverified_tls: UnverifiedTls::Refused,
        ..ConnectorSettings::default()
    });
    let session = Session { subject, connector };
    session.probe_tells_which_machine_it_is().await;
    session.inspection_is_complete_and_repeats().await;
    if let Machines::Systems(systems) = &subject.machines {
        session.several_systems_need_an_id(systems).await;
        session.an_unknown_system_is_not_found().await;
    }
    session.a_wrong_password_is_refused().await;
    session.power_follows_the_requests().await;
    session.an_image_is_inserted_and_ejected().await;
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

    /// The machine, and another one where there is one.
    async fn machines(&self) -> (Box<dyn Bmc>, Option<Box<dyn Bmc>>) {
        match &self.subject.machines {
            Machines::Systems([first, second]) => (self.system(first).await, Some(self.system(second).await)),
            Machines::One => (self.open("", &self.subject.login.1).await.unwrap(), None),
        }
    }

    async fn machine(&self) -> Box<dyn Bmc> {
        self.machines().await.0
    }

    async fn probe_tells_which_machine_it_is(&self) {
        let (one, another) = self.machines().await;
        let seen = one.probe().await.unwrap();
        assert_eq!(seen.power, PowerState::PoweredOff);
        assert!(seen.identity.uuid.is_some());
        match &self.subject.machines {
            Machines::Systems([first, _]) => assert_eq!(one.system().as_deref(), Some(first.as_str())),
            Machines::One => assert_eq!(one.system(), None),
        }
        if let Some(another) = another {
            assert_ne!(another.probe().await.unwrap().identity, seen.identity);
        }
        assert_eq!(one.probe().await.unwrap(), seen, "the shorter way tells the same");
    }

    async fn inspection_is_complete_and_repeats(&self) {
        let bmc = self.machine().await;
        let reading = bmc.inspect().await.unwrap();
        assert_eq!(bmc.inspect().await.unwrap(), reading);
        assert_eq!(self.machine().await.inspect().await.unwrap(), reading);
        assert_eq!(reading.identity, bmc.probe().await.unwrap().identity);
        assert!(reading.hardware.manufacturer.is_some());
        match &self.subject.machines {
            Machines::Systems(_) => {
                assert!(reading.hardware.nics.iter().any(|nic| nic.mac_address.is_some()));
            }
            Machines::One => assert!(reading.hardware.serial_number.is_some()),
        }
    }

    async fn several_systems_need_an_id(&self, systems: &[String]) {
        let bmc = self.open("", &self.subject.login.1).await.unwrap();
        let error = bmc.probe().await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::NotFound);
        assert!(error.message.contains(&systems[0]), "{error}");
    }

    async fn an_unknown_system_is_not_found(&self) {
        let error = self.system("no-such-system").await.probe().await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::NotFound);
        assert!(error.message.contains("no-such-system"), "{error}");
    }

    async fn a_wrong_password_is_refused(&self) {
        let path = match &self.subject.machines {
            Machines::Systems([first, _]) => format!("/redfish/v1/Systems/{first}"),
            Machines::One => String::new(),
        };
        let error = self.open(&path, "canary-password").await.unwrap().probe().await.unwrap_err();
        assert_eq!(error.kind, BmcErrorKind::Credentials);
        assert!(!error.message.contains("canary"), "{error}");
    }

    async fn power_follows_the_requests(&self) {
        let (bmc, bystander) = self.machines().await;
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
        if let Some(bystander) = bystander {
            assert_eq!(bystander.probe().await.unwrap().power, PowerState::PoweredOff);
        }
    }

    async fn reaches(&self, bmc: &dyn Bmc, power: PowerState) {
        wait_for(power.as_str(), self.subject.change + SLACK, async || {
            let seen = bmc.probe().await?.power;
            Ok(if seen == power { Look::Holds(()) } else { Look::NotYet(seen.to_string()) })
        })
        .await
        .unwrap();
    }

    async fn an_image_is_inserted_and_ejected(&self) {
        let bmc = self.machine().await;
        let images = Images::serve().await;
        bmc.probe().await.unwrap();
        let inserted = bmc.send_with(RequestKind::InsertMedia, Beside::Image(images.url()), WITHIN).await;
        match &self.subject.machines {
            Machines::Systems(_) => {
                inserted.unwrap();
                let image = images.url().as_str().to_owned();
                assert_eq!(bmc.media().await.unwrap(), Media::Inserted(Some(image)));
                bmc.probe().await.unwrap();
                bmc.send(RequestKind::EjectMedia, WITHIN).await.unwrap();
                assert_eq!(bmc.media().await.unwrap(), Media::Empty);
            }
            Machines::One => {
                assert_eq!(bmc.media().await.unwrap(), Media::NoDrive);
                refused_unsent(&inserted.unwrap_err());
            }
        }
    }

    async fn a_one_time_network_boot_is_set_read_back_and_used_up_or_cleared(&self) {
        let bmc = self.machine().await;
        let after = async |request| {
            bmc.probe().await.unwrap();
            bmc.send(request, WITHIN).await.unwrap();
            bmc.boot_override().await.unwrap()
        };
        match &self.subject.machines {
            Machines::Systems(_) => {
                let set = after(RequestKind::BootFromMediaOnce).await;
                assert_eq!(set.target, OverrideTarget::Cd);
                // A BMC that cannot do HTTP may fall back to PXE.
                let set = after(RequestKind::BootFromHttpOnce).await;
                assert!(matches!(set.target, OverrideTarget::Http | OverrideTarget::Network), "{set:?}");
            }
            Machines::One => {
                bmc.probe().await.unwrap();
                refused_unsent(&bmc.send(RequestKind::BootFromHttpOnce, WITHIN).await.unwrap_err());
            }
        }
        assert!(after(RequestKind::ClearBootOverride).await.is_clear());

        let set = after(RequestKind::BootFromNetworkOnce).await;
        assert_eq!(set.target, OverrideTarget::Network);
        if let Machines::Systems(_) = &self.subject.machines {
            assert!(matches!(set.enabled, OverrideEnabled::Once | OverrideEnabled::Continuous), "{set:?}");
        }
        after(RequestKind::PowerOn).await;
        self.reaches(bmc.as_ref(), PowerState::PoweredOn).await;
        let started: BootOverride = bmc.boot_override().await.unwrap();
        if set.enabled == OverrideEnabled::Once {
            assert!(started.is_clear(), "{started:?} after the start that it was for");
        }
        assert!(after(RequestKind::ClearBootOverride).await.is_clear());
        after(RequestKind::ForceOff).await;
        self.reaches(bmc.as_ref(), PowerState::PoweredOff).await;
    }
}

fn refused_unsent(error: &BmcError) {
    assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Unsupported, Delivery::NotSent), "{error}");
}
