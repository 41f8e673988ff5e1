//! One BMC, one `Server`: nothing is sent before the address is claimed, and nothing where the claim was refused.

use super::{Command, Observation, live_job, word};
use crate::api::{Reason, names};
use crate::job::{ClaimRefusal, Problem};

/// The refusal that holds for the present address.
pub(super) fn refusal(seen: &Observation) -> Option<&ClaimRefusal> {
    let refusal = seen.known.as_ref()?.refusal.as_ref()?;
    (seen.bmc_address.as_deref() == Ok(refusal.address.as_str())).then_some(refusal)
}

/// What a person should know of a refusal.
pub(super) fn problem(seen: &Observation, refusal: &ClaimRefusal) -> Problem {
    if let Some(machine) = &refusal.machine {
        let serial = &machine.serial_number;
        return Problem::new(
            refusal.reason,
            format!(
                "the machine with the serial number {serial} was decommissioned. If it comes back into service: {}",
                word::command(seen, names::RECOMMISSION, serial)
            ),
        );
    }
    let holder = match &refusal.holder {
        Some(name) => format!("Server {name:?}"),
        None => "another Server".to_owned(),
    };
    let message = if refusal.reason == Reason::IdentityConflict {
        format!(
            "a Server stays with its machine: the one that answers here is held by {holder}. Set spec.bmc.address to where the BMC \
             of this Server's own machine is, or delete the other one (deletionPolicy Retain); nothing is sent until then"
        )
    } else {
        let see = refusal.holder.as_ref().map(|name| format!(" ({})", word::why(seen, name)));
        format!(
            "a Server stays with its machine: this BMC is held by {holder}. Correct spec.bmc.address, or delete the other one \
             (deletionPolicy Retain). If the address of the other one was changed too, it lets go of this BMC as soon as it \
             was let in at its new one{}; nothing is sent until then",
            see.unwrap_or_default()
        )
    };
    Problem::new(refusal.reason, message)
}

pub(super) fn rule(seen: &Observation) -> Option<Command> {
    let address = match &seen.bmc_address {
        Ok(address) => address,
        Err(problem) => return Some(stand_still(seen, problem.reason)),
    };
    if let Some(refusal) = refusal(seen) {
        let serial = refusal.machine.as_ref().map(|machine| machine.serial_number.as_str());
        if serial.is_some() && serial == seen.annotation(names::RECOMMISSION) {
            return Some(Command::Recommission);
        }
        if serial.is_none() && seen.look_requested() && seen.job.is_none() {
            return Some(Command::ClaimBmc { address: address.clone() });
        }
        return Some(stand_still(seen, refusal.reason));
    }
    let claimed = seen.known.as_ref()?.claimed_address.as_ref();
    if claimed == Some(address) {
        return None;
    }
    // A job for the address before goes first: it undoes what it began there.
    Some(match &seen.job {
        Some(job) => live_job::displace(job, Reason::Replaced),
        None => Command::ClaimBmc { address: address.clone() },
    })
}

fn stand_still(seen: &Observation, reason: Reason) -> Command {
    match &seen.job {
        Some(job) => live_job::displace(job, reason),
        None => Command::Nothing(reason),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::job::ReconcileRequest;
    use crate::plan::{decide, fixture as f};

    #[test]
    fn a_refused_server_asks_again_by_a_persons_word_once_for_each() {
        for reason in [Reason::BMCClaimed, Reason::IdentityConflict] {
            let mut seen = f::ready();
            let address = seen.bmc_address.clone().unwrap();
            f::known(&mut seen).refusal =
                Some(ClaimRefusal { reason, holder: None, address: address.clone(), machine: None });
            f::known(&mut seen).reconcile_request = Some(ReconcileRequest { value: String::new(), at_ms: 0 });
            assert_eq!(decide(&seen).command, Command::Nothing(reason));
            let word = [(names::RECONCILE_REQUESTED_AT.to_owned(), "now".to_owned())];
            seen.server.metadata.annotations = Some(word.into());
            assert_eq!(decide(&seen).command, Command::ClaimBmc { address });
            f::known(&mut seen).reconcile_request = Some(ReconcileRequest { value: "now".into(), at_ms: 1 });
            assert_eq!(decide(&seen).command, Command::Nothing(reason));
        }
    }
}
