//! Why a machine gets nothing. It learns one of two things: not for you, or not now.

use super::live::Unavailable;
use super::script::ScriptRefused;
use super::sessions::{Armed, StoreAway};
use super::template::RenderError;
use super::token::NoChance;
use super::wish::Mismatch;

/// Nothing is given; the text is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is nothing for it: 404, whatever the reason. Too many of these, and its address has to wait.
    Refused(String),
    /// The same behind a session that is known: 404 too, but nobody has guessed anything.
    Absent(String),
    /// There is something for it that cannot be given, now or later: 404 too. The session's job is told.
    Broken(String),
    /// Something is away: 503, come again.
    Later(String),
}

impl Denied {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }

    /// The same, with the server that it is about.
    pub(super) fn about(self, armed: &Armed) -> Self {
        let with = |why: String| format!("Server {}/{}: {why}", armed.namespace, armed.name);
        match self {
            Self::Refused(why) | Self::Absent(why) => Self::Absent(with(why)),
            Self::Broken(why) => Self::Broken(with(why)),
            Self::Later(why) => Self::Later(with(why)),
        }
    }
}

impl From<StoreAway> for Denied {
    fn from(error: StoreAway) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<Unavailable> for Denied {
    fn from(error: Unavailable) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<NoChance> for Denied {
    fn from(error: NoChance) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<Mismatch> for Denied {
    fn from(error: Mismatch) -> Self {
        match error {
            // The controller shows it a moment later, or again: the machine comes again.
            Mismatch::NotWitnessed => Self::Later(error.to_string()),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<ScriptRefused> for Denied {
    fn from(error: ScriptRefused) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<RenderError> for Denied {
    fn from(error: RenderError) -> Self {
        Self::Broken(error.to_string())
    }
}
