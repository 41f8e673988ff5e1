//! What an operator decides about a worker.

use std::time::Duration;

use crate::api::WipeImages;
use crate::bmc::ImageUrl;
use crate::boot::PublicUrl;

/// Settings of one worker process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The BMC network that it serves.
    pub site: String,
    /// The name of its host, for people only.
    pub host: String,
    /// Jobs that run at once.
    pub slots: usize,
    /// Of these, those that only urgent jobs may use.
    pub urgent_slots: usize,
    /// Slots that jobs of one namespace may hold where others are known; `None`: three times as many as stay free.
    pub slots_per_namespace: Option<u32>,
    /// One claim in so many starts from a lower lane; 0: none does.
    pub lower_share: u32,
    /// Installations in flight at once at the site.
    pub installs: u32,
    /// How long a job may hold its slot.
    pub slot_deadline: Duration,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long the same heartbeat may be seen before others take over.
    pub lease: Duration,
    /// How long SIGTERM waits for steps that run.
    pub grace: Duration,
    /// The longest time of one request to a BMC.
    pub request_timeout: Duration,
    /// How long the operating system may take to shut down before the power is cut.
    pub shutdown_deadline: Duration,
    /// How long a power change may take once the BMC accepted it.
    pub power_deadline: Duration,
    /// How soon a power state that was asked for is read again.
    pub power_poll: Duration,
    /// How long a job that switched a machine off tries to switch it on again, whatever is in the way.
    pub power_on_patience: Duration,
    /// How long a machine may take from its start until it fetches its boot script.
    pub boot_deadline: Duration,
    /// How long an installation may take from then on.
    pub install_deadline: Duration,
    /// How long erasing the disks may take.
    pub wipe_deadline: Duration,
    /// What erases disks.
    pub wipe_images: WipeImages,
    /// How long a job that was asked to stop tries to undo what it began.
    pub undo_deadline: Duration,
    /// Where BMCs reach the boot service, for virtual media; `None`: no machine is installed by them.
    pub boot_url: Option<PublicUrl>,
    /// The boot program that BMCs are told for UEFI HTTP boot; `None`: DHCP tells.
    pub http_boot_uri: Option<ImageUrl>,
    /// The key of the hashes that tell a changed Secret; the same in every worker.
    pub login_key: Vec<u8>,
}

impl Settings {
    /// How long before the lease is over nothing is touched any more: a fifth of it.
    pub(super) fn margin(&self) -> Duration {
        self.lease / 5
    }

    /// For how long a request may still take effect after it was stored, where the one before took `to_store` for that.
    pub(super) fn settle(&self, to_store: Duration) -> Duration {
        settle(self.request_timeout, self.lease, to_store)
    }

    /// The longest settle time.
    pub(super) fn longest_settle(&self) -> Duration {
        self.settle(self.lease)
    }

    /// How many slots jobs of one namespace may hold whose BMCs did not answer, or were busy: a tenth, so that a dead rack holds
    /// up nobody else.
    pub(super) fn unreachable_slots(&self) -> usize {
        (self.slots / 10).max(1)
    }

    /// The same for all namespaces together: half.
    pub(super) fn unreachable_slots_in_all(&self) -> usize {
        (self.slots / 2).max(1)
    }
}

/// A request's time-out, waiting for the BMC's turn included, and a margin for the way. Storing is a part of it: on a slow
/// database the margin is twice what storing took, or no request could ever be sent. One that takes longer to store than
/// the lease lasts is not sent.
fn settle(request_timeout: Duration, lease: Duration, to_store: Duration) -> Duration {
    let margin = (request_timeout / 2).max(Duration::from_secs(1));
    request_timeout + margin.max((to_store * 2).min(lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_store_is_stored_again_with_time_enough_to_be_sent() {
        let (timeout, lease) = (Duration::from_secs(2), Duration::from_secs(10));
        assert_eq!(settle(timeout, lease, Duration::ZERO), Duration::from_secs(3));
        for tenths in 0..=100 {
            let to_store = Duration::from_millis(100 * tenths);
            let settle = settle(timeout, lease, to_store);
            assert!(settle >= timeout + to_store, "{to_store:?}: {settle:?}");
            assert!(settle <= self::settle(timeout, lease, lease));
        }
    }
}
