//! Whether a job is asked for by its object, and whether a person said so where only a person may. Pure, and asked by all
//! three who act on it: the planner before it enqueues, the worker before the first request, the boot service before it hands
//! anything out.
//!
//! An intent can be computed for what nobody asked for, by whoever can write rows: the object itself is asked.

use super::{Action, Contents, Debt, Deleting, HandledTokens, Origin, ServerUid, TokenKind};
use crate::api::hardware::PowerState;
use crate::api::{Lifecycle, Power, Provisioning, Reason, Server, names};

/// How far a job has come for which its object is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done yet, or whatever was asked of the BMC was refused: everything has to be as it should be.
    First,
    /// The first request may have been carried out, and a look says that it did not happen: it is sent again. A person's word
    /// was taken.
    Again,
    /// The machine runs what was booted. Only what makes it wrong to go on stops it: half an installation helps nobody.
    Begun,
}

/// A job that its object is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it does.
    pub action: Action,
    /// How far it has come.
    pub stage: Stage,
    /// The object as it stands.
    pub server: &'a Server,
    /// The server that the job is for.
    pub uid: &'a ServerUid,
    /// What is on the machine's disks, as far as whoever asks can know.
    pub contents: Option<&'a Contents>,
    /// The power state as it was read last; `None` where whoever asks cannot know, and somebody else has looked.
    pub power: Option<PowerState>,
    /// What a job left off, where the object bears that out: see [`Debt::is_witnessed`].
    pub debt: Option<&'a Debt>,
    /// The name of the `OSImage` that is installed, where it was decided before.
    pub image: Option<&'a str>,
}

/// What an object has against a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// It was deleted and created again.
    #[error("the Server was deleted and created again: its uid is another one")]
    AnotherServer,
    /// The life of its machine has ended, whatever spec says.
    #[error("the machine was decommissioned: nothing is done to it any more")]
    LifeEnded,
    /// It is being deleted.
    #[error("the Server is being deleted")]
    Deleted,
    /// Its life is to end: nothing else is done.
    #[error("spec.lifecycle of the Server is Decommissioned")]
    Decommissioned,
    /// Nothing is to be installed.
    #[error("spec.image of the Server is gone")]
    NoImage,
    /// It names another image by now.
    #[error("spec.image of the Server names another OSImage by now")]
    AnotherImage,
    /// What is there is to be recorded, and the machine left alone.
    #[error("spec.provisioning of the Server is Adopt: nothing is installed")]
    Adopted,
    /// Nobody asks for erased disks.
    #[error("the Server does not ask for its disks to be erased")]
    NoWipe,
    /// Nobody asks for a machine that is off.
    #[error("neither spec.power nor a deletion of the Server asks for a machine that is off")]
    NoPowerOff,
    /// Nobody asks for a machine that is on, and it owes none.
    #[error("spec.power of the Server is not PoweredOn, and nothing shows that a job left its machine off")]
    NoPowerOn,
    /// Nobody asks for a reboot.
    #[error("the Server has no spec.rebootToken that asks for a reboot")]
    NoReboot,
    /// It is paused.
    #[error("the Server is paused")]
    Paused,
    /// Only a person may say that the data on the machine is given up.
    #[error("the annotation autobuild.dev/confirm is not the uid of the Server")]
    Unconfirmed(Reason),
}

impl Asked<'_> {
    /// What the object has against it; `None`: it asks for exactly this.
    pub fn objection(&self) -> Option<Objection> {
        let Self { server, stage, .. } = self;
        if self.action == Action::Inspect {
            return None;
        }
        if server.metadata.uid.as_deref() != Some(self.uid.as_str()) {
            return Some(Objection::AnotherServer);
        }
        if matches!(self.contents, Some(Contents::Decommissioned { .. })) {
            return Some(Objection::LifeEnded);
        }
        let stops = *stage != Stage::Begun && server.spec.paused == Some(true);
        let paused = || stops.then_some(Objection::Paused);
        let word = || match stage {
            Stage::First => self.word_missing().map(Objection::Unconfirmed),
            Stage::Again | Stage::Begun => None,
        };
        self.not_wished().or_else(paused).or_else(word)
    }

    /// What spec and deletion have against it.
    fn not_wished(&self) -> Option<Objection> {
        let spec = &self.server.spec;
        let over = spec.lifecycle == Lifecycle::Decommissioned;
        match (self.action, Deleting::of(self.server)) {
            (Action::Inspect, _) => None,
            (Action::PowerOn | Action::PowerOff | Action::Reboot, deleting) => {
                self.power_not_wished(deleting)
            }
            (Action::Build | Action::Reimage, Deleting::No) if over => Some(Objection::Decommissioned),
            (Action::Build | Action::Reimage, Deleting::No) => self.not_installed(),
            (Action::Decommission, Deleting::No) => (!over).then_some(Objection::NoWipe),
            (Action::Wipe, Deleting::Wipe) => None,
            (Action::Wipe, Deleting::No) => Some(Objection::NoWipe),
            (Action::Build | Action::Reimage | Action::Decommission | Action::Wipe, _) => {
                Some(Objection::Deleted)
            }
        }
    }

    /// The power changes by a wish of the object alone, and by what a job of ours left off.
    fn power_not_wished(&self, deleting: Deleting) -> Option<Objection> {
        let spec = &self.server.spec;
        let over = spec.lifecycle == Lifecycle::Decommissioned;
        let stays = deleting == Deleting::No && !over;
        let spec_has = |power| stays && spec.power == Some(power);
        match self.action {
            Action::PowerOff => {
                let wished = spec_has(Power::PoweredOff) || deleting == Deleting::PowerOff;
                (!wished).then_some(Objection::NoPowerOff)
            }
            Action::PowerOn => {
                let may_stay_on = !over && spec.power != Some(Power::PoweredOff);
                // A machine that is let go as it is was on before its job.
                let owed =
                    self.debt.is_some() && may_stay_on && matches!(deleting, Deleting::No | Deleting::Retain);
                (!spec_has(Power::PoweredOn) && !owed).then_some(Objection::NoPowerOn)
            }
            Action::Reboot => {
                let wished = stays && spec.reboot_token.is_some() && spec.power != Some(Power::PoweredOff);
                (!wished).then_some(Objection::NoReboot)
            }
            Action::Inspect | Action::Build | Action::Reimage | Action::Wipe | Action::Decommission => None,
        }
    }

    /// An installation that runs goes on although another image is wished by now: it is not left half way.
    fn not_installed(&self) -> Option<Objection> {
        let spec = &self.server.spec;
        if self.stage == Stage::Begun {
            return None;
        }
        let Some(wish) = &spec.image else { return Some(Objection::NoImage) };
        if spec.provisioning == Provisioning::Adopt {
            return Some(Objection::Adopted);
        }
        self.image.is_some_and(|image| image != wish.name).then_some(Objection::AnotherImage)
    }

    /// Why a person has to say that the data on the machine may be given up, and nobody did.
    pub fn word_missing(&self) -> Option<Reason> {
        let needed = match self.action {
            Action::Inspect | Action::PowerOn | Action::PowerOff | Action::Reboot => None,
            Action::Decommission => Some(Reason::ConfirmDecommission),
            Action::Wipe => Some(Reason::ConfirmWipe),
            Action::Build | Action::Reimage => self.is_somebodys().then_some(Reason::ConfirmBuild),
        };
        needed.filter(|_| !is_given(self.server, self.uid, names::CONFIRM))
    }

    /// Whether what is on the disks was not put there for this wish.
    fn is_somebodys(&self) -> bool {
        match self.contents {
            // What was only ever seen off counts as blank.
            None | Some(Contents::Wiped { .. }) => {
                self.power.is_some_and(|power| power != PowerState::PoweredOff)
            }
            Some(Contents::Image(image)) if image.origin == Origin::Adopted => {
                let wish = self.server.spec.image.as_ref();
                wish.is_some_and(|wish| wish.name != image.name) && !provisioning_is_written(self.server)
            }
            Some(contents) => contents.needs_a_word(),
        }
    }
}

/// Whether status does not show as done what asks for a job of this action.
pub fn is_unhandled(action: Action, server: &Server) -> bool {
    let (spec, status) = (&server.spec, server.status.as_ref());
    let shown = HandledTokens::shown(status);
    let pending = |kind: TokenKind| kind.of(spec).is_some_and(|token| !shown.is_handled(kind, Some(token)));
    match action {
        Action::Reboot => pending(TokenKind::Reboot),
        Action::Build | Action::Reimage => {
            let image = status.and_then(|status| status.image.as_ref()).map(|image| &image.name);
            spec.image.as_ref().is_some_and(|wish| Some(&wish.name) != image) || pending(TokenKind::Reimage)
        }
        Action::Inspect | Action::PowerOn | Action::PowerOff | Action::Wipe | Action::Decommission => true,
    }
}

/// Whether an annotation has the uid of this very object, so that an old manifest says nothing in a new cluster.
pub fn is_given(server: &Server, uid: &ServerUid, annotation: &str) -> bool {
    let annotations = server.metadata.annotations.as_ref();
    let value = annotations.and_then(|all| all.get(annotation)).map(String::as_str);
    !uid.as_str().is_empty() && value == Some(uid.as_str())
}

/// The managed fields that say who wrote `spec.provisioning`.
pub const PROVISIONING: [&str; 2] = ["f:spec", "f:provisioning"];

/// Whether somebody wrote `spec.provisioning`. Its default is `Install`: where an older definition dropped an `Adopt`, nobody
/// did, and a machine that was adopted looks as if it were to be installed.
fn provisioning_is_written(server: &Server) -> bool {
    let [spec, provisioning] = PROVISIONING;
    server.metadata.managed_fields.iter().flatten().any(|entry| {
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.get(spec));
        fields.is_some_and(|fields| fields.get(provisioning).is_some())
    })
}
