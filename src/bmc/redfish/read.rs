//! Reading documents by following links.

use http::{StatusCode, header};
use serde_json::Value;

use super::answer::{self, Document};
use super::class::Login;
use super::line::{Answer, Line};
use super::origin::LinkRefused;
use super::preconditions::Tags;
use crate::bmc::error::{BmcError, BmcErrorKind, Delivery};

/// Redirects that one read follows.
const REDIRECTS_MAX: usize = 3;
/// Pages of a collection that are read.
const PAGES_MAX: usize = 32;
/// Members of a collection of parts that are looked at.
const MEMBERS_MAX: usize = 1024;
/// What parts are called in messages: which one it was does not matter to anybody.
const PART: &str = "a part of the system";
const ODD_LINK: &str = "has a link to a part of the system that leads nowhere, or elsewhere";

impl Line<'_> {
    /// Reads what must be there; `what` names it in messages.
    pub(super) async fn document(&mut self, path: &str, what: &str) -> Result<Document, BmcError> {
        let (path, answer) = self.fetch(path, what).await?;
        self.judge(path, what, &answer)
    }

    /// The document in an answer. Whoever is given one was let in, unless it is open to everybody.
    fn judge(&mut self, path: String, what: &str, answer: &Answer) -> Result<Document, BmcError> {
        let document = answer::document(self.route, path, what, answer, self.login)?;
        if !is_open_to_all(&document.path) {
            self.login = Login::Proven;
        }
        Ok(document)
    }

    /// Reads what may be missing: then it is nothing. What is there and cannot be read, or leads elsewhere, is an error:
    /// nothing read would look like nothing there.
    pub(super) async fn optional(&mut self, at: &str, link: &Value) -> Result<Option<Document>, BmcError> {
        if link.is_null() {
            return Ok(None);
        }
        let followed = link_of(link).map(|link| self.route.origin.follow(at, link));
        let Some(Ok(path)) = followed else {
            return Err(self.route.error(BmcErrorKind::Protocol, Delivery::Answered, ODD_LINK));
        };
        let (path, answer) = self.fetch(&path, PART).await?;
        if is_missing(answer.status) {
            return Ok(None);
        }
        self.judge(path, PART, &answer).map(Some)
    }

    /// Reads what only describes: an odd one is as good as none.
    pub(super) async fn description(&mut self, at: &str, link: &Value) -> Result<Option<Document>, BmcError> {
        self.optional(at, link).await.or_else(|error| match error.kind {
            BmcErrorKind::Protocol | BmcErrorKind::Forbidden | BmcErrorKind::AddressNotAllowed => Ok(None),
            _ => Err(error),
        })
    }

    /// The members of a collection that is there, at most `most`, page by page.
    pub(super) async fn members(
        &mut self,
        first: Document,
        what: &str,
        most: usize,
    ) -> Result<Vec<String>, BmcError> {
        let mut found = Vec::new();
        let mut page = first;
        for _ in 0..PAGES_MAX {
            let members = match page.value.get("Members") {
                Some(Value::Array(all)) => all.as_slice(),
                // A page may have the link to the next one alone.
                None | Some(Value::Null) => &[],
                Some(_) => {
                    let text = format!("shows a {what} whose Members are no list");
                    return Err(self.route.error(BmcErrorKind::Protocol, Delivery::Answered, &text));
                }
            };
            let links = members.iter().filter_map(link_of);
            found.extend(links.filter_map(|link| self.route.origin.follow(&page.path, link).ok()));
            let next = page.value.get("Members@odata.nextLink").and_then(Value::as_str);
            let next = next.and_then(|link| self.route.origin.follow(&page.path, link).ok());
            let Some(next) = next.filter(|_| found.len() < most) else { break };
            page = self.document(&next, what).await?;
        }
        found.truncate(most);
        Ok(found)
    }

    /// The members of a collection that may be missing, by path, at most `most`.
    pub(super) async fn optional_members(
        &mut self,
        at: &str,
        link: Option<&Value>,
        most: usize,
    ) -> Result<Vec<String>, BmcError> {
        let Some(link) = link else { return Ok(Vec::new()) };
        let Some(first) = self.optional(at, link).await? else { return Ok(Vec::new()) };
        let mut members = self.members(first, PART, MEMBERS_MAX).await?;
        // Sorted before the cut, so that it is always the same ones.
        members.sort();
        members.dedup();
        members.truncate(most);
        Ok(members)
    }

    /// The documents of the members of a collection that may be missing, sorted by path, at most `most`: in one request where the
    /// BMC expands collections, else one by one. `missed`: takes what goes wrong with one of them, and says whether the others
    /// are still tried.
    pub(super) async fn optional_documents(
        &mut self,
        at: &str,
        link: Option<&Value>,
        most: usize,
        missed: &mut (dyn FnMut(BmcError) -> Result<bool, BmcError> + Send),
    ) -> Result<Vec<Document>, BmcError> {
        let Some(link) = link.filter(|link| !link.is_null()) else { return Ok(Vec::new()) };
        let mut whole = Vec::new();
        let mut paths = match self.expanded(at, link, &mut whole).await? {
            Some(paths) => paths,
            None => self.optional_members(at, Some(link), most).await?,
        };
        paths.sort();
        paths.dedup();
        paths.truncate(most);
        let mut documents = Vec::new();
        for path in paths {
            if let Some(at) = whole.iter().position(|one: &Document| one.path == path) {
                documents.push(whole.swap_remove(at));
                continue;
            }
            match self.optional("/", &serde_json::json!({"@odata.id": path})).await {
                Ok(document) => documents.extend(document),
                Err(error) => {
                    if !missed(error)? {
                        break;
                    }
                }
            }
        }
        Ok(documents)
    }

    /// The paths of a collection's members, with those that came whole; `None`: this BMC does not expand it.
    async fn expanded(
        &mut self,
        at: &str,
        link: &Value,
        whole: &mut Vec<Document>,
    ) -> Result<Option<Vec<String>>, BmcError> {
        let host = self.route.peers.host().to_owned();
        let Some(query) = self.learnt.of(&host, |facts| facts.expand) else { return Ok(None) };
        let Some(Ok(path)) = link_of(link).map(|link| self.route.origin.follow(at, link)) else {
            return Ok(None);
        };
        if path.contains('?') {
            return Ok(None);
        }
        let read = self.document(&format!("{path}?{query}"), PART).await;
        let members = match read {
            // One page alone: another page is read in the plain way.
            Ok(page) if page.value.get("Members@odata.nextLink").is_none() => {
                page.value.get("Members").cloned()
            }
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind, BmcErrorKind::Credentials) => return Err(error),
            Err(error) if matches!(error.kind, BmcErrorKind::Unreachable) => return Err(error),
            Err(_) => None,
        };
        let Some(Value::Array(members)) = members else {
            self.learnt.of(&host, |facts| facts.expand = None);
            return Ok(None);
        };
        let mut paths = Vec::new();
        for value in members.into_iter().take(MEMBERS_MAX) {
            let Some(Ok(path)) = link_of(&value).map(|link| self.route.origin.follow(&path, link)) else {
                continue;
            };
            paths.push(path.clone());
            // What is no more than a link did not come along.
            if value.get("Id").is_some() || value.get("Name").is_some() {
                whole.push(Document { path, tags: Tags::default(), value });
            }
        }
        Ok(Some(paths))
    }

    /// Reads a path, and goes where the BMC redirects to as long as it is the same origin.
    async fn fetch(&mut self, path: &str, what: &str) -> Result<(String, Answer), BmcError> {
        let mut path = path.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.get(&path).await?;
            let location = answer.headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
            let Some(location) = location.filter(|_| answer.status.is_redirection()) else {
                return Ok((path, answer));
            };
            path = self.route.origin.follow(&path, location).map_err(|refused| {
                let shown = self.route.voice.quote(location);
                let (kind, why) = match refused {
                    LinkRefused::Elsewhere => (
                        BmcErrorKind::AddressNotAllowed,
                        "another address: if it is this BMC's, write it into spec.bmc.address",
                    ),
                    LinkRefused::Odd => (BmcErrorKind::Protocol, "something that is no address"),
                };
                let text = format!("redirects the request for {what} to {shown:?}, {why}");
                self.route.error(kind, Delivery::Answered, &text)
            })?;
        }
        let text = format!("redirects the request for {what} more than {REDIRECTS_MAX} times");
        Err(self.route.error(BmcErrorKind::Protocol, Delivery::Answered, &text))
    }
}

/// Whether a part is not there: nothing at that path, or nothing that this BMC knows how to read.
const fn is_missing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND
            | StatusCode::GONE
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED
    )
}

/// What a BMC shows without a login (DSP0266 section 13.2.1).
fn is_open_to_all(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    matches!(path, "/redfish" | "/redfish/v1" | "/redfish/v1/odata" | "/redfish/v1/$metadata")
}

/// The link in `{"@odata.id": "…"}`.
pub(super) fn link_of(value: &Value) -> Option<&str> {
    value.get("@odata.id")?.as_str()
}
