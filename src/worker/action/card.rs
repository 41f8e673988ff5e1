//! The network card that an installation boots from: one of the claimed machine, and nobody else's.

use super::install::once_more;
use crate::api::{Mac, Reason};
use crate::job::{BootEvidence, Problem, StepOutcome};
use crate::queue::{CardClaim, CardOwner};
use crate::worker::Halt;
use crate::worker::checkpoint::{CardChoice, Install};
use crate::worker::run::Run;

/// Between two looks at a card that another Server holds: its machine may be let go, or tell of other cards.
const HELD_PAUSE_MS: i64 = 60_000;
/// Firmware that gets nothing for one card asks with the next one soon.
const NEXT_CARD_MS: i64 = 30_000;

impl Run<'_> {
    /// For whom cards are claimed.
    pub(in crate::worker) fn card_owner(&self) -> CardOwner {
        let claim = self.claim();
        CardOwner {
            uid: claim.uid().clone(),
            namespace: claim.namespace().to_owned(),
            name: claim.name().to_owned(),
        }
    }
}

/// Which card is meant. Pure.
fn choose(wished: Option<&str>, told: &[Mac]) -> Result<(Mac, CardChoice), Problem> {
    let Some(wished) = wished else {
        let first = told.first().ok_or_else(|| {
            Problem::new(
                Reason::BootMACMissing,
                "the BMC tells of no network interface with a MAC address (over IPMI none does): set spec.bootMACAddress to \
                 the one that boots",
            )
        })?;
        return Ok((*first, CardChoice::Guessed));
    };
    let mac: Mac = wished.parse().map_err(|error| {
        Problem::new(
            Reason::BootMACMismatch,
            format!("spec.bootMACAddress {wished:?} is {error}; nothing was sent"),
        )
    })?;
    match told {
        [] => Ok((mac, CardChoice::Wished)),
        _ if told.contains(&mac) => Ok((mac, CardChoice::Told)),
        _ => {
            let message = format!("{}; nothing was sent", crate::job::not_its_card(&mac, told));
            Err(Problem::new(Reason::BootMACMismatch, message))
        }
    }
}

/// The card that this job boots from, claimed for its server. `Err`: the step ends like this, and nothing was sent.
pub(super) async fn claimed(run: &Run<'_>) -> Result<Result<(Mac, CardChoice), StepOutcome>, Halt> {
    let wished = run.server().and_then(|server| server.spec.boot_mac_address.as_deref());
    let told = run.reading.as_ref().map(|reading| reading.hardware.cards()).unwrap_or_default();
    let (mac, choice) = match choose(wished, &told) {
        Ok(chosen) => chosen,
        Err(problem) => return Ok(Err(StepOutcome::Failed { problem })),
    };
    let (queue, who) = (&run.around.queue, run.card_owner());
    if choice == CardChoice::Wished {
        return Ok(match queue.claim_wished_card(who, &mac).await? {
            CardClaim::Own | CardClaim::Free => Ok((mac, choice)),
            CardClaim::Another { holder } => Err(StepOutcome::Failed { problem: held(mac, holder.as_ref()) }),
        });
    }
    queue.claim_cards(who.clone(), &told).await?;
    // Where spec leaves the choice, what another machine has as well is not chosen.
    let candidates = if choice == CardChoice::Guessed { told.as_slice() } else { std::slice::from_ref(&mac) };
    let mut first = None;
    for candidate in candidates {
        match queue.card_claim(&who, &candidate.with_colons()).await? {
            CardClaim::Own | CardClaim::Free => {
                if let (CardChoice::Guessed, Some(reading)) = (choice, &run.reading)
                    && let Some((mac, why)) =
                        reading.hardware.card_taken().filter(|(mac, _)| mac == candidate)
                {
                    tracing::info!(card = mac.with_colons(), "the machine boots from this card: {why}");
                }
                return Ok(Ok((*candidate, choice)));
            }
            CardClaim::Another { holder } => first = first.or(Some((*candidate, holder))),
        }
    }
    let (mac, holder) = first.unwrap_or((mac, None));
    // Its BMC tells of it: it is not this Server's fault, and may pass.
    Ok(Err(StepOutcome::Retry { after_ms: HELD_PAUSE_MS, problem: held(mac, holder.as_ref()) }))
}

fn held(mac: Mac, holder: Option<&String>) -> Problem {
    let holder = holder.map_or_else(|| "another Server".to_owned(), |name| format!("Server {name:?}"));
    Problem::new(
        Reason::BootMACConflict,
        format!(
            "the network card {} is held by {holder}: correct spec.bootMACAddress of one of them; nothing was sent",
            mac.with_colons()
        ),
    )
}

/// What is said where the session could not be published: somebody else has the card by now.
pub(in crate::worker) fn taken(install: Option<&Install>) -> StepOutcome {
    let mac = install.map(|install| install.mac.as_str()).unwrap_or_default();
    let message = format!(
        "the network card {mac} is another machine's, or boots another one right now: correct spec.bootMACAddress of one of \
         them; nothing was sent"
    );
    let problem = Problem::new(Reason::BootMACConflict, message);
    match install.map(|install| install.card) {
        Some(CardChoice::Told | CardChoice::Guessed) => {
            StepOutcome::Retry { after_ms: HELD_PAUSE_MS, problem }
        }
        Some(CardChoice::Wished) | None => StepOutcome::Failed { problem },
    }
}

/// Whether the card that the session waits for turned out to be another machine's.
pub(super) async fn lost(run: &Run<'_>) -> Result<Option<Problem>, Halt> {
    let Some(install) = &run.checkpoint.install else { return Ok(None) };
    Ok(match run.around.queue.card_claim(&run.card_owner(), &install.mac).await? {
        CardClaim::Own | CardClaim::Free => None,
        CardClaim::Another { .. } => {
            let message = format!(
                "the BMC of another machine tells of the network card {}: this machine gets nothing by it. Correct \
                 spec.bootMACAddress; {}",
                install.mac,
                once_more(run)
            );
            Some(Problem::new(Reason::BootMACMismatch, message))
        }
    })
}

/// What was met by the boot service in place of the card that is waited for. `left_ms`: what is left of the deadline.
pub(super) fn met(run: &Run<'_>, evidence: &BootEvidence, left_ms: i64) -> Option<StepOutcome> {
    let install = run.checkpoint.install.as_ref()?;
    if let Some(other) = &evidence.other_card {
        let problem = Problem::new(Reason::NeverBooted, other_card(install, other, once_more(run)));
        let since_ms = evidence.other_card_at_ms.unwrap_or(run.now_ms());
        let next_ms = (NEXT_CARD_MS - (run.now_ms() - since_ms)).min(left_ms);
        return Some(if next_ms > 0 {
            StepOutcome::Retry { after_ms: next_ms, problem }
        } else {
            StepOutcome::Failed { problem }
        });
    }
    let said = evidence.other_machine.as_ref()?;
    let problem = Problem::new(Reason::BootMACMismatch, other_machine(install, said));
    // The right machine may still come.
    Some(if left_ms > 0 {
        StepOutcome::Retry { after_ms: left_ms, problem }
    } else {
        StepOutcome::Failed { problem }
    })
}

fn other_card(install: &Install, other: &str, once_more: &str) -> String {
    let (mac, guess) = (&install.mac, guess(install));
    format!(
        "the machine asked for its boot script with its network card {other}, and {mac}{guess} is waited for: set \
         spec.bootMACAddress to {other}, or have the firmware boot from {mac}; {once_more}"
    )
}

/// How sure the address is that is waited for.
pub(super) fn guess(install: &Install) -> &'static str {
    match install.card {
        CardChoice::Guessed => {
            " (a guess: the first one that the BMC tells of, because spec.bootMACAddress is not set)"
        }
        CardChoice::Told | CardChoice::Wished => "",
    }
}

/// What is said of a machine that asked with the card's address and is another one.
pub(super) fn other_machine(install: &Install, said: &str) -> String {
    format!(
        "another machine asks for a boot script with the MAC address {} and gets nothing: {said}. Look which machine has that \
         card, and correct spec.bootMACAddress or spec.bmc.address",
        install.mac
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn macs(texts: &[&str]) -> Vec<Mac> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_a_card_that_the_bmc_tells_of_is_booted_from_where_it_tells_of_any() {
        let told = macs(&["52:54:00:00:00:01", "52:54:00:00:00:02"]);
        assert_eq!(choose(None, &told).unwrap(), (told[0], CardChoice::Guessed));
        assert_eq!(choose(Some("52-54-00-00-00-02"), &told).unwrap(), (told[1], CardChoice::Told));
        let refused = choose(Some("52:54:00:00:00:03"), &told).unwrap_err();
        assert_eq!(refused.reason, Reason::BootMACMismatch);
        for said in ["52:54:00:00:00:03", "52:54:00:00:00:01, 52:54:00:00:00:02", "spec.bootMACAddress"] {
            assert!(refused.message.contains(said), "{}", refused.message);
        }
    }

    #[test]
    fn where_the_bmc_tells_of_no_card_spec_has_to_name_one() {
        let wished = macs(&["52:54:00:00:00:03"])[0];
        assert_eq!(choose(Some("52:54:00:00:00:03"), &[]).unwrap(), (wished, CardChoice::Wished));
        assert_eq!(choose(None, &[]).unwrap_err().reason, Reason::BootMACMissing);
    }

    #[test]
    fn a_machine_that_asks_with_another_card_is_told_with_both_addresses_and_that_one_was_a_guess() {
        let mut install = Install {
            image: "debian".into(),
            digest: "sha256:1".into(),
            mac: "52:54:00:00:00:01".into(),
            card: CardChoice::Guessed,
            method: crate::api::BootMethod::PXE,
            power_before: crate::api::hardware::PowerState::PoweredOff,
            media_hash: None,
        };
        let text = other_card(&install, "52:54:00:00:00:02", "then try");
        for said in ["52:54:00:00:00:01 (a guess", "set spec.bootMACAddress to 52:54:00:00:00:02", "then try"]
        {
            assert!(text.contains(said), "{text}");
        }
        install.card = CardChoice::Told;
        assert!(!other_card(&install, "52:54:00:00:00:02", "").contains("guess"));
    }
}
