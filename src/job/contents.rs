//! What is known of a machine's disks. Absent: the machine was only ever seen switched off, and counts as blank.

use serde::{Deserialize, Serialize};

use super::{JobId, Reading};
use crate::api::hardware::PowerState;
use crate::api::{ImageStatus, Lifecycle, Server};

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
pub enum Contents {
    /// This image.
    Image(InstalledImage),
    /// An installation was begun, and did not come to its end.
    Unknown {
        /// When it was begun, milliseconds since the Unix epoch.
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

impl Contents {
    /// Since when this holds.
    pub const fn since_ms(&self) -> i64 {
        match self {
            Self::Image(image) => image.at_ms,
            Self::Unknown { since_ms }
            | Self::Foreign { since_ms }
            | Self::Wiped { since_ms }
            | Self::Decommissioned { since_ms } => *since_ms,
        }
    }

    /// What the status of a server says.
    pub fn shown(server: &Server) -> Option<Self> {
        let status = server.status.as_ref()?;
        let since_ms = status.wiped_at.as_ref().map(|at| at.0.as_millisecond());
        match (&status.image, since_ms, server.spec.lifecycle) {
            (_, Some(since_ms), Lifecycle::Decommissioned) => Some(Self::Decommissioned { since_ms }),
            (None, Some(since_ms), Lifecycle::InService) => Some(Self::Wiped { since_ms }),
            (image, ..) => image.as_ref().map(Self::recorded),
        }
    }

    /// The later of what the database and what status says, so that a database that lost its last commits makes nobody
    /// install again.
    pub fn newest(known: Option<&Self>, shown: Option<Self>) -> Option<Self> {
        match (known, shown) {
            // A life ends once.
            (Some(known @ Self::Decommissioned { .. }), _) => Some(known.clone()),
            (_, Some(shown @ Self::Decommissioned { .. })) => Some(shown),
            // What was installed or adopted since is no longer somebody's, whatever the clocks say.
            (Some(Self::Foreign { .. }), Some(shown @ Self::Image(_))) => Some(shown),
            (Some(known), Some(shown)) if shown.since_ms() > known.since_ms() => Some(shown),
            (known, shown) => known.cloned().or(shown),
        }
    }

    /// What is on a machine of which `before` was recorded for another `Server`, or of which nothing but a status is left:
    /// nothing of it is replaced without a person's word.
    #[must_use]
    pub fn taken_over(before: Self) -> Self {
        match before {
            Self::Image(image) => Self::Image(InstalledImage { origin: Origin::TakenOver, ..image }),
            // The installer may have come to its end unheard.
            Self::Unknown { since_ms } => Self::Foreign { since_ms },
            other => other,
        }
    }

    /// Whether only a person may say that it is overwritten.
    pub const fn needs_a_word(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Image(image) => matches!(image.origin, Origin::TakenOver),
            Self::Unknown { .. } | Self::Wiped { .. } | Self::Decommissioned { .. } => false,
        }
    }

    fn recorded(image: &ImageStatus) -> Self {
        Self::Image(InstalledImage {
            name: image.name.clone(),
            digest: image.digest.clone(),
            at_ms: image.installed_at.0.as_millisecond(),
            origin: if image.adopted { Origin::Adopted } else { Origin::Installed },
        })
    }

    /// What has to be recorded after a reading: a machine that is not off runs something, and from then on nobody takes it
    /// for blank, even when it is switched off later.
    pub fn seen_in(before: Option<&Self>, reading: &Reading, now_ms: i64) -> Option<Self> {
        let blank = matches!(before, None | Some(Self::Wiped { .. }));
        (blank && reading.power != PowerState::PoweredOff).then_some(Self::Foreign { since_ms: now_ms })
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
mod tests {
    use super::*;
    use crate::api::hardware::{Hardware, HardwareIdentity};

    fn reading(power: PowerState) -> Reading {
        Reading {
            power,
            identity: HardwareIdentity::default(),
            hardware: Hardware::default(),
            last_reset_time: None,
        }
    }

    #[test]
    fn what_status_shows_counts_where_the_database_is_behind() {
        let shown = ImageStatus {
            name: "debian".into(),
            digest: "sha256:1".into(),
            installed_at: crate::api::condition::time(5_000),
            adopted: false,
        };
        let image = Contents::recorded(&shown);
        let unknown = |since_ms| Contents::Unknown { since_ms };
        for (known, newest) in [
            (None, image.clone()),
            (Some(unknown(4_000)), image.clone()),
            (Some(unknown(6_000)), unknown(6_000)),
            // In the same second: nobody knows is the safer thing to say.
            (Some(unknown(5_000)), unknown(5_000)),
            (Some(Contents::Foreign { since_ms: 6_000 }), image.clone()),
        ] {
            assert_eq!(Contents::newest(known.as_ref(), Some(image.clone())), Some(newest), "{known:?}");
        }
        assert_eq!(Contents::newest(None, None), None);
    }

    #[test]
    fn a_life_that_ended_has_ended_whoever_says_so_and_whenever() {
        let ended = Contents::Decommissioned { since_ms: 1 };
        let image = Contents::recorded(&ImageStatus {
            name: "debian".into(),
            digest: "sha256:1".into(),
            installed_at: crate::api::condition::time(5_000),
            adopted: false,
        });
        assert_eq!(Contents::newest(Some(&ended), Some(image.clone())), Some(ended.clone()));
        assert_eq!(Contents::newest(Some(&image), Some(ended.clone())), Some(ended));
    }

    #[test]
    fn what_was_recorded_for_another_server_is_replaced_by_no_one_without_a_word() {
        let unknown = Contents::taken_over(Contents::Unknown { since_ms: 4 });
        assert_eq!(unknown, Contents::Foreign { since_ms: 4 });
        let wiped = Contents::taken_over(Contents::Wiped { since_ms: 4 });
        assert_eq!((unknown.needs_a_word(), wiped.needs_a_word()), (true, false));
    }

    #[test]
    fn a_machine_that_ever_ran_is_never_blank() {
        let off = reading(PowerState::PoweredOff);
        assert_eq!(Contents::seen_in(None, &off, 5), None);
        for power in
            [PowerState::PoweredOn, PowerState::PoweringOff, PowerState::PoweringOn, PowerState::Unknown]
        {
            let foreign = Contents::seen_in(None, &reading(power), 5);
            assert_eq!(foreign, Some(Contents::Foreign { since_ms: 5 }), "{power}");
            assert_eq!(Contents::seen_in(foreign.as_ref(), &off, 9), None);
        }
    }
}
