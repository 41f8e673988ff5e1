//! Whether a session is still what its `Server` and its `OSImage` say. Pure.

use super::sessions::Armed;
use crate::api::{Lifecycle, OSImage, Server, names};
use crate::job::{BootPurpose, Deleting};

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
    /// It is being deleted.
    #[error("the Server is being deleted")]
    Deleted,
    /// Its life ends: nothing is installed any more.
    #[error("spec.lifecycle of the Server is Decommissioned")]
    Decommissioned,
    /// It names another image by now.
    #[error("spec.image of the Server names another OSImage by now")]
    AnotherImage,
    /// Nobody asks for erased disks.
    #[error("the Server does not ask for its disks to be erased")]
    NoWipe,
    /// Nobody confirmed it.
    #[error("the annotation autobuild.dev/confirm is not the uid of the Server")]
    Unconfirmed,
    /// It is paused.
    #[error("the Server is paused")]
    Paused,
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
    match armed.purpose {
        BootPurpose::Install => judge_install(armed, stage, server)?,
        BootPurpose::Wipe => judge_wipe(armed, stage, server)?,
    }
    if stage == Stage::Script && server.spec.paused == Some(true) {
        return Err(Mismatch::Paused);
    }
    let image = image.ok_or_else(|| Mismatch::NoImage(armed.image.clone()))?;
    let found = image.spec.digest();
    if found == armed.digest {
        Ok((server, image))
    } else {
        Err(Mismatch::ImageReplaced { name: armed.image.clone(), found, wanted: armed.digest.clone() })
    }
}

fn judge_install(armed: &Armed, stage: Stage, server: &Server) -> Result<(), Mismatch> {
    if server.metadata.deletion_timestamp.is_some() {
        return Err(Mismatch::Deleted);
    }
    if server.spec.lifecycle == Lifecycle::Decommissioned {
        return Err(Mismatch::Decommissioned);
    }
    let named = server.spec.image.as_ref().map(|image| image.name.as_str());
    if stage == Stage::Script && named != Some(armed.image.as_str()) {
        return Err(Mismatch::AnotherImage);
    }
    Ok(())
}

fn judge_wipe(armed: &Armed, stage: Stage, server: &Server) -> Result<(), Mismatch> {
    let asked = match Deleting::of(server) {
        Deleting::No => server.spec.lifecycle == Lifecycle::Decommissioned,
        Deleting::Wipe => true,
        Deleting::Retain | Deleting::PowerOff => return Err(Mismatch::Deleted),
    };
    if !asked {
        return Err(Mismatch::NoWipe);
    }
    let annotations = server.metadata.annotations.as_ref();
    let confirmed = annotations.and_then(|all| all.get(names::CONFIRM)).map(String::as_str);
    if stage == Stage::Script && confirmed != Some(armed.uid.as_str()) {
        return Err(Mismatch::Unconfirmed);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::{DeletionPolicy, ImageWish, OSImageSpec, ServerSpec};
    use crate::boot::Medium;
    use crate::job::{JobId, ServerUid};

    fn session() -> (Armed, Server, OSImage) {
        let image = OSImage::new("debian", OSImageSpec::default());
        let wish = ImageWish { name: "debian".into(), ..ImageWish::default() };
        let mut server = Server::new("node-1", ServerSpec { image: Some(wish), ..ServerSpec::default() });
        server.metadata.uid = Some("u-1".into());
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
        assert_eq!(judged(Some(&deleted), Some(&image)), Mismatch::Deleted);
        let mut replaced = image.clone();
        replaced.spec.source.args.push("debug".into());
        assert!(matches!(judged(Some(&server), Some(&replaced)), Mismatch::ImageReplaced { .. }));
    }

    #[test]
    fn an_installation_is_not_begun_for_a_server_that_asks_for_something_else() {
        let (armed, mut server, image) = session();
        let judged = |server: &Server| judge(&armed, Stage::Script, Some(server), Some(&image)).unwrap_err();
        server.spec.lifecycle = Lifecycle::Decommissioned;
        assert_eq!(judged(&server), Mismatch::Decommissioned);
        server.spec.lifecycle = Lifecycle::InService;
        server.spec.image = Some(ImageWish { name: "other".into(), ..ImageWish::default() });
        assert_eq!(judged(&server), Mismatch::AnotherImage);
        judge(&armed, Stage::Begun, Some(&server), Some(&image)).unwrap();
    }

    #[test]
    fn disks_are_erased_only_for_a_server_that_asks_for_it_with_a_persons_word() {
        let (armed, mut server, image) = session();
        let armed = Armed { purpose: BootPurpose::Wipe, ..armed };
        let judged = |server: &Server| judge(&armed, Stage::Script, Some(server), Some(&image)).map(|_| ());
        assert_eq!(judged(&server), Err(Mismatch::NoWipe));
        server.spec.lifecycle = Lifecycle::Decommissioned;
        assert_eq!(judged(&server), Err(Mismatch::Unconfirmed));
        server.metadata.annotations = Some([(names::CONFIRM.to_owned(), "u-1".to_owned())].into());
        assert_eq!(judged(&server), Ok(()));
        server.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(judged(&server), Err(Mismatch::Deleted));
        server.spec.deletion_policy = DeletionPolicy::Wipe;
        assert_eq!(judged(&server), Ok(()));
    }

    #[test]
    fn pausing_stops_scripts_and_no_installation_that_has_begun() {
        let (armed, mut server, image) = session();
        server.spec.paused = Some(true);
        assert_eq!(judge(&armed, Stage::Script, Some(&server), Some(&image)).unwrap_err(), Mismatch::Paused);
        judge(&armed, Stage::Begun, Some(&server), Some(&image)).unwrap();
    }
}
