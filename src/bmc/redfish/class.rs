//! The one table from what a BMC answers, status and MessageId, to the class of an error. Pure.
//!
//! "Not yet", "no" and "there is no such thing" are three answers: the first is waited for, the second is told, and only
//! the third may be gone around. What cannot be told apart for sure counts as the first, because a step's patience ends.

use std::time::Duration;

use http::StatusCode;

use super::message::Meaning;
use crate::bmc::error::BmcErrorKind;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To read something.
    Read(Login),
    /// To open a session.
    Session,
    /// To switch the machine on or off.
    Reset,
    /// To do something else to it.
    Change,
}

/// Whether the BMC is known to let this login in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// It answered something else of this turn that is not open to everybody.
    Proven,
    /// Nothing is known.
    Untried,
}

/// The class of an answer that is no success. `after`: how long the BMC asks to wait.
pub(super) fn class(
    asked: Asked,
    status: StatusCode,
    meaning: Option<Meaning>,
    after: Option<Duration>,
) -> BmcErrorKind {
    if meaning == Some(Meaning::NotYet) || is_not_yet(status) {
        return BmcErrorKind::Busy(after);
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => refused_login(asked, status, meaning),
        StatusCode::NOT_FOUND | StatusCode::GONE => match (asked, meaning) {
            (Asked::Change, Some(Meaning::NotOffered)) => BmcErrorKind::Unsupported,
            _ => BmcErrorKind::NotFound,
        },
        _ if status.is_redirection() => BmcErrorKind::Protocol,
        _ => match asked {
            // Nothing that is read is refused: what cannot be read now may be read later.
            Asked::Read(_) => BmcErrorKind::Protocol,
            Asked::Reset => refused_reset(status, meaning, after),
            Asked::Session | Asked::Change => refused_change(status, meaning, after),
        },
    }
}

/// Statuses that mean "later" whatever was asked for. 409: in transition, or another request is under way; a request that
/// does not fit the state that was read before it is not sent. 412: it has changed since it was read.
fn is_not_yet(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::LOCKED
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// A login is refused, or it is good and lacks a right. Only the first is counted: who knocks too often is locked out.
fn refused_login(asked: Asked, status: StatusCode, meaning: Option<Meaning>) -> BmcErrorKind {
    let proven = match asked {
        Asked::Read(login) => login == Login::Proven,
        Asked::Session => false,
        // The machine was read right before.
        Asked::Reset | Asked::Change => true,
    };
    match (meaning, status) {
        (Some(Meaning::LoginRefused), _) => BmcErrorKind::Credentials,
        (Some(Meaning::RightMissing), StatusCode::FORBIDDEN) => BmcErrorKind::Forbidden,
        (Some(Meaning::RightMissing), _) if proven => BmcErrorKind::Forbidden,
        (_, StatusCode::FORBIDDEN) if proven => BmcErrorKind::Forbidden,
        _ => BmcErrorKind::Credentials,
    }
}

/// What is no part of a BMC is gone around at once, and for a soft shutdown that means that the power is cut. So it takes both:
/// a status of that sort, and words that say so. The rest is waited for, or refused.
fn refused_reset(status: StatusCode, meaning: Option<Meaning>, after: Option<Duration>) -> BmcErrorKind {
    let is_of_that_sort = matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    );
    match (meaning, is_of_that_sort) {
        (Some(Meaning::NotOffered), true) => BmcErrorKind::Unsupported,
        (None, true) => BmcErrorKind::Refused,
        // The words alone: it is as the status says.
        (Some(Meaning::NotOffered), false) => refused_change(status, None, after),
        (Some(_), _) | (None, false) => refused_change(status, meaning, after),
    }
}

fn refused_change(status: StatusCode, meaning: Option<Meaning>, after: Option<Duration>) -> BmcErrorKind {
    match (status, meaning) {
        (StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED, _)
        | (_, Some(Meaning::NotOffered)) => BmcErrorKind::Unsupported,
        (_, Some(Meaning::RightMissing)) => BmcErrorKind::Forbidden,
        (_, Some(Meaning::Refused)) => BmcErrorKind::Refused,
        // It answered, and nothing was done.
        (StatusCode::CONFLICT, _) => BmcErrorKind::Busy(after),
        _ if status.is_server_error() => BmcErrorKind::Busy(after),
        _ if status.is_client_error() => BmcErrorKind::Refused,
        _ => BmcErrorKind::Protocol,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::bmc::redfish::message::{meaning, messages};

    const READ: Asked = Asked::Read(Login::Untried);
    const PART: Asked = Asked::Read(Login::Proven);
    use Asked::{Change, Reset, Session};
    use BmcErrorKind::{Credentials, Forbidden, NotFound, Protocol, Refused, Unsupported};
    const BUSY: BmcErrorKind = BmcErrorKind::Busy(None);

    #[rstest]
    // Not yet, whatever the status is that it comes with.
    #[case(Change, 409, "", BUSY)]
    #[case(Reset, 409, "Base.1.12.ActionParameterValueConflict", BUSY)]
    #[case(Reset, 400, "Base.1.12.ActionParameterValueConflict", BUSY)]
    #[case(Change, 400, "Base.1.12.ActionParameterValueConflict", Refused)]
    #[case(Change, 400, "Base.1.8.ResourceInUse", BUSY)]
    #[case(Change, 500, "Base.1.8.ServiceInUnknownState", BUSY)]
    #[case(Change, 503, "Base.1.8.ServiceTemporarilyUnavailable", BUSY)]
    #[case(Change, 400, "Base.1.8.ServiceShuttingDown", BUSY)]
    #[case(Change, 400, "Base.1.8.ResourceInStandby", BUSY)]
    #[case(Change, 507, "Base.1.8.ResourceExhaustion", BUSY)]
    #[case(Change, 400, "iLO.2.37.UnableToModifyDuringSystemPOST", BUSY)]
    #[case(Change, 400, "iLO.0.10.InvalidOperationForSystemState", BUSY)]
    #[case(Change, 400, "iLO.2.15.ResourceBeingFlashed", BUSY)]
    #[case(Change, 400, "HpeCommon.2.0.ResourceNotReadyRetry", BUSY)]
    #[case(Change, 400, "IDRAC.2.9.SYS431", BUSY)]
    #[case(Change, 503, "IDRAC.2.8.SYS518", BUSY)]
    #[case(Change, 409, "IDRAC.1.6.PSU501", BUSY)]
    #[case(Change, 400, "IDRAC.2.9.RAC0508", BUSY)]
    #[case(Change, 500, "", BUSY)]
    #[case(Change, 500, "Base.1.12.InternalError", BUSY)]
    #[case(Change, 502, "", BUSY)]
    #[case(Change, 412, "", BUSY)]
    #[case(Change, 423, "", BUSY)]
    #[case(Change, 429, "", BUSY)]
    #[case(READ, 503, "", BUSY)]
    #[case(READ, 500, "Base.1.8.ServiceInUnknownState", BUSY)]
    #[case(PART, 404, "Base.1.8.ResourceInStandby", BUSY)]
    #[case(Session, 503, "IDRAC.2.1.RAC0218", BUSY)]
    #[case(Session, 400, "Base.1.8.SessionLimitExceeded", BUSY)]
    #[case(Session, 401, "Base.1.8.SessionLimitExceeded", BUSY)]
    #[case(READ, 403, "Base.1.8.SessionLimitExceeded", BUSY)]
    // There is no such thing.
    #[case(Change, 501, "", Unsupported)]
    #[case(Change, 405, "", Unsupported)]
    #[case(Change, 400, "Base.1.8.ActionNotSupported", Unsupported)]
    #[case(Change, 404, "Base.1.8.ActionNotSupported", Unsupported)]
    #[case(Change, 409, "Base.1.8.ActionNotSupported", Unsupported)]
    #[case(Change, 500, "Base.1.8.ActionNotSupported", Unsupported)]
    #[case(Change, 400, "Base.1.8.ActionParameterNotSupported", Unsupported)]
    #[case(Change, 400, "Base.1.18.ActionParameterValueNotInList", Unsupported)]
    #[case(Change, 400, "Base.1.0.PropertyValueNotInList", Unsupported)]
    #[case(Change, 400, "iLO.2.15.UnsupportedOperation", Unsupported)]
    #[case(Reset, 400, "Base.1.8.ActionNotSupported", Unsupported)]
    #[case(Reset, 405, "Base.1.8.ActionNotSupported", Unsupported)]
    #[case(Reset, 501, "Base.1.8.ActionParameterNotSupported", Unsupported)]
    #[case(Reset, 400, "Base.1.18.ActionParameterValueNotInList", Unsupported)]
    // A soft shutdown is not given up for less: a firmware update is in progress, perhaps.
    #[case(Reset, 409, "Base.1.8.ActionNotSupported", BUSY)]
    #[case(Reset, 500, "Base.1.8.ActionNotSupported", BUSY)]
    #[case(Reset, 404, "Base.1.8.ActionNotSupported", NotFound)]
    #[case(Reset, 400, "Base.1.8.OperationNotAllowed", Refused)]
    #[case(Reset, 400, "Base.1.8.ActionParameterValueError", Refused)]
    #[case(Reset, 405, "", Refused)]
    #[case(Reset, 501, "", Refused)]
    // No.
    #[case(Change, 400, "", Refused)]
    #[case(Change, 400, "Base.1.8.GeneralError", Refused)]
    #[case(Change, 400, "Base.1.8.ActionParameterMissing", Refused)]
    #[case(Change, 409, "Base.1.8.PropertyNotWritable", Refused)]
    #[case(Change, 500, "Base.1.8.PropertyUnknown", Refused)]
    #[case(Change, 428, "Base.1.8.PreconditionRequired", Refused)]
    #[case(Change, 413, "", Refused)]
    // The login.
    #[case(READ, 401, "", Credentials)]
    #[case(READ, 401, "Base.1.8.NoValidSession", Credentials)]
    #[case(READ, 401, "Base.1.8.InsufficientPrivilege", Credentials)]
    #[case(READ, 403, "", Credentials)]
    #[case(READ, 403, "Base.1.8.AccessDenied", Credentials)]
    #[case(PART, 403, "Base.1.8.PasswordChangeRequired", Credentials)]
    #[case(Change, 403, "Base.1.8.PasswordChangeRequired", Credentials)]
    #[case(Change, 401, "", Credentials)]
    #[case(PART, 401, "", Credentials)]
    #[case(Session, 401, "iLO.2.15.UnauthorizedLoginAttempt", Credentials)]
    #[case(Session, 400, "iLO.2.15.UnauthorizedLoginAttempt", Refused)]
    #[case(Session, 403, "", Credentials)]
    // A right.
    #[case(READ, 403, "Base.1.8.InsufficientPrivilege", Forbidden)]
    #[case(PART, 403, "", Forbidden)]
    #[case(PART, 403, "Base.1.8.AccessDenied", Forbidden)]
    #[case(PART, 401, "Base.1.8.InsufficientPrivilege", Forbidden)]
    #[case(Change, 403, "", Forbidden)]
    #[case(Change, 400, "Base.1.8.InsufficientPrivilege", Forbidden)]
    // The rest.
    #[case(READ, 404, "", NotFound)]
    #[case(Change, 410, "", NotFound)]
    #[case(READ, 500, "", Protocol)]
    #[case(PART, 405, "", Protocol)]
    #[case(PART, 409, "", Protocol)]
    #[case(READ, 400, "", Protocol)]
    #[case(Change, 307, "", Protocol)]
    fn an_answer_has_one_class(
        #[case] asked: Asked,
        #[case] status: u16,
        #[case] id: &str,
        #[case] expected: BmcErrorKind,
    ) {
        let said = messages(&serde_json::json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id}]}}));
        let meaning = if id.is_empty() { None } else { meaning(&said, asked) };
        assert_eq!(class(asked, StatusCode::from_u16(status).unwrap(), meaning, None), expected);
    }

    #[test]
    fn a_bmc_that_asks_for_patience_is_heard() {
        let after = Some(Duration::from_secs(7));
        for (status, meaning) in [(503, None), (409, None), (400, Some(Meaning::NotYet))] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(class(Change, status, meaning, after), BmcErrorKind::Busy(after));
        }
    }
}
