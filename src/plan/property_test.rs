//! Properties, checked on a small world: decisions are applied to what is known and to the live job as the queue does
//! it, a worker carries jobs out or fails, and a user changes the wish in between.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use proptest::prelude::*;

use super::property_story::{Happens, happens};
use super::property_world::World;
use super::{Budget, Command, Decision, Observation, Share, decide, events, fixture as f, status};
use crate::api::hardware::PowerState;
use crate::api::{DeletionPolicy, FailureScope, Lifecycle, Power, Provisioning, Reason, ServerStatus};
use crate::job::{
    Action, Contents, Event, JobId, JobResult, JobState, Known, LiveJob, Problem, StoredFailure, TokenKind,
};

impl World {
    /// One pass of the controller: decide, check what must always hold, write status, carry it out.
    fn pass(&mut self) -> Command {
        self.seen.shown_job_ended = self.seen.missing_job().is_some_and(|id| self.ended.contains(&id));
        let decision = decide(&self.seen);
        let shown = status(&self.seen, &decision);
        let _ = events(&self.seen, &decision, &shown);
        self.check(&decision.command);
        check_that_it_is_heard(&self.seen, &decision, &shown);
        self.check_debt(&decision, &shown);
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
            let expected: &[Action] = match self.seen.server.spec.deletion_policy {
                DeletionPolicy::Wipe => &[Action::Wipe, Action::Inspect],
                DeletionPolicy::PowerOff => &[Action::PowerOff],
                DeletionPolicy::Retain => &[Action::PowerOn],
            };
            assert!(expected.contains(&work.action), "deleting does {}", work.action);
        } else if self.seen.server.spec.lifecycle == Lifecycle::Decommissioned {
            assert!(matches!(work.action, Action::Decommission | Action::Inspect), "{}", work.action);
        }
        assert!(work.share == Share::Nothing || self.seen.budget == Budget::Left, "over the budget");
        assert!(!self.ended_for_good, "{} after its end", work.action);
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
                Some(Contents::Decommissioned { .. }) => panic!("installed after its end"),
                Some(Contents::Foreign { .. } | Contents::Interrupted { .. }) => {
                    assert!(self.seen.server.metadata.annotations.is_some(), "built without a person's word");
                }
                Some(Contents::Unknown { .. } | Contents::Doubtful { .. } | Contents::Wiped { .. })
                | None => {}
            }
        }
        if let Some(failure) = &known.failure {
            let same = failure.intent == work.intent && super::failure::still_caused(&self.seen, failure);
            // What stood between us and the BMC is over once the BMC was read well.
            let over = failure.problem.reason.failure_scope() == FailureScope::Bmc
                && known.last_good_read_ms.is_some_and(|at| at > failure.at_ms);
            let to_on = work.action == Action::PowerOn
                && (known.debt.is_some() || self.seen.now_ms - failure.at_ms >= 900_000);
            assert!(!same || over || to_on || work.action == Action::Inspect, "a failed intent again");
        }
    }

    /// A machine that was left off is being switched on, is wished off, or status says so and looks again.
    fn check_debt(&self, decision: &Decision, shown: &ServerStatus) {
        // What is really owed is paid; a person is told where the database lost what shows that it is.
        if let Some(debt) = super::debt::standing(&self.seen) {
            let shall_be_on = self.seen.spec().power == Some(Power::PoweredOn);
            let is_heard = super::debt::to_pay(&self.seen).is_some() || super::debt::shall_be_off(&self.seen);
            let is_told = super::debt::unexplained(&self.seen).is_some();
            let has_lost = self.has_lost_history;
            assert!(
                is_heard || (has_lost && (is_told || shall_be_on)),
                "forgotten: {debt:?} {:#?}",
                self.seen.server.status
            );
        }
        let Some(debt) = super::debt::to_pay(&self.seen) else { return };
        let known = self.seen.known.as_ref().unwrap();
        let reads_on = known.last_good_read_ms.is_some_and(|at| at > debt.since_ms)
            && known.reading.as_ref().is_some_and(|reading| reading.power == PowerState::PoweredOn);
        let at_work = matches!(&decision.command, Command::Enqueue(work) if work.action == Action::PowerOn)
            || self.seen.job.is_some()
            || matches!(decision.command, Command::Release(_));
        let says = |kind| {
            let found = shown.conditions.iter().find(|one| one.type_ == kind && one.status == "True");
            found.is_some_and(|one| one.reason == "LeftPoweredOff")
        };
        let waits = decision.recheck_after_ms.is_some()
            || !matches!(decision.command, Command::Nothing(_))
            || !super::debt::can_be_paid(&self.seen);
        // Before it is let go it is switched on, with the pause between two tries.
        let first = decision.command == Command::Nothing(Reason::PoweringOn);
        assert!(
            at_work || reads_on || ((says("Stalled") || first) && waits),
            "{debt:?} {decision:?} {shown:#?}"
        );
    }

    fn apply(&mut self, command: &Command) {
        match command {
            Command::Nothing(_) | Command::WakeJob { .. } => {}
            Command::Recommission => panic!("nobody refused it"),
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
                f::own(&mut self.seen);
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
                let known = self.known().unwrap();
                known.contents = Some(contents.clone());
                if let Contents::Image(image) = contents {
                    let adopted = Event::Adopted(image.clone());
                    known.failure = known.failure.take().filter(|failure| !adopted.ends(failure));
                }
            }
            Command::RecordDebt { debt } => {
                let known = self.known().unwrap();
                assert!(known.debt != *debt, "recorded twice");
                known.version += 1;
                known.debt.clone_from(debt);
            }
            Command::RecordLost { job, cause, debt } => {
                let failure = StoredFailure {
                    action: job.action,
                    intent: job.intent.clone(),
                    cause: cause.clone(),
                    problem: job.problem.clone().unwrap(),
                    at_ms: self.seen.now_ms,
                    behind: None,
                };
                let known = self.known().unwrap();
                known.version += 1;
                (known.failure, known.last_job) = (Some(failure), Some(job.clone()));
                let lost = Event::Lost(job.action).contents(known.contents.as_ref(), job.finished_at_ms);
                known.contents = lost.or(known.contents.take());
                if debt.is_some() {
                    known.debt.clone_from(debt);
                }
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

/// A wish that differs from what is known has a job, a true reason to wait, or a look that is due within seconds; and no
/// worker is blamed for a job that is not there.
fn check_that_it_is_heard(seen: &Observation, decision: &Decision, shown: &ServerStatus) {
    if !matches!(decision.command, Command::Nothing(_)) {
        return;
    }
    let soon = decision.recheck_after_ms.is_some_and(|ms| ms <= 5_000);
    let job = seen.job.as_ref().filter(|job| job.cancel.is_none());
    let works = job.is_some_and(|job| job.action != Action::Inspect);
    let waits = seen.paused()
        || seen.secret.is_none()
        || seen.unreadable_job.is_some()
        || seen.bmc_address.is_err()
        || super::claims::refusal(seen).is_some()
        || super::lifecycle::is_over(seen)
        || super::work::wanted(seen).is_none_or(|work| work.action == Action::Inspect);
    let deleting = seen.server.metadata.deletion_timestamp.is_some();
    assert!(works || waits || deleting || soon, "a wish is not heard: {seen:#?}");
    assert!(
        seen.job.as_ref().is_none_or(|job| job.cancel.is_none()) || soon,
        "nothing follows the end of a job"
    );
    let blamed = shown.conditions.iter().any(|one| one.reason == Reason::Queued.as_str());
    assert!(
        !blamed || seen.job.is_some() || seen.budget != Budget::Left,
        "workers are blamed for no job: {seen:#?}"
    );
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
        world.seen.server.spec.reimage_token = Some("came-with-it".into());
        for what in story.into_iter().filter(|what| !matches!(what, Happens::LostDatabase)) {
            if !matches!(what, Happens::Token(_) | Happens::Reimage(_)) {
                world.happen(what);
            }
        }
        if world.seen.server.metadata.deletion_timestamp.is_none() {
            while !matches!(world.pass(), Command::Register { .. }) {}
            for kind in [TokenKind::Reboot, TokenKind::Reimage] {
                prop_assert!(world.seen.known.as_ref().unwrap().handled.is_handled(kind, Some("came-with-it")));
            }
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
