//! One claim from the moment that a slot has it until it leaves the slot: what is the same for every action.
//!
//! The rules that are kept here, each of which the protocol's model fails without:
//! - a request that an earlier holder stored is waited for, its whole settle time, before anything else;
//! - right before each try of the first request the `Server` is read live and must still ask for exactly this;
//! - a request is stored before it is sent, and sent only while its settle time covers its time-out;
//! - a job that was asked to stop, or fails, runs its undo steps before it ends.
#![expect(clippy::disallowed_methods, reason = "a successor counts the settle time from its claim")]

use std::time::{Duration, Instant};

use super::checkpoint::{Accepted, Checkpoint, Ending};
use super::confirm::WITNESS_PAUSE_MS;
use super::power::{Look, Patience};
use super::session::{Asking, Circumstances, Session};
use super::witness::{self, Witness};
use super::{Halt, Surroundings, action};
use crate::api::{BootMethod, Power, Reason, Server, ShutdownMode};
use crate::bmc::Probe;
use crate::config::ms;
use crate::job::{
    Action, Contents, Debt, Effect, HandledTokens, JobResult, Known, PermitClass, Problem, ReadThrough,
    Reading, RequestKind, Step, StepOutcome, WaitingFor, asks_for_off,
};
use crate::metrics;
use crate::queue::{CRASH_LIMIT, Claim, Disks, End, Fenced, ParkAs, QueueError, Report};

/// A claim being worked on.
pub(super) struct Run<'a> {
    pub(super) around: &'a Surroundings,
    pub(super) claim: Claim,
    pub(super) checkpoint: Checkpoint,
    /// The database's clock when the claim was taken up, and the monotonic clock then.
    pub(super) clock: (i64, Instant),
    /// What the database knew of the server then, until it is made use of.
    pub(super) known: Option<Known>,
    pub(super) asking: Option<Box<Asking>>,
    /// Whether the object was read last as gone. Where it is not, and nothing was read, nobody knows what is wished.
    pub(super) is_gone: bool,
    /// When that was asked for at the start of this claim's session.
    pub(super) asked_at: Option<Instant>,
    pub(super) session: Option<Session>,
    /// A look that nobody has judged yet.
    pub(super) fresh: Option<Probe>,
    pub(super) circumstances: Circumstances,
    pub(super) handled: HandledTokens,
    pub(super) reading: Option<Reading>,
    pub(super) contents: Option<Contents>,
    pub(super) debt: Option<Debt>,
    /// What is on the machine's disks now: told with the job's end.
    pub(super) disks: Disks,
    /// The last request of this claim of which nobody knew whether it arrived, until another one is to be sent.
    pub(super) lost: Option<Problem>,
    /// Whether the machine was switched on, reads on, and nothing that was sent may still switch it off.
    pub(super) is_on: bool,
    /// What says that the job has begun.
    pub(super) witness: Witness,
    /// Whether the controller had yet to hear of the last change of the row when the claim was taken up.
    pub(super) is_unheard: bool,
    /// Since when the API is away; present while the wish is the one that the job began with.
    pub(super) api_away_since: Option<Instant>,
    pub(super) report: Report,
    /// When the open request was stored, if it was by this claim.
    pub(super) stored: Option<Instant>,
    /// How long the last request took to be stored; before the first one a guess.
    pub(super) to_store: Duration,
}

/// How many times the database has to answer for a request to be stored, more or less.
const ANSWERS_TO_STORE: u32 = 4;

/// How long the feed alone is asked whether a job's start was shown.
const UNSEEN_MS: i64 = 10_000;

/// Works on a claim until it leaves the slot.
pub(super) async fn run(around: &Surroundings, claim: Claim) -> Result<(), Halt> {
    let taken = Instant::now();
    let seen = around.queue.observe(claim.uid()).await?;
    let of_another_release = seen.unreadable.map(|unreadable| unreadable.problem);
    let checkpoint = match Checkpoint::parse(claim.checkpoint()) {
        Ok(checkpoint) if of_another_release.is_none() => checkpoint,
        Ok(_) => return leave(around, claim, of_another_release).await,
        Err(problem) => return leave(around, claim, Some(problem)).await,
    };
    let (checkpoint, witness) = witness::judge(around, &claim, checkpoint);
    let (now_ms, answered_in) = (seen.now_ms, taken.elapsed());
    if claim.job().attempt == 0 && claim.job().started_at_ms.is_none() {
        let waited = (now_ms - claim.job().enqueued_at_ms).max(0) as f64 / 1000.0;
        metrics::START_DELAY.observe(&[claim.job().lane.as_str()], waited);
    }
    // The controller has yet to show that it was claimed: its second witness cannot be there, and nothing has to be asked for it.
    let is_young = claim.job().started_at_ms.is_none_or(|at| now_ms - at < UNSEEN_MS);
    let is_unseen = is_young && seen.in_feed && !claim.job().request_stored;
    let mut run = Run {
        around,
        checkpoint,
        claim,
        clock: (now_ms, taken),
        known: seen.known,
        asking: None,
        is_gone: false,
        asked_at: None,
        session: None,
        fresh: None,
        circumstances: Circumstances::default(),
        handled: HandledTokens::default(),
        reading: None,
        contents: None,
        debt: None,
        disks: Disks::default(),
        lost: None,
        is_on: false,
        witness,
        is_unheard: seen.in_feed,
        api_away_since: None,
        report: Report::Nothing,
        stored: None,
        to_store: answered_in * ANSWERS_TO_STORE,
    };
    if is_unseen && run.action().effect() == Effect::Destructive && run.claim.cancel().is_none() {
        return run.park(WITNESS_PAUSE_MS, WaitingFor::Status, None).await.map(|_| ());
    }
    loop {
        if around.stop.is_cancelled() {
            return run.hand_back().await;
        }
        match run.turn().await {
            Ok(Flow::Again) | Err(Halt::Again) => {}
            Ok(Flow::Over) => return Ok(()),
            Err(Halt::Database(error @ QueueError::UnknownContent { .. })) => {
                let message =
                    format!("{error}: run a worker of the release that wrote it, or finish the upgrade");
                let problem = Problem::new(Reason::UnsupportedJob, message);
                return leave(around, run.claim, Some(problem)).await;
            }
            Err(halt) => return Err(halt),
        }
    }
}

/// Leaves the job to a worker of the release that knows what is in it.
async fn leave(around: &Surroundings, claim: Claim, problem: Option<Problem>) -> Result<(), Halt> {
    let problem = problem.unwrap_or_else(|| Problem::new(Reason::UnsupportedJob, "it is of another release"));
    tracing::warn!(reason = %problem.reason, "left to another worker: {}", problem.message);
    match around.queue.leave(claim, problem).await? {
        Fenced::Done(()) => Ok(()),
        Fenced::Lost => Err(Halt::Lost),
    }
}

/// Whether the claim is still in the slot.
pub(super) enum Flow {
    Again,
    Over,
}

impl Run<'_> {
    /// The claim as it was read last.
    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The object as it was read last.
    pub(super) fn server(&self) -> Option<&Server> {
        self.asking.as_ref().map(|asking| &asking.server)
    }

    /// How it is powered off. An installer is not asked: it would not answer, and its machine would wait for the deadline.
    pub(super) fn shutdown_mode(&self) -> ShutdownMode {
        if self.runs_an_installer() {
            return ShutdownMode::Forced;
        }
        self.server().map(|server| server.spec.shutdown_mode).unwrap_or_default()
    }

    /// Whether what runs is known to be an installer, or what erases disks: database and status agree that it was begun, nothing
    /// has called home, and the time is not over that it has for that.
    fn runs_an_installer(&self) -> bool {
        let Some(server) = self.server() else { return false };
        let settings = &self.around.settings;
        let within_ms = ms(settings.install_deadline.max(settings.wipe_deadline));
        let contents = Contents::witnessed(self.contents.as_ref(), server).contents();
        contents.is_some_and(|contents| contents.are_being_overwritten(self.now_ms(), within_ms))
    }

    /// Whether the machine shall be, or end, off, or its `Server` is gone: nobody switches it on then. What could not be read says
    /// neither.
    pub(super) fn shall_be_off(&self) -> bool {
        self.server().map_or(self.is_gone, asks_for_off)
    }

    /// The object is gone.
    pub(super) fn gone(&mut self) -> Option<Box<Asking>> {
        self.is_gone = true;
        None
    }

    /// The power that spec asks for.
    pub(super) fn wished_power(&self) -> Option<Power> {
        self.server().and_then(|server| server.spec.power)
    }

    /// How long is waited for what.
    pub(super) fn patience(&self) -> Patience {
        let settings = &self.around.settings;
        Patience {
            shutdown: settings.shutdown_deadline,
            power: settings.power_deadline,
            poll: settings.power_poll,
        }
    }

    /// A look, judged: a request that was accepted before the BMC went silent gets its whole time from now.
    pub(super) fn look(&self, probe: &Probe) -> Look {
        let now_ms = self.now_ms();
        let silent = self.claim.job().problem.is_some();
        let accepted = self.checkpoint.accepted().map(|accepted| match accepted.kind {
            RequestKind::ForceOff | RequestKind::PowerOn if silent => Accepted { at_ms: now_ms, ..accepted },
            _ => accepted,
        });
        Look { power: probe.power, accepted, grace_refused_ms: self.checkpoint.grace_refused_ms, now_ms }
    }

    /// From now on the power is cut.
    pub(super) fn give_up_on_grace(&mut self, why: &Problem) {
        self.remark_cut(&why.message);
        self.checkpoint.accepted = Some(Accepted { kind: RequestKind::GracefulShutdown, at_ms: 0 });
    }

    /// Told once, with the end of the job: nothing that ran was shut down.
    pub(super) fn remark_cut(&mut self, why: &str) {
        let message = format!("the power was cut without a shutdown: {why}");
        self.checkpoint.remark = Some(Problem::new(Reason::ShutdownForced, message));
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.0 + ms(self.clock.1.elapsed())
    }

    pub(super) fn step(&self) -> Step {
        self.claim.job().step
    }

    pub(super) fn action(&self) -> Action {
        self.claim.job().action
    }

    /// Whether what was begun has to be undone before the job may end.
    pub(super) fn must_undo(&self) -> bool {
        // What was refused leaves nothing behind of a mere change of power, and what was not accepted is not waited for.
        let may_take_effect = match self.action() {
            Action::PowerOn => self.checkpoint.accepted.is_some(),
            Action::PowerOff => self.checkpoint.has_acted() || self.checkpoint.ending.is_some(),
            _ => true,
        };
        self.claim.job().request_stored && may_take_effect && !self.action().undo().is_empty()
    }

    pub(super) fn undoing(&self) -> bool {
        self.checkpoint.ending.is_some() || self.claim.cancel().is_some()
    }

    /// What is known of the machine by now, with where it is from.
    fn learned(&mut self) -> Report {
        let through = self.bmc().map(|bmc| ReadThrough::of(&bmc));
        std::mem::take(&mut self.report).through(through)
    }

    async fn turn(&mut self) -> Result<Flow, Halt> {
        if let Some(request) = self.claim.request().cloned() {
            return self.settle(&request).await;
        }
        if let Some(reason) = self.asked_to_stop() {
            if !self.must_undo() {
                if let Some(outcome) = self.unwitnessed().await {
                    return self.conclude(outcome).await;
                }
                let (result, why) = self.stopped_for(reason);
                let problem = Problem::new(reason, format!("{why} before anything was begun"));
                return self.end(result, Some(problem)).await;
            }
            if !self.action().is_undone_by_going_on(self.step()) {
                return match self.unwitnessed().await {
                    Some(outcome) => self.conclude(outcome).await,
                    None => self.undo_for(reason).await,
                };
            }
        }
        let outcome = match action::step(self).await? {
            outcome @ (StepOutcome::Park { .. } | StepOutcome::Retry { .. }) => outcome,
            // Also of what only waited, and asked its machine nothing.
            outcome => self.unwitnessed().await.unwrap_or(outcome),
        };
        self.conclude(outcome).await
    }

    /// Why it is to stop, where it was asked to and does not undo yet.
    fn asked_to_stop(&self) -> Option<Reason> {
        self.claim.cancel().filter(|_| self.checkpoint.ending.is_none())
    }

    async fn undo_for(&mut self, reason: Reason) -> Result<Flow, Halt> {
        let (result, why) = self.stopped_for(reason);
        let undone = match self.action() {
            Action::Build | Action::Reimage => {
                "the machine boots from its disk again; what was written to its disks stays there"
            }
            Action::Wipe | Action::Decommission => {
                "the machine boots from its disk again; what was erased stays erased"
            }
            Action::PowerOff => "the machine was told to go off, and is on again unless it shall be off",
            Action::Inspect | Action::PowerOn | Action::Reboot => "what had begun was undone",
        };
        let problem = Problem::new(reason, format!("{why}; {undone}"));
        self.undo(Ending { result, problem, step: Some(self.step()) }).await
    }

    /// How a job ends that was asked to stop, and what is said of it. One that kept crashing its workers has failed:
    /// were it only cancelled, the same would be enqueued again at once.
    fn stopped_for(&self, reason: Reason) -> (JobResult, String) {
        if reason != Reason::CrashLimit {
            return (JobResult::Cancelled, "asked to stop".to_owned());
        }
        let (step, id) = (self.step(), self.claim.job().id);
        let why =
            format!("step {step} crashed its worker {CRASH_LIMIT} times (the workers' logs about job {id})");
        (JobResult::Failed, why)
    }

    /// Takes over what the row says after a write.
    pub(super) fn take(&mut self, fenced: Fenced<Claim>) -> Result<(), Halt> {
        match fenced {
            Fenced::Done(claim) => {
                self.claim = claim;
                Ok(())
            }
            Fenced::Lost => Err(Halt::Lost),
        }
    }

    pub(super) async fn hand_back(&mut self) -> Result<(), Halt> {
        match self.around.queue.hand_back(self.claim.clone()).await? {
            Fenced::Done(()) => {
                tracing::info!("handed back between two steps");
                Ok(())
            }
            Fenced::Lost => Err(Halt::Lost),
        }
    }

    async fn conclude(&mut self, outcome: StepOutcome) -> Result<Flow, Halt> {
        match self.patiently(outcome) {
            StepOutcome::Next => match (self.following(), self.asked_to_stop()) {
                // Asked while a request was under way, which a BMC takes seconds for: what it began is undone.
                (Some(step), Some(reason))
                    if self.must_undo() && !self.action().is_undone_by_going_on(step) =>
                {
                    self.undo_for(reason).await
                }
                (Some(step), _) => self.advance(step).await,
                (None, _) => self.done().await,
            },
            StepOutcome::Done => self.done().await,
            StepOutcome::Park { after_ms, waiting_for } => {
                // Waiting for its turn cures nothing: what is in the way is in the way for as long as it is not tried again.
                let problem = self.claim.job().problem.clone();
                let problem = problem.filter(|_| waiting_for == WaitingFor::BmcCapacity);
                self.park(after_ms, waiting_for, problem).await
            }
            StepOutcome::Retry { after_ms, problem } => match self.undo_is_hopeless(&problem) {
                Some(left) => self.end_undone(left).await,
                None => self.park(after_ms, WaitingFor::after(problem.reason), Some(problem)).await,
            },
            StepOutcome::Superseded { problem } => self.stop(JobResult::Superseded, problem).await,
            StepOutcome::Failed { problem } => self.stop(JobResult::Failed, problem).await,
        }
    }

    /// The step after this one; `None`: this is the last one, and with it the job has come to its end.
    fn following(&self) -> Option<Step> {
        let steps =
            if self.checkpoint.ending.is_some() { self.action().undo() } else { self.action().steps() };
        let here = steps.iter().position(|step| *step == self.step())?;
        steps.iter().skip(here + 1).copied().find(|step| self.applies(*step))
    }

    /// Whether this job has something to do at that step.
    fn applies(&self, step: Step) -> bool {
        let method = self.checkpoint.install.as_ref().map(|install| install.method);
        step != Step::EjectMedia || method == Some(BootMethod::VirtualMedia)
    }

    async fn done(&mut self) -> Result<Flow, Halt> {
        match self.checkpoint.ending.clone() {
            // The undo has come to its end.
            Some(Ending { result, problem, .. }) => self.end(result, Some(problem)).await,
            None => self.end(JobResult::Succeeded, self.checkpoint.remark.clone()).await,
        }
    }

    /// Ends the job, after its undo steps where something was begun.
    async fn stop(&mut self, result: JobResult, problem: Problem) -> Result<Flow, Halt> {
        if self.witness == Witness::Refuted {
            return self.end(JobResult::Superseded, Some(problem)).await;
        }
        let goes_on = self.action().is_undone_by_going_on(self.step());
        if self.checkpoint.ending.is_some() || (goes_on && self.undoing()) {
            return self.end_undone(problem).await;
        }
        if self.must_undo() && !goes_on {
            return self.undo(Ending { result, problem, step: Some(self.step()) }).await;
        }
        self.end(result, Some(problem)).await
    }

    async fn undo(&mut self, ending: Ending) -> Result<Flow, Halt> {
        let Some(step) = self.action().undo().first().copied() else { return Ok(Flow::Again) };
        if self.action().permit_class() == Some(PermitClass::Install) {
            // From now on the machine boots from its disk.
            self.around.queue.revoke_boot(self.claim.uid(), self.claim.job().id).await?;
        }
        self.advance_with(step, self.checkpoint.undo_step(ending)).await
    }

    /// What stands in the way of an undo for longer than its deadline.
    fn undo_is_hopeless(&self, problem: &Problem) -> Option<Problem> {
        let since = self.claim.job().problem_since_ms.filter(|_| self.undoing() && !self.owes())?;
        (self.now_ms() - since > ms(self.around.settings.undo_deadline)).then(|| problem.clone())
    }

    async fn end_undone(&mut self, left: Problem) -> Result<Flow, Halt> {
        let (result, reason) = match &self.checkpoint.ending {
            Some(ending) => (ending.result, ending.problem.reason),
            None => (JobResult::Failed, left.reason),
        };
        if left.reason == Reason::LeftPoweredOff {
            let before =
                self.checkpoint.ending.as_ref().map(|ending| format!("{}; ", ending.problem.message));
            let message = format!("{}{}", before.unwrap_or_default(), left.message);
            // What is owed is kept and told by itself; what failed first stays in the way of destroying once more.
            let destroys = self.action().effect() == Effect::Destructive;
            let reason = if destroys { reason } else { left.reason };
            return self.end(result, Some(Problem::new(reason, message))).await;
        }
        let message = format!("{} could not be undone, look at the machine: {}", self.action(), left.message);
        self.end(result, Some(Problem::new(reason, message))).await
    }

    async fn advance(&mut self, step: Step) -> Result<Flow, Halt> {
        self.advance_with(step, self.checkpoint.next_step()).await
    }

    async fn advance_with(&mut self, step: Step, checkpoint: Checkpoint) -> Result<Flow, Halt> {
        let report = self.learned();
        let text = self.sealed_at(step, &checkpoint);
        let advanced = self.around.queue.advance(self.claim.clone(), step, text, report).await?;
        self.take(advanced)?;
        (self.checkpoint, self.lost) = (checkpoint, None);
        tracing::info!(step = step.as_str(), "goes on with the next step");
        Ok(Flow::Again)
    }

    async fn park(
        &mut self,
        after_ms: i64,
        waiting_for: WaitingFor,
        problem: Option<Problem>,
    ) -> Result<Flow, Halt> {
        metrics::PARKED.one(&[waiting_for.as_str()]);
        match &problem {
            Some(problem)
                if self.claim.job().problem.as_ref().map(|before| before.reason) != Some(problem.reason) =>
            {
                tracing::warn!(reason = %problem.reason, after_ms, "parked: {}", problem.message);
            }
            _ => tracing::debug!(waiting_for = waiting_for.as_str(), after_ms, "parked"),
        }
        let how = ParkAs {
            after_ms,
            waiting_for,
            problem,
            secret_version: self.circumstances.secret.as_ref().map(ToString::to_string),
            checkpoint: self.sealed(),
            report: self.learned(),
        };
        match self.around.queue.park(self.claim.clone(), how).await? {
            Fenced::Done(_) => Ok(Flow::Over),
            Fenced::Lost => Err(Halt::Lost),
        }
    }

    async fn end(&mut self, result: JobResult, problem: Option<Problem>) -> Result<Flow, Halt> {
        let reason = problem.as_ref().map_or(result.as_str(), |problem| problem.reason.as_str());
        let (action, started) = (self.action(), self.claim.job().started_at_ms.unwrap_or(self.clock.0));
        let message = problem.as_ref().map(|problem| format!(": {}", problem.message)).unwrap_or_default();
        let quiet = self.claim.quiet() && result == JobResult::Succeeded;
        let end = End {
            result,
            problem: problem.clone(),
            cause: self.circumstances.cause.clone(),
            step: self.checkpoint.ending.as_ref().and_then(|ending| ending.step),
            report: self.learned(),
            is_on: self.is_on,
            left_off_within_ms: self.left_off_within_ms(),
            disks: if result == JobResult::Succeeded {
                std::mem::take(&mut self.disks)
            } else {
                Disks::default()
            },
        };
        if self.around.queue.complete(self.claim.clone(), end).await? == Fenced::Lost {
            return Err(Halt::Lost);
        }
        self.forget();
        metrics::JOBS.one(&[action.as_str(), result.as_str(), reason]);
        metrics::JOB_TIME.observe(&[action.as_str()], (self.now_ms() - started).max(0) as f64 / 1000.0);
        if quiet {
            tracing::debug!(result = result.as_str(), "ended");
        } else {
            tracing::info!(result = result.as_str(), reason, "ended{message}");
        }
        Ok(Flow::Over)
    }
}
