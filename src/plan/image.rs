//! `spec.image`: which operating system the machine should run, and what has to be done about it.
//!
//! Only another name or a new `reimageToken` installs a machine again. A machine that ran before AutoBuild knew it is never
//! built without a person's word, and what is there as wished needs nothing, not even its `OSImage`.

use super::{Command, Observation, Work, boot};
use crate::api::condition::time;
use crate::api::{ImageStatus, Provisioning, Reason, names};
use crate::job::{Action, Contents, InstalledImage, Origin, Problem, TokenKind, TokenValue, Visibility};

/// How what is installed compares with the wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ImageSync {
    /// Nothing is wished.
    NoWish,
    /// Whether the machine is blank is not known yet.
    NeverRead,
    /// It is as wished.
    Synced,
    /// It is to be recorded as installed.
    ToAdopt(InstalledImage),
    /// It is to be installed.
    ToInstall(Action),
    /// A person has to say what is meant.
    Blocked(Problem),
}

pub(super) fn sync(seen: &Observation) -> ImageSync {
    let Some(wish) = &seen.spec().image else { return ImageSync::NoWish };
    let contents = contents(seen);
    let adopts = seen.spec().provisioning == Provisioning::Adopt;
    let digest = seen.image_digest.as_deref();
    if let (Some(Contents::Image(image)), None) = (&contents, token(seen))
        && image.name == wish.name
        && !digest.is_some_and(|digest| digest != image.digest && adopts)
    {
        let replaced = digest.is_some_and(|digest| digest != image.digest);
        return if replaced { ImageSync::Blocked(replaced_under_its_name(image)) } else { ImageSync::Synced };
    }
    let Some(digest) = digest else { return ImageSync::Blocked(not_found(&wish.name)) };
    if adopts {
        return ImageSync::ToAdopt(InstalledImage {
            name: wish.name.clone(),
            digest: digest.to_owned(),
            at_ms: seen.now_ms,
            origin: Origin::Adopted,
        });
    }
    let action = match contents {
        Some(Contents::Image(_) | Contents::Unknown { .. }) => Action::Reimage,
        Some(Contents::Foreign { .. }) if is_confirmed(seen) => Action::Build,
        Some(Contents::Foreign { .. }) => return ImageSync::Blocked(confirm_build(seen)),
        None if seen.known.as_ref().is_some_and(|known| known.reading.is_some()) => Action::Build,
        None => return ImageSync::NeverRead,
    };
    boot::obstacle(seen, &wish.name).map_or(ImageSync::ToInstall(action), ImageSync::Blocked)
}

/// What is on the machine.
pub(super) fn contents(seen: &Observation) -> Option<Contents> {
    let known = seen.known.as_ref().and_then(|known| known.contents.as_ref());
    Contents::newest(known, seen.shown().and_then(|status| status.image.as_ref()))
}

/// `status.image`.
pub(super) fn shown(seen: &Observation) -> Option<ImageStatus> {
    match contents(seen)? {
        Contents::Image(image) => Some(ImageStatus {
            name: image.name,
            digest: image.digest,
            installed_at: time(image.at_ms),
            adopted: image.origin == Origin::Adopted,
        }),
        Contents::Unknown { .. } | Contents::Foreign { .. } => None,
    }
}

/// What a record that has to be made says of the disks of a machine: of one that was known before and that shows no
/// image nobody can say that it is blank.
pub(super) fn of_new_record(seen: &Observation) -> Option<Contents> {
    let shown_before = seen.shown().is_some_and(crate::api::ServerStatus::was_written);
    contents(seen).or(shown_before.then_some(Contents::Foreign { since_ms: seen.now_ms }))
}

/// The token that asks for another installation.
pub(super) fn token(seen: &Observation) -> Option<&str> {
    let token = seen.spec().reimage_token.as_deref()?;
    (!seen.handled().is_handled(TokenKind::Reimage, Some(token))).then_some(token)
}

/// What is recorded without touching the machine: an adopted image, and a token that asks for nothing.
pub(super) fn rule(seen: &Observation) -> Option<Command> {
    let adopts = seen.spec().provisioning == Provisioning::Adopt;
    if let Some(token) = token(seen).filter(|_| adopts || seen.spec().image.is_none()) {
        return Some(Command::RecordHandled {
            token: TokenValue { kind: TokenKind::Reimage, value: token.to_owned() },
            reason: Reason::NotApplicable,
        });
    }
    // A job that installs goes first: its intent is no longer the present one.
    let installing = seen.job.as_ref().is_some_and(|job| job.action.installs());
    match sync(seen) {
        ImageSync::ToAdopt(image) if !installing => {
            Some(Command::RecordContents { contents: Contents::Image(image) })
        }
        _ => None,
    }
}

/// The installation that is due.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    match sync(seen) {
        ImageSync::ToInstall(action) => Work::new(seen, action, Visibility::Shown),
        _ => None,
    }
}

fn is_confirmed(seen: &Observation) -> bool {
    seen.annotation(names::CONFIRM) == Some(seen.uid().as_str())
}

fn not_found(name: &str) -> Problem {
    Problem::new(
        Reason::ImageNotFound,
        format!("there is no OSImage {name:?} in this namespace: create it, or correct spec.image.name"),
    )
}

fn replaced_under_its_name(image: &InstalledImage) -> Problem {
    Problem::new(
        Reason::ImageReplaced,
        format!(
            "the OSImage {:?} is another one than was installed ({}): nothing is installed again until spec.image.name \
             changes or spec.reimageToken gets a new value; or set spec.provisioning to Adopt to record the new one",
            image.name, image.digest
        ),
    )
}

fn confirm_build(seen: &Observation) -> Problem {
    let metadata = &seen.server.metadata;
    let (name, namespace) =
        (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref().unwrap_or_default());
    Problem::new(
        Reason::ConfirmBuild,
        format!(
            "the machine ran before AutoBuild knew it. If its disks may be erased: kubectl annotate server {name} -n \
             {namespace} {}={} ; if it has this image already: set spec.provisioning to Adopt",
            names::CONFIRM,
            seen.uid().as_str()
        ),
    )
}
