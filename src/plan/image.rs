//! `spec.image`: which operating system the machine should run, and what has to be done about it.
//!
//! Only another name or a new `reimageToken` installs a machine again. A machine that ran before AutoBuild knew it is never
//! built without a person's word, and what is there as wished needs nothing, not even its `OSImage`.

use super::{Command, Observation, Work, boot, lifecycle, word};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::{ConditionType, find, time};
use crate::api::{DiskContents, ImageStatus, Provisioning, Reason, names};
use crate::job::{
    Action, Contents, Event, InstalledImage, Origin, Problem, TokenKind, TokenValue, Visibility, Witnessed,
};

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
    let Some(wish) = seen.spec().image.as_ref().filter(|_| !lifecycle::is_over(seen)) else {
        return ImageSync::NoWish;
    };
    // Whether the machine that answers now is the one whose disks are known, nobody can say yet.
    if seen.is_read_elsewhere() {
        return ImageSync::NeverRead;
    }
    let witnessed = witnessed(seen);
    let adopts = seen.spec().provisioning == Provisioning::Adopt;
    let digest = seen.image_digest.as_deref();
    // Whoever asks for it anew, or for another image, means what is there to go, whatever it is.
    if token(seen).is_none()
        && !adopts
        && let Some(problem) = in_doubt(&witnessed, &wish.name)
    {
        return ImageSync::Blocked(problem);
    }
    let is_agreed = matches!(witnessed, Witnessed::Agreed(_));
    let contents = witnessed.contents();
    if let (Some(Contents::Image(image)), None, true) = (&contents, token(seen), is_agreed)
        && image.name == wish.name
        && !digest.is_some_and(|digest| digest != image.digest && adopts)
    {
        return match digest {
            Some(digest) if digest != image.digest => ImageSync::Blocked(replaced_under_its_name(image)),
            // Asked for again and there: from now on another wish is one.
            _ if image.origin == Origin::TakenOver => {
                ImageSync::ToAdopt(InstalledImage { origin: Origin::Adopted, ..image.clone() })
            }
            _ => ImageSync::Synced,
        };
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
        Some(Contents::Image(_) | Contents::Doubtful { .. } | Contents::Unknown { .. }) => Action::Reimage,
        Some(Contents::Foreign { .. } | Contents::Interrupted { .. }) => Action::Build,
        // It comes back only under another Server.
        Some(Contents::Decommissioned { .. }) => return ImageSync::NoWish,
        Some(Contents::Wiped { .. }) | None if seen.reading().is_some() => Action::Build,
        Some(Contents::Wiped { .. }) | None => return ImageSync::NeverRead,
    };
    // A word that status waits for is waited for, whatever the database says since.
    let awaited = || is_word_awaited(seen).then_some(Reason::ConfirmBuild);
    if let Some(reason) = word::missing(seen, action).or_else(awaited) {
        return ImageSync::Blocked(confirm_build(seen, reason));
    }
    boot::obstacle(seen, &wish.name).map_or(ImageSync::ToInstall(action), ImageSync::Blocked)
}

/// What is on the machine.
pub(super) fn contents(seen: &Observation) -> Option<Contents> {
    witnessed(seen).contents()
}

fn witnessed(seen: &Observation) -> Witnessed {
    let known = seen.known.as_ref().and_then(|known| known.contents.as_ref());
    Contents::witnessed(known, &seen.server)
}

/// Whether status says that a person has to confirm that what is there may be overwritten, and nobody has.
fn is_word_awaited(seen: &Observation) -> bool {
    if word::is_given(seen, names::CONFIRM) {
        return false;
    }
    let conditions = seen.shown().map(|status| status.conditions.as_slice()).unwrap_or_default();
    find(conditions, ConditionType::ImageSynced)
        .is_some_and(|condition| condition.reason == Reason::ConfirmBuild.as_str())
}

/// `status.image`.
pub(super) fn shown(seen: &Observation) -> Option<ImageStatus> {
    match contents(seen)? {
        Contents::Image(image) => Some(ImageStatus {
            name: image.name,
            digest: image.digest,
            installed_at: time(image.at_ms),
            adopted: image.origin != Origin::Installed,
        }),
        _ => None,
    }
}

/// `status.contents`. Where there is no record yet, it stays what it was.
pub(super) fn word(seen: &Observation) -> Option<DiskContents> {
    match seen.known {
        Some(_) => Some(Contents::word(contents(seen).as_ref())),
        None => seen.shown().and_then(|shown| shown.contents),
    }
}

/// `status.wipedAt`.
pub(super) fn wiped_at(seen: &Observation) -> Option<Time> {
    match contents(seen)? {
        Contents::Wiped { since_ms } | Contents::Decommissioned { since_ms } => Some(time(since_ms)),
        _ => None,
    }
}

/// `status.decommissionedAt`.
pub(super) fn decommissioned_at(seen: &Observation) -> Option<Time> {
    match contents(seen)? {
        Contents::Decommissioned { since_ms } => Some(time(since_ms)),
        _ => None,
    }
}

/// What a record that has to be made says of the disks of a machine: of one that was known before and that shows no
/// image nobody can say that it is blank. A status may come from a backup, with an older wish beside it.
pub(super) fn of_new_record(seen: &Observation) -> Option<Contents> {
    let shown_before = seen.shown().is_some_and(crate::api::ServerStatus::was_written);
    contents(seen)
        .map(Contents::taken_over)
        .or(shown_before.then_some(Contents::Foreign { since_ms: seen.now_ms }))
}

/// The token that asks for another installation.
pub(super) fn token(seen: &Observation) -> Option<&str> {
    let token = seen.spec().reimage_token.as_deref()?;
    (!seen.handled().is_handled(TokenKind::Reimage, Some(token))).then_some(token)
}

/// What is recorded without touching the machine: an adopted image, and a token that asks for nothing.
pub(super) fn rule(seen: &Observation) -> Option<Command> {
    let adopts = seen.spec().provisioning == Provisioning::Adopt;
    let applies = !adopts && seen.spec().image.is_some() && !lifecycle::is_over(seen);
    if let Some(token) = token(seen).filter(|_| !applies) {
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
        // Said of what is there anyway, it ends the installation that failed.
        ImageSync::Synced if adopts && !installing => {
            let Some(Contents::Image(image)) = contents(seen) else { return None };
            let over = seen
                .known
                .as_ref()
                .and_then(|known| known.failure.as_ref())
                .is_some_and(|failure| Event::Adopted(image.clone()).ends(failure));
            over.then_some(Command::RecordContents { contents: Contents::Image(image) })
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

/// Whether a machine that counts as blank still waits for the image that is wished.
pub(super) fn is_awaited(seen: &Observation) -> bool {
    let is_blank = matches!(contents(seen), None | Some(Contents::Wiped { .. }));
    is_blank && !matches!(sync(seen), ImageSync::NoWish | ImageSync::Synced)
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

/// Why nothing is installed by itself although the wished image may be gone.
fn in_doubt(witnessed: &Witnessed, wished: &str) -> Option<Problem> {
    let why = match witnessed {
        Witnessed::Disputed { known, shown } if shown.name == wished => format!(
            "status shows the image {wished:?} as installed, the database says that {}, and nothing that AutoBuild did explains \
             that",
            said(known)
        ),
        Witnessed::Agreed(Some(Contents::Doubtful { image, .. })) if image.name == wished => format!(
            "the machine had the image {wished:?} and was started into something that overwrites it, and nothing was heard of that: \
             nobody knows whether it ran"
        ),
        _ => return None,
    };
    Some(Problem::new(
        Reason::ContentsUnknown,
        format!(
            "{why}. Look at the machine. If it still has its image: set spec.provisioning to Adopt, which touches nothing; to have \
             it installed again: set a new spec.reimageToken"
        ),
    ))
}

fn said(known: &Contents) -> String {
    match known {
        Contents::Image(image) => format!("the image is {:?} ({})", image.name, image.digest),
        Contents::Unknown { .. } | Contents::Doubtful { .. } | Contents::Interrupted { .. } => {
            "an installation was begun since".to_owned()
        }
        Contents::Wiped { .. } => "the disks were erased since".to_owned(),
        Contents::Decommissioned { .. } => "the machine's life has ended".to_owned(),
        Contents::Foreign { .. } => "somebody else's system runs".to_owned(),
    }
}

fn confirm_build(seen: &Observation, reason: Reason) -> Problem {
    let what = match contents(seen) {
        Some(Contents::Image(image)) if image.origin == Origin::Adopted => format!(
            "the machine has the image {:?}, which was adopted, spec.image asks for another, and nobody wrote spec.provisioning: \
             Install is only its default",
            image.name
        ),
        Some(Contents::Image(image) | Contents::Doubtful { image, .. }) => format!(
            "the machine has the image {:?}, which was not installed for this Server, and spec.image asks for another",
            image.name
        ),
        Some(Contents::Interrupted { .. }) => {
            "an installation for an earlier Server of this machine was interrupted, and \
             nobody knows what is on its disks"
                .to_owned()
        }
        _ => "the machine ran before AutoBuild knew it".to_owned(),
    };
    Problem::new(
        reason,
        format!(
            "{what}. If its disks may be erased: {} ; if it has this image already: set spec.provisioning to Adopt",
            word::to_confirm(seen)
        ),
    )
}
