//! What is read of, and sent to, the virtual CD drive of a system.

use std::sync::PoisonError;

use http::Method;
use serde_json::{Value, json};

use super::answer::{self, Document};
use super::change::{Whom, nothing_sent};
use super::class::Asked;
use super::insertion;
use super::line::{Answer, Line};
use super::media;
use super::message;
use super::plain;
use super::preconditions::Place;
use super::quirks::Habit;
use super::task::{self, Ended};
use super::{Found, Redfish, Used};
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};
use crate::bmc::{ImageUrl, Media, Ours};
use crate::job::RequestKind;

impl Redfish {
    fn used<T>(&self, look: impl FnOnce(&mut Used) -> T) -> T {
        look(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is in the drive that is used, after the system was read.
    pub(super) async fn read_media(&self, line: &mut Line<'_>, ours: Ours<'_>) -> Result<Media, BmcError> {
        let Some(found) = self.found() else { return Ok(Media::NoDrive) };
        let Some(drive) = self.chosen(line, &found, ours).await? else { return Ok(Media::NoDrive) };
        let media = media::read(&drive.value);
        if media == Media::Empty
            && let Some((task, image)) = self.used(|used| used.task.clone())
            && let Ended::Failed(words) = task::look(line, &task).await?
        {
            self.used(|used| used.task = None);
            return Err(self.without_address(self.task_failed(&words), RequestKind::InsertMedia, &image));
        }
        Ok(media)
    }

    fn task_failed(&self, words: &str) -> BmcError {
        let text = format!("accepted InsertMedia and did not do it: {words:?}");
        self.route.error(BmcErrorKind::Refused, Delivery::Answered, &text)
    }

    async fn chosen(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        ours: Ours<'_>,
    ) -> Result<Option<Document>, BmcError> {
        let drives = media::drives(line, &found.path, &found.media).await?;
        let first = drives.first().map(|drive| drive.path.clone());
        let used = self.used(|used| used.drive.clone());
        let drive = media::chosen(drives, used.as_deref(), ours);
        let path = drive.as_ref().map(|drive| drive.path.clone());
        if path != first {
            self.shared.learnt.met(self.route.peers.host(), Habit::MediaBySlot);
        }
        self.used(|used| used.drive = path);
        Ok(drive)
    }

    /// Looks for the virtual CD drive; what goes wrong here has sent nothing.
    async fn drive(&self, line: &mut Line<'_>, found: &Found) -> Result<Document, BmcError> {
        // What was looked at right before is what the request was decided on.
        let used = self.used(|used| used.drive.clone());
        if let Some(path) = used
            && let Some(drive) =
                line.optional("/", &json!({"@odata.id": path})).await.map_err(nothing_sent)?
        {
            return Ok(drive);
        }
        let drive = self.chosen(line, found, &|_| false).await.map_err(nothing_sent)?;
        drive.ok_or_else(|| self.unsent(BmcErrorKind::Unsupported, "has no virtual CD drive for this system"))
    }

    pub(super) async fn insert(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        kind: RequestKind,
        image: &ImageUrl,
    ) -> Result<(), BmcError> {
        let drive = self.drive(line, found).await?;
        let what = kind.as_str();
        let Some((target, info)) = media::action(&drive.value, "#VirtualMedia.InsertMedia") else {
            self.fetches(&drive.value, None, image)?;
            let (place, body) = (Place::of(&drive), media::inserted(image));
            let method = Method::PATCH;
            let answer =
                self.exchanged(line, Whom::guarded(&place), (&method, &drive.path), what, &body).await?;
            answer::action(&self.route, Asked::Change, what, &answer)?;
            return self.follow(line, &drive, &answer, image).await;
        };
        let target = self.target(&drive.path, target, "media")?;
        let info = match info {
            Some(info) => line.description(&drive.path, &info).await.map_err(nothing_sent)?,
            None => None,
        };
        let info = info.as_ref().map(|info| &info.value);
        self.fetches(&drive.value, info, image)?;
        self.insert_by_action(line, &drive, (&target, info), what, image).await
    }

    /// The action, with what the BMC wants to be told. What it refused was not done.
    async fn insert_by_action(
        &self,
        line: &mut Line<'_>,
        drive: &Document,
        (target, info): (&str, Option<&Value>),
        what: &str,
        image: &ImageUrl,
    ) -> Result<(), BmcError> {
        let (host, learnt) = (self.route.peers.host(), &self.shared.learnt);
        let place = Place::of(drive);
        let mut parameters =
            learnt.of(host, |facts| facts.insertion.clone()).unwrap_or_default().with_required(info);
        let mut told = Vec::new();
        for again in 0.. {
            let body = parameters.body(image);
            let answer =
                self.exchanged(line, Whom::bare(&place), (&Method::POST, target), what, &body).await?;
            let Err(refused) = answer::action(&self.route, Asked::Change, what, &answer) else {
                learnt.of(host, |facts| facts.insertion = Some(parameters));
                return self.follow(line, drive, &answer, image).await;
            };
            let is_final = again >= insertion::AGAIN_MAX
                || !matches!(refused.kind, BmcErrorKind::Refused | BmcErrorKind::Unsupported);
            let next = other_parameters(&parameters, &answer).filter(|_| !is_final);
            let has_login = parameters.has_login();
            told.push(parameters);
            // What was told before is not told again.
            let Some((next, habit)) = next.filter(|(next, _)| !told.contains(next)) else {
                return Err(if has_login { wants_login(&refused) } else { refused });
            };
            learnt.met(host, habit);
            parameters = next;
        }
        Err(self.unsent(BmcErrorKind::Refused, "was given no image"))
    }

    /// A drive that says by what it fetches is not offered an address that it cannot fetch.
    fn fetches(&self, drive: &Value, info: Option<&Value>, image: &ImageUrl) -> Result<(), BmcError> {
        let protocols = media::protocols(drive, info);
        if media::fetches(protocols.as_deref(), image) {
            return Ok(());
        }
        let offered = self.route.voice.quote(&protocols.unwrap_or_default().join(", "));
        let text = format!(
            "has a virtual CD drive that fetches images by {offered} alone, and the boot service has them by {}: serve it by one \
             of these, and name that address with --boot-url of the workers",
            image.protocol()
        );
        Err(self.unsent(BmcErrorKind::Unsupported, &text))
    }

    /// What an accepted insertion comes to, as far as it is known soon.
    async fn follow(
        &self,
        line: &mut Line<'_>,
        drive: &Document,
        answer: &Answer,
        image: &ImageUrl,
    ) -> Result<(), BmcError> {
        let Some(path) = task::of(line, &drive.path, answer) else {
            self.used(|used| used.task = None);
            return Ok(());
        };
        self.shared.learnt.met(self.route.peers.host(), Habit::MediaByTask);
        match task::wait(line, &path).await {
            Ended::Failed(words) => Err(self.task_failed(&words)),
            Ended::Done => Ok(()),
            Ended::Unknown => {
                self.used(|used| used.task = Some((path, image.clone())));
                Ok(())
            }
        }
    }

    pub(super) async fn eject(
        &self,
        line: &mut Line<'_>,
        found: &Found,
        kind: RequestKind,
    ) -> Result<(), BmcError> {
        let drive = self.drive(line, found).await?;
        let (what, place) = (kind.as_str(), Place::of(&drive));
        let Some((target, _)) = media::action(&drive.value, "#VirtualMedia.EjectMedia") else {
            let request = (Method::PATCH, drive.path.as_str());
            return self
                .guarded(line, Asked::Change, Whom::guarded(&place), request, what, &media::ejected())
                .await;
        };
        let target = self.target(&drive.path, target, "media")?;
        let request = (Method::POST, target.as_str());
        self.guarded(line, Asked::Change, Whom::bare(&place), request, what, &json!({})).await
    }

    /// A BMC's words about an image may repeat its address, and with it a token.
    pub(super) fn without_address(&self, error: BmcError, kind: RequestKind, image: &ImageUrl) -> BmcError {
        if !image.is_repeated_in(&error.message) {
            return error;
        }
        let text =
            format!("did not do {}; its words are not shown, because they repeat the address", kind.as_str());
        self.route.error(error.kind, error.delivery, &text)
    }
}

/// The address of a medium has its token and no login.
fn wants_login(refused: &BmcError) -> BmcError {
    let text = format!(
        "{}; it insists on a user name and a password for the address of the medium, and that has none: look for a setting of \
         the BMC that lets it fetch without, or try another spec.bootMethod",
        refused.message
    );
    BmcError { message: text, ..refused.clone() }
}

fn other_parameters(now: &insertion::Parameters, answer: &Answer) -> Option<(insertion::Parameters, Habit)> {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let said = body.as_ref().map(message::messages).unwrap_or_default();
    let text = if body.is_none() { plain::line(&answer.body) } else { None };
    now.after(&said, text.as_deref())
}
