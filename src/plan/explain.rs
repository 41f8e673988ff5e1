//! One pass over a server that stands in a file: what `autobuild explain` prints and the golden cases compare.

use serde::{Deserialize, Serialize};

use super::{
    Budget, Decision, EventNote, Observation, Settings, SiteWorkers, WipeImage, decide, events, status,
};
use crate::api::{ImageKind, Server, ServerStatus};
use crate::job::Visibility;
use crate::job::{Action, JobId, Known, LiveJob, Problem, SecretVersion, UnreadableJob};

/// What is observed beside the object itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// Now: milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// What the database knows.
    pub known: Option<Known>,
    /// The live job.
    pub job: Option<LiveJob>,
    /// The live job, where its row is of another release.
    pub unreadable_job: Option<UnreadableJob>,
    /// The job that the controller enqueued, or showed.
    pub own_job: Option<(JobId, Action)>,
    /// Whether that job shows.
    pub visibility: Visibility,
    /// Whether the job that status shows has its end in the history.
    pub shown_job_ended: bool,
    /// Whether the database was failed over or restored, and nothing was claimed in it since.
    pub another_history: bool,
    /// What is wrong with the BMC's address; absent where nothing is.
    pub bad_address: Option<Problem>,
    /// The normalised address, where it is not the one in spec.
    pub address: Option<String>,
    /// The digest of the `OSImage` that spec names; absent where there is none.
    pub image_digest: Option<String>,
    /// How machines boot it: Network or Iso; absent where there is none.
    pub image_kind: Option<ImageKind>,
    /// Why no machine can be given it; absent where nothing is known against it.
    pub image_flaw: Option<String>,
    /// What erases disks; without a digest there is no such `OSImage`.
    pub wipe: WipeImage,
    /// What is left of the namespace's destruction budget.
    pub budget: Budget,
    /// The version of the credentials Secret; absent where there is none.
    pub secret: Option<SecretVersion>,
    /// Whether somebody works for the site.
    pub site: SiteWorkers,
    /// Whether as many other jobs of the namespace are `Urgent` as may be.
    pub urgent_is_full: bool,
    /// Periods and bounds.
    pub settings: Settings,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The one thing to do next.
    pub decision: Decision,
    /// The status that is shown.
    pub status: ServerStatus,
    /// What is told once.
    pub events: Vec<EventNote>,
}

impl Facts {
    /// The observation of `server` with these facts.
    pub fn about(self, server: Server) -> Observation {
        let address = self.address.unwrap_or_else(|| server.spec.bmc.address.clone());
        Observation {
            server,
            known: self.known,
            job: self.job,
            unreadable_job: self.unreadable_job,
            own_job: self.own_job,
            visibility: self.visibility,
            shown_job_ended: self.shown_job_ended,
            another_history: self.another_history,
            bmc_address: self.bad_address.map_or(Ok(address), Err),
            image_digest: self.image_digest,
            image_kind: self.image_kind,
            image_flaw: self.image_flaw,
            wipe: self.wipe,
            budget: self.budget,
            secret: self.secret,
            site: self.site,
            urgent_is_full: self.urgent_is_full,
            now_ms: self.now_ms,
            settings: self.settings,
        }
    }
}

/// One pass.
pub fn explain(seen: &Observation) -> Explanation {
    let decision = decide(seen);
    let status = status(seen, &decision);
    let events = events(seen, &decision, &status);
    Explanation { decision, status, events }
}
