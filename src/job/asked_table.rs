//! What is asked for and what is not, as one table: planner, worker and boot service are each tried on every row that they
//! can meet.
#![allow(clippy::unwrap_used, missing_docs)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};

use super::{Action, Contents, InstalledImage, Objection, Origin, Stage};
use crate::api::condition::time;
use crate::api::{DeletionPolicy, ImageWish, Lifecycle, Power, Provisioning, Reason, Server, names};

/// A row.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) action: Action,
    /// What makes the object, which has a uid and asks for nothing, as it stands.
    pub(crate) wish: fn(&mut Server),
    pub(crate) contents: Option<Contents>,
    /// Before anything is sent, when the first request is sent again, and once the machine runs what was booted.
    pub(crate) expected: [Option<Objection>; 3],
}

pub(crate) const STAGES: [Stage; 3] = [Stage::First, Stage::Again, Stage::Begun];

impl Row {
    /// The object of this row, made of one that asks for nothing.
    pub(crate) fn server(&self, mut server: Server) -> Server {
        (self.wish)(&mut server);
        server
    }
}

fn image(name: &str, origin: Origin) -> Contents {
    Contents::Image(InstalledImage { name: name.into(), digest: "sha256:0".into(), at_ms: 1, origin })
}

pub(crate) fn wishes_image(server: &mut Server) {
    server.spec.image = Some(ImageWish { name: "debian".into(), ..ImageWish::default() });
}

fn confirms(server: &mut Server) {
    let uid = server.metadata.uid.clone().unwrap();
    server.metadata.annotations = Some([(names::CONFIRM.to_owned(), uid)].into());
}

fn wishes_power(server: &mut Server, power: Power) {
    server.spec.power = Some(power);
}

fn ends(server: &mut Server) {
    server.spec.lifecycle = Lifecycle::Decommissioned;
}

fn deleted(server: &mut Server, policy: DeletionPolicy) {
    server.spec.deletion_policy = policy;
    server.metadata.deletion_timestamp = Some(time(3));
}

fn provisioning_is_written(server: &mut Server) {
    let fields = serde_json::json!({ "f:spec": { "f:provisioning": {} } });
    let entry = ManagedFieldsEntry { fields_v1: Some(FieldsV1(fields)), ..ManagedFieldsEntry::default() };
    server.metadata.managed_fields = Some(vec![entry]);
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Row> {
    use Objection::{
        Adopted, Decommissioned, Deleted, LifeEnded, NoImage, NoPowerOff, NoPowerOn, NoReboot, NoWipe,
        Paused, Unconfirmed,
    };
    let always = |objection| [Some(objection); 3];
    let before = |objection| [Some(objection), Some(objection), None];
    let word = |reason| [Some(Unconfirmed(reason)), None, None];
    let install =
        |what, wish, contents, expected| Row { what, action: Action::Reimage, wish, contents, expected };
    let build =
        |what, wish, contents, expected| Row { what, action: Action::Build, wish, contents, expected };
    let ours = || Some(image("old", Origin::Installed));
    let end = |what, wish, expected| Row {
        what,
        action: Action::Decommission,
        wish,
        contents: Some(image("old", Origin::Installed)),
        expected,
    };
    let wipe = |what, wish, expected| Row {
        what,
        action: Action::Wipe,
        wish,
        contents: Some(image("old", Origin::Installed)),
        expected,
    };
    let power_of = |what, action, wish, expected| Row {
        what,
        action,
        wish,
        contents: Some(image("old", Origin::Installed)),
        expected,
    };
    let life_ended = || Some(Contents::Decommissioned { since_ms: 1 });
    vec![
        install("another image of ours is wished", wishes_image, ours(), [None; 3]),
        install(
            "it is adopted",
            |s| {
                wishes_image(s);
                s.spec.provisioning = Provisioning::Adopt;
            },
            ours(),
            before(Adopted),
        ),
        install("no image is wished", |_| {}, ours(), before(NoImage)),
        install(
            "its life is to end",
            |s| {
                wishes_image(s);
                ends(s);
                confirms(s);
            },
            ours(),
            always(Decommissioned),
        ),
        install(
            "it is deleted",
            |s| {
                wishes_image(s);
                deleted(s, DeletionPolicy::Retain);
            },
            ours(),
            always(Deleted),
        ),
        install(
            "it is wiped first",
            |s| {
                wishes_image(s);
                deleted(s, DeletionPolicy::Wipe);
            },
            ours(),
            always(Deleted),
        ),
        install(
            "it is paused",
            |s| {
                wishes_image(s);
                s.spec.paused = Some(true);
            },
            ours(),
            before(Paused),
        ),
        install("its life has ended and spec forgot it", wishes_image, life_ended(), always(LifeEnded)),
        install(
            "an installation was begun",
            wishes_image,
            Some(Contents::Unknown { since_ms: 1 }),
            [None; 3],
        ),
        install(
            "what was adopted is to be replaced, and nobody wrote Install",
            wishes_image,
            Some(image("old", Origin::Adopted)),
            word(Reason::ConfirmBuild),
        ),
        install(
            "what was adopted is to be replaced by a person's word",
            |s| {
                wishes_image(s);
                confirms(s);
            },
            Some(image("old", Origin::Adopted)),
            [None; 3],
        ),
        install(
            "what was adopted is to be replaced, as somebody wrote",
            |s| {
                wishes_image(s);
                provisioning_is_written(s);
            },
            Some(image("old", Origin::Adopted)),
            [None; 3],
        ),
        build(
            "somebody's machine",
            wishes_image,
            Some(Contents::Foreign { since_ms: 1 }),
            word(Reason::ConfirmBuild),
        ),
        build(
            "somebody's machine by a person's word",
            |s| {
                wishes_image(s);
                confirms(s);
            },
            Some(Contents::Foreign { since_ms: 1 }),
            [None; 3],
        ),
        build(
            "somebody's machine by the word for another object",
            |s| {
                wishes_image(s);
                s.metadata.annotations = Some([(names::CONFIRM.to_owned(), "another".to_owned())].into());
            },
            Some(Contents::Foreign { since_ms: 1 }),
            word(Reason::ConfirmBuild),
        ),
        end(
            "its life is to end by a person's word",
            |s| {
                ends(s);
                confirms(s);
            },
            [None; 3],
        ),
        end("its life is to end", ends, word(Reason::ConfirmDecommission)),
        end("nobody wants its end", confirms, always(NoWipe)),
        end(
            "its life is to end, and it is paused",
            |s| {
                ends(s);
                confirms(s);
                s.spec.paused = Some(true);
            },
            before(Paused),
        ),
        end(
            "it is deleted instead",
            |s| {
                ends(s);
                confirms(s);
                deleted(s, DeletionPolicy::Retain);
            },
            always(Deleted),
        ),
        wipe(
            "it is wiped by a person's word",
            |s| {
                deleted(s, DeletionPolicy::Wipe);
                confirms(s);
            },
            [None; 3],
        ),
        wipe("it is wiped", |s| deleted(s, DeletionPolicy::Wipe), word(Reason::ConfirmWipe)),
        wipe(
            "it is let go",
            |s| {
                deleted(s, DeletionPolicy::Retain);
                confirms(s);
            },
            always(Deleted),
        ),
        wipe(
            "it is powered off",
            |s| {
                deleted(s, DeletionPolicy::PowerOff);
                confirms(s);
            },
            always(Deleted),
        ),
        wipe(
            "it is not deleted",
            |s| {
                s.spec.deletion_policy = DeletionPolicy::Wipe;
                confirms(s);
            },
            always(NoWipe),
        ),
        Row {
            what: "power of a machine whose life has ended",
            action: Action::PowerOn,
            wish: |s| wishes_power(s, Power::PoweredOn),
            contents: life_ended(),
            expected: always(LifeEnded),
        },
        Row {
            what: "a reboot of one",
            action: Action::Reboot,
            wish: |s| s.spec.reboot_token = Some("a".into()),
            contents: life_ended(),
            expected: always(LifeEnded),
        },
        power_of("off as wished", Action::PowerOff, |s| wishes_power(s, Power::PoweredOff), [None; 3]),
        power_of(
            "off while paused",
            Action::PowerOff,
            |s| {
                wishes_power(s, Power::PoweredOff);
                s.spec.paused = Some(true);
            },
            before(Paused),
        ),
        power_of(
            "off, and on is wished",
            Action::PowerOff,
            |s| wishes_power(s, Power::PoweredOn),
            always(NoPowerOff),
        ),
        power_of("off, and nothing is wished", Action::PowerOff, |_| {}, always(NoPowerOff)),
        power_of(
            "off before it is deleted",
            Action::PowerOff,
            |s| deleted(s, DeletionPolicy::PowerOff),
            [None; 3],
        ),
        power_of(
            "off, and it is let go as it is",
            Action::PowerOff,
            |s| {
                wishes_power(s, Power::PoweredOff);
                deleted(s, DeletionPolicy::Retain);
            },
            always(NoPowerOff),
        ),
        power_of(
            "off, and its life is to end",
            Action::PowerOff,
            |s| {
                wishes_power(s, Power::PoweredOff);
                ends(s);
            },
            always(NoPowerOff),
        ),
        power_of("on, and nothing is wished", Action::PowerOn, |_| {}, always(NoPowerOn)),
        power_of(
            "on, and off is wished",
            Action::PowerOn,
            |s| wishes_power(s, Power::PoweredOff),
            always(NoPowerOn),
        ),
        power_of(
            "on, and it is powered off before it is deleted",
            Action::PowerOn,
            |s| {
                wishes_power(s, Power::PoweredOn);
                deleted(s, DeletionPolicy::PowerOff);
            },
            always(NoPowerOn),
        ),
        power_of("a reboot, and there is no token", Action::Reboot, |_| {}, always(NoReboot)),
        power_of(
            "a reboot as asked for",
            Action::Reboot,
            |s| s.spec.reboot_token = Some("a".into()),
            [None; 3],
        ),
        power_of(
            "a reboot of what shall be off",
            Action::Reboot,
            |s| {
                s.spec.reboot_token = Some("a".into());
                wishes_power(s, Power::PoweredOff);
            },
            always(NoReboot),
        ),
        power_of(
            "a reboot of what is deleted",
            Action::Reboot,
            |s| {
                s.spec.reboot_token = Some("a".into());
                deleted(s, DeletionPolicy::Retain);
            },
            always(NoReboot),
        ),
    ]
}

#[test]
fn what_is_asked_for_is_asked_of_the_object_at_every_stage() {
    use super::{Asked, ServerUid};
    use crate::api::hardware::PowerState;
    let uid = ServerUid("u".into());
    for row in rows() {
        let mut server = Server::new("a", crate::api::ServerSpec::default());
        server.metadata.uid = Some("u".into());
        let server = row.server(server);
        for (stage, expected) in STAGES.into_iter().zip(row.expected) {
            let asked = Asked {
                action: row.action,
                stage,
                server: &server,
                uid: &uid,
                contents: row.contents.as_ref(),
                power: Some(PowerState::PoweredOn),
                debt: None,
                image: None,
            };
            assert_eq!(asked.objection(), expected, "{} at {stage:?}", row.what);
            let another = ServerUid("v".into());
            let asked = Asked { uid: &another, ..asked };
            assert_eq!(asked.objection(), Some(Objection::AnotherServer), "{}", row.what);
        }
    }
}
