//! What a BMC says in an answer: Redfish messages, in every shape that they come in, and what their MessageIds mean. Pure.

use serde_json::Value;

use super::class::Asked;
use super::system::texts;

/// Messages of one answer that are looked at.
const MESSAGES_MAX: usize = 32;
/// Arguments of one message that are filled in.
const ARGUMENTS_MAX: usize = 8;
/// How deep in an answer lists of messages are looked for: `Boot@Message.ExtendedInfo` may stand inside of an object.
const DEPTH_MAX: usize = 4;
/// How many messages are told.
const TOLD_MAX: usize = 3;

/// What a MessageId means for the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meaning {
    /// Nothing was done, and the same may be done a while later.
    NotYet,
    /// The login, or the state of the account, is what is missing.
    LoginRefused,
    /// The account is let in, and lacks a right.
    RightMissing,
    /// The BMC has no such thing.
    NotOffered,
    /// No, and asking again changes nothing.
    Refused,
}

/// The closed table: which MessageIds, without registry and version, mean what. Those that are not here leave it to the
/// status. Of `Base` (DSP8011), HPE's `iLO` and `HpeCommon`, Dell's `IDRAC`, and what OpenBMC and others send of `Base`.
const MEANINGS: &[(Meaning, &[&str])] = &[
    (
        Meaning::NotYet,
        &[
            // Base
            "ChassisPowerStateOffRequired",
            "ChassisPowerStateOnRequired",
            "CreateLimitReachedForResource",
            "OperationFailed",
            "OperationTimeout",
            "ResourceExhaustion",
            "ResourceInStandby",
            "ResourceInUse",
            "ServiceInUnknownState",
            "ServiceShuttingDown",
            "ServiceTemporarilyUnavailable",
            "SessionLimitExceeded",
            // iLO
            "FirmwareFlashAlreadyInProgress",
            "InternalErrorWithParam",
            "InvalidOperationForSystemState",
            "ResetInProgress",
            "ResourceBeingFlashed",
            "ResourceInUseWithDetail",
            "ResourceNotReadyRetry",
            "ResourceTemporarilyUnavailable",
            "UnableToModifyDuringSystemPOST",
            // IDRAC: on, or off, already (the next look tells); sessions; not ready; an import or export; no data yet
            "PSU501",
            "RAC0218",
            "RAC0508",
            "SYS431",
            "SYS518",
        ],
    ),
    (
        Meaning::LoginRefused,
        &[
            "AccountForSessionNoLongerExists",
            "AuthenticationTokenRequired",
            "NoValidSession",
            "PasswordChangeRequired",
            "ResourceAtUriUnauthorized",
            "LoginAttemptDelayed",
            "LoginAttemptDelayedSeconds",
            "UnauthorizedLoginAttempt",
        ],
    ),
    (Meaning::RightMissing, &["InsufficientPrivilege", "InsufficientPrivilegeForProperty"]),
    (
        Meaning::NotOffered,
        &[
            "ActionNotSupported",
            "ActionParameterNotSupported",
            "ActionParameterUnknown",
            "ActionParameterValueError",
            "ActionParameterValueFormatError",
            "ActionParameterValueNotInList",
            "ActionParameterValueTypeError",
            "OperationNotAllowed",
            "PropertyValueNotInList",
            "UnsupportedOperation",
            "UnsupportedOperationInLegacyBootMode",
            "UnsupportedOperationInSystemBIOS",
        ],
    ),
    (
        Meaning::Refused,
        &[
            "ActionParameterDuplicate",
            "ActionParameterMissing",
            "EmptyJSON",
            "OperationSupportedInFutureStateURI",
            "LicenseKeyRequired",
            "LicenseRequired",
            "MalformedJSON",
            "PreconditionRequired",
            "PropertyMissing",
            "PropertyNotWritable",
            "PropertyUnknown",
            "PropertyValueFormatError",
            "PropertyValueOutOfRange",
            "PropertyValueTypeError",
            "ServiceDisabled",
            "StringValueTooLong",
            "UnrecognizedRequestBody",
        ],
    ),
];

/// A conflict of a reset with the present state is over when that is; a conflict of other parameters is for good.
const NOT_YET_FOR_A_RESET: &str = "ActionParameterValueConflict";

/// What says of a reset that there is no such way to do it. Other words of the kind are said of what may not be now, or was put
/// wrongly.
const NO_SUCH_RESET: &[&str] = &[
    "ActionNotSupported",
    "ActionParameterNotSupported",
    "ActionParameterValueNotInList",
    "UnsupportedOperation",
];

/// What every BMC says to a wrong password: it tells nobody anything.
const SAID_TO_EVERY_WRONG_LOGIN: &[&str] = &[
    "AuthenticationTokenRequired",
    "NoValidSession",
    "ResourceAtUriUnauthorized",
    "UnauthorizedLoginAttempt",
];

/// How loud a message is; ordered, loudest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Critical,
    Warning,
    Untold,
    Ok,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    id: Option<String>,
    text: Option<String>,
    arguments: Vec<String>,
    resolution: Option<String>,
    /// The properties that it is about, as JSON pointers.
    related: Vec<String>,
    severity: Severity,
}

/// All messages of an answer, loudest first: most BMCs send a list below `error`, others the list itself, a list at a
/// property, one object in place of the list, or only a code.
pub(super) fn messages(body: &Value) -> Vec<Message> {
    let mut found = Vec::new();
    collect(body, 0, &mut found);
    if found.is_empty() {
        found.extend(last_resort(body));
    }
    found.sort_by_key(|message| message.severity);
    found
}

fn collect(value: &Value, depth: usize, found: &mut Vec<Message>) {
    if depth > DEPTH_MAX || found.len() >= MESSAGES_MAX {
        return;
    }
    match value {
        Value::Array(all) => {
            for one in all.iter().take(MESSAGES_MAX) {
                match message(one).filter(|_| found.len() < MESSAGES_MAX) {
                    Some(message) => found.push(message),
                    None => collect(one, depth + 1, found),
                }
            }
        }
        Value::Object(members) => {
            for (name, one) in members {
                match one {
                    Value::Object(_) if is_list(name) => found.extend(message(one)),
                    Value::Array(_) if is_list(name) => collect(one, depth + 1, found),
                    Value::Object(_) => collect(one, depth + 1, found),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// `Messages` is how HPE called it before Redfish.
fn is_list(name: &str) -> bool {
    name.ends_with("@Message.ExtendedInfo") || name == "Messages"
}

fn message(value: &Value) -> Option<Message> {
    let text = |names: &[&str]| names.iter().find_map(|name| filled(value.get(name)?.as_str()?));
    // Both spellings are seen.
    let (id, told) = (text(&["MessageId", "MessageID"]), text(&["Message"]));
    if id.is_none() && told.is_none() {
        return None;
    }
    let arguments = value.get("MessageArgs").and_then(Value::as_array).into_iter().flatten();
    Some(Message {
        text: told.filter(|text| !points_elsewhere(text)),
        arguments: arguments.take(ARGUMENTS_MAX).map(argument).collect(),
        related: value.get("RelatedProperties").and_then(texts).unwrap_or_default(),
        resolution: text(&["Resolution"]).filter(|text| says_something(text)),
        severity: match text(&["MessageSeverity", "Severity"]).as_deref() {
            Some("Critical") => Severity::Critical,
            Some("Warning") => Severity::Warning,
            Some("OK" | "Informational") => Severity::Ok,
            _ if id.as_deref().map(short) == Some("Success") => Severity::Ok,
            _ => Severity::Untold,
        },
        id,
    })
}

fn argument(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What is there where there is no list: a code and a text, or only a text.
fn last_resort(body: &Value) -> Option<Message> {
    let error = ["error", "Error"].iter().find_map(|name| body.get(name)).unwrap_or(body);
    let text = |names: &[&str]| names.iter().find_map(|name| filled(error.get(name)?.as_str()?));
    let told =
        error.as_str().and_then(filled).or_else(|| text(&["message", "Message", "detail", "description"]));
    let (id, told) = (text(&["code", "MessageId"]), told.filter(|text| !points_elsewhere(text)));
    (id.is_some() || told.is_some()).then(|| Message {
        id,
        text: told,
        arguments: Vec::new(),
        resolution: None,
        related: Vec::new(),
        severity: Severity::Untold,
    })
}

fn filled(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// A text that only says where the text is.
fn points_elsewhere(text: &str) -> bool {
    text.contains("ExtendedInfo")
}

fn says_something(resolution: &str) -> bool {
    !matches!(
        resolution.trim().trim_end_matches('.'),
        "None" | "none" | "N/A" | "No response action is required"
    )
}

/// A MessageId without registry and version.
fn short(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

impl Message {
    fn short_id(&self) -> Option<&str> {
        self.id.as_deref().map(short)
    }

    /// Its words: the text with its arguments, else the MessageId with them; and what it advises.
    fn words(&self) -> Option<String> {
        let said = match (&self.text, self.short_id()) {
            (Some(text), _) => self.fill(text),
            (None, Some("GeneralError" | "ExtendedInfo" | "Success") | None) => {
                return self.resolution.clone();
            }
            (None, Some(id)) if self.arguments.is_empty() => id.to_owned(),
            (None, Some(id)) => format!("{id} ({})", self.arguments.join(", ")),
        };
        Some(match &self.resolution {
            Some(resolution) => format!("{} {resolution}", ended(&said)),
            None => said,
        })
    }

    /// Some BMCs send the text as its registry has it.
    fn fill(&self, text: &str) -> String {
        let numbered = self.arguments.iter().enumerate().rev();
        numbered.fold(text.to_owned(), |text, (at, argument)| text.replace(&format!("%{}", at + 1), argument))
    }
}

fn ended(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?', ':']) { text.to_owned() } else { format!("{text}.") }
}

impl Message {
    /// Whether it names a property or a parameter: as what it is about, in an argument, or in its text.
    pub(super) fn names(&self, property: &str) -> bool {
        let ends = |pointer: &String| pointer.rsplit(['/', '.', '#']).next() == Some(property);
        self.related.iter().any(ends)
            || self.arguments.iter().any(|argument| argument == property || ends(argument))
            || self.text.as_deref().is_some_and(|text| has_word(text, property))
    }

    /// Whether it may be about parameters, by its MessageId: who says something else means that.
    pub(super) fn is_about_parameters(&self) -> bool {
        matches!(
            self.short_id(),
            None | Some(
                "GeneralError"
                    | "ActionParameterNotSupported"
                    | "ActionParameterUnknown"
                    | "ActionParameterValueError"
                    | "PropertyNotWritable"
                    | "PropertyUnknown"
                    | "UnrecognizedRequestBody"
                    | "MalformedJSON"
            )
        )
    }

    /// Whether it says that what was asked for is to be done elsewhere: not here, or not now but with the next start.
    pub(super) fn leads_elsewhere(&self) -> bool {
        matches!(
            self.short_id(),
            Some(
                "PropertyNotWritable"
                    | "PropertyNotUpdated"
                    | "PropertyUnknown"
                    | "OperationSupportedInFutureStateURI"
                    | "ResourceNotWritable"
                    | "OperationNotAllowed"
                    | "ActionNotSupported"
                    | "SYS410"
                    | "SYS405"
            )
        ) || self.text.as_deref().is_some_and(is_read_only)
    }
}

/// Whether a text says that a property cannot be written.
pub(super) fn is_read_only(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["read only", "read-only", "readonly", "not writable", "futurestate", "future state"]
        .iter()
        .any(|word| text.contains(word))
}

/// Whether a text has that word.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|one| one == word)
}

/// What all messages together mean: who says "not yet" beside something else gets patience.
pub(super) fn meaning(messages: &[Message], asked: Asked) -> Option<Meaning> {
    let of = |id: &str| match MEANINGS.iter().find(|(_, ids)| is_one_of(id, ids)) {
        Some((Meaning::NotOffered, _)) if asked == Asked::Reset && !is_one_of(id, NO_SUCH_RESET) => {
            Some(Meaning::Refused)
        }
        Some((meaning, _)) => Some(*meaning),
        None => {
            (asked == Asked::Reset && id.eq_ignore_ascii_case(NOT_YET_FOR_A_RESET)).then_some(Meaning::NotYet)
        }
    };
    messages.iter().filter_map(|message| of(message.short_id()?)).min()
}

/// Whether one of them says that a request lacks `If-Match`, or has a wrong one.
pub(super) fn is_about_precondition(messages: &[Message]) -> bool {
    let names_it =
        |message: &Message| message.arguments.iter().any(|one| one.eq_ignore_ascii_case("If-Match"));
    messages.iter().any(|message| match message.short_id() {
        Some("PreconditionRequired" | "PreconditionFailed") => true,
        Some("HeaderMissing" | "HeaderInvalid") => names_it(message),
        _ => false,
    })
}

fn is_one_of(id: &str, ids: &[&str]) -> bool {
    ids.iter().any(|one| one.eq_ignore_ascii_case(id))
}

/// The words of the loudest messages.
pub(super) fn words(messages: &[Message]) -> Option<String> {
    let loud = messages.iter().any(|message| message.severity != Severity::Ok);
    let told = messages.iter().filter(|message| !loud || message.severity != Severity::Ok);
    let mut all: Vec<String> = Vec::new();
    for words in told.filter_map(Message::words) {
        if !all.contains(&words) && all.len() < TOLD_MAX {
            all.push(words);
        }
    }
    (!all.is_empty()).then(|| all.join(" "))
}

/// Whether a refused login was told in more than what every BMC says to a wrong password.
pub(super) fn tells_why_of_a_login(messages: &[Message]) -> bool {
    let ordinary =
        |message: &Message| message.short_id().is_some_and(|id| SAID_TO_EVERY_WRONG_LOGIN.contains(&id));
    words(messages).is_some() && !messages.iter().any(ordinary)
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_id_has_one_meaning() {
        let all: Vec<_> = MEANINGS.iter().flat_map(|(_, ids)| ids.iter()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|id| !id.contains('.')));
    }

    #[test]
    fn every_shape_of_a_message_is_understood() {
        let one = json!({"MessageID": "iLO.2.37.UnableToModifyDuringSystemPOST", "MessageArgs": ["BootSourceOverrideTarget"]});
        let see = "See @Message.ExtendedInfo for more information.";
        for body in [
            json!({"error": {"code": "iLO.0.10.ExtendedInfo", "message": see, "@Message.ExtendedInfo": [one]}}),
            json!({"error": {"message": see, "@Message.ExtendedInfo": one}}),
            json!({"Messages": [one], "Type": "ExtendedError.1.0.0"}),
            json!({"Boot@Message.ExtendedInfo": [one]}),
            json!({"Boot": {"BootSourceOverrideTarget@Message.ExtendedInfo": [one]}}),
            json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.0.Success", "Message": "Done."}, one]}}),
            json!([one]),
        ] {
            let found = messages(&body);
            assert_eq!(meaning(&found, Asked::Change), Some(Meaning::NotYet), "{body}");
            let words = words(&found);
            assert_eq!(
                words.as_deref(),
                Some("UnableToModifyDuringSystemPOST (BootSourceOverrideTarget)"),
                "{body}"
            );
        }
    }

    #[test]
    fn arguments_are_filled_in_the_loudest_comes_first_and_the_advice_is_kept() {
        let body = json!({"error": {"message": "A general error has occurred. See ExtendedInfo for more information", "@Message.ExtendedInfo": [
            {"MessageId": "Base.1.8.PropertyValueModified", "Message": "It was rounded", "Severity": "Warning"},
            {"Message": "The value %2 of %1 is refused", "MessageArgs": ["ResetType", 7], "MessageSeverity": "Critical",
             "Resolution": "Wait for the update."},
            {"Message": "Fine.", "Severity": "OK", "Resolution": "None"},
        ]}});
        assert_eq!(
            words(&messages(&body)).as_deref(),
            Some("The value 7 of ResetType is refused. Wait for the update. It was rounded")
        );
    }

    #[test]
    fn what_is_no_message_says_nothing_and_what_is_only_a_text_says_that() {
        for (body, said) in [
            (json!({}), None),
            (json!([1, {}, null]), None),
            (json!({"error": {"message": "See @Message.ExtendedInfo for more information."}}), None),
            (json!({"error": {"code": "Base.1.0.ResourceInUse"}}), Some("ResourceInUse")),
            (json!({"error": "busy right now"}), Some("busy right now")),
            (json!({"Error": {"message": "no"}}), Some("no")),
            (json!({"message": "later"}), Some("later")),
        ] {
            assert_eq!(words(&messages(&body)).as_deref(), said, "{body}");
        }
    }

    #[test]
    fn not_yet_beside_something_else_is_not_yet_and_a_conflict_is_so_only_for_a_reset() {
        let said = |ids: &[&str]| {
            let list: Vec<_> = ids.iter().map(|id| json!({"MessageId": format!("Base.1.12.{id}")})).collect();
            messages(&json!({"error": {"@Message.ExtendedInfo": list}}))
        };
        assert_eq!(
            meaning(&said(&["ActionNotSupported", "ResourceInUse"]), Asked::Reset),
            Some(Meaning::NotYet)
        );
        assert_eq!(
            meaning(&said(&["GeneralError", "ActionNotSupported"]), Asked::Reset),
            Some(Meaning::NotOffered)
        );
        assert_eq!(meaning(&said(&["ActionParameterValueConflict"]), Asked::Reset), Some(Meaning::NotYet));
        assert_eq!(meaning(&said(&["ActionParameterValueConflict"]), Asked::Change), None);
        assert_eq!(meaning(&said(&["GeneralError"]), Asked::Reset), None);
    }

    #[test]
    fn an_answer_that_is_all_lists_ends() {
        let mut deep = json!({"Message": "x"});
        for _ in 0..100 {
            deep = json!({"a@Message.ExtendedInfo": [[deep]]});
        }
        assert!(messages(&deep).len() <= MESSAGES_MAX);
        let wide: Vec<_> = (0..1000).map(|n| json!({"Message": n.to_string()})).collect();
        assert!(messages(&json!({"@Message.ExtendedInfo": wide})).len() <= MESSAGES_MAX);
    }
}
