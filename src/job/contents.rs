//! What is known of a machine's disks. Absent: the machine was only ever seen switched off, and counts as blank.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{Effect, JobId};
use crate::api::{DiskContents, ImageStatus, Lifecycle, Phase, Provisioning, Server, ServerStatus};

/// An image that is on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledImage {
    /// The name of its `OSImage`.
    pub name: String,
    /// The digest of that `OSImage`'s spec, `sha256:…`.
    pub digest: String,
    /// When it was installed or adopted, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// How it came there.
    pub origin: Origin,
}

/// How an image came onto a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A job installed it.
    Installed,
    /// It was there before (`provisioning: Adopt`): nothing was touched.
    Adopted,
    /// It was recorded for an earlier `Server` of this machine, or is known from a status alone. It is not replaced before a
    /// person said so, or asked for it once.
    TakenOver,
}

/// What is on a machine's disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredContents", into = "StoredContents")]
pub enum Contents {
    /// This image.
    Image(InstalledImage),
    /// What overwrites them was given to the machine, and did not come to its end.
    Unknown {
        /// When it was given, milliseconds since the Unix epoch.
        since_ms: i64,
    },
    /// This image, unless what overwrites it ran unheard: the machine was started with a medium that its BMC had read, and
    /// nothing on the medium asked for its session; or the database lost what became of the job.
    Doubtful {
        /// What was there before.
        image: InstalledImage,
        /// When the machine was started, milliseconds since the Unix epoch.
        since_ms: i64,
    },
    /// For an earlier `Server` of this machine they were being overwritten, and nobody knows what came of it.
    Interrupted {
        /// When that was begun, milliseconds since the Unix epoch.
        since_ms: i64,
    },
    /// Nothing: they were erased.
    Wiped {
        /// When, milliseconds since the Unix epoch.
        since_ms: i64,
    },
    /// Nothing, and nothing ever again: they were erased, and the machine's life ended.
    Decommissioned {
        /// When, milliseconds since the Unix epoch.
        since_ms: i64,
    },
    /// The machine ran before anything was installed by us: whatever is on it is somebody's.
    Foreign {
        /// When that was seen, milliseconds since the Unix epoch.
        since_ms: i64,
    },
}

/// How they are stored. The release before knows these words alone: to it what is in doubt is somebody's, and it overwrites
/// nothing without a person's word.
#[derive(Serialize, Deserialize)]
enum StoredContents {
    Image(InstalledImage),
    Unknown {
        since_ms: i64,
    },
    Wiped {
        since_ms: i64,
    },
    Decommissioned {
        since_ms: i64,
    },
    Foreign {
        since_ms: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        doubt: Option<Doubt>,
    },
}

/// What this release knows beyond that.
#[derive(Serialize, Deserialize)]
enum Doubt {
    Doubtful(InstalledImage),
    Interrupted,
}

impl From<Contents> for StoredContents {
    fn from(contents: Contents) -> Self {
        match contents {
            Contents::Image(image) => Self::Image(image),
            Contents::Unknown { since_ms } => Self::Unknown { since_ms },
            Contents::Wiped { since_ms } => Self::Wiped { since_ms },
            Contents::Decommissioned { since_ms } => Self::Decommissioned { since_ms },
            Contents::Foreign { since_ms } => Self::Foreign { since_ms, doubt: None },
            Contents::Doubtful { image, since_ms } => {
                Self::Foreign { since_ms, doubt: Some(Doubt::Doubtful(image)) }
            }
            Contents::Interrupted { since_ms } => Self::Foreign { since_ms, doubt: Some(Doubt::Interrupted) },
        }
    }
}

impl From<StoredContents> for Contents {
    fn from(stored: StoredContents) -> Self {
        match stored {
            StoredContents::Image(image) => Self::Image(image),
            StoredContents::Unknown { since_ms } => Self::Unknown { since_ms },
            StoredContents::Wiped { since_ms } => Self::Wiped { since_ms },
            StoredContents::Decommissioned { since_ms } => Self::Decommissioned { since_ms },
            StoredContents::Foreign { since_ms, doubt } => match doubt {
                None => Self::Foreign { since_ms },
                Some(Doubt::Doubtful(image)) => Self::Doubtful { image, since_ms },
                Some(Doubt::Interrupted) => Self::Interrupted { since_ms },
            },
        }
    }
}

impl Contents {
    /// Since when this holds.
    pub const fn since_ms(&self) -> i64 {
        match self {
            Self::Image(image) => image.at_ms,
            Self::Unknown { since_ms }
            | Self::Doubtful { since_ms, .. }
            | Self::Interrupted { since_ms }
            | Self::Foreign { since_ms }
            | Self::Wiped { since_ms }
            | Self::Decommissioned { since_ms } => *since_ms,
        }
    }

    /// What the status of a server says.
    pub fn shown(server: &Server) -> Option<Self> {
        let status = server.status.as_ref()?;
        let since_ms = |at: &Option<Time>| at.as_ref().map(|at| at.0.as_millisecond());
        if let Some(since_ms) = since_ms(&status.decommissioned_at) {
            return Some(Self::Decommissioned { since_ms });
        }
        // A status of the release before has the phase alone. Spec may have lost its field since.
        let ended =
            server.spec.lifecycle == Lifecycle::Decommissioned || status.phase == Some(Phase::Decommissioned);
        match (&status.image, since_ms(&status.wiped_at)) {
            (_, Some(since_ms)) if ended => Some(Self::Decommissioned { since_ms }),
            (None, Some(since_ms)) => Some(Self::Wiped { since_ms }),
            (image, _) => image.as_ref().map(|image| Self::recorded(image, status.contents)),
        }
    }

    /// The one word for it in a status.
    pub const fn word(contents: Option<&Self>) -> DiskContents {
        match contents {
            None => DiskContents::Blank,
            Some(Self::Image(image)) => match image.origin {
                Origin::Installed => DiskContents::Installed,
                Origin::Adopted => DiskContents::Adopted,
                Origin::TakenOver => DiskContents::TakenOver,
            },
            Some(Self::Unknown { .. }) => DiskContents::Unknown,
            Some(Self::Doubtful { .. }) => DiskContents::Doubtful,
            Some(Self::Interrupted { .. }) => DiskContents::Interrupted,
            Some(Self::Wiped { .. }) => DiskContents::Wiped,
            Some(Self::Decommissioned { .. }) => DiskContents::Decommissioned,
            Some(Self::Foreign { .. }) => DiskContents::Foreign,
        }
    }

    /// What is somebody's by the word of a status that names no image.
    fn somebodys(server: &Server, since_ms: i64) -> Option<Self> {
        let word = server.status.as_ref()?.contents?;
        match word {
            DiskContents::Interrupted => Some(Self::Interrupted { since_ms }),
            word if word.is_given_up_by_nobody() => Some(Self::Foreign { since_ms }),
            _ => None,
        }
    }

    /// What the database and the live object say together. The database alone makes nobody install again: what it says
    /// against the image in status counts where a job in status explains it, or the wish names it; and what is somebody's by
    /// the word in status stays so until a job in status, or an adoption, says otherwise.
    pub fn witnessed(known: Option<&Self>, server: &Server) -> Witnessed {
        let shown = Self::shown(server);
        let Some(known) = known else {
            return Witnessed::Agreed(shown.or_else(|| Self::somebodys(server, 0)));
        };
        let Some(shown) = shown else { return Witnessed::Agreed(Some(known.unless_somebodys(server))) };
        Witnessed::Agreed(Some(match (known, &shown) {
            // A life ends once, whoever says so: nothing is done to such a machine, which harms nobody.
            (Self::Decommissioned { .. }, _) => known.clone(),
            (_, Self::Decommissioned { .. }) => shown,
            // What was installed or adopted since is no longer somebody's, whatever the clocks say.
            (Self::Foreign { .. }, Self::Image(_)) => shown,
            // The database lost its last commits.
            (known, shown) if shown.since_ms() > known.since_ms() => shown.clone(),
            (known, Self::Image(image)) if !known.agrees_with(image) && !known.is_explained_by(server) => {
                return Witnessed::Disputed { known: known.clone(), shown: image.clone() };
            }
            (Self::Image(known), Self::Image(shown)) if !runs_a_destructive_job(server) => {
                let origin = origin(known, shown, server);
                Self::Image(InstalledImage { origin, ..known.clone() })
            }
            (known, _) => known.clone(),
        }))
    }

    /// What counts where status names no image, and the database says this.
    fn unless_somebodys(&self, server: &Server) -> Self {
        let says_the_same = match self {
            // These hold back by themselves.
            Self::Foreign { .. } | Self::Interrupted { .. } | Self::Decommissioned { .. } => true,
            Self::Image(image) if is_adopted_as_wished(image, server) => true,
            _ => server.status.as_ref().and_then(|status| status.contents) == Some(Self::word(Some(self))),
        };
        if says_the_same || runs_a_destructive_job(server) {
            return self.clone();
        }
        Self::somebodys(server, self.since_ms()).unwrap_or_else(|| self.clone())
    }

    fn agrees_with(&self, shown: &InstalledImage) -> bool {
        matches!(self, Self::Image(image) if image.name == shown.name && image.digest == shown.digest)
    }

    /// Whether the live object has a cause for what the database says: a job that gives data up, and that it shows as begun;
    /// or the wish for this very image.
    fn is_explained_by(&self, server: &Server) -> bool {
        runs_a_destructive_job(server) || matches!(self, Self::Image(image) if wishes(server, image))
    }

    /// What is on a machine of which `before` was recorded for another `Server`, or of which nothing but a status is left:
    /// nothing of it is replaced without a person's word.
    #[must_use]
    pub fn taken_over(before: Self) -> Self {
        match before {
            Self::Image(image) => Self::Image(InstalledImage { origin: Origin::TakenOver, ..image }),
            // The installer may have come to its end unheard.
            Self::Unknown { since_ms } | Self::Doubtful { since_ms, .. } => Self::Interrupted { since_ms },
            other => other,
        }
    }

    /// Whether only a person may say that it is overwritten.
    pub const fn needs_a_word(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::Interrupted { .. } => true,
            Self::Image(image) | Self::Doubtful { image, .. } => matches!(image.origin, Origin::TakenOver),
            Self::Unknown { .. } | Self::Wiped { .. } | Self::Decommissioned { .. } => false,
        }
    }

    /// Whether what overwrites them runs right now, as far as anybody knows: it was given to the machine, has not come to its
    /// end, and has had no more than `within_ms` milliseconds. Nothing of worth runs beside it, and installers shut nothing down
    /// when they are asked to.
    pub const fn are_being_overwritten(&self, now_ms: i64, within_ms: i64) -> bool {
        matches!(self, Self::Unknown { since_ms } if now_ms - *since_ms < within_ms)
    }

    fn recorded(image: &ImageStatus, word: Option<DiskContents>) -> Self {
        Self::Image(InstalledImage {
            name: image.name.clone(),
            digest: image.digest.clone(),
            at_ms: image.installed_at.0.as_millisecond(),
            origin: match word {
                _ if !image.adopted => Origin::Installed,
                Some(DiskContents::TakenOver) => Origin::TakenOver,
                _ => Origin::Adopted,
            },
        })
    }
}

/// Whether status shows a job that gives data up, and that has begun.
fn runs_a_destructive_job(server: &Server) -> bool {
    let job = server.status.as_ref().and_then(|status: &ServerStatus| status.job.as_ref());
    job.is_some_and(|job| job.started_at.is_some() && job.action.effect() == Effect::Destructive)
}

fn wishes(server: &Server, image: &InstalledImage) -> bool {
    server.spec.image.as_ref().is_some_and(|wish| wish.name == image.name)
}

fn is_adopted_as_wished(image: &InstalledImage, server: &Server) -> bool {
    let adopts = server.spec.provisioning == Provisioning::Adopt;
    image.origin == Origin::Adopted && adopts && wishes(server, image)
}

/// How an image came there, where database and status may differ on it: nobody can say alone that it was not there before.
fn origin(known: &InstalledImage, shown: &InstalledImage, server: &Server) -> Origin {
    match (known.origin, shown.origin) {
        // Asked for again and there.
        (Origin::Adopted, Origin::TakenOver) if wishes(server, known) => Origin::Adopted,
        (Origin::TakenOver, _) | (_, Origin::TakenOver) => Origin::TakenOver,
        (Origin::Adopted, _) | (_, Origin::Adopted) => Origin::Adopted,
        (Origin::Installed, Origin::Installed) => Origin::Installed,
    }
}

/// What the database and the live object say of a machine's disks together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witnessed {
    /// This.
    Agreed(Option<Contents>),
    /// The database says something else than status, and nothing outside of it says why: status counts, and a person decides.
    Disputed {
        /// What the database says.
        known: Contents,
        /// What status shows.
        shown: InstalledImage,
    },
}

impl Witnessed {
    /// What counts.
    #[must_use]
    pub fn contents(self) -> Option<Contents> {
        match self {
            Self::Agreed(contents) => contents,
            Self::Disputed { shown, .. } => Some(Contents::Image(shown)),
        }
    }
}

/// What a machine's installer has told so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallProgress {
    /// How much is done, 0 to 100.
    pub percent: u8,
    /// What it is doing, one line.
    pub line: String,
}

/// A boot session as the job that published it finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEvidence {
    /// The job that published it.
    pub job: JobId,
    /// When the BMC first read the medium.
    pub media_read_at_ms: Option<i64>,
    /// When the machine fetched its script, or what runs from its medium asked for its session, first.
    pub fetched_at_ms: Option<i64>,
    /// When the machine was heard of last.
    pub heard_at_ms: Option<i64>,
    /// The last progress.
    pub progress: Option<InstallProgress>,
    /// The installer gave up, with its own words.
    pub failed: Option<String>,
    /// Why the boot service cannot give the machine what its image names.
    pub not_served: Option<String>,
    /// When the installed system called home.
    pub installed_at_ms: Option<i64>,
    /// Another card of the machine that asked for a script, and got none.
    pub other_card: Option<String>,
    /// When it did first.
    pub other_card_at_ms: Option<i64>,
    /// What another machine said of itself that asked with the address of the session's card, and got nothing.
    pub other_machine: Option<String>,
}

#[cfg(test)]
#[path = "contents_test.rs"]
mod tests;
