//! What an operator may set.

use std::time::Duration;

use super::DestructionBudget;
use super::leader::ElectionSettings;
use crate::api::WipeImages;
use crate::plan;

/// Settings of the controller.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// The namespaces whose Servers are looked after.
    pub namespaces: Vec<String>,
    /// How the leader is elected.
    pub election: ElectionSettings,
    /// Reconciles at once.
    pub concurrency: u16,
    /// Periods and bounds of decisions.
    pub plan: plan::Settings,
    /// The lease of workers: one whose heartbeat stands still for so long is dead.
    pub worker_lease: Duration,
    /// What erases disks.
    pub wipe_images: WipeImages,
    /// How many machines of a namespace may have their data given up in one hour.
    pub destruction_budget: DestructionBudget,
    /// How many jobs of a namespace may be `Urgent` at once; 0: there is no bound.
    pub urgent_per_namespace: u16,
    /// How long ended jobs stay in the history.
    pub history_retention: Duration,
}
