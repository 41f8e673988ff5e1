//! What a person reads about one server: wish and reality, what is being done, what is in the way, and what to try.
//! Pure: from what the API server tells (no database) and the time to a text.

mod age;
mod commands;
#[cfg(test)]
mod golden_test;
mod layout;
mod meaning;
mod near;
mod obstacle;
mod page;
mod told;
mod wishes;

use jiff::Timestamp;
use serde::Deserialize;

use crate::api::{OSImage, Server};
pub use layout::{Form, Ink};
pub use near::near;
pub use told::Told;

/// What became of looking at an object beside the server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub enum Looked<T> {
    /// The server names none.
    #[default]
    NotNamed,
    /// It is there.
    Found(T),
    /// There is none of that name.
    Missing,
    /// The API server did not show it: its words.
    Refused(String),
}

/// What the metadata of a credentials Secret tell. Nobody reads its data here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SecretSeen {
    /// When somebody last changed it, as far as its managers say.
    pub changed: Option<Timestamp>,
    /// The annotation that says for which hosts it is.
    pub hosts: Option<String>,
}

/// Another `Server` with the same BMC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What the metadata of a namespace tell.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NamespaceSeen {
    /// Since when it is being deleted; `None`: it is not.
    pub deleted: Option<Timestamp>,
}

/// Everything that is looked at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The object.
    pub server: Server,
    /// The `OSImage` that it names.
    pub image: Looked<OSImage>,
    /// The Secret that it names.
    pub secret: Looked<SecretSeen>,
    /// Its namespace.
    pub namespace: Looked<NamespaceSeen>,
    /// The other Servers, of all namespaces that may be read, whose spec names its BMC; asked for where it is refused.
    pub holders: Looked<Vec<Holder>>,
    /// The events about it, in any order.
    pub events: Looked<Vec<Told>>,
    /// Now.
    pub now: Timestamp,
}

/// The page about one server.
pub fn why(facts: &Facts, form: Form) -> String {
    page::page(facts).lay_out(form)
}
