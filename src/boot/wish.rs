//! Whether a session is still what its `Server` and its `OSImage` say. Pure.
//!
//! A row of the database alone hands out nothing: it may be forged. What destroys data has a second witness, the live status,
//! which has to show the session's very job as running.

use super::sessions::Armed;
use crate::api::{OSImage, Server};
use crate::job::{self, Action, Asked, BootPurpose, Contents, JobId, JobState, Objection};

/// What a machine is about to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The script that starts an installation.
    Script,
    /// What an installation that has begun needs. Pausing the server does not break it.
    Begun,
}

/// Why nothing is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// No such server.
    #[error("there is no Server of that name")]
    NoServer,
    /// A server of the same name that was created later.
    #[error("the Server was deleted and created again: its uid is another one")]
    AnotherServer,
    /// The object does not ask for this.
    #[error("{0}")]
    NotAsked(#[from] Objection),
    /// Its status does not show the session's job as running, or not yet.
    #[error("status.job of the Server is not the running job of this session")]
    NotWitnessed,
    /// No such image.
    #[error("there is no OSImage {0:?} in the namespace of the Server")]
    NoImage(String),
    /// An image of the same name with another content.
    #[error("the OSImage {name:?} has the digest {found}, and the installation was begun with {wanted}")]
    ImageReplaced {
        /// Its name.
        name: String,
        /// Its digest.
        found: String,
        /// That of the session.
        wanted: String,
    },
}

/// Compares the session with both objects as they stand.
pub fn judge<'a>(
    armed: &Armed,
    stage: Stage,
    server: Option<&'a Server>,
    image: Option<&'a OSImage>,
) -> Result<(&'a Server, &'a OSImage), Mismatch> {
    let server = server.ok_or(Mismatch::NoServer)?;
    if server.metadata.uid.as_deref() != Some(armed.uid.as_str()) {
        return Err(Mismatch::AnotherServer);
    }
    let contents = Contents::witnessed(None, server).contents();
    let asked = Asked {
        action: action(armed.purpose, server),
        stage: match stage {
            Stage::Script => job::Stage::First,
            Stage::Begun => job::Stage::Begun,
        },
        server,
        uid: &armed.uid,
        contents: contents.as_ref(),
        power: None,
        debt: None,
        image: Some(&armed.image),
    };
    if let Some(objection) = asked.objection() {
        return Err(Mismatch::NotAsked(objection));
    }
    if !is_witnessed(armed, server) {
        return Err(Mismatch::NotWitnessed);
    }
    let image = image.ok_or_else(|| Mismatch::NoImage(armed.image.clone()))?;
    let found = image.spec.digest();
    if found == armed.digest {
        Ok((server, image))
    } else {
        Err(Mismatch::ImageReplaced { name: armed.image.clone(), found, wanted: armed.digest.clone() })
    }
}

/// What a session is for, as the object asks for it.
fn action(purpose: BootPurpose, server: &Server) -> Action {
    match (purpose, &server.metadata.deletion_timestamp) {
        (BootPurpose::Install, _) => Action::Reimage,
        (BootPurpose::Wipe, None) => Action::Decommission,
        (BootPurpose::Wipe, Some(_)) => Action::Wipe,
    }
}

/// Whether the status shows the job that armed the session at work on what the session is for. Parked counts: that is how it
/// waits for its machine.
fn is_witnessed(armed: &Armed, server: &Server) -> bool {
    let Some(shown) = server.status.as_ref().and_then(|status| status.job.as_ref()) else { return false };
    let fits = match armed.purpose {
        BootPurpose::Install => shown.action.installs(),
        BootPurpose::Wipe => shown.action.wipes(),
    };
    let running = matches!(shown.state, JobState::Running | JobState::Waiting) && shown.started_at.is_some();
    JobId::parse(&shown.id) == Some(armed.job) && fits && running
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::{
        DeletionPolicy, ImageWish, JobStatus, Lifecycle, OSImageSpec, Provisioning, ServerSpec, ServerStatus,
        names,
    };
    use crate::boot::Medium;
    use crate::job::{Lane, ServerUid, Step};

    /// A status with this job, as the controller shows one that runs.
    fn showing(id: JobId, action: Action, state: JobState) -> ServerStatus {
        let at = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let job = JobStatus {
            id: id.to_string(),
            action,
            priority: Lane::Normal,
            state,
            step: Step::AwaitBoot,
            attempt: None,
            enqueued_at: at.clone(),
            started_at: Some(at),
            waiting_for: None,
            progress: None,
        };
        ServerStatus { job: Some(job), ..ServerStatus::default() }
    }

    fn session() -> (Armed, Server, OSImage) {
        let image = OSImage::new("debian", OSImageSpec::default());
        let wish = ImageWish { name: "debian".into(), ..ImageWish::default() };
        let mut server = Server::new("node-1", ServerSpec { image: Some(wish), ..ServerSpec::default() });
        server.metadata.uid = Some("u-1".into());
        server.status = Some(showing(JobId(1), Action::Reimage, JobState::Waiting));
        let armed = Armed {
            uid: ServerUid("u-1".into()),
            namespace: "default".into(),
            name: "node-1".into(),
            job: JobId(1),
            install: 1,
            image: "debian".into(),
            digest: image.spec.digest(),
            purpose: BootPurpose::Install,
            mac: "52-54-00-12-34-56".parse().unwrap(),
            medium: Medium::Absent,
            data_version: None,
        };
        (armed, server, image)
    }

    #[test]
    fn a_session_that_both_objects_agree_with_is_served() {
        let (armed, server, image) = session();
        judge(&armed, Stage::Script, Some(&server), Some(&image)).unwrap();
    }

    #[test]
    fn whatever_does_not_agree_is_named() {
        let (armed, server, image) = session();
        let judged = |server: Option<&Server>, image: Option<&OSImage>| {
            judge(&armed, Stage::Script, server, image).unwrap_err()
        };
        assert_eq!(judged(None, Some(&image)), Mismatch::NoServer);
        assert_eq!(judged(Some(&server), None), Mismatch::NoImage("debian".into()));
        let mut other = server.clone();
        other.metadata.uid = Some("u-2".into());
        assert_eq!(judged(Some(&other), Some(&image)), Mismatch::AnotherServer);
        let mut deleted = server.clone();
        deleted.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(judged(Some(&deleted), Some(&image)), Mismatch::NotAsked(Objection::Deleted));
        let mut replaced = image.clone();
        replaced.spec.source.args.push("debug".into());
        assert!(matches!(judged(Some(&server), Some(&replaced)), Mismatch::ImageReplaced { .. }));
    }

    #[test]
    fn an_installation_is_not_begun_for_a_server_that_asks_for_something_else() {
        let (armed, mut server, image) = session();
        let judged = |server: &Server| judge(&armed, Stage::Script, Some(server), Some(&image)).unwrap_err();
        server.spec.lifecycle = Lifecycle::Decommissioned;
        assert_eq!(judged(&server), Mismatch::NotAsked(Objection::Decommissioned));
        server.spec.lifecycle = Lifecycle::InService;
        server.spec.provisioning = Provisioning::Adopt;
        assert_eq!(judged(&server), Mismatch::NotAsked(Objection::Adopted));
        server.spec.provisioning = Provisioning::Install;
        server.spec.image = Some(ImageWish { name: "other".into(), ..ImageWish::default() });
        assert_eq!(judged(&server), Mismatch::NotAsked(Objection::AnotherImage));
        judge(&armed, Stage::Begun, Some(&server), Some(&image)).unwrap();
    }

    #[test]
    fn disks_are_erased_only_for_a_server_that_asks_for_it_with_a_persons_word() {
        let (armed, mut server, image) = session();
        let armed = Armed { purpose: BootPurpose::Wipe, ..armed };
        server.status = Some(showing(JobId(1), Action::Decommission, JobState::Waiting));
        let not_asked = |objection| Err(Mismatch::NotAsked(objection));
        let judged = |server: &Server| judge(&armed, Stage::Script, Some(server), Some(&image)).map(|_| ());
        assert_eq!(judged(&server), not_asked(Objection::NoWipe));
        server.spec.lifecycle = Lifecycle::Decommissioned;
        assert_eq!(
            judged(&server),
            not_asked(Objection::Unconfirmed(crate::api::Reason::ConfirmDecommission))
        );
        server.metadata.annotations = Some([(names::CONFIRM.to_owned(), "u-1".to_owned())].into());
        assert_eq!(judged(&server), Ok(()));
        server.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(judged(&server), not_asked(Objection::Deleted));
        server.spec.deletion_policy = DeletionPolicy::Wipe;
        assert_eq!(judged(&server), Ok(()));
    }

    #[test]
    fn pausing_stops_scripts_and_no_installation_that_has_begun() {
        let (armed, mut server, image) = session();
        server.spec.paused = Some(true);
        let against = judge(&armed, Stage::Script, Some(&server), Some(&image)).unwrap_err();
        assert_eq!(against, Mismatch::NotAsked(Objection::Paused));
        judge(&armed, Stage::Begun, Some(&server), Some(&image)).unwrap();
    }

    #[test]
    fn a_row_alone_hands_out_nothing_status_has_to_show_its_very_job_at_work() {
        let (armed, mut server, image) = session();
        for (shown, served) in [
            (showing(JobId(1), Action::Build, JobState::Running), true),
            (showing(JobId(1), Action::Reimage, JobState::Waiting), true),
            (showing(JobId(1), Action::Reimage, JobState::Queued), false),
            (showing(JobId(1), Action::Reimage, JobState::Cancelling), false),
            (showing(JobId(2), Action::Reimage, JobState::Running), false),
            (showing(JobId(1), Action::Decommission, JobState::Running), false),
            (showing(JobId(1), Action::Inspect, JobState::Running), false),
            (ServerStatus::default(), false),
        ] {
            server.status = Some(shown.clone());
            for stage in [Stage::Script, Stage::Begun] {
                let judged = judge(&armed, stage, Some(&server), Some(&image)).map(|_| ());
                let expected = if served { Ok(()) } else { Err(Mismatch::NotWitnessed) };
                assert_eq!(judged, expected, "{stage:?}: {shown:?}");
            }
        }
        let armed = Armed { purpose: BootPurpose::Wipe, ..armed };
        server.spec.lifecycle = Lifecycle::Decommissioned;
        server.metadata.annotations = Some([(names::CONFIRM.to_owned(), "u-1".to_owned())].into());
        server.status = Some(showing(JobId(1), Action::Reimage, JobState::Running));
        let judged = judge(&armed, Stage::Script, Some(&server), Some(&image)).map(|_| ());
        assert_eq!(judged, Err(Mismatch::NotWitnessed), "an installation wipes nothing");
    }

    #[test]
    fn the_boot_service_hands_out_what_the_object_asks_for_and_nothing_else() {
        for row in crate::job::asked_table::rows() {
            let purpose = match row.action {
                action if action.installs() => BootPurpose::Install,
                action if action.wipes() => BootPurpose::Wipe,
                _ => continue,
            };
            let (armed, mut server, image) = session();
            let armed = Armed { purpose, ..armed };
            server.spec.image = None;
            let mut status = showing(JobId(1), row.action, JobState::Waiting);
            status.contents = Some(Contents::word(row.contents.as_ref()));
            match &row.contents {
                Some(Contents::Image(image)) => {
                    status.image = Some(crate::api::ImageStatus {
                        name: image.name.clone(),
                        digest: image.digest.clone(),
                        installed_at: crate::api::condition::time(image.at_ms),
                        adopted: image.origin != crate::job::Origin::Installed,
                    });
                }
                Some(Contents::Decommissioned { since_ms }) => {
                    status.decommissioned_at = Some(crate::api::condition::time(*since_ms));
                }
                _ => {}
            }
            server.status = Some(status);
            let server = row.server(server);
            for (stage, expected) in [(Stage::Script, row.expected[0]), (Stage::Begun, row.expected[2])] {
                let judged = judge(&armed, stage, Some(&server), Some(&image)).map(|_| ());
                let expected = expected.map_or(Ok(()), |objection| Err(Mismatch::NotAsked(objection)));
                assert_eq!(judged, expected, "{} at {stage:?}", row.what);
            }
        }
    }
}
