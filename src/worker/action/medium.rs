//! Virtual media: the ISO in the CD drive that a BMC shows its machine, from its insertion to the empty drive.
//!
//! The address of the medium has a token that is stored nowhere. What was inserted is recognised by its hash: after a request
//! without answer the same medium counts, and only another one is taken out first.

use std::time::Duration;

use super::install::{holds, ignored, once_more};
use crate::api::Reason;
use crate::bmc::{Beside, BootOverride, ImageUrl, Media, OverrideTarget};
use crate::boot::BootToken;
use crate::config::ms;
use crate::job::{BootEvidence, Problem, RequestKind, StepOutcome, WaitingFor};
use crate::worker::Halt;
use crate::worker::checkpoint::{Accepted, Checkpoint, Install};
use crate::worker::request::Sent;
use crate::worker::run::Run;

/// Between two tries to insert a medium that the BMC refused: the boot service may be downloading it.
const REFUSED_PAUSE_MS: i64 = 15_000;

/// Inserts the medium, and has the machine boot from it once.
pub(super) async fn insert(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let Some(base) = run.around.settings.boot_url.clone() else {
        return Ok(waits_for_a_worker(
            "spec.bootMethod is VirtualMedia, and this worker does not know where BMCs reach the boot service: start the workers of \
             this site with --boot-url",
        ));
    };
    loop {
        let media = match run.media(is_ours).await? {
            Ok(media) => media,
            Err(outcome) => return Ok(outcome),
        };
        let boot = match run.boot_override().await? {
            Ok(boot) => boot,
            Err(outcome) => return Ok(outcome),
        };
        let look = Look {
            media: &media,
            boot: &boot,
            checkpoint: &run.checkpoint,
            now_ms: run.now_ms(),
            once_more: once_more(run),
        };
        let sent = match next(look, run.patience().power) {
            Move::There => return Ok(StepOutcome::Next),
            Move::Wait(waiting_for) => {
                return Ok(StepOutcome::Park { after_ms: ms(run.patience().poll), waiting_for });
            }
            Move::Failed(problem) => return Ok(StepOutcome::Failed { problem }),
            Move::Eject => run.send(RequestKind::EjectMedia).await?,
            Move::Boot => run.send(RequestKind::BootFromMediaOnce).await?,
            Move::Insert => {
                let Ok(token) = BootToken::generate() else {
                    return Ok(waits_for_a_worker(
                        "the system gives no random bytes: look at the worker's host",
                    ));
                };
                let Ok(image) = ImageUrl::parse(&base.medium(&token)) else {
                    return Ok(waits_for_a_worker(
                        "--boot-url of this worker is too long for an address that BMCs take",
                    ));
                };
                if let Some(install) = &mut run.checkpoint.install {
                    install.media_hash = Some(token.hash().to_hex());
                }
                match run.send_with(RequestKind::InsertMedia, Beside::Image(&image)).await? {
                    Sent::Refused(problem) | Sent::Unsupported(problem) => return Ok(refused(run, &problem)),
                    sent => sent,
                }
            }
        };
        match sent {
            Sent::Accepted => {}
            Sent::Refused(problem) | Sent::Unsupported(problem) => {
                return Ok(StepOutcome::Failed { problem });
            }
            Sent::InVain(outcome) => return Ok(outcome),
        }
    }
}

/// A BMC that reads the medium before it takes it refuses one that the boot service is still downloading.
fn refused(run: &Run<'_>, problem: &Problem) -> StepOutcome {
    let now_ms = run.now_ms();
    let since_ms = run.claim().step_since_ms().or(run.claim().job().started_at_ms).unwrap_or(now_ms);
    let message = format!(
        "the BMC does not take the ISO: {}; can it reach --boot-url of the workers, and is its address in --boot-cidr of the boot \
         service? The boot service's log says what was asked for",
        problem.message
    );
    let problem = Problem::new(Reason::MediaNotInserted, message);
    if now_ms - since_ms < ms(run.around.settings.boot_deadline) {
        StepOutcome::Retry { after_ms: REFUSED_PAUSE_MS, problem }
    } else {
        StepOutcome::Failed { problem }
    }
}

/// What a worker cannot do for a reason of its own says nothing of the machine: one that can, or this one once it was started
/// again, goes on. Nothing was done to the machine yet but to its drive.
fn waits_for_a_worker(message: &str) -> StepOutcome {
    StepOutcome::Retry { after_ms: REFUSED_PAUSE_MS, problem: Problem::new(Reason::WorkerTrouble, message) }
}

/// One look at the drive, in the step that fills it.
#[derive(Clone, Copy)]
struct Look<'a> {
    media: &'a Media,
    boot: &'a BootOverride,
    checkpoint: &'a Checkpoint,
    now_ms: i64,
    /// How a person has it done again.
    once_more: &'static str,
}

/// The one thing to do next.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    /// The machine's next start is from the medium.
    There,
    /// What is in the drive is not ours.
    Eject,
    Insert,
    /// The medium is in the drive: the machine shall boot from it.
    Boot,
    Wait(WaitingFor),
    Failed(Problem),
}

fn next(look: Look<'_>, patience: Duration) -> Move {
    if *look.media == Media::NoDrive {
        return Move::Failed(Problem::new(
            Reason::MediaNotInserted,
            "spec.bootMethod is VirtualMedia, and the BMC shows no virtual CD drive (over IPMI none does; some BMCs need a licence \
             for it): try another spec.bootMethod",
        ));
    }
    let accepted = look.checkpoint.accepted;
    let waits = |accepted: Accepted, waiting_for, problem: Problem| {
        if look.now_ms - accepted.at_ms < ms(patience) {
            Move::Wait(waiting_for)
        } else {
            Move::Failed(problem)
        }
    };
    let is_ours = is_ours(look.media, look.checkpoint);
    match accepted {
        Some(accepted) if accepted.kind == RequestKind::BootFromMediaOnce => {
            if !is_ours {
                waits(accepted, WaitingFor::Media, vanished("the boot override"))
            } else if holds(look.boot, OverrideTarget::Cd) {
                Move::There
            } else {
                waits(accepted, WaitingFor::BootOverride, ignored(accepted.kind, look.boot))
            }
        }
        _ if is_ours => Move::Boot,
        Some(accepted) if accepted.kind == RequestKind::InsertMedia => {
            waits(accepted, WaitingFor::Media, vanished("the ISO"))
        }
        _ if *look.media == Media::Empty => Move::Insert,
        Some(accepted) if accepted.kind == RequestKind::EjectMedia => waits(
            accepted,
            WaitingFor::Media,
            Problem::new(
                Reason::MediaNotInserted,
                format!(
                    "there is another medium in the virtual CD drive, and the BMC accepted to eject it and still shows it: end the \
                     session that holds it (a remote console), {}",
                    look.once_more
                ),
            ),
        ),
        _ => Move::Eject,
    }
}

fn vanished(accepted: &str) -> Problem {
    Problem::new(
        Reason::MediaNotInserted,
        format!(
            "the BMC accepted {accepted} and does not show the ISO in its virtual CD drive: can it reach --boot-url of the workers, \
             and is its address in --boot-cidr of the boot service?"
        ),
    )
}

/// Whether the medium in the drive is the one of this job. A BMC that does not tell the address is believed once the request
/// was sent.
fn is_ours(media: &Media, checkpoint: &Checkpoint) -> bool {
    let Media::Inserted(address) = media else { return false };
    let Some(hash) = checkpoint.install.as_ref().and_then(|install| install.media_hash.as_ref()) else {
        return false;
    };
    match address.as_deref().and_then(token_in) {
        Some(token) => token.hash().to_hex() == *hash,
        None => was_sent(checkpoint),
    }
}

fn token_in(address: &str) -> Option<BootToken> {
    address.split('/').find_map(BootToken::parse)
}

/// Whether the insertion is the last that was sent, or came before the last.
fn was_sent(checkpoint: &Checkpoint) -> bool {
    let inserted = |accepted: &Accepted| accepted.kind == RequestKind::InsertMedia;
    match (&checkpoint.accepted, &checkpoint.unanswered) {
        (Some(accepted), Some(unanswered)) if unanswered.at_ms >= accepted.at_ms => inserted(unanswered),
        (Some(accepted), _) => inserted(accepted) || accepted.kind == RequestKind::BootFromMediaOnce,
        (None, Some(unanswered)) => inserted(unanswered),
        (None, None) => false,
    }
}

/// Takes the medium out. What a person put in since stays, where the BMC tells it apart.
pub(super) async fn eject(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    if let Err(outcome) = run.probe().await? {
        return Ok(outcome);
    }
    loop {
        let media = match run.media(may_be_ours).await? {
            Ok(media) => media,
            Err(outcome) => return Ok(outcome),
        };
        if !may_be_ours(&media, &run.checkpoint) {
            return Ok(StepOutcome::Next);
        }
        // Its token dies with the session, so that a medium that stays is one that nothing boots from.
        let stays = |why: &str| {
            tracing::warn!("the medium stays in the virtual CD drive, where it can no longer be read: {why}");
            StepOutcome::Next
        };
        let accepted = run.checkpoint.accepted.filter(|accepted| accepted.kind == RequestKind::EjectMedia);
        if let Some(accepted) = accepted {
            return Ok(if run.now_ms() - accepted.at_ms < ms(run.patience().power) {
                StepOutcome::Park { after_ms: ms(run.patience().poll), waiting_for: WaitingFor::Media }
            } else {
                stays("the BMC accepted to eject it, and still shows it")
            });
        }
        match run.send(RequestKind::EjectMedia).await? {
            Sent::Accepted => {}
            Sent::Refused(problem) | Sent::Unsupported(problem) => return Ok(stays(&problem.message)),
            Sent::InVain(outcome) => return Ok(outcome),
        }
    }
}

/// Whether there is something in the drive that this job may have put there.
fn may_be_ours(media: &Media, checkpoint: &Checkpoint) -> bool {
    let Media::Inserted(address) = media else { return false };
    let Some(hash) = checkpoint.install.as_ref().and_then(|install| install.media_hash.as_ref()) else {
        return false;
    };
    address.as_deref().and_then(token_in).is_none_or(|token| token.hash().to_hex() == *hash)
}

/// What is said of a machine whose medium nobody called from. That the BMC read the medium is no sign that the machine booted:
/// many read it when it is inserted.
pub(super) fn never_booted(install: &Install, evidence: &BootEvidence, deadline: Duration) -> String {
    let read = match evidence.media_read_at_ms {
        Some(_) => {
            "its BMC did read the ISO: look at the machine's console, and whether the ISO asks the boot service for its session"
        }
        None => {
            "its BMC never read the ISO: can it reach --boot-url of the workers, and is its address in --boot-cidr of the boot service"
        }
    };
    format!(
        "the machine was started, and nothing on the ISO asked for the session of its MAC address {} within {} s; {read}",
        install.mac,
        deadline.as_secs()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::api::BootMethod;
    use crate::api::hardware::PowerState;
    use crate::bmc::OverrideEnabled;

    const POWER: Duration = Duration::from_mins(1);

    fn checkpoint(token: Option<&BootToken>, accepted: &[RequestKind]) -> Checkpoint {
        Checkpoint {
            install: Some(Install {
                image: "debian".into(),
                digest: "sha256:1".into(),
                mac: "52:54:00:12:34:56".into(),
                card: crate::worker::checkpoint::CardChoice::Told,
                method: BootMethod::VirtualMedia,
                power_before: PowerState::PoweredOff,
                media_hash: token.map(|token| token.hash().to_hex()),
            }),
            accepted: accepted.last().map(|kind| Accepted { kind: *kind, at_ms: 0 }),
            ..Checkpoint::default()
        }
    }

    fn inserted(token: &BootToken) -> Media {
        let base: crate::boot::PublicUrl = "http://192.0.2.5:8081".parse().unwrap();
        Media::Inserted(Some(base.medium(token)))
    }

    fn moved(media: &Media, target: OverrideTarget, checkpoint: &Checkpoint, now_ms: i64) -> Move {
        let boot = BootOverride { enabled: OverrideEnabled::Once, target, http_uri: None };
        next(Look { media, boot: &boot, checkpoint, now_ms, once_more: "then try again" }, POWER)
    }

    #[test]
    fn a_drive_is_emptied_filled_and_booted_from() {
        use RequestKind::{BootFromMediaOnce, EjectMedia, InsertMedia};
        let (ours, other) = (BootToken::generate().unwrap(), BootToken::generate().unwrap());
        let foreign = Media::Inserted(Some("http://192.0.2.9/rescue.iso".into()));
        let (none, cd) = (OverrideTarget::None, OverrideTarget::Cd);
        for (media, target, token, accepted, expected) in [
            (&foreign, none, None, vec![], Move::Eject),
            (&inserted(&other), none, None, vec![], Move::Eject),
            (&foreign, none, None, vec![EjectMedia], Move::Wait(WaitingFor::Media)),
            (&Media::Empty, none, None, vec![EjectMedia], Move::Insert),
            (&Media::Empty, none, None, vec![], Move::Insert),
            (&Media::Empty, none, Some(&ours), vec![InsertMedia], Move::Wait(WaitingFor::Media)),
            (&inserted(&ours), none, Some(&ours), vec![InsertMedia], Move::Boot),
            (&Media::Inserted(None), none, Some(&ours), vec![InsertMedia], Move::Boot),
            // After a request without answer.
            (&inserted(&ours), none, Some(&ours), vec![], Move::Boot),
            (&inserted(&other), none, Some(&ours), vec![], Move::Eject),
            (&Media::Inserted(None), none, Some(&ours), vec![], Move::Eject),
            (
                &inserted(&ours),
                none,
                Some(&ours),
                vec![BootFromMediaOnce],
                Move::Wait(WaitingFor::BootOverride),
            ),
            (&inserted(&ours), cd, Some(&ours), vec![BootFromMediaOnce], Move::There),
            (&Media::Empty, cd, Some(&ours), vec![BootFromMediaOnce], Move::Wait(WaitingFor::Media)),
        ] {
            let checkpoint = checkpoint(token, &accepted);
            assert_eq!(moved(media, target, &checkpoint, 1_000), expected, "{media:?} {accepted:?}");
        }
    }

    #[test]
    fn what_a_bmc_does_not_do_in_time_is_told_with_the_reason() {
        let ours = BootToken::generate().unwrap();
        let late = |media: &Media, accepted| match moved(
            media,
            OverrideTarget::None,
            &checkpoint(Some(&ours), &[accepted]),
            60_000,
        ) {
            Move::Failed(problem) => problem.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(late(&Media::NoDrive, RequestKind::InsertMedia), Reason::MediaNotInserted);
        assert_eq!(late(&Media::Empty, RequestKind::InsertMedia), Reason::MediaNotInserted);
        assert_eq!(late(&inserted(&ours), RequestKind::BootFromMediaOnce), Reason::BootOverrideIgnored);
    }

    #[test]
    fn an_unanswered_insertion_is_believed_where_the_bmc_tells_no_address() {
        let ours = BootToken::generate().unwrap();
        let unanswered = Some(Accepted { kind: RequestKind::InsertMedia, at_ms: 5 });
        let lost = Checkpoint { unanswered, ..checkpoint(Some(&ours), &[RequestKind::EjectMedia]) };
        assert_eq!(moved(&Media::Inserted(None), OverrideTarget::None, &lost, 10), Move::Boot);
        assert_eq!(moved(&Media::Empty, OverrideTarget::None, &lost, 10), Move::Insert);
    }
}
