//! Why there is no connection to a BMC: at each of its addresses, and in one sentence.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bmc::error::BmcErrorKind;

/// What became of one address.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) kind: BmcErrorKind,
    /// What the BMC does, and the way out, where it is the only address.
    pub(super) what: String,
    /// A few words, for a list of addresses.
    pub(super) short: String,
    /// The fingerprint of a certificate that was refused.
    pub(super) certificate: Option<String>,
}

impl Unopened {
    pub(super) fn new(kind: BmcErrorKind, what: impl Into<String>, short: impl Into<String>) -> Self {
        Self { kind, what: what.into(), short: short.into(), certificate: None }
    }

    /// Nothing came of it in time; `within` is for all addresses together.
    pub(super) fn late(peer: SocketAddr, within: Duration) -> Self {
        let what = format!(
            "did not complete a connection to {peer} within {} s: check spec.bmc.address, the BMC and the network",
            within.as_secs()
        );
        Self::new(BmcErrorKind::Timeout, what, "no connection in time")
    }
}

/// Where a certificate was shown somebody is there, and that is what is wrong.
fn decides(failed: &[(SocketAddr, Unopened)]) -> Option<&(SocketAddr, Unopened)> {
    failed.iter().find(|(_, one)| one.kind == BmcErrorKind::Tls)
}

/// The class of all of them together.
pub(super) fn kind(failed: &[(SocketAddr, Unopened)]) -> BmcErrorKind {
    match decides(failed) {
        Some(_) => BmcErrorKind::Tls,
        None if failed.iter().all(|(_, one)| one.kind == BmcErrorKind::Timeout) => BmcErrorKind::Timeout,
        None => BmcErrorKind::Unreachable,
    }
}

/// What the BMC does: each address with what became of it.
pub(super) fn sentence(failed: &[(SocketAddr, Unopened)]) -> String {
    if let [(_, only)] = failed {
        return only.what.clone();
    }
    let list = |leave_out: Option<SocketAddr>| {
        let others = failed.iter().filter(|(peer, _)| Some(*peer) != leave_out);
        others.map(|(peer, one)| format!("{peer} ({})", one.short)).collect::<Vec<_>>().join(", ")
    };
    match decides(failed) {
        Some((peer, one)) => format!("at {peer} {}; its other addresses: {}", one.what, list(Some(*peer))),
        None => format!(
            "cannot be connected to at any of its addresses, {}: check spec.bmc.address, the BMC and the network",
            list(None)
        ),
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    #[test]
    fn each_address_is_told_with_its_error_and_a_shown_certificate_decides() {
        let refused = || Unopened::new(BmcErrorKind::Unreachable, "cannot", "connection refused");
        let late = |last| Unopened::late(peer(last), Duration::from_secs(10));
        let mut failed = vec![(peer(1), late(1))];
        assert_eq!((kind(&failed), sentence(&failed).contains("within 10 s")), (BmcErrorKind::Timeout, true));
        failed.push((peer(2), refused()));
        assert_eq!(kind(&failed), BmcErrorKind::Unreachable);
        let said = sentence(&failed);
        assert!(
            said.contains("192.0.2.1:443 (no connection in time), 192.0.2.2:443 (connection refused)"),
            "{said}"
        );
        failed.push((peer(3), Unopened::new(BmcErrorKind::Tls, "shows a certificate", "refused")));
        assert_eq!(kind(&failed), BmcErrorKind::Tls);
        let said = sentence(&failed);
        assert!(
            said.starts_with("at 192.0.2.3:443 shows a certificate; its other addresses: 192.0.2.1:443"),
            "{said}"
        );
    }
}
