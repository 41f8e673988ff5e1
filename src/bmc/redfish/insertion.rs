//! Which parameters a BMC wants to be told of an image: all of them that the standard has a default for, none of them, or
//! more. It is learnt from what it refuses. Pure.

use serde_json::{Map, Value, json};

use super::message::{self, Message};
use super::quirks::Habit;
use crate::bmc::ImageUrl;

/// How often one insertion is sent again with other parameters.
pub(super) const AGAIN_MAX: usize = 4;

/// What can be told of an image beside its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Inserted,
    WriteProtected,
    TransferProtocolType,
    TransferMethod,
    UserName,
    Password,
}

impl Parameter {
    const ALL: [Self; 6] = [
        Self::Inserted,
        Self::WriteProtected,
        Self::TransferProtocolType,
        Self::TransferMethod,
        Self::UserName,
        Self::Password,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Inserted => "Inserted",
            Self::WriteProtected => "WriteProtected",
            Self::TransferProtocolType => "TransferProtocolType",
            Self::TransferMethod => "TransferMethod",
            Self::UserName => "UserName",
            Self::Password => "Password",
        }
    }

    fn value(self, image: &ImageUrl) -> Value {
        match self {
            Self::Inserted | Self::WriteProtected => json!(true),
            Self::TransferProtocolType => json!(image.protocol()),
            Self::TransferMethod => json!("Stream"),
            // The address of an image has no login: a BMC that insists on one is told a word.
            Self::UserName | Self::Password => json!("none"),
        }
    }
}

/// The parameters that are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameters(Vec<Parameter>);

impl Default for Parameters {
    fn default() -> Self {
        Self(vec![Parameter::Inserted, Parameter::WriteProtected])
    }
}

impl Parameters {
    /// With what a description of the action says to be required.
    #[must_use]
    pub(super) fn with_required(mut self, info: Option<&Value>) -> Self {
        let parameters = info.and_then(|info| info.get("Parameters")).and_then(Value::as_array);
        for told in parameters.into_iter().flatten() {
            let name = told.get("Name").and_then(Value::as_str);
            let required = told.get("Required").and_then(Value::as_bool) == Some(true);
            let wanted = Parameter::ALL.into_iter().find(|one| Some(one.name()) == name);
            if let Some(wanted) = wanted.filter(|one| required && !self.0.contains(one)) {
                self.0.push(wanted);
            }
        }
        self
    }

    /// Whether a login for the address is among them.
    pub(super) fn has_login(&self) -> bool {
        self.0.contains(&Parameter::UserName)
    }

    /// The body that inserts an image by the action.
    pub(super) fn body(&self, image: &ImageUrl) -> Value {
        let mut body = Map::new();
        body.insert("Image".to_owned(), json!(image.as_str()));
        body.extend(self.0.iter().map(|one| (one.name().to_owned(), one.value(image))));
        Value::Object(body)
    }

    /// What to tell after a refusal, and which habit that is; `None`: the refusal is about something else.
    pub(super) fn after(&self, refusal: &[Message], text: Option<&str>) -> Option<(Self, Habit)> {
        let missing = self.missing(refusal, text);
        if !missing.is_empty() {
            let mut more = self.clone();
            more.0.extend(missing);
            return Some((more, Habit::MediaParametersMissing));
        }
        let of_too_much: Vec<Parameter> =
            self.0.iter().copied().filter(|one| names(refusal, text, one.name())).collect();
        let dropped = |one: &Parameter| {
            // The two go together: a BMC that knows one of them as a state knows the other so.
            let pair = matches!(one, Parameter::Inserted | Parameter::WriteProtected);
            let pair_named = of_too_much
                .iter()
                .any(|named| matches!(named, Parameter::Inserted | Parameter::WriteProtected));
            of_too_much.contains(one) || (pair && pair_named)
        };
        let is_general = refusal.iter().all(Message::is_about_parameters);
        let fewer: Vec<Parameter> = if of_too_much.is_empty() && is_general {
            self.0
                .iter()
                .copied()
                .filter(|one| !matches!(one, Parameter::Inserted | Parameter::WriteProtected))
                .collect()
        } else {
            self.0.iter().copied().filter(|one| !dropped(one)).collect()
        };
        (fewer.len() < self.0.len()).then_some((Self(fewer), Habit::MediaImageAlone))
    }

    fn missing(&self, refusal: &[Message], text: Option<&str>) -> Vec<Parameter> {
        let wants = |one: &Parameter| {
            !self.0.contains(one) && {
                names(refusal, text, one.name())
                    // Both or none of a login.
                    || (*one == Parameter::Password && names(refusal, text, Parameter::UserName.name()))
                    || (*one == Parameter::UserName && names(refusal, text, Parameter::Password.name()))
            }
        };
        Parameter::ALL.into_iter().filter(wants).collect()
    }
}

/// Whether a refusal names that property.
fn names(refusal: &[Message], text: Option<&str>, name: &str) -> bool {
    refusal.iter().any(|message| message.names(name))
        || text.is_some_and(|text| message::has_word(text, name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn image() -> ImageUrl {
        ImageUrl::parse("https://a/b.iso").unwrap()
    }

    fn said(id: &str, arguments: &[&str], text: &str) -> Vec<Message> {
        message::messages(&json!({"error": {"@Message.ExtendedInfo": [
            {"MessageId": format!("Base.1.12.{id}"), "MessageArgs": arguments, "Message": text}]}}))
    }

    fn keys(parameters: &Parameters) -> Vec<String> {
        parameters.body(&image()).as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn a_bmc_is_told_what_it_asks_for_and_not_what_it_refuses() {
        let usual = Parameters::default();
        assert_eq!(keys(&usual), ["Image", "Inserted", "WriteProtected"]);
        for (refusal, text, expected) in [
            (said("PropertyNotWritable", &["Inserted"], ""), None, Some(vec!["Image"])),
            (
                said("ActionParameterUnknown", &["InsertMedia", "WriteProtected"], ""),
                None,
                Some(vec!["Image"]),
            ),
            (Vec::new(), Some("The property Inserted is a read only property"), Some(vec!["Image"])),
            (said("GeneralError", &[], "A general error has occurred."), None, Some(vec!["Image"])),
            (Vec::new(), None, Some(vec!["Image"])),
            (
                said("ActionParameterMissing", &["InsertMedia", "TransferProtocolType"], ""),
                None,
                Some(vec!["Image", "Inserted", "TransferProtocolType", "WriteProtected"]),
            ),
            (
                said("GeneralError", &[], "the action requires the parameter UserName"),
                None,
                Some(vec!["Image", "Inserted", "Password", "UserName", "WriteProtected"]),
            ),
            (said("ResourceCannotBeFound", &[], "the image cannot be read"), None, None),
        ] {
            let told = format!("{refusal:?} {text:?}");
            let after = usual.after(&refusal, text).map(|(after, _)| keys(&after));
            let mut after = after;
            if let Some(after) = &mut after {
                after.sort();
            }
            assert_eq!(after, expected.map(|all| all.into_iter().map(str::to_owned).collect()), "{told}");
        }
    }

    #[test]
    fn a_bmc_is_told_from_the_start_what_it_says_to_require() {
        let info = |required: bool| json!({"Parameters": [{"Name": "TransferProtocolType", "Required": required}, {"Name": "Image", "Required": true}]});
        let told = Parameters::default().with_required(Some(&info(true))).body(&image());
        assert_eq!(told["TransferProtocolType"], "HTTPS");
        assert_eq!(Parameters::default().with_required(Some(&info(false))), Parameters::default());
    }
}
