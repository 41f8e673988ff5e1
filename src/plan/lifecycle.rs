//! `spec.lifecycle`: the end of a machine's life. Its disks are erased, it is powered off, and then nothing is done to it
//! ever again.

use super::{Observation, Work, image, word};
use crate::api::{ImageKind, Lifecycle, Reason, WipeImages, names};
use crate::job::{Action, Contents, Problem, Visibility};

/// Where a machine stands in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// It is in use.
    InService,
    /// It has ended.
    Ended,
    /// It is to be ended.
    ToEnd,
    /// A person has to say that it is meant, or what erases disks is missing.
    Blocked(Problem),
}

pub(super) fn life(seen: &Observation) -> Life {
    if has_ended(seen) {
        return Life::Ended;
    }
    if seen.spec().lifecycle == Lifecycle::InService {
        return Life::InService;
    }
    if let Some(reason) = word::missing(seen, Action::Decommission) {
        return Life::Blocked(confirm(seen, reason));
    }
    wipe_image_missing(seen).map_or(Life::ToEnd, Life::Blocked)
}

/// Whether nothing but its end is wished of the machine, or it has come: image, power and tokens no longer count.
pub(super) fn is_over(seen: &Observation) -> bool {
    seen.spec().lifecycle == Lifecycle::Decommissioned || has_ended(seen)
}

/// Whether the machine's life has ended under this very object, whatever spec says by now.
fn has_ended(seen: &Observation) -> bool {
    matches!(image::contents(seen), Some(Contents::Decommissioned { .. }))
}

/// What is said where spec no longer has the end that has come: an older definition that is applied drops the field, and so
/// does a backup of before.
pub(super) fn forgotten_by_spec(seen: &Observation) -> Option<Problem> {
    let forgotten = has_ended(seen) && seen.spec().lifecycle == Lifecycle::InService;
    let metadata = &seen.server.metadata;
    let (name, namespace) =
        (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref().unwrap_or_default());
    forgotten.then(|| {
        Problem::new(
            Reason::LifecycleForgotten,
            format!(
                "spec.lifecycle is InService, and this machine was decommissioned under this very object: nothing is done to it. Say \
                 so again: kubectl patch server {name} -n {namespace} --type=merge -p \
                 '{{\"spec\":{{\"lifecycle\":\"Decommissioned\"}}}}' ; or, to bring the machine back, delete this Server and create a new \
                 one with the annotation {}",
                names::RECOMMISSION
            ),
        )
    })
}

/// The end that is due. The machine is looked at first: what boots it has to be known.
pub(super) fn wanted(seen: &Observation) -> Option<Work> {
    match life(seen) {
        Life::ToEnd if was_read(seen) => Work::new(seen, Action::Decommission, Visibility::Shown),
        Life::InService | Life::Ended | Life::Blocked(_) | Life::ToEnd => None,
    }
}

/// Whether the machine was ever looked at.
pub(super) fn was_read(seen: &Observation) -> bool {
    seen.reading().is_some()
}

/// What is said where nothing is there that erases disks.
pub(super) fn wipe_image_missing(seen: &Observation) -> Option<Problem> {
    seen.wipe.digest.is_none().then(|| {
        let method = seen.spec().boot_method;
        let what = match method.image_kind() {
            ImageKind::Network => "a kernel to boot",
            ImageKind::Iso => "an ISO",
        };
        Problem::new(
            Reason::WipeImageNotFound,
            format!(
                "there is no OSImage {:?} with {what} in this namespace, which would erase the disks of a machine with bootMethod {}: \
                 create it, or give {} another name",
                seen.wipe.name,
                method.as_str(),
                WipeImages::flag(method)
            ),
        )
    })
}

fn confirm(seen: &Observation, reason: Reason) -> Problem {
    Problem::new(
        reason,
        format!(
            "spec.lifecycle is Decommissioned: the disks are erased and the machine never serves again. If that is meant: {}",
            word::to_confirm(seen)
        ),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::api::{BootMethod, DeletionPolicy};
    use crate::plan::{Command, decide, fixture as f};

    fn confirmed(mut seen: Observation) -> Observation {
        let uid = seen.uid().as_str().to_owned();
        seen.server.metadata.annotations = Some([(names::CONFIRM.to_owned(), uid)].into());
        seen
    }

    fn decommissioned(mut seen: Observation) -> Observation {
        seen.server.spec.lifecycle = Lifecycle::Decommissioned;
        confirmed(seen)
    }

    fn deleted(mut seen: Observation) -> Observation {
        seen.server.spec.deletion_policy = DeletionPolicy::Wipe;
        f::delete(&mut seen, 1_000);
        confirmed(seen)
    }

    fn never_read() -> Observation {
        let mut seen = f::ready();
        f::known(&mut seen).reading = None;
        f::known(&mut seen).last_try_ms = None;
        seen
    }

    #[rstest]
    #[case::decommissioned(decommissioned(never_read()), Action::Inspect)]
    #[case::deleted_with_wipe(deleted(never_read()), Action::Inspect)]
    #[case::decommissioned_and_read(decommissioned(f::ready()), Action::Decommission)]
    #[case::deleted_with_wipe_and_read(deleted(f::ready()), Action::Wipe)]
    fn a_machine_is_looked_at_before_its_disks_are_erased(#[case] seen: Observation, #[case] action: Action) {
        let Command::Enqueue(work) = decide(&seen).command else {
            unreachable!("{:?}", decide(&seen).command)
        };
        assert_eq!(work.action, action);
    }

    #[rstest]
    #[case(BootMethod::PXE, "with a kernel to boot", "--wipe-image")]
    #[case(BootMethod::HTTP, "with a kernel to boot", "--wipe-image")]
    #[case(BootMethod::VirtualMedia, "with an ISO", "--wipe-iso")]
    fn what_erases_disks_is_missing_by_the_name_and_flag_of_the_boot_method(
        #[case] method: BootMethod,
        #[case] what: &str,
        #[case] flag: &str,
    ) {
        let mut seen = decommissioned(f::ready());
        seen.server.spec.boot_method = method;
        seen.wipe.digest = None;
        let problem = wipe_image_missing(&seen).unwrap();
        assert_eq!(problem.reason, Reason::WipeImageNotFound);
        for said in [what, flag, method.as_str()] {
            assert!(problem.message.contains(said), "{}", problem.message);
        }
        assert!(matches!(decide(&seen).command, Command::Nothing(_)));
    }

    #[rstest]
    #[case::decommission(|seen: &mut Observation| seen.server.spec.lifecycle = Lifecycle::Decommissioned, "ConfirmDecommission")]
    #[case::deletion(|seen: &mut Observation| {
        seen.server.spec.deletion_policy = DeletionPolicy::Wipe;
        f::delete(seen, 1_000);
    }, "ConfirmWipe")]
    fn nothing_is_erased_without_a_persons_word(#[case] asked: fn(&mut Observation), #[case] reason: &str) {
        let mut seen = f::ready();
        asked(&mut seen);
        let decision = decide(&seen);
        assert!(matches!(decision.command, Command::Nothing(_)), "{:?}", decision.command);
        let shown = crate::plan::status(&seen, &decision);
        let stalled = shown.conditions.iter().find(|one| one.type_ == "Stalled").unwrap();
        assert_eq!(stalled.reason, reason);
        assert!(stalled.message.contains("kubectl annotate server"), "{}", stalled.message);
    }
}
