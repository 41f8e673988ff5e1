//! Who asks: Basic authentication, or a Redfish session where the BMC refuses that.
//!
//! A session is opened and ended within one turn of the BMC (DSP0266 section 13.3.3): many BMCs keep no more than four, and
//! one that nobody ends stays for half an hour. Which BMCs need one is remembered by the process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio::time::Instant;

use super::answer;
use super::class::{Asked, Login};
use super::line::{Answer, Line};
use crate::bmc::credentials::Credentials;
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};

/// Where sessions are opened, by the standard.
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// What a session is shown by.
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// How long the end of a session may take: a BMC that does not answer ends it by itself.
const TO_END: Duration = Duration::from_secs(3);

/// BMCs that were found to refuse Basic authentication. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::bmc) struct NeedSessions(Arc<Mutex<HashSet<String>>>);

impl NeedSessions {
    pub(super) fn has(&self, host: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    fn learn(&self, host: &str, needs: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if needs {
            all.insert(host.to_owned());
        } else {
            all.remove(host);
        }
    }
}

/// What a request is signed with.
#[derive(Debug)]
pub(super) enum Signed {
    /// User name and password.
    Basic,
    /// An open session.
    Session(Session),
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    token: HeaderValue,
    /// Where it is ended.
    path: Option<String>,
}

impl Signed {
    /// Puts it into the head of a request.
    pub(super) fn sign(&self, basic: &HeaderValue, headers: &mut HeaderMap) {
        match self {
            Self::Basic => headers.insert(header::AUTHORIZATION, basic.clone()),
            Self::Session(session) => headers.insert(TOKEN, session.token.clone()),
        };
    }
}

/// The body that opens a session: as secret as the password in it.
pub(super) fn opening(credentials: &Credentials) -> SecretString {
    json!({ "UserName": credentials.username, "Password": credentials.password.expose_secret() })
        .to_string()
        .into()
}

/// Whether an answer says that Basic authentication is not spoken at all: a wrong password is answered with its challenge.
fn refuses_basic(answer: &Answer) -> bool {
    let challenges = answer.headers.get_all(header::WWW_AUTHENTICATE);
    let offers = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|one| one.trim_start().to_ascii_lowercase().starts_with("basic"))
        })
    };
    answer.status == StatusCode::UNAUTHORIZED && !challenges.iter().any(offers)
}

impl Line<'_> {
    /// Reads `path`; where the BMC refuses Basic authentication, in a session.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, BmcError> {
        let answer = self.get_signed(path).await?;
        if !matches!(self.signed, Signed::Basic) || !refuses_basic(&answer) {
            return Ok(answer);
        }
        if !self.log_in().await? {
            return Ok(answer);
        }
        self.get_signed(path).await
    }

    /// Opens a session where this BMC is known to need one.
    pub(super) async fn prepare(&mut self) -> Result<(), BmcError> {
        if self.needs_session() {
            self.log_in().await?;
        }
        Ok(())
    }

    /// Opens a session; `false`: this BMC has none, so that Basic authentication was all there is.
    async fn log_in(&mut self) -> Result<bool, BmcError> {
        let body = self.route.opening.expose_secret().to_owned();
        let answer = self.change(Method::POST, SESSIONS, body, None).await?;
        let host = self.route.peers.host();
        if matches!(
            answer.status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            self.need_sessions.learn(host, false);
            return Ok(false);
        }
        // A refusal here has changed nothing on the machine.
        answer::action(self.route, Asked::Session, "a session", &answer)
            .map_err(|error| BmcError { delivery: Delivery::NotSent, ..error })?;
        let Some(mut token) = answer.headers.get(TOKEN).cloned() else {
            let what = "opened a session without an X-Auth-Token";
            return Err(self.route.error(BmcErrorKind::Protocol, Delivery::NotSent, what));
        };
        token.set_sensitive(true);
        let location = answer.headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
        let path = location.and_then(|to| self.route.origin.follow(SESSIONS, to).ok());
        self.need_sessions.learn(host, true);
        self.signed = Signed::Session(Session { token, path });
        self.login = Login::Proven;
        Ok(true)
    }

    /// Ends the session of this turn, if there is one.
    pub(super) async fn log_out(&mut self) {
        let Signed::Session(Session { path: Some(path), .. }) = &self.signed else { return };
        let path = path.clone();
        self.until = Instant::now() + TO_END;
        let ended = self.change(Method::DELETE, &path, String::new(), None).await;
        let said = match ended {
            Ok(answer) if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => None,
            Ok(answer) => Some(answer.status.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(said) = said {
            tracing::debug!(bmc = self.route.voice.name, "a session was not ended: {said}");
        }
        self.signed = Signed::Basic;
    }
}
