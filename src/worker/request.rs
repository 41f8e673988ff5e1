//! Requests that change a machine: the last look at the wish, the stored record, the sending, the settling.
#![expect(
    clippy::disallowed_methods,
    reason = "a request's settle time is counted from before it was stored"
)]

use std::time::{Duration, Instant};

use super::Halt;
use super::action::card;
use super::checkpoint::Accepted;
use super::confirm::{self, FirstRequest};
use super::contact::gone;
use super::power::off_takes;
use super::run::{Flow, Run};
use super::session::{self, Live, ReadImage};
use crate::bmc::{Beside, BmcError, BmcErrorKind, Delivery};
use crate::config::ms;
use crate::failpoint::crash_point;
use crate::job::{
    Action, BootPurpose, Effect, Problem, RequestKind, Step, StepOutcome, StoredRequest, TokenKind,
    TokenValue,
};
use crate::queue::{ContentsAfter, Effects, NewBootSession, QueueError};

/// How old the wish may be that a change of the power state is sent for: two reads of one object are then one.
const JUST_ASKED: Duration = Duration::from_millis(250);

/// What became of a request.
pub(super) enum Sent {
    /// The BMC accepted it.
    Accepted,
    /// The BMC refused it, and would again.
    Refused(Problem),
    /// The BMC does not offer it.
    Unsupported(Problem),
    /// It was not sent, or in vain; the step ends like this.
    InVain(StepOutcome),
}

impl Run<'_> {
    /// Nobody does anything while a request may still take effect: the answer did not come, so its time is waited for,
    /// all of it where somebody else stored it. The step then begins with a look.
    pub(super) async fn settle(&mut self, request: &StoredRequest) -> Result<Flow, Halt> {
        let whole = Duration::from_millis(u64::try_from(request.settle_ms).unwrap_or(0));
        let since = self.stored.unwrap_or(self.clock.1);
        tracing::info!(request = request.kind.as_str(), "waiting until a request without answer has settled");
        tokio::select! {
            biased;
            () = self.around.stop.cancelled() => {
                self.hand_back().await?;
                return Ok(Flow::Over);
            }
            () = tokio::time::sleep(whole.saturating_sub(since.elapsed())) => {}
        }
        // What was read before this wait is old.
        self.known = None;
        self.checkpoint.unanswered = Some(Accepted { kind: request.kind, at_ms: self.now_ms() });
        self.close().await?;
        Ok(Flow::Again)
    }

    async fn close(&mut self) -> Result<(), Halt> {
        let closed = self.around.queue.close_request(self.claim.clone(), self.sealed()).await?;
        self.stored = None;
        self.take(closed)
    }

    /// The BMC answered, and did nothing.
    async fn close_refused(&mut self) -> Result<(), Halt> {
        let closed = self.around.queue.close_refused(self.claim.clone(), self.sealed()).await?;
        self.stored = None;
        self.take(closed)
    }

    /// Stores a request and sends it.
    pub(super) async fn send(&mut self, kind: RequestKind) -> Result<Sent, Halt> {
        self.send_with(kind, Beside::Nothing).await
    }

    /// The same for a request that needs something beside its kind, which is not stored.
    pub(super) async fn send_with(&mut self, kind: RequestKind, beside: Beside<'_>) -> Result<Sent, Halt> {
        // It did not happen, as a look has shown: it is tried again with the patience of everything else.
        if let Some(problem) = self.lost.take() {
            return Ok(Sent::InVain(self.retry(problem, 0)));
        }
        if let Some(outcome) = self.outlast_the_api().await {
            return Ok(Sent::InVain(outcome));
        }
        if let Some(outcome) = self.confirm().await? {
            return Ok(Sent::InVain(outcome));
        }
        if self.checkpoint.bmc.is_none() {
            self.checkpoint.bmc = self.bmc();
        }
        if self.checkpoint.identity.is_none() {
            self.checkpoint.identity = self.session.as_ref().map(|session| session.identity().clone());
        }
        let switches_off = self.switches_off(kind);
        if switches_off {
            self.remember();
        }
        let timeout = self.around.settings.request_timeout;
        let mut effects = self.effects(kind);
        effects.switches_off_for_ms = switches_off.then(|| ms(off_takes(kind, self.patience())));
        let stored = loop {
            // Counted from before the row was written: nobody else can have counted from earlier.
            let stored = Instant::now();
            let settle = self.around.settings.settle(self.to_store);
            let request = StoredRequest { kind, settle_ms: ms(settle) };
            let written = self
                .around
                .queue
                .store_request(self.claim.clone(), request, self.sealed_as_begun(), effects.clone())
                .await;
            let written = match written {
                // Nothing was stored, and nothing is sent.
                Err(QueueError::Duplicate(_)) => {
                    return Ok(Sent::InVain(card::taken(self.checkpoint.install.as_ref())));
                }
                written => written?,
            };
            self.to_store = stored.elapsed();
            self.take(written)?;
            if self.claim.request().is_none() {
                // Asked to stop in the meantime: nothing is sent.
                return Err(Halt::Again);
            }
            self.stored = Some(stored);
            if settle.saturating_sub(stored.elapsed()) >= timeout {
                break stored;
            }
        };
        let Some(session) = &self.session else { return Err(Halt::Again) };
        tracing::info!(request = kind.as_str(), "sending a request to the BMC");
        crash_point("worker.send.before");
        let answer = session.bmc().send_with(kind, beside, timeout).await;
        crash_point("worker.send.after");
        match answer {
            Ok(()) => {
                self.checkpoint.accepted = Some(Accepted { kind, at_ms: self.now_ms() });
                self.close().await?;
                Ok(Sent::Accepted)
            }
            Err(error) if error.delivery == Delivery::Unknown => {
                tracing::warn!(
                    request = kind.as_str(), reason = %error.kind.reason(), age_ms = ms(stored.elapsed()),
                    "nobody knows whether a request arrived: {error}"
                );
                if let Some(session) = &mut self.session {
                    session.met(&error);
                }
                self.session = None;
                self.lost = Some(error.problem());
                Err(Halt::Again)
            }
            Err(error) => {
                if kind == RequestKind::GracefulShutdown {
                    self.grace_refused(&error);
                }
                self.close_refused().await?;
                Ok(match error.kind {
                    BmcErrorKind::Refused => Sent::Refused(error.problem()),
                    BmcErrorKind::Unsupported => Sent::Unsupported(error.problem()),
                    _ => Sent::InVain(self.met(&error).await?),
                })
            }
        }
    }

    /// What becomes true together with the stored request. Tokens go with the first one alone: one that comes later is a
    /// request of its own.
    fn effects(&self, kind: RequestKind) -> Effects {
        let mut effects = Effects::default();
        let kinds: &[TokenKind] = match self.action() {
            Action::Reboot => &[TokenKind::Reboot],
            // An installation ends with a start of the machine: it takes a reboot with it.
            Action::Build | Action::Reimage => &[TokenKind::Reimage, TokenKind::Reboot],
            // What is wiped is asked for by no token, and ends powered off.
            Action::Inspect | Action::PowerOn | Action::PowerOff | Action::Wipe | Action::Decommission => &[],
        };
        if let (Some(server), false) = (self.server(), self.claim.job().request_stored) {
            effects.tokens = TokenValue::all_of(&server.spec)
                .into_iter()
                .filter(|token| kinds.contains(&token.kind))
                .filter(|token| !self.handled.is_handled(token.kind, Some(&token.value)))
                .collect();
        }
        if let Some(install) = &self.checkpoint.install
            && !self.undoing()
        {
            match kind {
                RequestKind::BootFromNetworkOnce
                | RequestKind::BootFromHttpOnce
                | RequestKind::InsertMedia => {
                    effects.session = Some(NewBootSession {
                        mac: install.mac.clone(),
                        image: install.image.clone(),
                        digest: install.digest.clone(),
                        purpose: if self.action().wipes() { BootPurpose::Wipe } else { BootPurpose::Install },
                        media_hash: install.media_hash.clone(),
                    });
                }
                RequestKind::PowerOn => effects.contents = ContentsAfter::Started,
                RequestKind::GracefulShutdown
                | RequestKind::ForceOff
                | RequestKind::ClearBootOverride
                | RequestKind::BootFromMediaOnce
                | RequestKind::EjectMedia => {}
            }
        }
        effects
    }

    /// A machine that does not shut down softly yet is asked again until its shutdown's time is over.
    fn grace_refused(&mut self, error: &BmcError) {
        let said_no =
            matches!(error.kind, BmcErrorKind::Busy(_) | BmcErrorKind::Refused | BmcErrorKind::Forbidden);
        if said_no && error.delivery == Delivery::Answered && self.checkpoint.grace_refused_ms.is_none() {
            self.checkpoint.grace_refused_ms = Some(self.now_ms());
        }
    }

    /// Whether this request switches off a machine that has to be on again.
    fn switches_off(&self, kind: RequestKind) -> bool {
        let off = matches!(kind, RequestKind::GracefulShutdown | RequestKind::ForceOff);
        off && self.step() == Step::Off && self.ends_on()
    }

    /// Right before a request: the live object must still ask for exactly this, nothing may say that it was done, and
    /// what destroys data needs a second witness. Steps after the first request belong to what was begun and are not
    /// asked again. `Some`: the step ends like this.
    async fn confirm(&mut self) -> Result<Option<StepOutcome>, Halt> {
        let begun = self.claim.job().request_stored;
        let first = self.action().steps().first() == Some(&self.step());
        if begun && (!first || self.undoing() || self.api_away_since.is_some()) {
            return Ok(None);
        }
        let read = if self.just_asked() { self.asking.take() } else { None };
        let asking = match read {
            Some(asking) => asking,
            None => match session::read(self.around, &self.claim, ReadImage::Yes).await {
                Ok(Live::Present(asking)) => asking,
                Ok(Live::Gone) => return Ok(Some(gone())),
                Err(problem) => return Ok(Some(self.retry(problem, 0))),
            },
        };
        if !begun {
            let new: Vec<TokenValue> = TokenValue::all_of(&asking.server.spec)
                .into_iter()
                .filter(|token| !self.handled.is_handled(token.kind, Some(&token.value)))
                .collect();
            let ever = self.around.queue.handled_ever(self.claim.uid(), &new).await?;
            for token in &ever {
                self.handled.recall(token);
            }
        }
        let objection = confirm::objection(&self.first_request(), &asking);
        self.asking = Some(asking);
        Ok(objection)
    }

    /// The first request of this job, as far as the database says.
    pub(super) fn first_request(&self) -> FirstRequest<'_> {
        FirstRequest {
            uid: self.claim.uid(),
            id: self.claim.job().id,
            action: self.action(),
            intent: &self.claim.job().intent,
            begun: self.claim.job().request_stored,
            acted: self.has_prepared(),
            handled: &self.handled,
            contents: self.contents.as_ref(),
            power: self.reading.as_ref().map(|reading| reading.power),
            debt: self.debt.as_ref(),
        }
    }

    /// Whether the wish was read a moment ago, which is enough for what loses no data.
    fn just_asked(&self) -> bool {
        self.action().effect() != Effect::Destructive
            && self.asked_at.is_some_and(|asked| asked.elapsed() < JUST_ASKED)
    }
}
