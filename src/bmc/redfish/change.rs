//! The requests that change a machine: one for each call, to where the last read found its place.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer;
use super::boot::Wish;
use super::class::Asked;
use super::learnt::Facts;
use super::line::{Answer, Line};
use super::origin::LinkRefused;
use super::preconditions::{self, First, Place, Tries, is_post};
use super::quirks::Habit;
use super::system;
use super::{Found, Redfish};
use crate::api::hardware::PowerState;
use crate::bmc::Beside;
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};
use crate::job::RequestKind;

/// What a request is in Redfish.
enum Change {
    /// The reset action, with the first of these types that the BMC offers.
    Reset(&'static [&'static str]),
    /// A PATCH of the override of the boot order.
    Boot(Wish),
    /// An image for the virtual CD drive.
    Insert,
    /// The virtual CD drive is emptied.
    Eject,
}

impl Change {
    const fn of(kind: RequestKind, cd_targets: &'static [&'static str]) -> Self {
        match kind {
            RequestKind::GracefulShutdown => Self::Reset(system::SOFT),
            RequestKind::ForceOff => Self::Reset(&["ForceOff"]),
            RequestKind::PowerOn => Self::Reset(&["On", "ForceOn"]),
            RequestKind::BootFromNetworkOnce => Self::Boot(Wish::Once(&["Pxe"])),
            RequestKind::BootFromHttpOnce => Self::Boot(Wish::Once(&["UefiHttp"])),
            RequestKind::BootFromMediaOnce => Self::Boot(Wish::Once(cd_targets)),
            RequestKind::ClearBootOverride => Self::Boot(Wish::Clear),
            RequestKind::InsertMedia => Self::Insert,
            RequestKind::EjectMedia => Self::Eject,
        }
    }
}

impl Redfish {
    /// Sends one request.
    pub(super) async fn act(
        &self,
        kind: RequestKind,
        beside: Beside<'_>,
        within: Duration,
    ) -> Result<(), BmcError> {
        let until = Instant::now() + within;
        self.call(kind.as_str(), until, |_| until, async |line| self.change(line, kind, beside).await).await
    }

    async fn change(
        &self,
        line: &mut Line<'_>,
        kind: RequestKind,
        beside: Beside<'_>,
    ) -> Result<(), BmcError> {
        let Some(found) = self.found() else {
            return Err(
                self.unsent(BmcErrorKind::NotFound, "was not read before something was to be sent to it")
            );
        };
        match (Change::of(kind, found.cd_targets), beside) {
            (Change::Reset(candidates), _) => self.reset(line, &found, kind, candidates).await,
            (Change::Boot(wish), beside) => self.set_boot(line, &found, kind, wish, beside).await,
            (Change::Insert, Beside::Image(image)) => self
                .insert(line, &found, kind, image)
                .await
                .map_err(|error| self.without_address(error, kind, image)),
            (Change::Insert, _) => {
                Err(self.unsent(BmcErrorKind::Refused, "was to be given an image without an address"))
            }
            (Change::Eject, _) => self.eject(line, &found, kind).await,
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
            return Err(self.unsent(BmcErrorKind::Unsupported, "offers no reset action for this system"));
        };
        let what = system::reset_type(candidates, reset.offered.as_deref())
            .map_err(|offered| self.not_offered(kind, &offered))?;
        if what == system::BUTTON && found.power != PowerState::PoweredOn {
            // The button would switch on what is off.
            let text =
                "offers only the power button to shut down, which is not pressed before the machine reads On";
            return Err(self.route.error(BmcErrorKind::Busy(None), Delivery::Answered, text));
        }
        let target = self.target(&found.path, &reset.target, "reset")?;
        let request = (Method::POST, target.as_str());
        self.guarded(
            line,
            Asked::Reset,
            Whom::guarded(&found.place),
            request,
            what,
            &json!({"ResetType": what}),
        )
        .await
    }

    pub(super) fn target(&self, at: &str, link: &str, action: &str) -> Result<String, BmcError> {
        self.route.origin.follow(at, link).map_err(|refused| match refused {
            LinkRefused::Elsewhere => self.unsent(
                BmcErrorKind::AddressNotAllowed,
                &format!("wants its {action} action sent to another address, which is refused"),
            ),
            LinkRefused::Odd => {
                self.unsent(BmcErrorKind::Protocol, &format!("has a {action} action without a usable target"))
            }
        })
    }

    /// One request that the BMC refuses when what it changes has changed since it was read, where it can tell. What is
    /// refused for its precondition was not done, and is sent again as the BMC demands, while what it is decided on is the same.
    pub(super) async fn guarded(
        &self,
        line: &mut Line<'_>,
        asked: Asked,
        whom: Whom<'_>,
        request: (Method, &str),
        what: &str,
        body: &Value,
    ) -> Result<(), BmcError> {
        let (method, path) = request;
        let answer = self.exchanged(line, whom, (&method, path), what, body).await?;
        answer::action(&self.route, asked, what, &answer)
    }

    /// The same, with the answer whatever it is.
    pub(super) async fn exchanged(
        &self,
        line: &mut Line<'_>,
        Whom { place, first }: Whom<'_>,
        (method, path): (&Method, &str),
        what: &str,
        body: &Value,
    ) -> Result<Answer, BmcError> {
        let (host, learnt) = (self.route.peers.host(), &self.shared.learnt);
        let of = |facts: &Facts| if is_post(method) { facts.post } else { facts.patch };
        let mut tries = Tries::new(learnt.of(host, |facts| of(facts)), first);
        let mut if_match = tries.first(&place.tags);
        let (answer, known) = loop {
            let answer = line.change(method.clone(), path, body.to_string(), if_match.as_deref()).await?;
            if !preconditions::refused(&answer, tries.bore_one()) {
                break (answer, tries.taken());
            }
            let habit = if tries.bore_one() { Habit::IfMatchRefused } else { Habit::IfMatchDemanded };
            // Who cannot be read now is asked again later.
            let Ok(now) = line.document(&place.path, "what is to be changed").await else {
                return Ok(answer);
            };
            let now = Place::of(&now);
            if !place.shows_what(&now) {
                let text = format!(
                    "did not do {what}, because what it is to be done to has changed since it was read ({})",
                    answer.status.as_u16()
                );
                return Err(self.route.error(BmcErrorKind::Busy(None), Delivery::Answered, &text));
            }
            let Some(next) = tries.next(&now.tags) else { break (answer, tries.none_taken()) };
            learnt.met(host, habit);
            if_match = next.0;
        };
        learnt.of(host, |facts| *(if is_post(method) { &mut facts.post } else { &mut facts.patch }) = known);
        Ok(answer)
    }

    pub(super) fn unsent(&self, kind: BmcErrorKind, text: &str) -> BmcError {
        self.route.error(kind, Delivery::NotSent, text)
    }

    pub(super) fn not_offered(&self, kind: RequestKind, offered: &str) -> BmcError {
        let offered = self.route.voice.quote(offered);
        self.unsent(
            BmcErrorKind::Unsupported,
            &format!("does not offer {} (it offers {offered})", kind.as_str()),
        )
    }
}

/// What a request is made to, and how it begins where nothing is known of the BMC.
#[derive(Clone, Copy)]
pub(super) struct Whom<'a> {
    place: &'a Place,
    first: First,
}

impl<'a> Whom<'a> {
    /// With the ETag of what it changes, where that is a strong one.
    pub(super) const fn guarded(place: &'a Place) -> Self {
        Self { place, first: First::Guarded }
    }

    /// Without.
    pub(super) const fn bare(place: &'a Place) -> Self {
        Self { place, first: First::Bare }
    }
}

/// A read before the request failed.
pub(super) fn nothing_sent(error: BmcError) -> BmcError {
    BmcError { delivery: Delivery::NotSent, ..error }
}
