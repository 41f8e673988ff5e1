//! How the hosts of a fleet are: how long they take, what they download, and where they boot from.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::disk::Disk;

/// What a host does about a kernel, an initial RAM disk and an ISO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Payloads {
    /// Downloads them and throws them away; fetches its install data too.
    #[default]
    Download,
    /// Asks for their heads only, and for no install data: for large fleets.
    Pretend,
}

/// What a host does after its disks were erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AfterWipe {
    /// Turns itself off.
    #[default]
    PowerOff,
    /// Starts again, and finds nothing to boot.
    Reboot,
}

/// How hosts are where no rule says otherwise.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// The boot service that the network tells (as DHCP would); without one, a network boot fails.
    pub boot_url: Option<BootUrl>,
    /// What is on the disks at the start.
    pub disk: Disk,
    /// The time from a start to the first act: the self-test.
    pub post_delay: Duration,
    /// The time from the first to the last byte on the disk.
    pub install_duration: Duration,
    /// The time between two reports of an installer.
    pub progress_interval: Duration,
    /// By how many hundredths those three may be longer; by how much follows from seed, system and start.
    pub spread_percent: u8,
    /// Kernels and initial RAM disks.
    pub payloads: Payloads,
    /// After a wipe.
    pub after_wipe: AfterWipe,
    /// How many requests of all hosts together are under way at most.
    pub connections: usize,
    /// How often a request is repeated after no answer, or one that says "later".
    pub retries: u32,
    /// The pause before it is repeated.
    pub retry_pause: Duration,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            boot_url: None,
            disk: Disk::Empty,
            post_delay: Duration::from_secs(1),
            install_duration: Duration::from_secs(10),
            progress_interval: Duration::from_secs(2),
            spread_percent: 0,
            payloads: Payloads::default(),
            after_wipe: AfterWipe::default(),
            connections: 64,
            retries: 120,
            retry_pause: Duration::from_secs(1),
        }
    }
}

/// The base address of a boot service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootUrl(Url);

/// An address that is no boot service's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the boot URL is '{0}': give http://HOST[:PORT][/PATH], without credentials, query or fragment")]
pub struct BootUrlError(String);

impl BootUrl {
    /// What the boot service says to the machine with that MAC address (lower case, with hyphens).
    pub(super) fn script(&self, mac: &str) -> Url {
        self.at(&format!("boot/{mac}"))
    }

    /// Where it tells what runs from virtual media its session.
    pub(super) fn session(&self, mac: &str) -> Url {
        self.at(&format!("boot/{mac}/session"))
    }

    fn at(&self, name: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}/{name}", self.0.path().trim_end_matches('/')));
        url
    }
}

impl FromStr for BootUrl {
    type Err = BootUrlError;

    fn from_str(text: &str) -> Result<Self, BootUrlError> {
        // What may hold a password is not repeated.
        let refused = |shown: &str| BootUrlError(shown.to_owned());
        let url = Url::parse(text).map_err(|_| refused("no address"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("an address with credentials"));
        }
        let good = url.scheme() == "http" && url.query().is_none() && url.fragment().is_none();
        if good { Ok(Self(url)) } else { Err(refused(text)) }
    }
}

impl TryFrom<String> for BootUrl {
    type Error = BootUrlError;

    fn try_from(text: String) -> Result<Self, BootUrlError> {
        text.parse()
    }
}

impl From<BootUrl> for String {
    fn from(url: BootUrl) -> Self {
        url.to_string()
    }
}

impl std::fmt::Display for BootUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_url_is_plain_http_and_may_have_a_path() {
        for (text, script) in [
            ("http://192.0.2.1:8080", "http://192.0.2.1:8080/boot/02-00"),
            ("http://boot.example.com/netboot/", "http://boot.example.com/netboot/boot/02-00"),
        ] {
            assert_eq!(text.parse::<BootUrl>().unwrap().script("02-00").as_str(), script);
        }
        for text in ["https://192.0.2.1", "192.0.2.1:8080", "http://192.0.2.1/?a=b"] {
            assert!(text.parse::<BootUrl>().is_err(), "{text}");
        }
        let error = "http://me:secret@192.0.2.1".parse::<BootUrl>().unwrap_err().to_string();
        assert!(error.contains("credentials") && !error.contains("secret"), "{error}");
    }
}
