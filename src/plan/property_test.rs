//! Properties, checked on a small world: decisions are applied to what is known and to the live job as the queue does
//! it, a worker carries jobs out or fails, and a user changes the wish in between.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Command, Observation, decide, events, fixture as f, status};
use crate::api::hardware::PowerState;
use crate::api::{DeletionPolicy, FailureScope, Power, Reason, ServerStatus};
use crate::job::{
    Action, FinishedJob, JobId, JobResult, JobState, Known, LiveJob, Problem, StoredFailure, WaitingFor,
};

#[derive(Debug, Clone, Copy)]
enum Happens {
    Power(Option<Power>),
    Token(Option<u8>),
    Pause(bool),
    Delete(DeletionPolicy),
    Address(u8),
    NewSecret,
    LostDatabase,
    Replicated,
    LostCommits,
    ButtonPressed,
    Time(i64),
    WorkerStarts,
    WorkerSends,
    WorkerFinishes,
    WorkerFails(Reason),
    WorkerParks(Reason),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens as H;
    let failures = prop_oneof![
        Just(Reason::PowerStateMismatch),
        Just(Reason::CredentialsInvalid),
        Just(Reason::IdentityMismatch),
        Just(Reason::SystemNotFound),
        Just(Reason::CrashLimit),
    ];
    let powers = prop_oneof![Just(None), Just(Some(Power::PoweredOn)), Just(Some(Power::PoweredOff))];
    let policies = prop_oneof![Just(DeletionPolicy::Retain), Just(DeletionPolicy::PowerOff)];
    let parks =
        prop_oneof![Just(Reason::Unreachable), Just(Reason::CredentialsInvalid), Just(Reason::BMCBusy)];
    // Weighted so that most stories get as far as work that fails.
    prop_oneof![
        4 => powers.prop_map(H::Power),
        3 => proptest::option::of(0_u8..4).prop_map(H::Token),
        1 => any::<bool>().prop_map(H::Pause),
        1 => policies.prop_map(H::Delete),
        1 => (0_u8..2).prop_map(H::Address),
        1 => Just(H::NewSecret),
        1 => Just(H::LostDatabase),
        2 => Just(H::Replicated),
        1 => Just(H::LostCommits),
        2 => Just(H::ButtonPressed),
        2 => (0_i64..1_000_000).prop_map(H::Time),
        9 => Just(H::WorkerStarts),
        3 => Just(H::WorkerSends),
        7 => Just(H::WorkerFinishes),
        3 => failures.prop_map(H::WorkerFails),
        2 => parks.prop_map(H::WorkerParks),
    ]
}

#[derive(Debug, Clone)]
struct World {
    seen: Observation,
    machine: PowerState,
    next_id: u64,
    gone: bool,
    ended: BTreeSet<JobId>,
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
        match what {
            Happens::Power(power) => {
                self.seen.server.spec.power = power;
                self.spec_changed();
            }
            Happens::Token(token) => {
                self.seen.server.spec.reboot_token = token.map(|token| token.to_string());
                self.spec_changed();
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
        self.seen.job.as_mut().unwrap().request_stored = true;
        let token = self.seen.server.spec.reboot_token.clone();
        if let (Action::Reboot, Some(token), Some(known)) = (job.action, token, self.known()) {
            known.handled.record_reboot(&token);
        }
    }

    /// Whether the live read shows that a job which sent nothing was done already.
    fn is_handled(&self, job: &LiveJob) -> bool {
        let token = self.seen.server.spec.reboot_token.as_deref();
        job.action == Action::Reboot && !job.request_stored && self.seen.handled().reboot_is_handled(token)
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
        match job.action {
            _ if job.cancel.is_some() && !job.request_stored => {}
            Action::PowerOff => self.machine = PowerState::PoweredOff,
            Action::PowerOn | Action::Reboot => self.machine = PowerState::PoweredOn,
            _ => {}
        }
        let (machine, now_ms) = (self.machine, self.seen.now_ms);
        let result = if job.cancel.is_some() { JobResult::Cancelled } else { JobResult::Succeeded };
        if let Some(known) = self.known() {
            known.reading = Some(f::reading(machine));
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
            assert!(!self.seen.handled().reboot_is_handled(token), "a handled token reboots");
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
            Command::Register { handled, .. } => {
                self.seen.known = Some(Known { version: 1, handled: handled.clone(), ..Known::default() });
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
            Command::RecordHandled { reboot_token, .. } => {
                self.known().unwrap().handled.record_reboot(reboot_token);
            }
            Command::RecordLost { job, .. } => {
                unreachable!("no action that destroys data has steps yet: {job:?}")
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
            prop_assert!(world.seen.known.as_ref().unwrap().handled.reboot_is_handled(Some("came-with-it")));
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

#[test]
fn a_job_that_waits_for_credentials_wakes_with_a_new_secret_and_only_then() {
    let mut seen = f::ready();
    seen.server.spec.power = Some(Power::PoweredOff);
    seen.server.status.as_mut().unwrap().observed_generation = seen.server.metadata.generation;
    seen.job = Some(f::parked(&seen, Action::PowerOff, Reason::CredentialsInvalid, 1000));
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    seen.secret.as_mut().unwrap().resource_version = "8".into();
    assert!(matches!(decide(&seen).command, Command::WakeJob { .. }));
}

#[test]
fn a_job_of_another_release_holds_everything_but_a_deletion_whose_time_is_over() {
    let mut seen = f::ready();
    seen.server.spec.power = Some(Power::PoweredOff);
    seen.unreadable_job = Some(f::unreadable());
    assert_eq!(decide(&seen).command, Command::Nothing(Reason::UnsupportedJob));
    let (undo, off) = (seen.settings.undo_wait_ms, seen.settings.power_off_wait_ms);
    for (policy, paused, ago, released) in [
        (DeletionPolicy::Retain, true, undo - 1_000, false),
        (DeletionPolicy::Retain, true, undo, true),
        (DeletionPolicy::PowerOff, false, undo + off - 1_000, false),
        (DeletionPolicy::PowerOff, false, undo + off, true),
        (DeletionPolicy::PowerOff, true, undo + off, false),
    ] {
        seen.server.spec.deletion_policy = policy;
        seen.server.spec.paused = Some(paused);
        f::delete(&mut seen, ago);
        let goes = matches!(decide(&seen).command, Command::Release(_));
        assert_eq!(goes, released, "{policy:?}, paused {paused}, deleted {ago} ms ago");
    }
}

#[test]
fn a_job_that_waits_for_its_bmc_wakes_when_a_look_is_asked_for_and_only_once() {
    let mut seen = f::ready();
    seen.server.spec.power = Some(Power::PoweredOff);
    seen.server.status.as_mut().unwrap().observed_generation = seen.server.metadata.generation;
    seen.job = Some(f::parked(&seen, Action::PowerOff, Reason::Unreachable, 1000));
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    let asked = k8s_openapi::jiff::Timestamp::from_millisecond(seen.now_ms).unwrap().to_string();
    let annotations = [(crate::api::names::RECONCILE_REQUESTED_AT.to_owned(), asked)];
    seen.server.metadata.annotations = Some(annotations.into());
    assert!(matches!(decide(&seen).command, Command::WakeJob { .. }));
    f::known(&mut seen).last_try_ms = Some(seen.now_ms);
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
}

#[test]
fn a_look_gives_way_to_work_and_another_priority_moves_the_job() {
    let mut seen = f::ready();
    seen.job = Some(f::job(&seen, Action::Inspect));
    assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    seen.server.spec.power = Some(Power::PoweredOff);
    assert!(matches!(decide(&seen).command, Command::Cancel { reason: Reason::Replaced, .. }));
    seen.job = Some(f::job(&seen, Action::PowerOff));
    assert!(matches!(decide(&seen).command, Command::Nothing(Reason::Queued)));
    seen.server.spec.priority = Some(crate::api::Priority::Urgent);
    assert!(matches!(decide(&seen).command, Command::Reprioritize { lane: crate::job::Lane::Urgent, .. }));
}

#[test]
fn a_reboot_whose_off_was_sent_runs_to_its_end() {
    let mut seen = f::ready();
    seen.server.spec.reboot_token = Some("1".into());
    let mut job = f::started(&seen, Action::Reboot);
    job.request_stored = true;
    seen.job = Some(job);
    f::known(&mut seen).handled.record_reboot("1");
    seen.server.spec.power = Some(Power::PoweredOff);
    assert!(matches!(decide(&seen).command, Command::Nothing(Reason::Rebooting)));
}
