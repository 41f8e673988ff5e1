//! The sessions of the Redfish services: each listener is one, the fleet's or that of a single BMC.

use std::sync::{Mutex, PoisonError};

use super::redfish::Scope;
use super::system::Credentials;
use super::time::Millis;

/// A session that nobody uses ends after this time.
pub(super) const TIMEOUT_S: u64 = 1_800;

/// A session. It stands for the credentials that it was opened with, so that one of old credentials opens nothing.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) credentials: Credentials,
    scope: Scope,
    token: Token,
    used: Millis,
}

/// What a client sends as `X-Auth-Token`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    sessions: Vec<Session>,
}

/// All sessions of a fleet.
#[derive(Debug)]
pub(super) struct Sessions {
    /// How many one BMC keeps.
    limit: usize,
    book: Mutex<Book>,
}

impl Sessions {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, book: Mutex::default() }
    }

    /// Acts on the sessions that have not ended by themselves.
    fn with<T>(&self, now: Millis, act: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.sessions.retain(|session| now.saturating_sub(session.used) < TIMEOUT_S * 1_000);
        act(&mut book)
    }

    /// Opens a session for credentials that were found right; none where this service, which stands for that many
    /// BMCs, has as many as it keeps.
    pub(super) fn open(
        &self,
        scope: Scope,
        bmcs: usize,
        credentials: Credentials,
        now: Millis,
    ) -> Option<(u64, Token)> {
        let token = Token(uuid::Uuid::new_v4().simple().to_string());
        self.with(now, |book| {
            let open = book.sessions.iter().filter(|session| session.scope == scope).count();
            if open >= self.limit.saturating_mul(bmcs) {
                return None;
            }
            book.next += 1;
            let session = Session { id: book.next, credentials, scope, token: token.clone(), used: now };
            book.sessions.push(session);
            Some((book.next, token))
        })
    }

    /// The credentials that the holder of a token logged in with.
    pub(super) fn holder(&self, scope: Scope, token: &str, now: Millis) -> Option<Credentials> {
        self.with(now, |book| {
            let session = book
                .sessions
                .iter_mut()
                .find(|session| session.scope == scope && session.token.0 == token)?;
            session.used = now;
            Some(session.credentials.clone())
        })
    }

    pub(super) fn list(&self, scope: Scope, now: Millis) -> Vec<Session> {
        self.with(now, |book| book.sessions.iter().filter(|s| s.scope == scope).cloned().collect())
    }

    /// Ends a session; whether there was one.
    pub(super) fn close(&self, scope: Scope, id: &str, now: Millis) -> bool {
        self.with(now, |book| {
            let before = book.sessions.len();
            book.sessions.retain(|session| session.scope != scope || session.id.to_string() != id);
            book.sessions.len() < before
        })
    }

    /// Ends all sessions of a service, as a reboot does.
    pub(super) fn close_all(&self, scope: Scope) {
        self.with(0, |book| book.sessions.retain(|session| session.scope != scope));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials { username: "admin".to_owned(), password: "secret".to_owned() }
    }

    #[test]
    fn a_service_keeps_so_many_sessions_and_one_that_nobody_uses_ends() {
        let sessions = Sessions::new(2);
        let open = |scope, now| sessions.open(scope, 1, credentials(), now);
        let (id, token) = open(Scope::Own(0), 0).unwrap();
        open(Scope::Own(0), 0).unwrap();
        assert!(open(Scope::Own(0), 0).is_none());
        assert!(open(Scope::Own(1), 0).is_some(), "another BMC has its own");
        assert!(sessions.holder(Scope::Own(1), token.as_str(), 0).is_none());
        assert!(sessions.holder(Scope::Own(0), token.as_str(), 1_000).is_some());
        assert_eq!(sessions.list(Scope::Own(0), TIMEOUT_S * 1_000).len(), 1, "the other was not used");
        assert!(sessions.close(Scope::Own(0), &id.to_string(), 2_000));
        assert!(sessions.holder(Scope::Own(0), token.as_str(), 2_000).is_none());
        assert!(!format!("{token:?}").contains(token.as_str()));
    }
}
