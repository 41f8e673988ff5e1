//! The small world of the property tests: a user who changes the wish, a worker that carries jobs out or fails, a database
//! that forgets.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use super::property_story::Happens;
use super::{Budget, Observation, fixture as f};
use crate::api::hardware::PowerState;
use crate::api::{ImageWish, Lifecycle, Reason, ServerStatus, names};
use crate::job::{
    Action, Contents, Debt, Deleting, Effect, Event, FinishedJob, InstalledImage, JobId, JobResult, JobState,
    Known, LiveJob, Medium, Origin, Problem, Step, StoredFailure, TokenKind, TokenValue, WaitingFor,
};

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "what happened, one by one")]
pub(super) struct World {
    pub(super) seen: Observation,
    pub(super) machine: PowerState,
    pub(super) next_id: u64,
    pub(super) gone: bool,
    pub(super) ended: BTreeSet<JobId>,
    /// Whether a user asked for an installation since the last one began.
    pub(super) asked: bool,
    /// Whether the live installation was asked for, and nothing was given to its machine yet.
    pub(super) answering: bool,
    /// Whether the last installation that began did not come to its end.
    pub(super) half_installed: bool,
    /// Whether a decommission came to its end.
    pub(super) ended_for_good: bool,
    /// What the replica has: it becomes the database when commits are lost.
    pub(super) replica: (Option<Known>, Option<LiveJob>, crate::job::Visibility, BTreeSet<JobId>),
}

impl World {
    pub(super) fn new() -> Self {
        let mut seen = f::new();
        seen.server.status = Some(ServerStatus { observed_generation: Some(-1), ..ServerStatus::default() });
        seen.server.metadata.finalizers = None;
        Self {
            seen,
            machine: PowerState::PoweredOn,
            next_id: 1,
            gone: false,
            ended: BTreeSet::new(),
            asked: false,
            answering: false,
            half_installed: false,
            ended_for_good: false,
            replica: Default::default(),
        }
    }

    fn spec_changed(&mut self) {
        self.seen.server.metadata.generation =
            self.seen.server.metadata.generation.map(|generation| generation + 1);
    }

    fn annotate(&mut self, name: &str) {
        let uid = self.seen.uid().as_str().to_owned();
        self.seen.server.metadata.annotations.get_or_insert_default().insert(name.to_owned(), uid);
    }

    pub(super) fn known(&mut self) -> Option<&mut Known> {
        self.seen.known.as_mut()
    }

    pub(super) fn happen(&mut self, what: Happens) {
        let by_worker = matches!(
            what,
            Happens::WorkerStarts
                | Happens::WorkerSends
                | Happens::ScriptGiven
                | Happens::WorkerFinishes
                | Happens::WorkerFails(_)
                | Happens::WorkerParks(_)
        );
        // Nobody claims before everything was derived again.
        if by_worker && self.seen.another_history {
            return;
        }
        // Time never stands still.
        self.seen.now_ms += 1_000;
        match what {
            Happens::LostDatabase => {
                self.seen.known = None;
                self.seen.job = None;
            }
            Happens::Replicated => {
                let Observation { known, job, visibility, .. } = self.seen.clone();
                self.replica = (known, job, visibility, self.ended.clone());
            }
            Happens::LostCommits => {
                let (known, job, visibility, ended) = self.replica.clone();
                (self.seen.known, self.seen.job, self.seen.visibility) = (known, job, visibility);
                self.ended = ended;
                self.seen.another_history = true;
            }
            Happens::ButtonPressed => {
                self.machine = if self.machine == PowerState::PoweredOn {
                    PowerState::PoweredOff
                } else {
                    PowerState::PoweredOn
                };
            }
            Happens::Time(ms) => self.seen.now_ms += ms,
            Happens::WorkerStarts => {
                if let Some(job) = &mut self.seen.job {
                    job.state = JobState::Running;
                    job.started_at_ms = Some(self.seen.now_ms);
                    job.waiting_for = None;
                }
            }
            Happens::WorkerSends => self.send(),
            Happens::ScriptGiven => self.give_script(),
            Happens::WorkerFinishes => self.finish(),
            Happens::WorkerFails(reason) => self.fail(reason),
            Happens::WorkerParks(reason) => self.park(reason),
            by_user => self.wish(by_user),
        }
    }

    /// What a user, or somebody beside AutoBuild, does to the object.
    fn wish(&mut self, what: Happens) {
        match what {
            Happens::Power(power) => {
                self.seen.server.spec.power = power;
                self.spec_changed();
            }
            Happens::Token(token) => {
                self.seen.server.spec.reboot_token = token.map(|token| token.to_string());
                self.spec_changed();
            }
            Happens::Image(number) => {
                let wish = number
                    .map(|number| ImageWish { name: format!("image-{number}"), ..ImageWish::default() });
                self.asked |= wish.is_some() && wish != self.seen.server.spec.image;
                self.seen.image_digest = number.map(|number| format!("sha256:{number}"));
                self.seen.server.spec.image = wish;
                self.spec_changed();
            }
            Happens::Reimage(token) => {
                let token = token.map(|token| token.to_string());
                self.asked |= token.is_some() && token != self.seen.server.spec.reimage_token;
                self.seen.server.spec.reimage_token = token;
                self.spec_changed();
            }
            Happens::Provisioning(provisioning) => {
                self.seen.server.spec.provisioning = provisioning;
                self.spec_changed();
            }
            Happens::OSImageReplaced(digest) => {
                self.seen.image_digest = digest.map(|digest| format!("sha256:other-{digest}"));
            }
            Happens::Confirmed => {
                self.annotate(names::CONFIRM);
            }
            Happens::Abandon => self.annotate(names::ABANDON),
            Happens::Decommission => {
                self.seen.server.spec.lifecycle = Lifecycle::Decommissioned;
                self.spec_changed();
            }
            Happens::WipeImage(there) => self.seen.wipe.digest = there.then(|| "sha256:wipe".into()),
            Happens::BudgetSpent(spent) => {
                self.seen.budget = if spent { Budget::Spent { cap: 10 } } else { Budget::Left };
            }
            Happens::Pause(paused) => {
                self.seen.server.spec.paused = Some(paused);
                self.spec_changed();
            }
            Happens::Delete(policy) => {
                self.seen.server.spec.deletion_policy = policy;
                self.seen.server.metadata.deletion_timestamp =
                    Some(crate::api::condition::time(self.seen.now_ms));
                self.spec_changed();
            }
            Happens::Address(number) => {
                self.seen.server.spec.bmc.address = format!("redfish+https://192.0.2.1{number}");
                self.seen.bmc_address = Ok(self.seen.server.spec.bmc.address.clone());
                self.spec_changed();
            }
            Happens::NewSecret => {
                self.seen.secret.as_mut().unwrap().resource_version.push('1');
            }
            _ => {}
        }
    }

    /// Stores the first request, as a worker does it: only while the live wish is the job's.
    fn send(&mut self) {
        let Some(job) = self.seen.job.clone().filter(|job| job.started() && job.cancel.is_none()) else {
            return;
        };
        if job.action == Action::Inspect || job.intent != self.seen.intent(job.action) {
            return;
        }
        if self.is_handled(&job) {
            return;
        }
        let destroys = job.action.effect() == Effect::Destructive;
        if destroys && !job.request_stored {
            if !self.may_destroy(&job) {
                return;
            }
            assert!(!self.ended_for_good, "touched after its end");
            if job.action.installs() {
                assert!(self.asked || self.half_installed, "installed again, and nobody asked for it");
                self.answering |= std::mem::take(&mut self.asked);
            } else {
                let over = self.seen.server.spec.lifecycle == Lifecycle::Decommissioned;
                assert!(over || self.seen.deleting() == Deleting::Wipe, "erased, and nobody asked for it");
            }
        }
        self.seen.job.as_mut().unwrap().request_stored = true;
        if self.switches_off(&job) {
            let begun = Debt::begun(job.id, job.action, self.seen.now_ms, 5_000);
            if let Some(known) = self.known() {
                known.debt = Some(begun);
            }
            self.machine = PowerState::PoweredOff;
        }
        let kinds: &[TokenKind] = match job.action {
            Action::Reboot => &[TokenKind::Reboot],
            action if action.installs() => &[TokenKind::Reimage, TokenKind::Reboot],
            _ => &[],
        };
        let (spec, now_ms) = (self.seen.server.spec.clone(), self.seen.now_ms);
        let shown = self.seen.shown_tokens();
        let Some(known) = self.known() else { return };
        let mut taking = Vec::new();
        for kind in kinds.iter().filter(|_| !job.request_stored) {
            if let Some(token) = kind.of(&spec)
                && !known.handled.is_handled(*kind, Some(token))
                && !shown.is_handled(*kind, Some(token))
            {
                known.handled.record(*kind, token);
                taking.push(TokenValue { kind: *kind, value: token.to_owned() });
            }
        }
        if destroys {
            let started = Event::Started(Medium::Absent).contents(known.contents.as_ref(), now_ms);
            known.contents = started.or(known.contents.take());
        }
        if !job.request_stored {
            self.seen.job.as_mut().unwrap().taking = taking;
        }
    }

    /// The machine is given what overwrites its disks.
    fn give_script(&mut self) {
        let now_ms = self.seen.now_ms;
        let Some(job) = self.seen.job.as_mut().filter(|job| job.request_stored && job.cancel.is_none())
        else {
            return;
        };
        if job.action.effect() != Effect::Destructive {
            return;
        }
        // In another history it is not given again.
        if job.script_given {
            return;
        }
        job.taking.clear();
        (job.script_given, job.step) = (true, Step::AwaitBoot);
        (self.answering, self.half_installed) = (false, true);
        if let Some(known) = self.known() {
            known.contents = Event::ScriptGiven.contents(known.contents.as_ref(), now_ms);
        }
    }

    /// Whether the first request of this job switches off a machine that has to be on again.
    fn switches_off(&self, job: &LiveJob) -> bool {
        let ends_on = job.action == Action::Reboot || job.action.effect() == Effect::Destructive;
        ends_on && !job.request_stored && self.machine == PowerState::PoweredOn
    }

    /// What becomes of a debt with the end of a job, as the queue does it.
    fn owe(&mut self, job: &LiveJob, is_paid: bool, problem: Option<Problem>) {
        let (cause, now_ms) = (self.seen.cause(job.action), self.seen.now_ms);
        let Some(known) = self.known() else { return };
        let Some(debt) = known.debt.take().filter(|_| !is_paid) else { return };
        let looks = job.action == Action::Inspect || !job.started();
        known.debt = Some(if looks { debt } else { debt.tried_again(cause, problem, now_ms) });
    }

    /// What a worker asks before the first request of what destroys data: the second witness, and a person's word.
    fn may_destroy(&self, job: &LiveJob) -> bool {
        let status = self.seen.server.status.as_ref().unwrap();
        let witnessed = status.job.as_ref().is_some_and(|shown| {
            shown.id == job.id.to_string()
                && shown.started_at.is_some()
                && shown.state != JobState::Cancelling
        });
        witnessed && super::word::missing(&self.seen, job.action).is_none() && !self.seen.paused()
    }

    /// Whether the live read shows that a job which sent nothing was done already.
    fn is_handled(&self, job: &LiveJob) -> bool {
        let token = self.seen.server.spec.reboot_token.as_deref();
        job.action == Action::Reboot
            && !job.request_stored
            && self.seen.handled().is_handled(TokenKind::Reboot, token)
    }

    pub(super) fn end(&mut self, job: &LiveJob, result: JobResult, problem: Option<Problem>) {
        let now_ms = self.seen.now_ms;
        let quiet = self.seen.visibility == crate::job::Visibility::Quiet;
        self.seen.job = None;
        self.asked |= std::mem::take(&mut self.answering);
        if problem.as_ref().is_none_or(|problem| problem.reason != Reason::HistoryLost) {
            self.ended.insert(job.id);
        }
        let Some(known) = self.known() else { return };
        known.version += 1;
        if !quiet || result == JobResult::Failed {
            known.last_job = Some(FinishedJob {
                id: job.id,
                action: job.action,
                intent: job.intent.clone(),
                result,
                problem,
                step: job.step,
                enqueued_at_ms: job.enqueued_at_ms,
                started_at_ms: job.started_at_ms,
                finished_at_ms: now_ms,
            });
        }
    }

    fn finish(&mut self) {
        let Some(job) = self.seen.job.clone().filter(LiveJob::started) else { return };
        let superseded =
            job.cancel.is_none() && !job.request_stored && job.intent != self.seen.intent(job.action);
        if superseded && job.action != Action::Inspect {
            return self.end(&job, JobResult::Superseded, Some(Problem::new(Reason::WishChanged, "changed")));
        }
        if job.cancel.is_none() && self.is_handled(&job) {
            let forgot = Problem::new(Reason::HistoryLost, "handled");
            return self.end(&job, JobResult::Superseded, Some(forgot));
        }
        if job.cancel.is_none() && !job.request_stored {
            self.send();
        }
        let begun = self.seen.job.as_ref().is_some_and(|job| job.request_stored);
        if job.action.effect() == Effect::Destructive && job.cancel.is_none() && !begun {
            // Waits for its witness, or gives way.
            let wanted = match job.action {
                Action::Decommission => super::lifecycle::wanted(&self.seen),
                Action::Wipe => super::deletion::wipe(&self.seen),
                _ => super::image::wanted(&self.seen),
            };
            return match wanted {
                Some(_) => {}
                None => {
                    self.end(&job, JobResult::Superseded, Some(Problem::new(Reason::AlreadyDone, "there")));
                }
            };
        }
        if job.cancel.is_none() {
            self.give_script();
        }
        if let (true, None, Some(wish), Some(digest)) = (
            job.action.installs(),
            job.cancel,
            self.seen.server.spec.image.clone(),
            self.seen.image_digest.clone(),
        ) {
            self.half_installed = false;
            let at_ms = self.seen.now_ms;
            if let Some(known) = self.known() {
                let image = InstalledImage { name: wish.name, digest, at_ms, origin: Origin::Installed };
                known.contents = Some(Contents::Image(image));
            }
        }
        if job.action.wipes() && job.cancel.is_none() {
            let since_ms = self.seen.now_ms;
            self.half_installed = false;
            self.ended_for_good = job.action == Action::Decommission;
            let ended = self.ended_for_good;
            if let Some(known) = self.known() {
                let wiped = Contents::Wiped { since_ms };
                known.contents = Some(if ended { Contents::Decommissioned { since_ms } } else { wiped });
            }
            self.machine = PowerState::PoweredOff;
        }
        match job.action {
            _ if job.cancel.is_some() && !job.request_stored => {}
            Action::PowerOff => self.machine = PowerState::PoweredOff,
            Action::PowerOn | Action::Reboot | Action::Build | Action::Reimage => {
                self.machine = PowerState::PoweredOn;
            }
            _ => {}
        }
        let (machine, now_ms) = (self.machine, self.seen.now_ms);
        if let Some(known) = self.known() {
            known.debt = known.debt.take().and_then(|debt| debt.after_reading(machine, now_ms));
        }
        let is_on = machine == PowerState::PoweredOn && job.request_stored;
        let is_wiped = job.action.wipes() && job.cancel.is_none();
        let result = if job.cancel.is_some() { JobResult::Cancelled } else { JobResult::Succeeded };
        if let Some(known) = self.known() {
            let reading = f::reading(machine);
            let read = Event::Read(reading.power);
            if let Some(foreign) = read.contents(known.contents.as_ref(), now_ms) {
                known.contents = Some(foreign);
            }
            known.reading = Some(reading);
            known.unanswered = None;
            known.last_good_read_ms = Some(now_ms);
            known.last_try_ms = Some(now_ms);
            if job.action != Action::Inspect {
                known.failure = None;
            }
        }
        let problem = job.cancel.map(|reason| Problem::new(reason, "asked to stop"));
        self.owe(&job, is_on || is_wiped, problem.clone());
        self.end(&job, result, problem);
    }

    fn fail(&mut self, reason: Reason) {
        let Some(job) = self.seen.job.clone().filter(LiveJob::started) else { return };
        let (cause, now_ms) = (self.seen.cause(job.action), self.seen.now_ms);
        let problem = Problem::new(reason, "failed");
        if let Some(known) = self.known() {
            if reason == Reason::RequestRefused {
                job.taking.iter().for_each(|token| known.handled.give_back(token));
            }
            known.last_try_ms = Some(now_ms);
            let failure = StoredFailure {
                action: job.action,
                intent: job.intent.clone(),
                cause,
                problem: problem.clone(),
                at_ms: now_ms,
                behind: None,
            };
            known.failure = Some(failure.after(known.failure.take()));
        }
        self.owe(&job, false, Some(problem.clone()));
        self.end(&job, JobResult::Failed, Some(problem));
    }

    fn park(&mut self, reason: Reason) {
        let (now_ms, secret) = (self.seen.now_ms, self.seen.secret.as_ref().map(ToString::to_string));
        let Some(job) = self.seen.job.as_mut().filter(|job| job.started()) else { return };
        job.state = JobState::Waiting;
        job.waiting_for = Some(WaitingFor::after(reason));
        job.problem = Some(Problem::new(reason, "met"));
        job.problem_since_ms = Some(now_ms);
        job.secret_version = secret;
        if let Some(known) = self.known() {
            known.last_try_ms = Some(now_ms);
            known.unanswered = Some(f::silence(0));
        }
    }
}
