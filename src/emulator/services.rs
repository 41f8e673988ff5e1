//! The Redfish services beside the machines: sessions, accounts, tasks.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal};
use super::auth;
use super::fault::Behaviour;
use super::fleet::Fleet;
use super::redfish::Scope;
use super::resources::{ROOT, collection, link};
use super::sessions::TIMEOUT_S;
use super::system::{Credentials, System};
use super::target::Target;
use super::time::Millis;

const SESSIONS: &str = "SessionService/Sessions";
const ACCOUNTS: &str = "AccountService/Accounts";
const ROLE: &str = "Administrator";

/// One Redfish service: the fleet's, or that of a single BMC.
#[derive(Clone, Copy)]
pub(super) struct Service<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) scope: Scope,
    /// The one system of a BMC with a port of its own.
    pub(super) system: Option<&'a System>,
    pub(super) now: Millis,
}

/// Who sends the request: the holder of a session, or whoever Basic authentication says.
pub(super) fn presented(fleet: &Fleet, scope: Scope, headers: &HeaderMap) -> Option<Credentials> {
    match headers.get("x-auth-token") {
        Some(token) => fleet.0.sessions.holder(scope, token.to_str().ok()?, fleet.now()),
        None => auth::presented(headers),
    }
}

impl Service<'_> {
    /// The document of a target that belongs to the service and not to a machine.
    pub(super) fn document(self, target: Target<'_>) -> Option<Value> {
        let sessions = || self.fleet.0.sessions.list(self.scope, self.now);
        Some(match target {
            Target::SessionService => json!({
                "@odata.type": "#SessionService.v1_1_9.SessionService",
                "@odata.id": format!("{ROOT}/SessionService"),
                "Id": "SessionService",
                "Name": "Session Service",
                "ServiceEnabled": true,
                "SessionTimeout": TIMEOUT_S,
                "Sessions": link(SESSIONS),
            }),
            Target::Sessions => {
                let ids: Vec<String> = sessions().iter().map(|session| session.id.to_string()).collect();
                collection(SESSIONS, "Session", &ids.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Target::Session(id) => {
                let sessions = sessions();
                let session = sessions.iter().find(|session| session.id.to_string() == id)?;
                session_document(id, &session.credentials.username)
            }
            Target::AccountService => json!({
                "@odata.type": "#AccountService.v1_15_1.AccountService",
                "@odata.id": format!("{ROOT}/AccountService"),
                "Id": "AccountService",
                "Name": "Account Service",
                "ServiceEnabled": true,
                "Accounts": link(ACCOUNTS),
                "Roles": link("AccountService/Roles"),
            }),
            Target::Accounts => collection(ACCOUNTS, "ManagerAccount", &["1"]),
            Target::Account("1") => json!({
                "@odata.type": "#ManagerAccount.v1_12_1.ManagerAccount",
                "@odata.id": format!("{ROOT}/{ACCOUNTS}/1"),
                "Id": "1",
                "Name": "User Account",
                "UserName": self.credentials().username,
                "Password": null,
                "RoleId": ROLE,
                "Enabled": true,
                "Locked": false,
                "AccountTypes": ["Redfish"],
                "Links": {"Role": link(format!("AccountService/Roles/{ROLE}"))},
            }),
            Target::Roles => collection("AccountService/Roles", "Role", &[ROLE]),
            Target::Role(ROLE) => json!({
                "@odata.type": "#Role.v1_3_2.Role",
                "@odata.id": format!("{ROOT}/AccountService/Roles/{ROLE}"),
                "Id": ROLE,
                "Name": "User Role",
                "RoleId": ROLE,
                "IsPredefined": true,
                "AssignedPrivileges": ["Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"],
            }),
            Target::TaskService => json!({
                "@odata.type": "#TaskService.v1_2_1.TaskService",
                "@odata.id": format!("{ROOT}/TaskService"),
                "Id": "TaskService",
                "Name": "Task Service",
                "ServiceEnabled": true,
                "Tasks": link("TaskService/Tasks"),
            }),
            // Everything is done when it is answered: no request becomes a task.
            Target::Tasks => collection("TaskService/Tasks", "Task", &[]),
            _ => return None,
        })
    }

    fn credentials(self) -> Credentials {
        let own = self.system.and_then(|system| system.at(self.now, |state| state.credentials.clone()));
        own.unwrap_or_else(|| self.fleet.0.credentials.clone())
    }

    /// Opens a session.
    pub(super) fn open_session(self, body: &[u8], faults: &[Behaviour]) -> Result<Answer, Refusal> {
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Refusal::malformed())?;
        let text = |name: &str| {
            body.get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| Refusal::property_missing(name))
        };
        let credentials = Credentials { username: text("UserName")?, password: text("Password")? };
        auth::admit(self.fleet, self.system, Some(&credentials), faults, self.now)?;
        let bmcs = match self.scope {
            Scope::Fleet => self.fleet.0.systems.len(),
            Scope::Own(_) => 1,
        };
        let username = credentials.username.clone();
        let opened = self.fleet.0.sessions.open(self.scope, bmcs, credentials, self.now);
        let (id, token) = opened.ok_or_else(Refusal::session_limit)?;
        Ok(Answer::json(session_document(&id.to_string(), &username))
            .status(StatusCode::CREATED)
            .with(header::LOCATION, &format!("{ROOT}/{SESSIONS}/{id}"))
            .with(header::HeaderName::from_static("x-auth-token"), token.as_str()))
    }

    /// Ends a session.
    pub(super) fn close_session(self, id: &str) -> Option<Answer> {
        let closed = self.fleet.0.sessions.close(self.scope, id, self.now);
        closed.then(|| Answer::empty(StatusCode::NO_CONTENT))
    }

    /// Changes the password of a BMC with a port of its own.
    pub(super) fn change_password(self, body: &[u8]) -> Result<Answer, Refusal> {
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Refusal::malformed())?;
        if let Some(other) = body.keys().find(|key| *key != "Password") {
            return Err(Refusal::property_not_writable(other));
        }
        let password = body.get("Password").ok_or_else(Refusal::no_operation)?;
        let password = password
            .as_str()
            .filter(|password| !password.is_empty())
            // What may be a secret is not repeated.
            .ok_or_else(|| Refusal::property_value_type("Password", &Value::Null))?;
        let Some(system) = self.system else { return Err(Refusal::method("PATCH")) };
        let changed = Credentials { password: password.to_owned(), ..self.credentials() };
        system.at(self.now, |state| state.credentials = Some(changed));
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    }
}

fn session_document(id: &str, username: &str) -> Value {
    json!({
        "@odata.type": "#Session.v1_7_2.Session",
        "@odata.id": format!("{ROOT}/{SESSIONS}/{id}"),
        "Id": id,
        "Name": "User Session",
        "UserName": username,
    })
}
