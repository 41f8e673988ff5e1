//! What is told of credentials that a BMC refused. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::api::{Reason, names};
use crate::job::Problem;
use crate::queue::{Claim, RefusedLogin};

/// Longest part of what a BMC said that is repeated, in characters.
const SAID: usize = 300;

/// Since when, how often, what was said first, and how to have them tried without changing them.
pub(super) fn problem(claim: &Claim, bmc: &str, refused: &RefusedLogin, blemish: Option<&str>) -> Problem {
    let command = format!(
        "kubectl annotate server {} -n {} --overwrite {}=\"$(date)\"",
        claim.name(),
        claim.namespace(),
        names::RECONCILE_REQUESTED_AT
    );
    Problem::new(Reason::CredentialsInvalid, message(bmc, refused, blemish, &command))
}

fn message(bmc: &str, refused: &RefusedLogin, blemish: Option<&str>, command: &str) -> String {
    let often =
        if refused.failures == 2 { "twice".to_owned() } else { format!("{} times", refused.failures) };
    let since = refused.since_ms.and_then(time).map(|at| format!(" since {at}")).unwrap_or_default();
    let said: String = refused.said.chars().take(SAID).collect();
    let said = if said.is_empty() { said } else { format!(" (first: {said})") };
    let blemish = blemish.map(|blemish| format!("; {blemish}")).unwrap_or_default();
    let again = match refused.next_try_ms.and_then(time) {
        Some(at) => format!("they logged in before, and are not tried again before {at}"),
        None => "they never logged in, and are not tried again by themselves".to_owned(),
    };
    format!(
        "the BMC {bmc} refused the user name and password of the Secret of spec.bmc.credentialsRef {often}{since}{said}{blemish}; \
         {again}: correct the Secret, or have them tried once more as they are: {command}"
    )
}

/// What is told where as many logins were refused at the BMC's addresses as are tried in a while.
pub(super) fn at_its_address(addresses: &[String], from_ms: i64) -> Problem {
    let message = format!(
        "as many logins were refused at {} as are tried there in 15 minutes, so that the BMC locks nobody out: the user name and \
         password of the Secret of spec.bmc.credentialsRef, which never logged in, are tried at {}",
        addresses.join(", "),
        time(from_ms).map(|at| at.to_string()).unwrap_or_default()
    );
    Problem::new(Reason::CredentialsInvalid, message)
}

/// To the second.
fn time(at_ms: i64) -> Option<Timestamp> {
    Timestamp::from_second(at_ms.div_euclid(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(failures: i64, next_try_ms: Option<i64>) -> RefusedLogin {
        RefusedLogin {
            failures,
            since_ms: Some(1_795_000_000_500),
            next_try_ms,
            said: "the default password must be changed".into(),
            now_ms: 1_795_000_001_000,
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_beginning_its_count_and_the_way_to_have_it_tried_again() {
        let never = message("b:443", &refused(2, None), None, "kubectl annotate");
        for said in [
            "b:443",
            "twice since 2026-11-18T11:06:40Z",
            "(first: the default password",
            "never logged in",
            "kubectl annotate",
        ] {
            assert!(never.contains(said), "{never}");
        }
        let before = message(
            "b:443",
            &refused(5, Some(1_795_003_600_000)),
            Some("the password ends with a line feed"),
            "",
        );
        for said in ["5 times since", "not tried again before 2026-11-18T12:06:40Z", "ends with a line feed"]
        {
            assert!(before.contains(said), "{before}");
        }
    }
}
