//! `Build` and `Reimage`: the machine boots its installer once, from the network or from a medium, is installed, and calls
//! home.
//!
//! The boot session is published with the request for the boot override or the one that inserts the medium, and what is on the
//! disks counts as unknown from the moment that the machine is given its script, or what runs from its medium its session. The two
//! waits hold nothing: the job is parked, and what the machine tells wakes it.

use std::time::Duration;

use super::{card, medium, power_step, unsupported};
use crate::api::hardware::PowerState;
use crate::api::{BootMethod, Mac, Reason, WipeImages};
use crate::bmc::{Beside, BootOverride, ImageUrl, OverrideEnabled, OverrideTarget};
use crate::config::ms;
use crate::job::{BootEvidence, Problem, RequestKind, Step, StepOutcome, WaitingFor};
use crate::queue::{Disks, Installed};
use crate::worker::Halt;
use crate::worker::checkpoint::{CardChoice, Install};
use crate::worker::request::Sent;
use crate::worker::run::Run;
use crate::worker::session::BootImage;

/// What is parked is looked at again after this time at the latest, though everything that is told wakes it.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// One step of an installation, or of its undo.
pub(super) async fn step(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    match run.claim().job().step {
        Step::SetBootOverride => begin(run).await,
        Step::Off => power_step::off(run).await,
        Step::On if run.undoing() && !was_on(run) => Ok(StepOutcome::Next),
        Step::On => power_step::on(run).await,
        Step::AwaitBoot => await_boot(run).await,
        Step::ClearBootOverride => clear_override(run).await,
        Step::AwaitInstall => await_install(run).await,
        Step::EjectMedia if run.checkpoint.ending.is_some() => medium::eject(run).await,
        Step::EjectMedia => match medium::eject(run).await? {
            StepOutcome::Next => finish(run).await,
            outcome => Ok(outcome),
        },
        step @ (Step::Inspect | Step::AwaitWipe | Step::OffForGood) => Ok(unsupported(run.action(), step)),
    }
}

fn was_on(run: &Run<'_>) -> bool {
    run.checkpoint.install.as_ref().is_some_and(|install| install.power_before != PowerState::PoweredOff)
}

/// Has the machine boot its installer with its next start.
async fn begin(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let probe = match run.probe().await? {
        Ok(probe) => probe,
        Err(outcome) => return Ok(outcome),
    };
    // Until a request may have been carried out, what was found before decides nothing: the machine was switched on since, or
    // spec names another card or method.
    let fixed = run.checkpoint.install.clone().filter(|_| run.checkpoint.has_acted());
    let install = if let Some(install) = fixed {
        install
    } else {
        if let Err(outcome) = card_is_known(run).await? {
            return Ok(outcome);
        }
        let image = match bootable(run) {
            Ok(image) => image.clone(),
            Err(problem) => return Ok(StepOutcome::Failed { problem }),
        };
        match card::claimed(run).await? {
            Ok(card) => prepared(run, probe.power, image, card),
            Err(outcome) => return Ok(outcome),
        }
    };
    let method = install.method;
    run.checkpoint.install = Some(install);
    match method {
        BootMethod::PXE => set_override(run, OverrideTarget::Network, RequestKind::BootFromNetworkOnce).await,
        BootMethod::HTTP => set_override(run, OverrideTarget::Http, RequestKind::BootFromHttpOnce).await,
        BootMethod::VirtualMedia => medium::insert(run).await,
    }
}

/// Cards that nobody could read so far are read once more, and waited for: without one nothing is known of what boots.
async fn card_is_known(run: &mut Run<'_>) -> Result<Result<(), StepOutcome>, Halt> {
    let unknown = |run: &Run<'_>| {
        let Some(hardware) = run.reading.as_ref().map(|reading| &reading.hardware) else { return false };
        let told = hardware.cards();
        let wished = run.server().and_then(|server| server.spec.boot_mac_address.as_deref());
        let is_told = match wished.map(str::parse) {
            None => !told.is_empty(),
            Some(Ok(mac)) => told.contains(&mac),
            Some(Err(_)) => true,
        };
        !is_told && hardware.may_have_more_nics()
    };
    if !unknown(run) {
        return Ok(Ok(()));
    }
    if let Err(outcome) = run.inventory().await? {
        return Ok(Err(outcome));
    }
    Ok(if unknown(run) {
        let message = "the BMC has network interfaces that cannot be read: they are read again, and nothing is sent before; \
                       spec.bootMACAddress may name the one that boots";
        Err(run.retry(Problem::new(Reason::BMCProtocolError, message), 0))
    } else {
        Ok(())
    })
}

async fn set_override(
    run: &mut Run<'_>,
    target: OverrideTarget,
    request: RequestKind,
) -> Result<StepOutcome, Halt> {
    let program = run.around.settings.http_boot_uri.clone().filter(|_| target == OverrideTarget::Http);
    let beside = program.as_ref().map_or(Beside::Nothing, Beside::BootUri);
    loop {
        let seen = match run.boot_override().await? {
            Ok(seen) => seen,
            Err(outcome) => return Ok(outcome),
        };
        // One that was there before is set again: the session is published with the request.
        if let Some(accepted) = run.checkpoint.accepted.filter(|accepted| accepted.kind == request) {
            return Ok(if holds(&seen, target) && fetches(&seen, program.as_ref()) {
                StepOutcome::Next
            } else if run.now_ms() - accepted.at_ms < ms(run.patience().power) {
                StepOutcome::Park { after_ms: ms(run.patience().poll), waiting_for: WaitingFor::BootOverride }
            } else {
                StepOutcome::Failed { problem: ignored(request, &seen) }
            });
        }
        match run.send_with(request, beside).await? {
            Sent::Accepted => {}
            Sent::Refused(problem) | Sent::Unsupported(problem) => {
                return Ok(StepOutcome::Failed { problem });
            }
            Sent::InVain(outcome) => return Ok(outcome),
        }
    }
}

/// Some BMCs answer `Continuous` to `Once`: that boots as well, and is cleared as soon as the script was fetched.
pub(super) fn holds(seen: &BootOverride, target: OverrideTarget) -> bool {
    seen.target == target && matches!(seen.enabled, OverrideEnabled::Once | OverrideEnabled::Continuous)
}

/// Whether UEFI HTTP boot fetches this program, as far as the BMC has a say in it.
fn fetches(seen: &BootOverride, program: Option<&ImageUrl>) -> bool {
    match (&seen.http_uri, program) {
        (Some(shown), Some(program)) => ImageUrl::parse(shown).as_ref() == Ok(program),
        (None, _) | (_, None) => true,
    }
}

pub(super) fn ignored(request: RequestKind, seen: &BootOverride) -> Problem {
    let shown = seen.http_uri.as_deref().filter(|_| seen.target == OverrideTarget::Http);
    let shown = shown.map(|uri| format!(" with HttpBootUri {uri:?}")).unwrap_or_default();
    Problem::new(
        Reason::BootOverrideIgnored,
        format!(
            "the BMC accepted {} and shows {:?} {:?}{shown}: look at its boot settings, or try another spec.bootMethod",
            request.as_str(),
            seen.enabled,
            seen.target
        ),
    )
}

/// What is booted. `Err`: nothing can be, and nothing was sent.
fn bootable<'a>(run: &'a Run<'_>) -> Result<&'a BootImage, Problem> {
    let asking = run.asking.as_ref();
    let Some((spec, image)) = asking.and_then(|asking| Some((&asking.server.spec, asking.image.as_ref()?)))
    else {
        return Err(if run.action().wipes() {
            let method = run.server().map(|server| server.spec.boot_method).unwrap_or_default();
            let message =
                format!("the OSImage of {} is not there: nothing was sent", WipeImages::flag(method));
            Problem::new(Reason::WipeImageNotFound, message)
        } else {
            let message = "spec.image names no OSImage that is there: nothing was sent";
            Problem::new(Reason::ImageNotFound, message)
        });
    };
    if let Some(flaw) = &image.flaw {
        let name = &image.name;
        let message = format!(
            "no machine can be given the OSImage {name:?}: {flaw}; make another one. Nothing was sent"
        );
        return Err(Problem::new(Reason::ImageUnusable, message));
    }
    match spec.boot_method.mismatch(&image.name, image.kind) {
        Some(message) => {
            Err(Problem::new(Reason::BootMethodMismatch, format!("{message}; nothing was sent")))
        }
        None => Ok(image),
    }
}

/// What the installation has to know, before anything is sent.
fn prepared(
    run: &Run<'_>,
    power_before: PowerState,
    image: BootImage,
    (mac, card): (Mac, CardChoice),
) -> Install {
    Install {
        image: image.name,
        digest: image.digest,
        mac: mac.with_colons(),
        card,
        method: run.server().map(|server| server.spec.boot_method).unwrap_or_default(),
        power_before,
        media_hash: None,
    }
}

async fn await_boot(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let evidence = match evidence(run).await? {
        Ok(evidence) => evidence,
        Err(outcome) => return Ok(outcome),
    };
    if let Some(problem) = unusable(run, &evidence) {
        return Ok(StepOutcome::Failed { problem });
    }
    if evidence.fetched_at_ms.is_some() {
        return Ok(StepOutcome::Next);
    }
    if let Some(problem) = card::lost(run).await? {
        return Ok(StepOutcome::Failed { problem });
    }
    let deadline = run.around.settings.boot_deadline;
    let left_ms = left(run, deadline);
    if let Some(outcome) = card::met(run, &evidence, left_ms.unwrap_or_default()) {
        return Ok(outcome);
    }
    if let Some(after_ms) = left_ms {
        return Ok(StepOutcome::Park { after_ms, waiting_for: WaitingFor::NetworkBoot });
    }
    // Not started once more by itself: steps only go forward, so that status can tell a database that lost its last
    // commits.
    let message = match &run.checkpoint.install {
        Some(install) if install.method == BootMethod::VirtualMedia => {
            format!("{}; {}", medium::never_booted(install, &evidence, deadline), once_more(run))
        }
        install => {
            let mac = install.as_ref().map(|install| install.mac.as_str()).unwrap_or_default();
            let guess = install.as_ref().map(card::guess).unwrap_or_default();
            format!(
                "the machine was started and did not fetch its boot script within {} s (MAC address {mac}{guess}): look at its \
                 console, at spec.bootMACAddress and spec.bootMethod, and at the DHCP server; {}",
                deadline.as_secs(),
                once_more(run)
            )
        }
    };
    Ok(StepOutcome::Failed { problem: Problem::new(Reason::NeverBooted, message) })
}

/// What the boot service cannot give to this machine, it cannot give later either.
pub(super) fn unusable(run: &Run<'_>, evidence: &BootEvidence) -> Option<Problem> {
    let why = evidence.not_served.as_ref()?;
    let untouched = if evidence.fetched_at_ms.is_none() { ", and its disks were not touched" } else { "" };
    let message =
        format!("the machine was not given what it asked for{untouched}: {why}; {}", once_more(run));
    Some(Problem::new(Reason::ImageUnusable, message))
}

/// How a person has it done again.
pub(super) fn once_more(run: &Run<'_>) -> &'static str {
    if run.action().wipes() {
        "then set the annotation autobuild.dev/reconcile-requested-at to the present time"
    } else {
        "then set a new reimageToken, or the annotation autobuild.dev/reconcile-requested-at to the present time"
    }
}

async fn await_install(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    let evidence = match evidence(run).await? {
        Ok(evidence) => evidence,
        Err(outcome) => return Ok(outcome),
    };
    if evidence.installed_at_ms.is_some() {
        let Some(install) = &run.checkpoint.install else { return Ok(no_session(run)) };
        return match install.method {
            BootMethod::PXE | BootMethod::HTTP => finish(run).await,
            BootMethod::VirtualMedia => Ok(StepOutcome::Next),
        };
    }
    if let Some(problem) = unusable(run, &evidence) {
        return Ok(StepOutcome::Failed { problem });
    }
    if let Some(reason) = &evidence.failed {
        let message =
            format!("the installer gave up: {reason}; look at the machine's console, {}", once_more(run));
        return Ok(StepOutcome::Failed { problem: Problem::new(Reason::InstallFailed, message) });
    }
    let deadline = run.around.settings.install_deadline;
    if let Some(after_ms) = left(run, deadline) {
        return Ok(StepOutcome::Park { after_ms, waiting_for: WaitingFor::Installation });
    }
    let message = format!(
        "the machine was not installed within {} s; {}: look at its console. If the image is there and only never called home, set \
         spec.provisioning to Adopt, which keeps what is there; to have it installed again {}",
        deadline.as_secs(),
        last_seen(&evidence, run.now_ms()),
        once_more(run).trim_start_matches("then ")
    );
    Ok(StepOutcome::Failed { problem: Problem::new(Reason::InstallTimedOut, message) })
}

/// The installed system has called home, and nothing is left behind.
async fn finish(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    // Read back once more: what is told with the job's end is what the machine is like now.
    if let Err(outcome) = run.probe().await? {
        return Ok(outcome);
    }
    let Some(install) = &run.checkpoint.install else { return Ok(no_session(run)) };
    run.disks = Disks::Installed(Installed { name: install.image.clone(), digest: install.digest.clone() });
    Ok(StepOutcome::Done)
}

/// What the machine told last.
pub(super) fn last_seen(evidence: &BootEvidence, now_ms: i64) -> String {
    let ago = evidence.heard_at_ms.map_or(0, |at| (now_ms - at).max(0) / 1000);
    match &evidence.progress {
        Some(told) => format!("it told last, {ago} s ago, that {} % are done ({})", told.percent, told.line),
        None => format!("it was heard of last {ago} s ago, and never told how far it is"),
    }
}

pub(super) async fn evidence(run: &Run<'_>) -> Result<Result<BootEvidence, StepOutcome>, Halt> {
    let found = run.around.queue.boot_evidence(run.claim().uid(), run.claim().job().id).await?;
    if let Some(found) = found {
        return Ok(Ok(found));
    }
    // Whose card it is opened a session of his own.
    Ok(Err(match card::lost(run).await? {
        Some(problem) => StepOutcome::Failed { problem },
        None => no_session(run),
    }))
}

/// Nobody deletes the session of a live job: a database that was restored may lack it.
fn no_session(run: &Run<'_>) -> StepOutcome {
    let message = format!("the boot session of this job is gone: look at the machine, {}", once_more(run));
    StepOutcome::Failed { problem: Problem::new(Reason::HistoryLost, message) }
}

/// How long to park within a step's deadline; `None`: it is over.
pub(super) fn left(run: &Run<'_>, deadline: Duration) -> Option<i64> {
    let now_ms = run.now_ms();
    let since_ms = run.claim().step_since_ms().unwrap_or(now_ms);
    let left_ms = ms(deadline) - (now_ms - since_ms);
    (left_ms > 0).then(|| left_ms.min(ms(LOOK_AGAIN)))
}

/// Most often there is nothing to clear: a one-time override is used up by the boot. The boot program that the BMC was told
/// goes with it; a BMC that refuses that is asked for the override alone.
async fn clear_override(run: &mut Run<'_>) -> Result<StepOutcome, Halt> {
    if let Err(outcome) = run.probe().await? {
        return Ok(outcome);
    }
    let seen = match run.boot_override().await? {
        Ok(seen) => seen,
        Err(outcome) => return Ok(outcome),
    };
    let told = run.checkpoint.install.as_ref().is_some_and(|install| install.method == BootMethod::HTTP)
        && run.around.settings.http_boot_uri.is_some()
        && seen.http_uri.as_ref().is_some_and(|uri| !uri.is_empty());
    let accepted =
        run.checkpoint.accepted.is_some_and(|accepted| accepted.kind == RequestKind::ClearBootOverride);
    if (seen.is_clear() && !told) || accepted {
        return Ok(StepOutcome::Next);
    }
    let mut sent = Sent::Accepted;
    if told {
        sent = run.send_with(RequestKind::ClearBootOverride, Beside::NoBootUri).await?;
    }
    if !told || (matches!(sent, Sent::Refused(_) | Sent::Unsupported(_)) && !seen.is_clear()) {
        sent = run.send(RequestKind::ClearBootOverride).await?;
    }
    match sent {
        Sent::Accepted => Ok(StepOutcome::Next),
        Sent::Refused(problem) | Sent::Unsupported(problem) => {
            tracing::warn!(reason = %problem.reason, "the boot override stays: {}", problem.message);
            Ok(StepOutcome::Next)
        }
        Sent::InVain(outcome) => Ok(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_for_good_is_as_good_as_one_for_one_boot_and_another_target_is_none() {
        let seen = |enabled, target| BootOverride { enabled, target, http_uri: None };
        for (seen, expected) in [
            (seen(OverrideEnabled::Once, OverrideTarget::Network), true),
            (seen(OverrideEnabled::Continuous, OverrideTarget::Network), true),
            (seen(OverrideEnabled::Disabled, OverrideTarget::Network), false),
            (seen(OverrideEnabled::Once, OverrideTarget::Http), false),
        ] {
            assert_eq!(holds(&seen, OverrideTarget::Network), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_was_seen_last_is_said_with_its_age() {
        let evidence = BootEvidence {
            job: crate::job::JobId(1),
            media_read_at_ms: None,
            fetched_at_ms: Some(0),
            heard_at_ms: Some(10_000),
            progress: Some(crate::job::InstallProgress { percent: 40, line: "writing".into() }),
            failed: None,
            not_served: None,
            installed_at_ms: None,
            other_card: None,
            other_card_at_ms: None,
            other_machine: None,
        };
        let text = last_seen(&evidence, 70_000);
        assert!(text.contains("60 s ago") && text.contains("40 %") && text.contains("writing"), "{text}");
    }
}
