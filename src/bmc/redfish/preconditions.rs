//! `If-Match`: which BMC takes which. The standard has it say that nobody changed the resource since it was read; BMCs
//! differ in whether they demand it, ignore it, or refuse it, and in how they want their own ETag spelled. Pure.
//!
//! What the BMC demands decides. A request that is refused for its precondition was not done, so that it may be sent again;
//! how often is bounded, and what was taken in the end is remembered for an action and for a PATCH apart.

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::answer::Document;
use super::line::Answer;
use super::message::{self, Meaning};

/// How often one request is sent again with another `If-Match`.
pub(super) const AGAIN_MAX: usize = 6;

/// The ETags of a document: of the header of the answer, and of the document itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tags {
    pub(super) header: Option<String>,
    pub(super) body: Option<String>,
}

/// One way to say `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Not at all.
    Absent,
    /// As the answer to the read gave it.
    AsGiven,
    /// As it stands in the document, where that is another.
    OfBody,
    /// A weak one as a strong one.
    Strong,
    /// Without quotes.
    Unquoted,
    /// `*`: whatever it is.
    Any,
}

/// The header of a request; `None`: it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IfMatch(pub(super) Option<String>);

impl Spelling {
    /// In the order in which they are tried where the BMC demands one.
    const DEMANDED: [Self; 5] = [Self::AsGiven, Self::OfBody, Self::Strong, Self::Unquoted, Self::Any];
    /// In the order in which they are tried where one was refused.
    const REFUSED: [Self; 6] =
        [Self::AsGiven, Self::OfBody, Self::Strong, Self::Unquoted, Self::Absent, Self::Any];

    /// What is sent; `None`: this way is none, because there is nothing to spell so.
    fn value(self, tags: &Tags) -> Option<IfMatch> {
        let given = tags.header.as_ref().or(tags.body.as_ref()).filter(|tag| !tag.is_empty());
        let strong = |tag: &String| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        let sent = |value: String| IfMatch(Some(value));
        match self {
            Self::Absent => Some(IfMatch(None)),
            Self::AsGiven => given.cloned().map(sent),
            Self::OfBody => tags.body.clone().filter(|tag| !tag.is_empty() && Some(tag) != given).map(sent),
            Self::Strong => given.filter(|tag| tag.starts_with("W/")).map(|tag| sent(strong(tag))),
            Self::Unquoted => given.map(|tag| sent(strong(tag).trim_matches('"').to_owned())),
            Self::Any => Some(sent("*".to_owned())),
        }
    }
}

/// What is known of a BMC and one method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What it took the last time; `None`: nothing but the standard is known.
    pub(super) taken: Option<Spelling>,
    /// It took none of all: so many requests more are sent as they are, before all are tried through again.
    pub(super) plain_ones: u8,
}

/// How many requests are sent as they are after one that no precondition helped.
const PLAIN_ONES: u8 = 3;

/// What a change is made to, as it was read before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it is read.
    pub(super) path: String,
    pub(super) tags: Tags,
    /// What of it the wish was decided on.
    essence: Value,
}

impl Place {
    /// What this document shows.
    pub(super) fn of(document: &Document) -> Self {
        Self { path: document.path.clone(), tags: document.tags.clone(), essence: essence(&document.value) }
    }

    /// Whether both show the same of what a wish is decided on. An ETag may change with a clock, or with every read.
    pub(super) fn shows_what(&self, other: &Self) -> bool {
        self.essence == other.essence
    }
}

/// The properties that a change of a machine is decided on.
fn essence(document: &Value) -> Value {
    let of = |name: &str| document.get(name).cloned().unwrap_or_default();
    let boot = |name: &str| document.get("Boot").and_then(|boot| boot.get(name)).cloned().unwrap_or_default();
    json!([
        of("PowerState"),
        of("LastResetTime"),
        of("Image"),
        of("Inserted"),
        boot("BootSourceOverrideEnabled"),
        boot("BootSourceOverrideTarget"),
        boot("HttpBootUri"),
    ])
}

/// Whether an unguarded request is the first try where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// With a strong ETag, where there is one: a weak one does not match by the standard.
    Guarded,
    /// Without.
    Bare,
}

/// The tries of one request, one after the other.
#[derive(Debug)]
pub(super) struct Tries {
    known: Known,
    first: First,
    now: Spelling,
    /// How it was spelled again: each way once, because an ETag may change with every read.
    again: Vec<Spelling>,
    sent: Vec<Option<String>>,
}

impl Tries {
    /// For a request by a method of which so much is known.
    pub(super) fn new(known: Known, first: First) -> Self {
        Self { known, first, now: Spelling::Absent, again: Vec::new(), sent: Vec::new() }
    }

    /// What to send first: what was taken before, where there is still something to spell so.
    pub(super) fn first(&mut self, tags: &Tags) -> Option<String> {
        let strong = |tags: &Tags| {
            Spelling::AsGiven.value(tags).and_then(|it| it.0).is_some_and(|tag| !tag.starts_with("W/"))
        };
        let usual = match self.first {
            First::Guarded if strong(tags) => Spelling::AsGiven,
            First::Guarded | First::Bare => Spelling::Absent,
        };
        let spelling = self.known.taken.filter(|taken| taken.value(tags).is_some()).unwrap_or(usual);
        self.note(spelling, spelling.value(tags).and_then(|it| it.0))
    }

    fn note(&mut self, spelling: Spelling, value: Option<String>) -> Option<String> {
        self.now = spelling;
        self.sent.push(value.clone());
        value
    }

    /// Whether the last one bore an `If-Match`.
    pub(super) fn bore_one(&self) -> bool {
        self.sent.last().is_some_and(Option::is_some)
    }

    /// What to send after a refusal, of a document that was read since; `None`: nothing is left.
    pub(super) fn next(&mut self, tags: &Tags) -> Option<IfMatch> {
        if self.sent.len() > AGAIN_MAX || self.known.plain_ones > 0 {
            return None;
        }
        let began_bare = self.sent.first().is_some_and(Option::is_none);
        let order: &[Spelling] = if began_bare { &Spelling::DEMANDED } else { &Spelling::REFUSED };
        let (spelling, value) = order.iter().find_map(|spelling| {
            let value = spelling.value(tags)?;
            let is_new = !self.again.contains(spelling) && !self.sent.contains(&value.0);
            is_new.then_some((*spelling, value))
        })?;
        self.again.push(spelling);
        self.note(spelling, value.0.clone());
        Some(value)
    }

    /// What is known after an answer that does not speak of the precondition.
    pub(super) fn taken(&self) -> Known {
        let taken = if self.sent.len() == 1 { self.known.taken } else { Some(self.now) };
        Known { taken, plain_ones: 0 }
    }

    /// What is known when all were refused.
    pub(super) fn none_taken(&self) -> Known {
        let plain_ones = self.known.plain_ones.checked_sub(1).unwrap_or(PLAIN_ONES);
        Known { taken: None, plain_ones }
    }
}

/// Whether an answer refuses the precondition of a request, or that it had none. It was not done then.
pub(super) fn refused(answer: &Answer, bore_one: bool) -> bool {
    if answer.status.is_success() || answer.status == StatusCode::UNAUTHORIZED {
        return false;
    }
    let messages = serde_json::from_slice::<Value>(&answer.body).map(|body| message::messages(&body));
    let messages = messages.unwrap_or_default();
    if message::meaning(&messages, super::class::Asked::Change) == Some(Meaning::NotYet) {
        return false;
    }
    match answer.status {
        StatusCode::PRECONDITION_REQUIRED | StatusCode::PRECONDITION_FAILED => true,
        status if status.is_client_error() => {
            message::is_about_precondition(&messages)
                || (messages.is_empty() && names_it(&answer.body))
                || (bore_one && message::words(&messages).is_some_and(|words| names_it(words.as_bytes())))
        }
        _ => false,
    }
}

/// Whether a text names the header.
fn names_it(text: &[u8]) -> bool {
    let name = header::IF_MATCH.as_str();
    String::from_utf8_lossy(text.get(..4096).unwrap_or(text)).to_ascii_lowercase().contains(name)
}

/// Which of what is known a method asks for.
pub(super) fn is_post(method: &Method) -> bool {
    *method == Method::POST
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn tags(header: Option<&str>, body: Option<&str>) -> Tags {
        Tags { header: header.map(str::to_owned), body: body.map(str::to_owned) }
    }

    fn all(known: Known, first: First, tags: &Tags) -> Vec<Option<String>> {
        let mut tries = Tries::new(known, first);
        let mut sent = vec![tries.first(tags)];
        while let Some(next) = tries.next(tags) {
            sent.push(next.0);
        }
        sent
    }

    fn texts(sent: &[Option<String>]) -> Vec<&str> {
        sent.iter().map(|value| value.as_deref().unwrap_or("-")).collect()
    }

    #[test]
    fn a_demand_is_met_with_the_etag_as_it_was_given_and_a_refusal_with_other_spellings_and_then_none() {
        let nothing = Known::default();
        for (tags, first, expected) in [
            (tags(Some("\"1\""), None), First::Guarded, vec!["\"1\"", "1", "-", "*"]),
            (tags(None, Some("\"1\"")), First::Guarded, vec!["\"1\"", "1", "-", "*"]),
            (tags(None, Some("W/\"1\"")), First::Guarded, vec!["-", "W/\"1\"", "\"1\"", "1", "*"]),
            (
                tags(Some("W/\"2\""), Some("\"1\"")),
                First::Guarded,
                vec!["-", "W/\"2\"", "\"1\"", "\"2\"", "2", "*"],
            ),
            (tags(Some("\"1\""), None), First::Bare, vec!["-", "\"1\"", "1", "*"]),
            (tags(None, None), First::Guarded, vec!["-", "*"]),
            (tags(Some(""), None), First::Guarded, vec!["-", "*"]),
        ] {
            let sent = all(nothing, first, &tags);
            assert_eq!(texts(&sent), expected, "{tags:?} {first:?}");
        }
        let strong = tags(Some("\"1\""), None);
        let mut known = Known::default();
        let mut counts = Vec::new();
        for _ in 0..6 {
            let mut tries = Tries::new(known, First::Guarded);
            tries.first(&strong);
            while tries.next(&strong).is_some() {}
            counts.push(tries.sent.len());
            known = tries.none_taken();
        }
        assert_eq!(counts, [4, 1, 1, 1, 4, 1], "not again and again");
    }

    #[test]
    fn what_was_taken_comes_first_the_next_time() {
        let mut tries = Tries::new(Known::default(), First::Guarded);
        let weak = tags(None, Some("W/\"1\""));
        assert_eq!(tries.first(&weak), None);
        assert_eq!(tries.taken(), Known::default(), "the usual way is nothing to remember");
        tries.next(&weak);
        let known = tries.taken();
        assert_eq!(known.taken, Some(Spelling::AsGiven));
        let next = tags(None, Some("W/\"2\""));
        assert_eq!(Tries::new(known, First::Guarded).first(&next).as_deref(), Some("W/\"2\""));
        assert_eq!(Tries::new(known, First::Guarded).first(&Tags::default()), None, "there is none any more");
    }

    #[test]
    fn only_what_a_wish_is_decided_on_counts_as_changed() {
        let place = |value: Value| Place::of(&Document { path: "/x".into(), tags: Tags::default(), value });
        let before = place(json!({"PowerState": "On", "@odata.etag": "W/\"1\"", "IndicatorLED": "Off"}));
        assert!(before.shows_what(&place(
            json!({"PowerState": "On", "@odata.etag": "W/\"2\"", "IndicatorLED": "Lit"})
        )));
        assert!(!before.shows_what(&place(json!({"PowerState": "Off", "@odata.etag": "W/\"1\""}))));
    }

    #[test]
    fn a_refusal_speaks_of_the_precondition_by_its_status_its_message_or_its_words() {
        let said = |id: &str, text: &str| {
            json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id, "Message": text, "MessageArgs": ["If-Match"]}]}}).to_string()
        };
        for (status, body, bore_one, expected) in [
            (428, String::new(), false, true),
            (412, String::new(), false, true),
            (412, String::new(), true, true),
            (400, said("Base.1.18.PreconditionRequired", ""), false, true),
            (400, said("Base.1.18.HeaderMissing", "The header is missing"), false, true),
            (400, "If-Match header is required".to_owned(), false, true),
            (400, said("Base.1.8.GeneralError", "the If-Match header is odd"), true, true),
            (400, said("Base.1.8.PropertyUnknown", ""), false, false),
            (412, said("Base.1.8.ResourceInUse", ""), true, false),
            (400, String::new(), true, false),
            (503, "If-Match".to_owned(), true, false),
            (204, String::new(), true, false),
        ] {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: http::HeaderMap::new(),
                body: body.clone().into(),
            };
            assert_eq!(refused(&answer, bore_one), expected, "{status} {body}");
        }
    }
}
