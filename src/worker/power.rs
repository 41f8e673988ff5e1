//! What a power step does next. Pure: from a look at the machine to one move.

use std::time::Duration;

use super::checkpoint::Accepted;
use crate::api::hardware::PowerState;
use crate::api::{Power, Reason, ShutdownMode};
use crate::job::{Problem, RequestKind, WaitingFor};

/// One look at a machine in the middle of a power step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The power state that was just read.
    pub power: PowerState,
    /// The last request of this step that the BMC accepted.
    pub accepted: Option<Accepted>,
    /// Since when the BMC has refused a graceful shutdown in this step.
    pub grace_refused_ms: Option<i64>,
    /// Now, milliseconds since the Unix epoch by the database's clock.
    pub now_ms: i64,
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Before the power of a machine that was asked to shut down is cut.
    pub shutdown: Duration,
    /// Before a request that the BMC accepted counts as a lie.
    pub power: Duration,
    /// Between two looks.
    pub poll: Duration,
}

/// The one thing to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// The machine is where the step wants it.
    There,
    /// Send this.
    Send(RequestKind),
    /// Look again later.
    Wait {
        /// Milliseconds from now.
        after_ms: i64,
        /// What is waited for.
        waiting_for: WaitingFor,
    },
    /// The BMC accepted the request, and nothing came of it.
    Failed(Problem),
}

/// Towards off.
pub(super) fn off(look: Look, mode: ShutdownMode, patience: Patience) -> Move {
    if look.power == PowerState::PoweredOff {
        return Move::There;
    }
    let first = match mode {
        ShutdownMode::Graceful => RequestKind::GracefulShutdown,
        ShutdownMode::Forced => RequestKind::ForceOff,
    };
    match look.accepted {
        None if look.power == PowerState::PoweringOff => wait(patience, WaitingFor::PowerState),
        None if look.grace_refused_ms.is_some_and(|at_ms| time_since(look, at_ms) >= patience.shutdown) => {
            Move::Send(RequestKind::ForceOff)
        }
        None => Move::Send(first),
        Some(accepted) => match accepted.kind {
            RequestKind::GracefulShutdown if since(look, accepted) < patience.shutdown => {
                wait(patience, WaitingFor::Shutdown)
            }
            RequestKind::GracefulShutdown => Move::Send(RequestKind::ForceOff),
            RequestKind::ForceOff => wait_or_fail(look, accepted, patience, Power::PoweredOff),
            // Left by a step before this one.
            RequestKind::PowerOn
            | RequestKind::BootFromNetworkOnce
            | RequestKind::BootFromHttpOnce
            | RequestKind::BootFromMediaOnce
            | RequestKind::ClearBootOverride
            | RequestKind::InsertMedia
            | RequestKind::EjectMedia => Move::Send(first),
        },
    }
}

/// Towards on. As an undo it may come right after an off that the BMC accepted: a machine that still reads on then is
/// about to go down, and is there only once that off had its time.
pub(super) fn on(look: Look, patience: Patience) -> Move {
    if look.power == PowerState::PoweredOn {
        return match look.accepted {
            Some(accepted) if since(look, accepted) < off_takes(accepted.kind, patience) => {
                wait(patience, WaitingFor::PowerState)
            }
            _ => Move::There,
        };
    }
    match look.accepted {
        Some(accepted) if accepted.kind == RequestKind::PowerOn => {
            wait_or_fail(look, accepted, patience, Power::PoweredOn)
        }
        // A request while it is still going down is refused by most BMCs, and lost by the others.
        _ if matches!(look.power, PowerState::PoweringOn | PowerState::PoweringOff) => {
            wait(patience, WaitingFor::PowerState)
        }
        _ => Move::Send(RequestKind::PowerOn),
    }
}

/// How long an accepted request may still switch a machine off.
pub(super) const fn off_takes(kind: RequestKind, patience: Patience) -> Duration {
    match kind {
        RequestKind::GracefulShutdown => patience.shutdown,
        RequestKind::ForceOff => patience.power,
        RequestKind::PowerOn
        | RequestKind::BootFromNetworkOnce
        | RequestKind::BootFromHttpOnce
        | RequestKind::BootFromMediaOnce
        | RequestKind::ClearBootOverride
        | RequestKind::InsertMedia
        | RequestKind::EjectMedia => Duration::ZERO,
    }
}

fn since(look: Look, accepted: Accepted) -> Duration {
    time_since(look, accepted.at_ms)
}

fn time_since(look: Look, at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(look.now_ms - at_ms).unwrap_or(0))
}

fn wait(patience: Patience, waiting_for: WaitingFor) -> Move {
    Move::Wait { after_ms: crate::config::ms(patience.poll), waiting_for }
}

fn wait_or_fail(look: Look, accepted: Accepted, patience: Patience, wish: Power) -> Move {
    if since(look, accepted) < patience.power {
        return wait(patience, WaitingFor::PowerState);
    }
    Move::Failed(Problem::new(
        Reason::PowerStateMismatch,
        format!(
            "the BMC accepted {} and still reads {} after {} s, not {}: look at the machine and its BMC",
            accepted.kind.as_str(),
            look.power,
            patience.power.as_secs(),
            wish.as_str()
        ),
    ))
}

#[cfg(test)]
#[allow(clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use PowerState::{PoweredOff, PoweredOn, PoweringOff, PoweringOn, Unknown};
    use RequestKind::{ForceOff, GracefulShutdown, PowerOn};

    const PATIENCE: Patience = Patience {
        shutdown: Duration::from_mins(3),
        power: Duration::from_mins(5),
        poll: Duration::from_secs(2),
    };

    fn look(power: PowerState, accepted: Option<(RequestKind, i64)>) -> Look {
        let now_ms = 10_000_000;
        let accepted = accepted.map(|(kind, ago_s)| Accepted { kind, at_ms: now_ms - ago_s * 1000 });
        Look { power, accepted, grace_refused_ms: None, now_ms }
    }

    fn waits(waiting_for: WaitingFor) -> Move {
        Move::Wait { after_ms: 2000, waiting_for }
    }

    #[test]
    fn a_graceful_shutdown_is_forced_after_its_deadline_and_fails_after_another() {
        for (power, accepted, wanted) in [
            (PoweredOff, None, Move::There),
            (PoweredOff, Some((GracefulShutdown, 1)), Move::There),
            (PoweredOn, None, Move::Send(GracefulShutdown)),
            (Unknown, None, Move::Send(GracefulShutdown)),
            (PoweringOff, None, waits(WaitingFor::PowerState)),
            (PoweredOn, Some((GracefulShutdown, 179)), waits(WaitingFor::Shutdown)),
            (PoweringOff, Some((GracefulShutdown, 179)), waits(WaitingFor::Shutdown)),
            (PoweredOn, Some((GracefulShutdown, 180)), Move::Send(ForceOff)),
            (PoweredOn, Some((ForceOff, 299)), waits(WaitingFor::PowerState)),
        ] {
            assert_eq!(
                off(look(power, accepted), ShutdownMode::Graceful, PATIENCE),
                wanted,
                "{power} {accepted:?}"
            );
        }
        let Move::Failed(problem) =
            off(look(PoweredOn, Some((ForceOff, 300))), ShutdownMode::Graceful, PATIENCE)
        else {
            panic!("a BMC that lies is believed for ever");
        };
        assert_eq!(problem.reason, Reason::PowerStateMismatch);
        assert!(
            problem.message.contains("ForceOff") && problem.message.contains("PoweredOn"),
            "{}",
            problem.message
        );
    }

    #[test]
    fn a_refused_graceful_shutdown_is_asked_for_until_its_deadline() {
        for (ago_s, wanted) in [(0, GracefulShutdown), (179, GracefulShutdown), (180, ForceOff)] {
            let look = look(PoweredOn, None);
            let look = Look { grace_refused_ms: Some(look.now_ms - ago_s * 1000), ..look };
            assert_eq!(off(look, ShutdownMode::Graceful, PATIENCE), Move::Send(wanted), "{ago_s}");
        }
    }

    #[test]
    fn a_forced_shutdown_asks_nobody() {
        assert_eq!(off(look(PoweredOn, None), ShutdownMode::Forced, PATIENCE), Move::Send(ForceOff));
    }

    #[test]
    fn power_on_is_asked_for_once_and_not_while_the_machine_goes_down() {
        for (power, accepted, wanted) in [
            (PoweredOn, None, Move::There),
            (PoweredOn, Some((PowerOn, 1)), Move::There),
            // Undone before the machine went down: it still will.
            (PoweredOn, Some((GracefulShutdown, 179)), waits(WaitingFor::PowerState)),
            (PoweredOn, Some((GracefulShutdown, 180)), Move::There),
            (PoweredOn, Some((ForceOff, 299)), waits(WaitingFor::PowerState)),
            (PoweredOn, Some((ForceOff, 300)), Move::There),
            (PoweredOff, None, Move::Send(PowerOn)),
            (PoweredOff, Some((GracefulShutdown, 1)), Move::Send(PowerOn)),
            (PoweringOff, None, waits(WaitingFor::PowerState)),
            (PoweringOn, None, waits(WaitingFor::PowerState)),
            (PoweredOff, Some((PowerOn, 1)), waits(WaitingFor::PowerState)),
            (PoweringOn, Some((PowerOn, 1)), waits(WaitingFor::PowerState)),
        ] {
            assert_eq!(on(look(power, accepted), PATIENCE), wanted, "{power} {accepted:?}");
        }
        assert!(matches!(on(look(PoweredOff, Some((PowerOn, 300))), PATIENCE), Move::Failed(_)));
    }
}
