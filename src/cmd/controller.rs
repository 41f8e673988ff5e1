//! `autobuild controller`: compares each Server with its machine, enqueues what is due, writes `status`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::connect::{self, ClusterError, DatabaseArgs};
use crate::api::WipeImages;
use crate::config::{duration, image_name, is_dns_label, ms};
use crate::controller::{self, ControllerSettings, DestructionBudget, ElectionSettings};
use crate::http::{self, Readiness, ServeError};
use crate::plan;
use crate::queue::QueueError;

/// Decides what each Server needs and shows what was found. Any number of replicas: one leads, the others stand by.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    http: http::Args,
    /// The namespaces whose Servers are looked after, separated by commas
    #[arg(long, value_name = "NAMESPACE,...", required = true, value_delimiter = ',', value_parser = namespace)]
    watch_namespaces: Vec<String>,
    /// The namespace of the Lease by which the leader is elected
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    lease_namespace: String,
    /// The name of that Lease
    #[arg(long, value_name = "NAME", default_value = "autobuild-controller", value_parser = lease_name)]
    lease_name: String,
    /// How long a leader that is not heard of keeps the others waiting
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// How often the leader renews its Lease; at most a third of --lease-duration
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    renew_period: Duration,
    /// Servers that are looked at at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// How often each BMC is looked at although nothing happened
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    inspect_period: Duration,
    /// How old the last good reading of a BMC may be before the condition Fresh is False
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    fresh_bound: Duration,
    /// How soon a power state in transition is read again
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    transition_period: Duration,
    /// After how long an unreachable BMC with work pending counts as Stalled
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    stalled_after: Duration,
    /// How long the deletion of a Server waits for what a job had begun to be undone
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    undo_wait: Duration,
    /// How long a deletion with deletionPolicy PowerOff tries to power off
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    power_off_wait: Duration,
    /// The --lease of the workers: one whose heartbeat stands still for so long is dead
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    worker_lease: Duration,
    /// The OSImage that erases disks, in the namespace of each Server; the same for all controllers and workers
    #[arg(long, value_name = "NAME", default_value = "wipe", value_parser = image_name)]
    wipe_image: String,
    /// The OSImage that erases the disks of machines with bootMethod VirtualMedia; the same for all controllers and workers
    #[arg(long, value_name = "NAME", default_value = "wipe-iso", value_parser = image_name)]
    wipe_iso: String,
    /// How many machines of a namespace may have their data given up in one hour, by reimages, wipes, decommissions and
    /// builds on machines that are not blank: a number, a share of its Servers such as 10% (and at least 10), or unlimited
    #[arg(long, value_name = "N|N%|unlimited", default_value = "10%")]
    destruction_budget: DestructionBudget,
    /// How many jobs of a namespace may be Urgent at once; further ones wait as without spec.priority; 0: any number
    #[arg(long, value_name = "N", default_value_t = 16)]
    urgent_per_namespace: u16,
    /// How long a watch of the API server may show nothing, no bookmark either, before it is opened again
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = duration)]
    watch_silence: Duration,
    /// How long ended jobs stay in the history
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = duration)]
    history_retention: Duration,
}

/// Why the controller did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(
        "--lease-duration {duration:?} is less than three times --renew-period {renew:?}: one renewal that fails \
         would cost the lease; give a longer duration or a shorter period"
    )]
    Lease { duration: Duration, renew: Duration },
    #[error("{0} is 0: give a time such as 10s")]
    Zero(&'static str),
}

pub(super) async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    args.check()?;
    let readiness = Readiness::default();
    let served = CancellationToken::new();
    let _until_the_end = served.clone().drop_guard();
    readiness.waits("leader election", "not begun");
    http::serve(&args.http, readiness.clone(), served).await?;
    let client = connect::cluster(args.watch_silence, &readiness).await?;
    let Some(queue) = connect::database(&args.database, &readiness, &stop).await? else { return Ok(()) };
    controller::run(client, queue.clone(), args.settings(), readiness, stop).await;
    queue.close().await;
    tracing::info!("ended");
    Ok(())
}

impl Args {
    fn check(&self) -> Result<(), Error> {
        let times = [
            ("--renew-period", self.renew_period),
            ("--inspect-period", self.inspect_period),
            ("--fresh-bound", self.fresh_bound),
            ("--transition-period", self.transition_period),
            ("--worker-lease", self.worker_lease),
            ("--watch-silence", self.watch_silence),
            ("--history-retention", self.history_retention),
        ];
        if let Some((flag, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(Error::Zero(flag));
        }
        if self.lease_duration < self.renew_period * 3 {
            return Err(Error::Lease { duration: self.lease_duration, renew: self.renew_period });
        }
        Ok(())
    }

    fn settings(self) -> ControllerSettings {
        let mut namespaces = self.watch_namespaces;
        namespaces.sort();
        namespaces.dedup();
        ControllerSettings {
            namespaces,
            election: ElectionSettings {
                namespace: self.lease_namespace,
                name: self.lease_name,
                duration: self.lease_duration,
                renew_period: self.renew_period,
            },
            concurrency: self.concurrency,
            plan: plan::Settings {
                inspect_period_ms: ms(self.inspect_period),
                fresh_bound_ms: ms(self.fresh_bound),
                transition_period_ms: ms(self.transition_period),
                stalled_after_ms: ms(self.stalled_after),
                undo_wait_ms: ms(self.undo_wait),
                power_off_wait_ms: ms(self.power_off_wait),
            },
            worker_lease: self.worker_lease,
            wipe_images: WipeImages { network: self.wipe_image, iso: self.wipe_iso },
            destruction_budget: self.destruction_budget,
            urgent_per_namespace: self.urgent_per_namespace,
            history_retention: self.history_retention,
        }
    }
}

/// A name of a namespace (RFC 1123 label).
fn namespace(text: &str) -> Result<String, String> {
    if is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is no name of a namespace: write 1 to 63 lower-case letters, digits and '-', such as default"
        ))
    }
}

/// A name of a Lease (RFC 1123 subdomain).
fn lease_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is no name of a Lease: write 1 to 253 lower-case letters, digits, '-' and '.', such as \
             autobuild-controller"
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(more: &[&str]) -> Result<Args, String> {
        let fixed =
            ["controller", "--database-url", "mysql://u@h/d", "--lease-namespace", "autobuild-system"];
        Line::try_parse_from(fixed.iter().chain(more))
            .map(|line| line.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn namespaces_are_listed_once_each() {
        let args = line(&["--watch-namespaces", "b,a,b"]).unwrap();
        args.check().unwrap();
        assert_eq!(args.settings().namespaces, ["a", "b"]);
    }

    #[test]
    fn bad_flags_are_named_with_the_way_out() {
        for (more, says) in [
            (&[][..], "--watch-namespaces"),
            (&["--watch-namespaces", "Bad_Name"], "no name of a namespace"),
            (&["--watch-namespaces", ""], "no name of a namespace"),
            (&["--watch-namespaces", "a", "--lease-name", ""], "no name of a Lease"),
            (&["--watch-namespaces", "a", "--lease-name", "a..b"], "no name of a Lease"),
            (&["--watch-namespaces", "a", "--concurrency", "0"], "1..=1000"),
            (&["--watch-namespaces", "a", "--inspect-period", "5"], "such as 10s"),
        ] {
            let error = line(more).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_lease_that_one_late_renewal_would_cost_is_refused() {
        let args = line(&["--watch-namespaces", "a", "--lease-duration", "6s"]).unwrap();
        assert!(args.check().unwrap_err().to_string().contains("three times --renew-period"));
        let args = line(&["--watch-namespaces", "a", "--inspect-period", "0s"]).unwrap();
        assert!(args.check().unwrap_err().to_string().contains("--inspect-period is 0"));
    }
}
