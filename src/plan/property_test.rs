//! Properties, checked on a small world: decisions are applied to what is known and to the live job as the queue does
//! it, a worker carries jobs out or fails, and a user changes the wish in between.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::property_story::{Happens, happens};
use super::{Command, Observation, decide, events, fixture as f, status};
use crate::api::hardware::PowerState;
use crate::api::{DeletionPolicy, FailureScope, ImageWish, Provisioning, Reason, ServerStatus, names};
use crate::job::{
    Action, Contents, FinishedJob, InstalledImage, JobId, JobResult, JobState, Known, LiveJob, Origin,
    Problem, StoredFailure, TokenKind, WaitingFor,
};

#[derive(Debug, Clone)]
struct World {
    seen: Observation,
    machine: PowerState,
    next_id: u64,
    gone: bool,
    ended: BTreeSet<JobId>,
    /// Whether a user asked for an installation since the last one began.
    asked: bool,
    /// Whether the last installation that began did not come to its end.
    half_installed: bool,
    /// What the replica has: it becomes the database when commits are lost.
    replica: (Option<Known>, Option<LiveJob>, crate::job::Visibility, BTreeSet<JobId>),
}

impl World {
    fn new() -> Self {
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
            half_installed: false,
            replica: Default::default(),
        }
    }

    fn spec_changed(&mut self) {
        self.seen.server.metadata.generation =
            self.seen.server.metadata.generation.map(|generation| generation + 1);
    }

    fn known(&mut self) -> Option<&mut Known> {
        self.seen.known.as_mut()
    }

    fn happen(&mut self, what: Happens) {
        let by_worker = matches!(
            what,
            Happens::WorkerStarts
                | Happens::WorkerSends
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
                let uid = self.seen.uid().as_str().to_owned();
                self.seen.server.metadata.annotations = Some([(names::CONFIRM.to_owned(), uid)].into());
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
            Happens::WorkerFinishes => self.finish(),
            Happens::WorkerFails(reason) => self.fail(reason),
            Happens::WorkerParks(reason) => self.park(reason),
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
        if job.action.installs() && !job.request_stored {
            if !self.may_install(&job) {
                return;
            }
            assert!(self.asked || self.half_installed, "installed again, and nobody asked for it");
            (self.asked, self.half_installed) = (false, true);
        }
        self.seen.job.as_mut().unwrap().request_stored = true;
        let kinds: &[TokenKind] = match job.action {
            Action::Reboot => &[TokenKind::Reboot],
            action if action.installs() => &[TokenKind::Reimage, TokenKind::Reboot],
            _ => &[],
        };
        let (spec, now_ms) = (self.seen.server.spec.clone(), self.seen.now_ms);
        let Some(known) = self.known() else { return };
        for kind in kinds.iter().filter(|_| !job.request_stored) {
            if let Some(token) = kind.of(&spec) {
                known.handled.record(*kind, token);
            }
        }
        if job.action.installs() {
            known.contents = Some(Contents::Unknown { since_ms: now_ms });
        }
    }

    /// What a worker asks before the first request of an installation: the second witness, and a person's word.
    fn may_install(&self, job: &LiveJob) -> bool {
        let status = self.seen.server.status.as_ref().unwrap();
        let witnessed = status.job.as_ref().is_some_and(|shown| {
            shown.id == job.id.to_string()
                && shown.started_at.is_some()
                && shown.state != JobState::Cancelling
        });
        let somebodys = matches!(super::image::contents(&self.seen), Some(Contents::Foreign { .. }));
        let confirmed = self.seen.annotation(names::CONFIRM) == Some(self.seen.uid().as_str());
        witnessed && (!somebodys || confirmed) && !self.seen.paused()
    }

    /// Whether the live read shows that a job which sent nothing was done already.
    fn is_handled(&self, job: &LiveJob) -> bool {
        let token = self.seen.server.spec.reboot_token.as_deref();
        job.action == Action::Reboot
            && !job.request_stored
            && self.seen.handled().is_handled(TokenKind::Reboot, token)
    }

    fn end(&mut self, job: &LiveJob, result: JobResult, problem: Option<Problem>) {
        let now_ms = self.seen.now_ms;
        let quiet = self.seen.visibility == crate::job::Visibility::Quiet;
        self.seen.job = None;
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
        if job.action.installs() && job.cancel.is_none() && !begun {
            // Waits for its witness, or gives way.
            return match super::image::wanted(&self.seen) {
                Some(_) => {}
                None => {
                    self.end(&job, JobResult::Superseded, Some(Problem::new(Reason::AlreadyDone, "there")));
                }
            };
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
        match job.action {
            _ if job.cancel.is_some() && !job.request_stored => {}
            Action::PowerOff => self.machine = PowerState::PoweredOff,
            Action::PowerOn | Action::Reboot | Action::Build | Action::Reimage => {
                self.machine = PowerState::PoweredOn;
            }
            _ => {}
        }
        let (machine, now_ms) = (self.machine, self.seen.now_ms);
        let result = if job.cancel.is_some() { JobResult::Cancelled } else { JobResult::Succeeded };
        if let Some(known) = self.known() {
            let reading = f::reading(machine);
            if let Some(foreign) = Contents::seen_in(known.contents.as_ref(), &reading, now_ms) {
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
        self.end(&job, result, problem);
    }

    fn fail(&mut self, reason: Reason) {
        let Some(job) = self.seen.job.clone().filter(LiveJob::started) else { return };
        let (cause, now_ms) = (self.seen.cause(), self.seen.now_ms);
        let problem = Problem::new(reason, "failed");
        if let Some(known) = self.known() {
            known.last_try_ms = Some(now_ms);
            known.failure = Some(StoredFailure {
                action: job.action,
                intent: job.intent.clone(),
                cause,
                problem: problem.clone(),
                at_ms: now_ms,
            });
        }
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

    /// One pass of the controller: decide, check what must always hold, write status, carry it out.
    fn pass(&mut self) -> Command {
        self.seen.shown_job_ended = self.seen.missing_job().is_some_and(|id| self.ended.contains(&id));
        let decision = decide(&self.seen);
        let shown = status(&self.seen, &decision);
        let _ = events(&self.seen, &decision, &shown);
        self.check(&decision.command);
        self.seen.server.status = Some(shown);
        self.apply(&decision.command);
        if !matches!(decision.command, Command::Cancel { .. }) {
            self.seen.another_history = false;
        }
        if let Command::Enqueue(_) = decision.command {
            let again = decide(&self.seen).command;
            assert!(!matches!(again, Command::Enqueue(_)), "decided twice: {again:?}");
        }
        decision.command
    }

    fn check(&self, command: &Command) {
        let Command::Enqueue(work) = command else { return };
        assert!(self.seen.job.is_none(), "a second live job");
        let known = self.seen.known.as_ref().unwrap();
        assert_eq!(known.claimed_address.as_deref(), self.seen.bmc_address.as_deref().ok());
        assert!(!self.seen.paused(), "enqueued while paused");
        if self.seen.server.metadata.deletion_timestamp.is_some() {
            assert_eq!(work.action, Action::PowerOff, "deleting does anything but power off");
        }
        if work.action == Action::Reboot {
            let token = self.seen.server.spec.reboot_token.as_deref();
            assert!(!self.seen.handled().is_handled(TokenKind::Reboot, token), "a handled token reboots");
        }
        if work.action.installs() {
            let spec = &self.seen.server.spec;
            assert_eq!(spec.provisioning, Provisioning::Install, "an adopted machine is installed");
            let pending = !self.seen.handled().is_handled(TokenKind::Reimage, spec.reimage_token.as_deref());
            match super::image::contents(&self.seen) {
                Some(Contents::Image(image)) => {
                    assert!(pending || Some(&image.name) != spec.image.as_ref().map(|wish| &wish.name));
                }
                Some(Contents::Foreign { .. }) => {
                    assert!(self.seen.server.metadata.annotations.is_some(), "built without a person's word");
                }
                Some(Contents::Unknown { .. }) | None => {}
            }
        }
        if let Some(failure) = &known.failure {
            let same = failure.intent == work.intent && failure.cause == self.seen.cause();
            // What stood between us and the BMC is over once the BMC was read well.
            let over = failure.problem.reason.failure_scope() == FailureScope::Bmc
                && known.last_good_read_ms.is_some_and(|at| at > failure.at_ms);
            assert!(!same || over || work.action == Action::Inspect, "a failed intent again");
        }
    }

    fn apply(&mut self, command: &Command) {
        match command {
            Command::Nothing(_) | Command::WakeJob { .. } => {}
            Command::AddFinalizer => {
                self.seen.server.metadata.finalizers = Some(vec![crate::api::names::FINALIZER.into()]);
            }
            Command::Register { handled, contents, .. } => {
                let (handled, contents) = (handled.clone(), contents.clone());
                self.seen.known = Some(Known { version: 1, handled, contents, ..Known::default() });
            }
            Command::ClaimBmc { address } => {
                let address = Some(address.clone());
                self.known().unwrap().claimed_address = address;
            }
            Command::Enqueue(work) => {
                let id = JobId::new(self.seen.now_ms, self.next_id);
                self.next_id += 1;
                self.seen.visibility = work.visibility;
                self.seen.job = Some(LiveJob {
                    id,
                    lane: work.lane,
                    intent: work.intent.clone(),
                    step: work.step,
                    ..f::job(&self.seen, work.action)
                });
            }
            Command::Cancel { id, reason } => {
                let job = self.seen.job.clone().filter(|job| job.id == *id).unwrap();
                if job.started() {
                    let job = self.seen.job.as_mut().unwrap();
                    job.cancel = Some(*reason);
                    job.state = JobState::Cancelling;
                } else {
                    self.end(&job, JobResult::Cancelled, Some(Problem::new(*reason, "never started")));
                }
            }
            Command::Reprioritize { lane, .. } => self.seen.job.as_mut().unwrap().lane = *lane,
            Command::RecordHandled { token, .. } => {
                self.known().unwrap().handled.record(token.kind, &token.value);
            }
            Command::RecordContents { contents } => {
                assert!(self.seen.job.as_ref().is_none_or(|job| !job.action.installs()));
                self.half_installed = false;
                self.known().unwrap().contents = Some(contents.clone());
            }
            Command::RecordLost { job, cause } => {
                let failure = StoredFailure {
                    action: job.action,
                    intent: job.intent.clone(),
                    cause: cause.clone(),
                    problem: job.problem.clone().unwrap(),
                    at_ms: self.seen.now_ms,
                };
                let known = self.known().unwrap();
                known.version += 1;
                (known.failure, known.last_job) = (Some(failure), Some(job.clone()));
            }
            Command::Release(_) => self.gone = true,
        }
    }

    /// Passes and an industrious worker until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..60 {
            if self.gone {
                return;
            }
            let mut command = self.pass();
            if matches!(command, Command::Enqueue(_)) {
                // The controller looks again at once.
                command = self.pass();
            }
            if self.seen.job.is_some() {
                self.happen(Happens::WorkerStarts);
                self.happen(Happens::WorkerFinishes);
            } else if matches!(command, Command::Nothing(_)) {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.seen);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_the_rules_hold_and_it_settles(story in proptest::collection::vec(happens(), 0..40)) {
        let mut world = World::new();
        for what in story {
            world.happen(what);
            for _ in 0..4 {
                if world.gone {
                    return Ok(());
                }
                world.pass();
            }
        }
        world.settle();
        if world.gone {
            return Ok(());
        }
        // Converged: nothing more is decided, written or told.
        let before = world.seen.server.status.clone();
        let decision = decide(&world.seen);
        prop_assert!(matches!(decision.command, Command::Nothing(_)));
        let after = status(&world.seen, &decision);
        prop_assert_eq!(before.as_ref(), Some(&after));
        prop_assert!(events(&world.seen, &decision, &after).is_empty());
    }

    #[test]
    fn a_first_sight_never_acts_on_a_token(story in proptest::collection::vec(happens(), 0..6)) {
        let mut world = World::new();
        world.seen.server.spec.reboot_token = Some("came-with-it".into());
        for what in story.into_iter().filter(|what| !matches!(what, Happens::LostDatabase)) {
            if !matches!(what, Happens::Token(_)) {
                world.happen(what);
            }
        }
        if world.seen.server.metadata.deletion_timestamp.is_none() {
            while !matches!(world.pass(), Command::Register { .. }) {}
            prop_assert!(world.seen.known.as_ref().unwrap().handled.is_handled(TokenKind::Reboot, Some("came-with-it")));
            prop_assert!(super::work::wanted(&world.seen).is_none_or(|work| work.action != Action::Reboot));
        }
    }

    #[test]
    fn a_deletion_always_ends(story in proptest::collection::vec(happens(), 0..30), power_off: bool) {
        let mut world = World::new();
        for what in story {
            world.happen(what);
            if world.gone {
                return Ok(());
            }
            world.pass();
        }
        world.happen(Happens::Pause(false));
        world.happen(Happens::Delete(if power_off { DeletionPolicy::PowerOff } else { DeletionPolicy::Retain }));
        // No worker does anything any more: only time passes.
        for _ in 0..60 {
            world.pass();
            if world.gone {
                return Ok(());
            }
            world.happen(Happens::Time(60_000));
        }
        prop_assert!(
            world.seen.server.metadata.finalizers.is_none(),
            "the object hangs: {:?}", decide(&world.seen)
        );
    }

    #[test]
    fn no_status_makes_it_panic(generation in proptest::option::of(any::<i64>()), tokens in proptest::collection::vec(".*", 0..12), now: i64) {
        let mut seen = f::ready();
        seen.now_ms = now / 4;
        seen.server.metadata.generation = generation;
        let shown = seen.server.status.as_mut().unwrap();
        shown.observed_generation = generation;
        shown.reboot_tokens = tokens;
        shown.phase = None;
        shown.conditions.truncate(1);
        let decision = decide(&seen);
        let after = status(&seen, &decision);
        prop_assert!(after.reboot_tokens.len() <= crate::job::HANDLED_TOKENS_KEPT);
        let _ = events(&seen, &decision, &after);
    }
}
