//! A run's dealings with the BMC that change nothing: the session, looks, and what an error means.
#![expect(clippy::disallowed_methods, reason = "pauses are jittered, and the age of a read is counted")]

use std::time::{Duration, Instant};

use super::Halt;
use super::checkpoint::Checkpoint;
use super::remembered::Begun;
use super::run::Run;
use super::session::{self, Asking, Expected, Live, NoSession, ReadImage, Session};
use super::turns::Wait;
use crate::api::Reason;
use crate::bmc::{BmcError, BmcErrorKind, BootOverride, Media, Probe};
use crate::job::{
    Action, Problem, ReadThrough, Reading, ReconcileRequest, RetryClass, StepOutcome, WaitingFor, backoff,
};
use crate::queue::Report;

/// How long a job sleeps whose credentials are wrong; a new version of the Secret wakes it at once.
const CREDENTIALS_PAUSE_MS: i64 = 600_000;
/// The same while something has to be undone: nothing wakes such a job.
const UNDO_PAUSE_MS: i64 = 15_000;
/// Between the two tries of credentials, and while others try the same ones.
const LOGIN_PAUSE_MS: i64 = 1_500;

/// How long a machine stays off because the API server gives no answer.
const API_PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to read the wish meanwhile.
const API_POLL: Duration = Duration::from_secs(1);

/// Why there is no session.
enum Unopened {
    /// The API gave no answer.
    ApiAway(Problem),
    /// The step ends like this.
    For(StepOutcome),
}

impl Run<'_> {
    /// Looks at the machine; where there is no session yet, opens one. `Err`: the step ends like this.
    pub(super) async fn probe(&mut self) -> Result<Result<Probe, StepOutcome>, Halt> {
        if self.session.is_none()
            && let Err(outcome) = self.open().await?
        {
            return Ok(Err(outcome));
        }
        if let Some(probe) = self.fresh.take() {
            return Ok(Ok(probe));
        }
        let Some(session) = &self.session else { return Err(Halt::Again) };
        match session.bmc().probe().await {
            Ok(probe) => {
                self.saw(&probe);
                Ok(Ok(probe))
            }
            Err(error) => Ok(Err(self.met(&error).await?)),
        }
    }

    /// Reads the boot override, after a [`Run::probe`] of the same claim. `Err`: the step ends like this.
    pub(super) async fn boot_override(&mut self) -> Result<Result<BootOverride, StepOutcome>, Halt> {
        let Some(session) = &self.session else { return Err(Halt::Again) };
        match session.bmc().boot_override().await {
            Ok(seen) => Ok(Ok(seen)),
            Err(error) => Ok(Err(self.met(&error).await?)),
        }
    }

    /// Reads what is in the virtual CD drive, after a [`Run::probe`] of the same claim; of several, the one with what `ours` knows
    /// comes first. `Err`: the step ends like this.
    pub(super) async fn media(
        &mut self,
        ours: impl Fn(&Media, &Checkpoint) -> bool + Send + Sync,
    ) -> Result<Result<Media, StepOutcome>, Halt> {
        let Some(session) = &self.session else { return Err(Halt::Again) };
        let checkpoint = &self.checkpoint;
        let is_ours = |address: Option<&str>| ours(&Media::Inserted(address.map(str::to_owned)), checkpoint);
        match session.bmc().media_of(&is_ours).await {
            Ok(seen) => Ok(Ok(seen)),
            Err(error) => Ok(Err(self.met(&error).await?)),
        }
    }

    /// One whole look at the machine and its inventory.
    pub(super) async fn inspect(&mut self) -> Result<StepOutcome, Halt> {
        if let Err(outcome) = self.open().await? {
            return Ok(outcome);
        }
        let Some(session) = &self.session else { return Err(Halt::Again) };
        match session.bmc().inspect().await {
            Ok(reading) => {
                let reading = self.keeping_what_was_known(reading);
                // By these the boot service knows the machine.
                self.around.queue.claim_cards(self.card_owner(), &reading.hardware.cards()).await?;
                self.report = Report::Good(Box::new(reading));
                Ok(StepOutcome::Done)
            }
            Err(error) => self.met(&error).await,
        }
    }

    /// Reads what is in the machine once more, after a [`Run::probe`] of the same claim. `Err`: the step ends like this.
    pub(super) async fn inventory(&mut self) -> Result<Result<(), StepOutcome>, Halt> {
        let Some(session) = &self.session else { return Err(Halt::Again) };
        match session.bmc().inspect().await {
            Ok(reading) => {
                let reading = self.keeping_what_was_known(reading);
                self.report = Report::Good(Box::new(reading.clone()));
                self.reading = Some(reading);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(self.met(&error).await?)),
        }
    }

    /// A part that is there and cannot be read is not a part that is missing.
    fn keeping_what_was_known(&self, mut reading: Reading) -> Reading {
        if let Some(before) = self.reading.as_ref().filter(|before| before.identity == reading.identity) {
            reading.hardware = reading.hardware.keeping(&before.hardware);
        }
        reading
    }

    /// Opens the session of this claim, with its first look. What has to switch a machine on again looks at it with what it
    /// began with while the API server gives no answer: that may run on this very machine.
    async fn open(&mut self) -> Result<Result<(), StepOutcome>, Halt> {
        let asked = Instant::now();
        let away = match self.connect(None).await? {
            Err(Unopened::ApiAway(problem)) => problem,
            Err(Unopened::For(outcome)) => return Ok(Err(outcome)),
            Ok(()) => return Ok(Ok(())),
        };
        let Some(begun) = self.recalled() else { return Ok(Err(self.retry(away, 0))) };
        self.api_away_since = asked.checked_sub(self.api_away_for());
        Ok(match self.connect(Some(begun)).await? {
            Err(Unopened::ApiAway(problem)) => Err(self.retry(problem, 0)),
            Err(Unopened::For(outcome)) => Err(outcome),
            Ok(()) => Ok(()),
        })
    }

    /// Before a request of what goes on without the API server: asks it again until it has been away for long enough.
    /// `Some`: the step ends like this.
    pub(super) async fn outlast_the_api(&mut self) -> Option<StepOutcome> {
        let since = self.api_away_since?;
        while since.elapsed() < API_PATIENCE {
            let away = match session::read(self.around, &self.claim, ReadImage::No).await {
                Ok(Live::Present(asking)) => return self.heard(Some(asking)),
                Ok(Live::Gone) => {
                    let gone = self.gone();
                    return self.heard(gone);
                }
                Err(away) => away,
            };
            tokio::select! {
                () = self.around.stop.cancelled() => return Some(self.retry(away, 0)),
                () = tokio::time::sleep(API_POLL) => {}
            }
        }
        tracing::warn!("the API server gives no answer: goes on with the wish that the job began with");
        None
    }

    fn heard(&mut self, asking: Option<Box<Asking>>) -> Option<StepOutcome> {
        (self.asking, self.api_away_since) = (asking, None);
        None
    }

    /// For how long this job has waited for the API server in earlier claims.
    fn api_away_for(&self) -> Duration {
        let job = self.claim.job();
        let is_away = job.problem.as_ref().is_some_and(|problem| problem.reason == Reason::APIUnavailable);
        let since_ms = job.problem_since_ms.filter(|_| is_away);
        Duration::from_millis(since_ms.map_or(0, |at| u64::try_from(self.now_ms() - at).unwrap_or(0)))
    }

    /// One try to open the session. `begun`: with what the job began with, and nothing is read from the API.
    async fn connect(&mut self, begun: Option<Begun>) -> Result<Result<(), Unopened>, Halt> {
        let is_begun = self.claim.job().request_stored;
        let images = if self.has_prepared() { ReadImage::No } else { ReadImage::Yes };
        let asked = Instant::now();
        let (live, login) = match begun {
            Some(Begun { server, login }) => {
                (Live::Present(Box::new(Asking { server, image: None })), Some(login))
            }
            None => match session::read(self.around, &self.claim, images).await {
                Ok(live) => (live, None),
                Err(problem) => return Ok(Err(Unopened::ApiAway(problem))),
            },
        };
        self.asked_at = Some(asked);
        self.asking = match live {
            Live::Present(asking) => Some(asking),
            Live::Gone if is_begun => self.gone(),
            Live::Gone => return Ok(Err(Unopened::For(gone()))),
        };
        if let Some(outcome) = self.unwitnessed_by_the_object() {
            return Ok(Err(Unopened::For(outcome)));
        }
        // Stale jobs end here, before their BMC is asked anything.
        if let Some(asking) = &self.asking
            && !is_begun
            && session::intent(self.action(), self.claim.uid(), asking) != self.claim.job().intent
        {
            return Ok(Err(Unopened::For(wish_changed())));
        }
        let known = match self.known.take() {
            Some(known) => Some(known),
            None => self.around.queue.observe(self.claim.uid()).await?.known,
        };
        if let Some(asking) = &self.asking {
            self.claim.has_read(ReconcileRequest::of(&asking.server));
        }
        let (mut was_let_in, mut is_read_elsewhere) = (self.was_let_in_by_this_job(), false);
        let Some(bmc) = self.bmc() else { return Ok(Err(Unopened::For(gone()))) };
        if let Some(known) = known {
            // What was read through another address or login is completed by nothing that is read through this one.
            let through = ReadThrough::of(&bmc);
            let belongs = known.read_through.is_none_or(|before| before == through);
            is_read_elsewhere = known.reading.is_some() && !belongs;
            self.reading = known.reading.filter(|_| belongs);
            was_let_in |= self.reading.is_some();
            (self.handled, self.contents, self.debt) = (known.handled, known.contents, known.debt);
            self.circumstances.heeded = known.reconcile_request;
        }
        let server = self.asking.as_ref().map(|asking| &asking.server);
        let begun = self.checkpoint.identity.as_ref();
        let expected = Expected { claim: &self.claim, bmc: &bmc, server, begun, was_let_in, login };
        match Session::open(self.around, &expected, &mut self.circumstances).await? {
            Ok((session, probe)) => {
                self.session = Some(session);
                self.saw(&probe);
                self.fresh = Some(probe);
                // What it was before says nothing, or nobody knows what it was (its record was lost): whatever hangs on its state
                // would wait for ever for the first word of it.
                if (is_read_elsewhere || self.reading.is_none())
                    && self.action() != Action::Inspect
                    && let Err(outcome) = self.inventory().await?
                {
                    return Ok(Err(Unopened::For(outcome)));
                }
                Ok(Ok(()))
            }
            Err(NoSession::Api(problem)) => Ok(Err(Unopened::ApiAway(problem))),
            Err(none) => Ok(Err(Unopened::For(self.no_session(none)))),
        }
    }

    /// Whether what is booted is decided: a request of this job may have been carried out.
    pub(super) fn has_prepared(&self) -> bool {
        let is_first = self.action().steps().first() == Some(&self.step());
        let untouched = is_first && self.checkpoint.ending.is_none() && !self.checkpoint.has_acted();
        self.claim.job().request_stored && !untouched
    }

    /// Where to: once something was sent the same BMC to the end, with the login that spec gives for it now.
    pub(super) fn bmc(&self) -> Option<crate::api::BmcSpec> {
        let live = self.server().map(|server| &server.spec.bmc);
        match &self.checkpoint.bmc {
            Some(begun) if self.claim.job().request_stored && self.witness.is_there() => {
                Some(live.filter(|live| live.address == begun.address).unwrap_or(begun).clone())
            }
            _ => live.cloned(),
        }
    }

    fn no_session(&mut self, none: NoSession) -> StepOutcome {
        match none {
            NoSession::Api(problem) => self.retry(problem, 0),
            NoSession::LoginBusy => {
                StepOutcome::Park { after_ms: LOGIN_PAUSE_MS, waiting_for: WaitingFor::BmcCapacity }
            }
            NoSession::Turn(wait) => self.wait_for_turn(wait),
            NoSession::Credentials(problem) => {
                self.report = Report::Unanswered(problem.clone());
                let after_ms =
                    if self.undoing() || self.owes() { UNDO_PAUSE_MS } else { CREDENTIALS_PAUSE_MS };
                StepOutcome::Retry { after_ms, problem }
            }
            NoSession::Refused(problem, next_in_ms) => {
                self.report = Report::Unanswered(problem.clone());
                let pause_ms = if self.undoing() { UNDO_PAUSE_MS } else { CREDENTIALS_PAUSE_MS };
                let after_ms = next_in_ms.map_or(pause_ms, |next| next.clamp(LOGIN_PAUSE_MS, pause_ms));
                StepOutcome::Retry { after_ms, problem }
            }
            NoSession::Claimed(problem) => StepOutcome::Superseded { problem },
            NoSession::Wrong(problem) => {
                self.report = Report::Unanswered(problem.clone());
                StepOutcome::Failed { problem }
            }
            NoSession::Bmc(error) => self.judge(&error),
        }
    }

    /// It is another job's turn at the BMC: this one waits in the queue, and not in its slot.
    fn wait_for_turn(&self, wait: Wait) -> StepOutcome {
        let after_ms = wait.looks_again_ms();
        let Some(reason) = wait.silent else {
            return StepOutcome::Park { after_ms, waiting_for: WaitingFor::BmcCapacity };
        };
        let own = self.claim.job().problem.clone().filter(|problem| problem.reason == reason);
        let problem = own.unwrap_or_else(|| {
            let address = self.bmc().map(|bmc| bmc.address).unwrap_or_default();
            let message = format!(
                "the BMC at {address} gave another job no answer: one job at a time asks it again, and all go on once it answers"
            );
            Problem::new(reason, message)
        });
        StepOutcome::Retry { after_ms, problem }
    }

    /// An error of a BMC that let us in before.
    pub(super) async fn met(&mut self, error: &BmcError) -> Result<StepOutcome, Halt> {
        if let Some(session) = &mut self.session {
            session.met(error);
            if error.kind == BmcErrorKind::Credentials {
                session.failed(self.around, error).await?;
            }
        }
        // The next look starts with a new connection and what the Secret says then.
        self.session = None;
        Ok(self.judge(error))
    }

    fn judge(&mut self, error: &BmcError) -> StepOutcome {
        let problem = error.problem();
        // Our own trouble is no news of the BMC.
        if error.kind != BmcErrorKind::Worker {
            self.report = Report::Unanswered(problem.clone());
        }
        match error.kind {
            // Counted; the second try reads the Secret again, and after it nobody tries any more.
            BmcErrorKind::Credentials => StepOutcome::Retry { after_ms: LOGIN_PAUSE_MS, problem },
            // Many BMCs do not know their systems for a while after they restarted: what was begun is not left alone.
            BmcErrorKind::NotFound if self.must_undo() => {
                self.retry(Problem::new(Reason::Unreachable, problem.message), 0)
            }
            _ if RetryClass::of(problem.reason).is_some() => self.retry(problem, error.asked_ms()),
            _ => StepOutcome::Failed { problem },
        }
    }

    /// Again after the back-off of its class.
    pub(super) fn retry(&self, problem: Problem, asked_ms: i64) -> StepOutcome {
        StepOutcome::Retry { after_ms: self.pause_ms(&problem, asked_ms), problem }
    }

    /// The back-off of a problem's class, milliseconds; how long it lasts already tells how long to wait.
    pub(super) fn pause_ms(&self, problem: &Problem, asked_ms: i64) -> i64 {
        let class = RetryClass::of(problem.reason).unwrap_or(RetryClass::Unreachable);
        let same = self.claim.job().problem.as_ref().is_some_and(|before| before.reason == problem.reason);
        let since_ms = self.claim.job().problem_since_ms.filter(|_| same);
        let lasts_s = since_ms.map_or(0, |since| (self.now_ms() - since).max(0) / 1000);
        let attempt = 64 - u64::try_from(lasts_s).unwrap_or(0).leading_zeros();
        backoff(class, attempt, asked_ms, rand::random())
    }

    fn saw(&mut self, probe: &Probe) {
        if let Some(reading) = &mut self.reading {
            reading.power = probe.power;
            reading.last_reset_time.clone_from(&probe.last_reset_time);
            self.report = Report::Good(Box::new(reading.clone()));
        }
    }
}

pub(super) fn gone() -> StepOutcome {
    let message = "the Server is gone: nothing was sent";
    StepOutcome::Superseded { problem: Problem::new(Reason::ServerGone, message) }
}

pub(super) fn wish_changed() -> StepOutcome {
    let message = "the Server asks for something else by now: nothing was sent";
    StepOutcome::Superseded { problem: Problem::new(Reason::WishChanged, message) }
}
