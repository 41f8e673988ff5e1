//! The requests that change a machine: one for each call, to where the last read found its place.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer;
use super::boot::{self, Wish};
use super::line::Line;
use super::origin::LinkRefused;
use super::system;
use super::{Found, Redfish};
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};
use crate::job::RequestKind;

/// What a request is in Redfish.
enum Change {
    /// The reset action, with the first of these types that the BMC offers.
    Reset(&'static [&'static str]),
    /// A PATCH of the override of the boot order.
    Boot(Wish),
}

impl Change {
    const fn of(kind: RequestKind) -> Self {
        match kind {
            RequestKind::GracefulShutdown => Self::Reset(&["GracefulShutdown"]),
            RequestKind::ForceOff => Self::Reset(&["ForceOff"]),
            RequestKind::PowerOn => Self::Reset(&["On", "ForceOn"]),
            RequestKind::BootFromNetworkOnce => Self::Boot(Wish::Once("Pxe")),
            RequestKind::BootFromHttpOnce => Self::Boot(Wish::Once("UefiHttp")),
            RequestKind::ClearBootOverride => Self::Boot(Wish::Clear),
        }
    }
}

impl Redfish {
    /// Sends one request.
    pub(super) async fn act(&self, kind: RequestKind, within: Duration) -> Result<(), BmcError> {
        let until = Instant::now() + within;
        self.call(kind.as_str(), until, |_| until, async |line| self.change(line, kind).await).await
    }

    async fn change(&self, line: &mut Line<'_>, kind: RequestKind) -> Result<(), BmcError> {
        let Some(found) = self.found() else {
            return Err(
                self.unsent(BmcErrorKind::NotFound, "was not read before something was to be sent to it")
            );
        };
        match Change::of(kind) {
            Change::Reset(candidates) => self.reset(line, &found, kind, candidates).await,
            Change::Boot(wish) => self.set_boot(line, &found, kind, wish).await,
        }
    }

    async fn reset(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        kind: RequestKind,
        candidates: &[&'static str],
    ) -> Result<(), BmcError> {
        let Some(reset) = &found.reset else {
            return Err(self.unsent(BmcErrorKind::Refused, "offers no reset action for this system"));
        };
        let what = system::reset_type(candidates, reset.offered.as_deref())
            .map_err(|offered| self.not_offered(kind, &offered))?;
        let target =
            self.route.origin.follow(&found.path, &reset.target).map_err(|refused| match refused {
                LinkRefused::Elsewhere => self.unsent(
                    BmcErrorKind::AddressNotAllowed,
                    "wants its reset action sent to another address, which is refused",
                ),
                LinkRefused::Odd => {
                    self.unsent(BmcErrorKind::Protocol, "has a reset action without a usable target")
                }
            })?;
        self.guarded(line, found, (Method::POST, &target), what, &json!({"ResetType": what})).await
    }

    async fn set_boot(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        kind: RequestKind,
        wish: Wish,
    ) -> Result<(), BmcError> {
        let body = boot::body(wish, found.boot_targets.as_deref())
            .map_err(|offered| self.not_offered(kind, &offered))?;
        self.guarded(line, found, (Method::PATCH, &found.path), kind.as_str(), &body).await
    }

    /// One request that the BMC refuses when the system has changed since it was read, where it can tell.
    async fn guarded(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        (method, path): (Method, &str),
        what: &str,
        body: &Value,
    ) -> Result<(), BmcError> {
        let known = &self.shared.preconditions;
        let guard = known.guard(self.route.peer, &found.path, found.etag.as_deref());
        let answer = line.change(method, path, body.to_string(), guard).await?;
        known.learn(self.route.peer, &found.path, guard.is_some(), answer.status);
        answer::action(&self.route, what, &answer)
    }

    fn unsent(&self, kind: BmcErrorKind, text: &str) -> BmcError {
        self.route.error(kind, Delivery::NotSent, text)
    }

    fn not_offered(&self, kind: RequestKind, offered: &str) -> BmcError {
        let offered = self.route.voice.quote(offered);
        self.unsent(BmcErrorKind::Refused, &format!("does not offer {} (it offers {offered})", kind.as_str()))
    }
}
