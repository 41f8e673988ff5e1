//! Leader election over one `coordination.k8s.io` Lease.
//!
//! It saves work; it is not what keeps two leaders apart. Every enqueue names the version that it was decided on and
//! every status patch the resourceVersion, so two leaders for a moment do no harm.
#![expect(clippy::disallowed_types, reason = "the leader is elected by a Lease")]
#![expect(
    clippy::disallowed_methods,
    reason = "a lease is a matter of time: the monotonic clock decides, the wall clock is for people"
)]

mod evaluate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use self::evaluate::{Move, Record, evaluate, is_overlong};
use super::api_call::{ApiError, call};
use crate::http::Readiness;
use crate::metrics;

/// How the Lease is held.
#[derive(Debug, Clone)]
pub struct ElectionSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// For how long one renewal is good.
    pub duration: Duration,
    /// How often it is renewed.
    pub renew_period: Duration,
}

/// Whether this process may act as the leader, at this very moment. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Leadership {
    /// Acting ends a margin before anybody else could take the Lease, counted from when the renewal was sent.
    pub(super) fn holds(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// One candidate.
pub(super) struct Elector {
    leases: Api<Lease>,
    settings: ElectionSettings,
    me: String,
    leadership: Leadership,
    /// The record as last read, and since when it has been this one.
    seen: Option<(Record, Instant)>,
    said: String,
}

impl Elector {
    pub(super) fn new(client: Client, settings: ElectionSettings, host: &str) -> Self {
        let me = format!("{host}_{:016x}", rand::random::<u64>());
        let leases = Api::namespaced(client, &settings.namespace);
        Self { leases, settings, me, leadership: Leadership::default(), seen: None, said: String::new() }
    }

    pub(super) fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until this process leads; `false`: asked to stop before.
    pub(super) async fn campaign(&mut self, readiness: &Readiness, stop: &CancellationToken) -> bool {
        metrics::LEADER.set(&[&self.settings.name], 0.0);
        loop {
            match self.look().await {
                Ok(true) => {
                    readiness.ready("leader election");
                    readiness.remark(None);
                    metrics::LEADER.set(&[&self.settings.name], 1.0);
                    tracing::info!(lease = self.settings.name, identity = self.me, "leading");
                    return true;
                }
                Ok(false) => {
                    if let Some(message) = self.overlong() {
                        self.tell(&message, readiness);
                    } else {
                        self.said.clear();
                        readiness.ready("leader election");
                        readiness.remark(Some("standby"));
                    }
                }
                Err(error) => self.tell(&error.to_string(), readiness),
            }
            // A standby looks as often as a leader renews, so that it takes over within the lease time.
            tokio::select! {
                () = tokio::time::sleep(jittered(self.settings.renew_period.min(Duration::from_secs(2)))) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Renews until the Lease is lost or `done`.
    pub(super) async fn hold(&mut self, readiness: &Readiness, done: &CancellationToken) {
        loop {
            // After a failure there is only the rest of the lease time left.
            let hurry = (self.settings.renew_period / 5).max(Duration::from_millis(100));
            let pause = if self.said.is_empty() { self.settings.renew_period } else { hurry };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = done.cancelled() => return,
            }
            match self.look().await {
                Ok(true) => readiness.ready("leader election"),
                Ok(false) => break,
                Err(error) => self.tell(&error.to_string(), readiness),
            }
            if !self.leadership.holds() {
                break;
            }
        }
        self.leadership.set(None);
        metrics::LEADER.set(&[&self.settings.name], 0.0);
        tracing::warn!(
            lease = self.settings.name,
            "the lease was lost: this process stops deciding and stands for election again"
        );
    }

    /// Gives the Lease back, so that another one leads at once. Only when nothing is being done any more.
    pub(super) async fn release(&mut self) {
        self.leadership.set(None);
        metrics::LEADER.set(&[&self.settings.name], 0.0);
        let released = async {
            let mut lease = call("get the lease", self.leases.get(&self.settings.name)).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
                return Ok(false);
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.replace("release the lease", &lease).await.map(|_| true)
        };
        match released.await {
            Ok(true) => tracing::info!(lease = self.settings.name, "released the lease"),
            Ok(false) => {}
            Err(ApiError::Conflict(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "the lease was not released; another one leads when it has run out");
            }
        }
    }

    /// [`Elector::step`] within the time that is left for it. A write whose answer was lost shows at the next look.
    async fn look(&mut self) -> Result<bool, ApiError> {
        match tokio::time::timeout(self.settings.renew_period, self.step()).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::Failed {
                what: "look at the lease",
                message: format!("no answer within {:?}", self.settings.renew_period),
            }),
        }
    }

    /// One look, and what follows from it; whether this process leads now.
    async fn step(&mut self) -> Result<bool, ApiError> {
        let sent = Instant::now();
        let found = match call("get the lease", self.leases.get(&self.settings.name)).await {
            Ok(lease) => Some(lease),
            Err(ApiError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(mut lease) = found else {
            let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None, 0)) };
            let created = call("create the lease", self.leases.create(&PostParams::default(), &lease)).await;
            return self.written(created, sent);
        };
        let record = record(&lease, self.settings.duration);
        if self.seen.as_ref().is_none_or(|(before, _)| *before != record) {
            self.seen = Some((record.clone(), Instant::now()));
        }
        let unchanged_for = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let next = evaluate(&record, &self.me, unchanged_for);
        let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
        lease.spec = Some(match next {
            Move::Wait => return Ok(false),
            Move::Renew => self.spec(acquired, record.transitions),
            Move::Acquire => self.spec(None, record.transitions.saturating_add(1)),
        });
        let updated = self.replace("update the lease", &lease).await;
        self.written(updated, sent)
    }

    /// Conditional on the resourceVersion that was read.
    async fn replace(&self, what: &'static str, lease: &Lease) -> Result<Lease, ApiError> {
        call(what, self.leases.replace(&self.settings.name, &PostParams::default(), lease)).await
    }

    fn written(&mut self, result: Result<Lease, ApiError>, sent: Instant) -> Result<bool, ApiError> {
        match result {
            Ok(lease) => {
                self.said.clear();
                self.seen = Some((record(&lease, self.settings.duration), Instant::now()));
                // The rest is the margin.
                self.leadership.set(Some(sent + self.settings.duration * 4 / 5));
                Ok(true)
            }
            // Somebody was faster: the next look tells who.
            Err(ApiError::Conflict(_)) => Ok(self.leadership.holds()),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(whole_seconds(self.settings.duration)),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// What is wrong with a Lease that this process waits for.
    fn overlong(&self) -> Option<String> {
        let (record, since) = self.seen.as_ref()?;
        let ElectionSettings { namespace, name, duration, .. } = &self.settings;
        is_overlong(record, *duration, since.elapsed()).then(|| {
            format!(
                "the Lease {name} has leaseDurationSeconds {}, more than --lease-duration, and {} does not renew it: until that time is \
                 over nobody leads. Where that process is gone, run: kubectl delete lease {name} -n {namespace}",
                record.duration.as_secs(),
                record.holder,
            )
        })
    }

    fn tell(&mut self, message: &str, readiness: &Readiness) {
        readiness.waits("leader election", message);
        if self.said != message {
            tracing::warn!(lease = self.settings.name, "leader election: {message}");
            message.clone_into(&mut self.said);
        }
    }
}

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX).max(1)
}

fn record(lease: &Lease, default: Duration) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|it| u64::try_from(it).ok());
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration: seconds.map_or(default, Duration::from_secs),
        renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.to_string()),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or(0),
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..1.2))
}
