#![allow(clippy::unwrap_used, missing_docs)]

use rstest::rstest;

use super::*;
use crate::api::condition::time;
use crate::api::{ImageWish, JobStatus, Provisioning, ServerSpec};
use crate::job::{Action, JobState, Lane, Step};

const INSTALLED_MS: i64 = 5_000;

fn image(name: &str, at_ms: i64) -> InstalledImage {
    InstalledImage { name: name.into(), digest: format!("sha256:{name}"), at_ms, origin: Origin::Installed }
}

/// A server that wishes and shows the image `a`.
fn server() -> Server {
    let wish = ImageWish { name: "a".into(), ..ImageWish::default() };
    let mut server = Server::new("one", ServerSpec { image: Some(wish), ..ServerSpec::default() });
    let installed_at = time(INSTALLED_MS);
    let image = ImageStatus { name: "a".into(), digest: "sha256:a".into(), installed_at, adopted: false };
    server.status = Some(ServerStatus { image: Some(image), ..ServerStatus::default() });
    server
}

fn running(mut server: Server, action: Action) -> Server {
    let job = JobStatus {
        id: JobId(7).to_string(),
        action,
        priority: Lane::Normal,
        state: JobState::Running,
        step: Step::AwaitBoot,
        attempt: Some(1),
        enqueued_at: time(INSTALLED_MS),
        started_at: Some(time(INSTALLED_MS)),
        waiting_for: None,
        progress: None,
    };
    server.status.as_mut().unwrap().job = Some(job);
    server
}

fn decommissioned(mut server: Server) -> Server {
    server.spec.lifecycle = Lifecycle::Decommissioned;
    server
}

fn wishes(mut server: Server, name: &str) -> Server {
    server.spec.image.as_mut().unwrap().name = name.to_owned();
    server
}

const LATER: i64 = INSTALLED_MS + 1_000;

#[rstest]
#[case::nothing_known(None, server(), Some(Contents::Image(image("a", INSTALLED_MS))))]
#[case::behind(
    Some(Contents::Unknown { since_ms: 4_000 }),
    server(),
    Some(Contents::Image(image("a", INSTALLED_MS)))
)]
#[case::somebodys_before(
    Some(Contents::Foreign { since_ms: LATER }),
    server(),
    Some(Contents::Image(image("a", INSTALLED_MS)))
)]
#[case::the_same(
    Some(Contents::Image(image("a", 5_400))),
    server(),
    Some(Contents::Image(image("a", 5_400)))
)]
#[case::given_by_a_job(
    Some(Contents::Unknown { since_ms: LATER }),
    running(server(), Action::Reimage),
    Some(Contents::Unknown { since_ms: LATER })
)]
#[case::erased_by_a_job(
    Some(Contents::Wiped { since_ms: LATER }),
    running(server(), Action::Wipe),
    Some(Contents::Wiped { since_ms: LATER })
)]
#[case::as_wished_since(
    Some(Contents::Image(image("b", LATER))),
    wishes(server(), "b"),
    Some(Contents::Image(image("b", LATER)))
)]
// Objects that were restored from before know nothing of it, and nothing is done to a machine whose life has ended.
#[case::life_ended_before_the_object_was_restored(
    Some(Contents::Decommissioned { since_ms: 1 }),
    server(),
    Some(Contents::Decommissioned { since_ms: 1 })
)]
#[case::life_ended_as_wished(
    Some(Contents::Decommissioned { since_ms: 1 }),
    decommissioned(server()),
    Some(Contents::Decommissioned { since_ms: 1 })
)]
fn the_database_counts_where_the_object_explains_it(
    #[case] known: Option<Contents>,
    #[case] server: Server,
    #[case] expected: Option<Contents>,
) {
    assert_eq!(Contents::witnessed(known.as_ref(), &server), Witnessed::Agreed(expected));
}

#[rstest]
#[case(Contents::Unknown { since_ms: LATER })]
#[case(Contents::Unknown { since_ms: INSTALLED_MS })]
#[case(Contents::Doubtful { image: image("b", 1), since_ms: LATER })]
#[case(Contents::Interrupted { since_ms: LATER })]
#[case(Contents::Wiped { since_ms: LATER })]
#[case(Contents::Image(image("b", LATER)))]
fn what_nothing_outside_the_database_explains_is_disputed(#[case] known: Contents) {
    for server in [server(), running(server(), Action::Reboot)] {
        let shown = image("a", INSTALLED_MS);
        let disputed = Witnessed::Disputed { known: known.clone(), shown };
        assert_eq!(Contents::witnessed(Some(&known), &server), disputed);
    }
}

/// A server whose status says this of its disks, and names no image.
fn holding(word: DiskContents) -> Server {
    let mut server = server();
    let status = server.status.as_mut().unwrap();
    (status.image, status.contents) = (None, Some(word));
    server
}

#[rstest]
#[case(DiskContents::Foreign)]
#[case(DiskContents::Interrupted)]
#[case(DiskContents::Doubtful)]
fn what_is_somebodys_by_the_word_in_status_stays_so_whatever_the_database_says(#[case] word: DiskContents) {
    for known in [
        None,
        Some(Contents::Unknown { since_ms: LATER }),
        Some(Contents::Wiped { since_ms: LATER }),
        Some(Contents::Image(image("a", LATER))),
        Some(Contents::Image(image("b", LATER))),
    ] {
        for server in [holding(word), running(holding(word), Action::Reboot)] {
            let counts = Contents::witnessed(known.as_ref(), &server).contents();
            assert!(counts.as_ref().is_some_and(Contents::needs_a_word), "{known:?}: {counts:?}");
        }
        // A job that gives it up was confirmed, and is shown before it begins.
        if let Some(known) = known {
            let server = running(holding(word), Action::Build);
            assert_eq!(Contents::witnessed(Some(&known), &server).contents(), Some(known));
        }
    }
}

#[test]
fn what_was_somebodys_is_an_image_once_it_is_adopted_as_wished() {
    let adopted = Contents::Image(InstalledImage { origin: Origin::Adopted, ..image("a", LATER) });
    let mut server = holding(DiskContents::Foreign);
    let counts = |server: &Server| Contents::witnessed(Some(&adopted), server).contents();
    assert_eq!(counts(&server), Some(Contents::Foreign { since_ms: LATER }), "Install is wished");
    server.spec.provisioning = Provisioning::Adopt;
    assert_eq!(counts(&server), Some(adopted.clone()));
    assert_eq!(counts(&wishes(server, "b")), Some(Contents::Foreign { since_ms: LATER }));
}

#[test]
fn what_holds_nothing_of_anybody_is_what_the_database_says() {
    for word in [DiskContents::Blank, DiskContents::Unknown, DiskContents::Wiped, DiskContents::Installed] {
        let known = Contents::Unknown { since_ms: LATER };
        assert_eq!(Contents::witnessed(Some(&known), &holding(word)).contents(), Some(known), "{word:?}");
        assert_eq!(Contents::witnessed(None, &holding(word)).contents(), None, "{word:?}");
    }
}

#[test]
fn nobody_says_alone_that_an_image_was_not_there_before() {
    let of = |origin| InstalledImage { origin, ..image("a", INSTALLED_MS) };
    for (word, expected) in
        [(DiskContents::Adopted, Origin::Adopted), (DiskContents::TakenOver, Origin::TakenOver)]
    {
        let mut server = wishes(server(), "b");
        let status = server.status.as_mut().unwrap();
        status.contents = Some(word);
        status.image.as_mut().unwrap().adopted = true;
        for origin in [Origin::Installed, Origin::Adopted] {
            let counts = Contents::witnessed(Some(&Contents::Image(of(origin))), &server).contents();
            assert_eq!(counts, Some(Contents::Image(of(expected))), "{word:?} {origin:?}");
        }
        assert_eq!(Contents::witnessed(None, &server).contents(), Some(Contents::Image(of(expected))));
        // Asked for once it is there, another wish is one from then on; and what installed it is shown.
        let server = wishes(server, "a");
        let adopted = Contents::Image(of(Origin::Adopted));
        assert_eq!(Contents::witnessed(Some(&adopted), &server).contents(), Some(adopted));
        let installed = Contents::Image(of(Origin::Installed));
        let server = running(server, Action::Reimage);
        assert_eq!(Contents::witnessed(Some(&installed), &server).contents(), Some(installed));
    }
}

#[test]
fn a_life_that_ended_in_status_has_ended_whatever_the_database_says() {
    let mut server = decommissioned(server());
    let status = server.status.as_mut().unwrap();
    (status.image, status.wiped_at) = (None, Some(time(INSTALLED_MS)));
    for known in [None, Some(Contents::Image(image("a", LATER))), Some(Contents::Wiped { since_ms: LATER })] {
        let ended = Contents::Decommissioned { since_ms: INSTALLED_MS };
        assert_eq!(Contents::witnessed(known.as_ref(), &server), Witnessed::Agreed(Some(ended)));
    }
}

#[test]
fn what_was_recorded_for_another_server_is_replaced_by_no_one_without_a_word() {
    for before in
        [Contents::Unknown { since_ms: 4 }, Contents::Doubtful { image: image("a", 1), since_ms: 4 }]
    {
        let taken = Contents::taken_over(before);
        assert_eq!(taken, Contents::Interrupted { since_ms: 4 });
        assert!(taken.needs_a_word());
    }
    assert!(!Contents::taken_over(Contents::Wiped { since_ms: 4 }).needs_a_word());
    assert!(Contents::taken_over(Contents::Image(image("a", 1))).needs_a_word());
}

/// As the release before has it.
#[derive(Debug, Deserialize)]
enum OfReleaseBefore {
    Image {},
    Unknown {},
    Wiped {},
    Decommissioned {},
    Foreign {},
}

#[test]
fn the_release_before_reads_what_is_in_doubt_as_somebodys() {
    let image =
        InstalledImage { name: "a".into(), digest: "sha256:1".into(), at_ms: 1, origin: Origin::Installed };
    let all = [
        Contents::Image(image.clone()),
        Contents::Unknown { since_ms: 2 },
        Contents::Wiped { since_ms: 2 },
        Contents::Decommissioned { since_ms: 2 },
        Contents::Foreign { since_ms: 2 },
        Contents::Doubtful { image, since_ms: 2 },
        Contents::Interrupted { since_ms: 2 },
    ];
    for contents in all {
        let text = serde_json::to_string(&contents).unwrap();
        assert_eq!(serde_json::from_str::<Contents>(&text).unwrap(), contents, "{text}");
        let before: OfReleaseBefore = serde_json::from_str(&text).unwrap();
        assert!(
            match contents {
                Contents::Image(_) => matches!(before, OfReleaseBefore::Image {}),
                Contents::Unknown { .. } => matches!(before, OfReleaseBefore::Unknown {}),
                Contents::Wiped { .. } => matches!(before, OfReleaseBefore::Wiped {}),
                Contents::Decommissioned { .. } => matches!(before, OfReleaseBefore::Decommissioned {}),
                Contents::Foreign { .. } | Contents::Doubtful { .. } | Contents::Interrupted { .. } => {
                    matches!(before, OfReleaseBefore::Foreign {})
                }
            },
            "{text}: {before:?}"
        );
    }
}

#[test]
fn an_installer_runs_from_its_script_until_something_calls_home_or_its_time_is_over() {
    let unknown = Contents::Unknown { since_ms: 1_000 };
    assert!(unknown.are_being_overwritten(1_000, 500) && unknown.are_being_overwritten(1_499, 500));
    assert!(!unknown.are_being_overwritten(1_500, 500), "whatever runs now was given up");
    let image = InstalledImage {
        name: "debian".into(),
        digest: "sha256:1".into(),
        at_ms: 1_000,
        origin: Origin::Installed,
    };
    for runs_something in [
        Contents::Image(image.clone()),
        Contents::Doubtful { image, since_ms: 1_000 },
        Contents::Interrupted { since_ms: 1_000 },
        Contents::Foreign { since_ms: 1_000 },
        Contents::Wiped { since_ms: 1_000 },
    ] {
        assert!(!runs_something.are_being_overwritten(1_001, 500), "{runs_something:?}");
    }
}
