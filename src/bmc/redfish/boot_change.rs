//! The override of the boot order: read and set where the BMC has it. Some take it at the system, some at the resource of its
//! settings alone, and some have both and differ by property.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::{self, Document};
use super::boot::{self, Wish};
use super::change::{Whom, nothing_sent};
use super::class::Asked;
use super::line::{Answer, Line};
use super::message;
use super::plain;
use super::preconditions::Place;
use super::quirks::Habit;
use super::{Found, Redfish};
use crate::bmc::error::{BmcError, BmcErrorKind};
use crate::bmc::{Beside, BootOverride};
use crate::job::RequestKind;

/// Properties of an override and their values.
type Properties = Map<String, Value>;

impl Redfish {
    /// The override, from wherever this BMC shows it.
    pub(super) async fn read_boot(&self, line: &mut Line<'_>) -> Result<BootOverride, BmcError> {
        let system = self.system_document(line).await?;
        let learnt = self.shared.learnt.of(self.route.peers.host(), |facts| facts.boot_in_settings.clone());
        let place = boot::settings(&system.value);
        // Where the system takes all of it, there is nothing to see elsewhere.
        let Some(place) = place.filter(|_| learnt.as_ref().is_none_or(|all| !all.is_empty())) else {
            return Ok(boot::read(&system.value));
        };
        let Some(settings) = line.description(&system.path, &place).await? else {
            return Ok(boot::read(&system.value));
        };
        Ok(boot::read(&boot::with_settings(system.value, &settings.value, learnt.as_ref())))
    }

    /// The mode to send along; `None`: it is left alone.
    fn mode_to_send(&self, found: &Found) -> Result<Option<String>, BmcError> {
        let wished = self.boot_mode.map(|mode| mode.as_str().to_owned());
        let Some(shown) = &found.boot_mode else { return Ok(None) };
        if let (Some(wished), Some(offered)) = (&wished, &found.boot_modes)
            && !offered.contains(wished)
        {
            let offered = self.route.voice.quote(&offered.join(", "));
            let text = format!(
                "does not offer the boot mode {wished} of spec.bmc.bootMode (it offers {offered}): correct or remove it"
            );
            return Err(self.unsent(BmcErrorKind::Unsupported, &text));
        }
        if found.maker.forgets_boot_mode() {
            let mode = wished.or_else(|| Some(shown.clone()).filter(|shown| !shown.is_empty()));
            if mode.is_some() {
                self.shared.learnt.met(self.route.peers.host(), Habit::BootModeSentAlong);
            }
            return Ok(mode);
        }
        Ok(wished.filter(|wished| wished != shown))
    }

    pub(super) async fn set_boot(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        kind: RequestKind,
        wish: Wish,
        beside: Beside<'_>,
    ) -> Result<(), BmcError> {
        let uri = match (beside, &found.http_uri) {
            (Beside::BootUri(uri), Some(_)) => Some(uri.as_str()),
            (Beside::NoBootUri, Some(_)) => Some(""),
            (_, None) | (Beside::Nothing | Beside::Image(_), _) => None,
        };
        let mode = self.mode_to_send(found)?;
        let wished = boot::body(wish, found.boot_targets.as_deref(), uri, mode.as_deref())
            .map_err(|offered| self.not_offered(kind, &offered))?;
        if wished.get(boot::TARGET).and_then(Value::as_str) == Some("UsbCd") {
            self.shared.learnt.met(self.route.peers.host(), Habit::VirtualCdOnUsb);
        }
        let host = self.route.peers.host();
        let learnt = self.shared.learnt.of(host, |facts| facts.boot_in_settings.clone()).unwrap_or_default();
        let (elsewhere, here): (Properties, Properties) =
            wished.into_iter().partition(|(name, _)| found.settings.is_some() && learnt.contains(name));
        if !elsewhere.is_empty() {
            let settings = self.settings(line, found).await.map_err(nothing_sent)?;
            return self.set_both(line, found, kind, (here, elsewhere), settings.as_ref()).await;
        }
        let answer = self.patch_boot(line, &found.place, kind, &here).await?;
        let refused = match answer::action(&self.route, Asked::Change, kind.as_str(), &answer) {
            Ok(()) => {
                self.shared.learnt.of(host, |facts| facts.boot_in_settings = Some(BTreeSet::new()));
                return Ok(());
            }
            Err(refused) => refused,
        };
        if !leads_elsewhere(&refused, &answer) {
            return Err(refused);
        }
        let Ok(Some(settings)) = self.settings(line, found).await else { return Err(refused) };
        let moved = to_move(&here, &answer, &settings);
        if moved.is_empty() {
            return Err(refused);
        }
        let parts = here.into_iter().partition(|(name, _)| !moved.contains(name));
        self.set_both(line, found, kind, parts, Some(&settings)).await
    }

    /// Sets some properties at the settings resource, and then the others at the system.
    async fn set_both(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        kind: RequestKind,
        (here, elsewhere): (Properties, Properties),
        settings: Option<&Document>,
    ) -> Result<(), BmcError> {
        let (host, learnt) = (self.route.peers.host(), &self.shared.learnt);
        let Some(settings) = settings else {
            learnt.of(host, |facts| facts.boot_in_settings = None);
            return Err(self.unsent(
                BmcErrorKind::Busy(None),
                "has no settings resource any more; it is looked at again",
            ));
        };
        let names: BTreeSet<String> = elsewhere.keys().cloned().collect();
        let answer = self.patch_boot(line, &Place::of(settings), kind, &elsewhere).await?;
        if let Err(error) = answer::action(&self.route, Asked::Change, kind.as_str(), &answer) {
            // With the next try the system is asked first again.
            if matches!(
                error.kind,
                BmcErrorKind::Refused | BmcErrorKind::Unsupported | BmcErrorKind::NotFound
            ) {
                learnt.of(host, |facts| facts.boot_in_settings = None);
            }
            return Err(error);
        }
        learnt.met(host, Habit::BootInSettings);
        learnt.of(host, |facts| facts.boot_in_settings = Some(names));
        if here.is_empty() {
            return Ok(());
        }
        let answer = self.patch_boot(line, &found.place, kind, &here).await?;
        answer::action(&self.route, Asked::Change, kind.as_str(), &answer)
    }

    async fn settings(&self, line: &mut Line<'_>, found: &Found) -> Result<Option<Document>, BmcError> {
        match &found.settings {
            Some(place) => line.optional(&found.path, place).await,
            None => Ok(None),
        }
    }

    async fn patch_boot(
        &self,
        line: &mut Line<'_>,
        place: &Place,
        kind: RequestKind,
        properties: &Properties,
    ) -> Result<Answer, BmcError> {
        let (method, body) = (Method::PATCH, json!({"Boot": properties}));
        self.exchanged(line, Whom::guarded(place), (&method, &place.path), kind.as_str(), &body).await
    }
}

/// Whether a refusal may mean that the settings resource is the place.
fn leads_elsewhere(refused: &BmcError, answer: &Answer) -> bool {
    if !matches!(refused.kind, BmcErrorKind::Refused | BmcErrorKind::Unsupported) {
        return false;
    }
    let said = said(answer);
    answer.status == StatusCode::METHOD_NOT_ALLOWED
        || said.iter().any(message::Message::leads_elsewhere)
        || (said.is_empty() && plain::line(&answer.body).is_none_or(|text| message::is_read_only(&text)))
}

fn said(answer: &Answer) -> Vec<message::Message> {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    body.as_ref().map(message::messages).unwrap_or_default()
}

/// Which properties go to the settings resource: those that the refusal names, or all; and none that it does not have.
fn to_move(here: &Properties, answer: &Answer, settings: &Document) -> BTreeSet<String> {
    let said = said(answer);
    let there = |name: &&String| boot::has(&settings.value, name);
    let named = |name: &&String| said.iter().any(|message| message.names(name));
    let some: BTreeSet<String> = here.keys().filter(there).filter(named).cloned().collect();
    if some.is_empty() {
        return here.keys().filter(there).cloned().collect();
    }
    // One of the two alone is no override.
    let is_of_override = |name: &&String| matches!(name.as_str(), boot::ENABLED | boot::TARGET);
    let with = if some.iter().any(|name| is_of_override(&name)) {
        here.keys().filter(there).filter(is_of_override).cloned().collect()
    } else {
        BTreeSet::new()
    };
    some.union(&with).cloned().collect()
}
