//! What a request asks for, by its method and path. Pure.

use http::Method;

use super::token::BootToken;
use crate::api::Mac;

/// Something that the boot service knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The script that DHCP names.
    Chain,
    /// The script of one network card.
    Script(Mac),
    /// Where the session of one network card is: what runs from a medium asks for it.
    Session(Mac),
    /// The medium, for a BMC.
    Media(BootToken),
    /// Something that an installation needs.
    Need(BootToken, Need),
    /// A machine reports.
    Report(BootToken, Report),
}

/// What an installation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// The install data.
    Install,
    /// What the installed system is given.
    UserData,
    /// Who the machine is, for cloud-init.
    MetaData,
    /// Nothing, which cloud-init asks for nevertheless.
    VendorData,
}

impl Need {
    /// Whether installers ask for it and do not ask again: what boots from the network heeds `Retry-After`.
    pub const fn is_asked_for_once(self) -> bool {
        match self {
            Self::Install | Self::UserData | Self::MetaData | Self::VendorData => true,
            Self::Kernel | Self::Initrd => false,
        }
    }
}

/// What a machine reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The installer runs.
    Booted,
    /// So far it is.
    Progress,
    /// It gave up.
    Failed,
    /// The installed system runs.
    Installed,
}

impl Asked {
    /// The name in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Script(_) => "script",
            Self::Session(_) => "session",
            Self::Media(_) => "iso",
            Self::Need(_, Need::Kernel) => "kernel",
            Self::Need(_, Need::Initrd) => "initrd",
            Self::Need(_, Need::Install) => "install",
            Self::Need(_, Need::UserData) => "user-data",
            Self::Need(_, Need::MetaData) => "meta-data",
            Self::Need(_, Need::VendorData) => "vendor-data",
            Self::Report(_, Report::Booted) => "booted",
            Self::Report(_, Report::Progress) => "progress",
            Self::Report(_, Report::Failed) => "failed",
            Self::Report(_, Report::Installed) => "installed",
        }
    }
}

/// What is asked for; `None`: nothing that there is.
pub fn asked(method: &Method, path: &str) -> Option<Asked> {
    let gets = *method == Method::GET || *method == Method::HEAD;
    let mut parts = path.strip_prefix('/')?.splitn(3, '/');
    match (parts.next()?, parts.next(), parts.next()) {
        ("boot.ipxe", None, None) if gets => Some(Asked::Chain),
        ("boot", Some(mac), None) if gets => Some(Asked::Script(mac.parse().ok()?)),
        // Every answer is another token: only who wants to have it asks.
        ("boot", Some(mac), Some("session")) if *method == Method::GET => {
            Some(Asked::Session(mac.parse().ok()?))
        }
        // Many BMCs insert nothing whose name does not end so.
        ("s", Some(token), Some("iso" | "boot.iso")) if gets => Some(Asked::Media(BootToken::parse(token)?)),
        ("s", Some(token), Some(rest)) if gets => Some(Asked::Need(BootToken::parse(token)?, need(rest)?)),
        ("s", Some(token), Some(rest)) if *method == Method::POST => {
            Some(Asked::Report(BootToken::parse(token)?, report(rest)?))
        }
        _ => None,
    }
}

fn need(rest: &str) -> Option<Need> {
    match rest {
        "kernel" => Some(Need::Kernel),
        "initrd" => Some(Need::Initrd),
        // Below `install/` is the folder that an installer reads which is cloud-init: its user data is the install data.
        "install" | "install/user-data" => Some(Need::Install),
        "user-data" => Some(Need::UserData),
        "meta-data" | "install/meta-data" => Some(Need::MetaData),
        "vendor-data" | "install/vendor-data" => Some(Need::VendorData),
        _ => None,
    }
}

fn report(rest: &str) -> Option<Report> {
    match rest {
        "booted" => Some(Report::Booted),
        "progress" => Some(Report::Progress),
        "failed" => Some(Report::Failed),
        "installed" => Some(Report::Installed),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_found_and_nothing_else() {
        let token = "ab".repeat(32);
        let of = |method: Method, path: &str| asked(&method, path).map(|asked| asked.as_str());
        for (path, name) in [
            ("/boot.ipxe".to_owned(), "chain"),
            ("/boot/52-54-00-12-34-56".to_owned(), "script"),
            (format!("/s/{token}/kernel"), "kernel"),
            (format!("/s/{token}/iso"), "iso"),
            (format!("/s/{token}/boot.iso"), "iso"),
            (format!("/s/{token}/install"), "install"),
            (format!("/s/{token}/install/user-data"), "install"),
            (format!("/s/{token}/install/meta-data"), "meta-data"),
            (format!("/s/{token}/vendor-data"), "vendor-data"),
        ] {
            assert_eq!(of(Method::GET, &path), Some(name), "{path}");
            assert_eq!(of(Method::HEAD, &path), Some(name), "{path}");
            assert_eq!(of(Method::POST, &path), None, "{path}");
        }
        let session = "/boot/52-54-00-12-34-56/session";
        assert_eq!(of(Method::GET, session), Some("session"));
        assert_eq!(of(Method::HEAD, session), None);
        for name in ["booted", "progress", "failed", "installed"] {
            let path = format!("/s/{token}/{name}");
            assert_eq!(of(Method::POST, &path), Some(name));
            assert_eq!(of(Method::GET, &path), None);
        }
        for path in [
            "",
            "/",
            "/boot",
            "/boot/nobody",
            "/boot/52-54-00-12-34-56/x",
            "/boot.ipxe/",
            "/s/short/kernel",
            &format!("/s/{token}"),
            &format!("/s/{token}/"),
            &format!("/s/{token}/kernel/x"),
            &format!("/s/{token}/../kernel"),
        ] {
            assert_eq!(of(Method::GET, path), None, "{path}");
        }
    }
}
