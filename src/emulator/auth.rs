//! Basic authentication, and lock-out after bad logins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::answer::Refusal;
use super::fault::Behaviour;
use super::fleet::Fleet;
use super::system::{Credentials, System};
use super::time::Millis;

/// The credentials that the request carries.
pub(super) fn presented(headers: &HeaderMap) -> Option<Credentials> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credentials { username: username.to_owned(), password: password.to_owned() })
}

fn same(left: &Credentials, right: &Credentials) -> bool {
    let names = left.username.as_bytes().ct_eq(right.username.as_bytes());
    let passwords = left.password.as_bytes().ct_eq(right.password.as_bytes());
    bool::from(names & passwords)
}

/// Lets a request in, or says why not. `system` is the one that the path or the port belongs to.
pub(super) fn admit(
    fleet: &Fleet,
    system: Option<&System>,
    presented: Option<&Credentials>,
    faults: &[Behaviour],
    now: Millis,
) -> Result<(), Refusal> {
    let lock_out = faults.iter().find_map(|fault| match fault {
        Behaviour::LockOut { after, lock_ms, status } => {
            Some((*after, *lock_ms, StatusCode::from_u16(*status).unwrap_or(StatusCode::FORBIDDEN)))
        }
        _ => None,
    });
    if let (Some(system), Some((_, _, status))) = (system, lock_out)
        && system.at(now, |state| now < state.locked_until)
    {
        fleet.0.log.bad_login();
        return Err(Refusal::locked_out(status));
    }
    let Some(presented) = presented else { return Err(Refusal::unauthorized()) };
    let wrong = faults.contains(&Behaviour::WrongPassword {});
    let good = !wrong
        && match system {
            Some(system) => system
                .at(now, |state| same(state.credentials.as_ref().unwrap_or(&fleet.0.credentials), presented)),
            // What the whole fleet shares is open to whoever can log in to any of its machines.
            None => {
                same(&fleet.0.credentials, presented)
                    || fleet.0.systems.iter().any(|system| {
                        system.at(now, |state| {
                            state.credentials.as_ref().is_some_and(|own| same(own, presented))
                        })
                    })
            }
        };
    if !good {
        fleet.0.log.bad_login();
    }
    if let Some(system) = system {
        system.at(now, |state| {
            state.bad_logins = if good { 0 } else { state.bad_logins.saturating_add(1) };
            if let Some((after, lock_ms, _)) = lock_out
                && state.bad_logins >= after
            {
                state.bad_logins = 0;
                state.locked_until = now.saturating_add(lock_ms);
            }
        });
    }
    if good { Ok(()) } else { Err(Refusal::unauthorized()) }
}
