//! A job that has switched its machine off owes it an "on": what is in the way is waited out, as long as patience lasts.

use super::power::{Look, off_takes};
use super::remembered::Begun;
use super::run::Run;
use super::witness::Witness;
use crate::api::hardware::PowerState;
use crate::api::{FailureScope, Reason};
use crate::config::ms;
use crate::job::{Action, Problem, Step, StepOutcome};

/// The longest pause between two tries to switch on again, in milliseconds, where the BMC asked for no longer one.
const PAUSE_MS: i64 = 15_000;
/// The same while the API server is away: the worker that knows how to go on without it should come to it soon.
const API_PAUSE_MS: i64 = 2_000;

impl Run<'_> {
    /// Whether this job ends with a machine that is on: a reboot, what boots an installer on one that was on before, and the undo
    /// of a power-off that nobody wishes any more.
    pub(super) fn ends_on(&self) -> bool {
        match &self.checkpoint.install {
            Some(install) => install.power_before != PowerState::PoweredOff,
            None => match self.action() {
                Action::Reboot => true,
                Action::PowerOff => self.checkpoint.ending.is_some() && !self.shall_be_off(),
                _ => false,
            },
        }
    }

    /// Within how many milliseconds the machine is off by a power-off that nobody wishes any more, where this job ends before it
    /// was on again.
    pub(super) fn left_off_within_ms(&self) -> Option<i64> {
        let leaves = self.action() == Action::PowerOff && self.ends_on() && !self.is_on;
        let sent = self.checkpoint.undone.filter(|_| leaves)?;
        let takes_ms = ms(off_takes(sent.kind, self.patience()));
        Some((sent.at_ms + takes_ms - self.now_ms()).max(0))
    }

    /// Whether it has switched its machine off, or may have, and the machine is not on again.
    pub(super) fn owes(&self) -> bool {
        let sent = self.checkpoint.has_acted();
        let off = match self.step() {
            Step::Off => sent,
            Step::On => true,
            Step::ClearBootOverride | Step::EjectMedia => self.checkpoint.ending.is_some(),
            Step::Inspect
            | Step::SetBootOverride
            | Step::AwaitBoot
            | Step::AwaitInstall
            | Step::AwaitWipe
            | Step::OffForGood => false,
        };
        self.claim().job().request_stored && self.ends_on() && off
    }

    /// A power state that is in transition for ever, where nothing was asked for that has a deadline.
    pub(super) fn never_comes_on(&self, look: Look) -> Option<Problem> {
        let patience = self.around.settings.power_on_patience;
        let since_ms = self.claim().step_since_ms()?;
        let for_ever = self.step() == Step::On && look.accepted.is_none();
        (for_ever && look.now_ms - since_ms >= ms(patience)).then(|| {
            let message = format!(
                "the machine reads {} for more than {} s: look at it and at its BMC",
                look.power,
                patience.as_secs()
            );
            Problem::new(Reason::PowerStateMismatch, message)
        })
    }

    /// Keeps in memory what the job goes on with should the API server be away.
    pub(super) fn remember(&self) {
        let (Some(server), Some(session)) = (self.server(), &self.session) else { return };
        let begun = Begun { server: server.clone(), login: session.login().clone() };
        self.around.remembered.keep(self.claim().uid(), self.claim().job().id, begun);
    }

    /// What the job began with, where this process knows it and the machine has to be switched on.
    pub(super) fn recalled(&self) -> Option<Begun> {
        self.owes().then(|| self.around.remembered.of(self.claim().uid(), self.claim().job().id)).flatten()
    }

    /// Forgets it.
    pub(super) fn forget(&self) {
        self.around.remembered.forget(self.claim().uid(), self.claim().job().id);
    }

    /// How a step goes on that met something: once anything was sent, another machine at the address, a claim that is
    /// refused or credentials that are missing are "not there yet", and so is everything that keeps a machine off.
    pub(super) fn patiently(&mut self, outcome: StepOutcome) -> StepOutcome {
        let (problem, after_ms) = match &outcome {
            StepOutcome::Superseded { .. } if self.witness == Witness::Refuted => {
                return outcome;
            }
            StepOutcome::Failed { problem } | StepOutcome::Superseded { problem } => (problem.clone(), None),
            StepOutcome::Retry { after_ms, problem } => (problem.clone(), Some(*after_ms)),
            StepOutcome::Next | StepOutcome::Done | StepOutcome::Park { .. } => return outcome,
        };
        let is_away = problem.reason.failure_scope() == FailureScope::Bmc;
        let keeps_off = self.owes() && (self.step() != Step::Off || after_ms.is_some());
        let waits = keeps_off || (is_away && after_ms.is_none() && self.claim().job().request_stored);
        if !waits {
            return outcome;
        }
        // Our own trouble says nothing about the machine, and nothing is gained by ending the job.
        if matches!(problem.reason, Reason::APIUnavailable | Reason::WorkerTrouble) {
            return StepOutcome::Retry { after_ms: API_PAUSE_MS, problem };
        }
        let now_ms = self.now_ms();
        let since_ms = *self.checkpoint.in_the_way_since_ms.get_or_insert(now_ms);
        let lasts_ms = now_ms - since_ms;
        if lasts_ms < ms(self.around.settings.power_on_patience) {
            let after_ms = after_ms.unwrap_or_else(|| self.pause_ms(&problem, 0));
            let asked = problem.reason == Reason::BMCBusy;
            let after_ms = if asked { after_ms } else { after_ms.min(PAUSE_MS) };
            return StepOutcome::Retry { after_ms, problem };
        }
        // Undoing tries it once more.
        let is_undone = self.must_undo()
            && self.checkpoint.ending.is_none()
            && !self.action().is_undone_by_going_on(self.step());
        if !keeps_off {
            return outcome;
        }
        if is_undone {
            return StepOutcome::Failed { problem };
        }
        let message = format!(
            "given up after {} s of trying to switch the machine on again: {}",
            lasts_ms / 1000,
            problem.message
        );
        StepOutcome::Failed { problem: Problem::new(Reason::LeftPoweredOff, message) }
    }
}
