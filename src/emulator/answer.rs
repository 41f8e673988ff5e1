//! What the emulator answers: a JSON document, an empty success, or a Redfish error body.

use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// An answer before misbehaviour rules have touched it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Body,
}

/// The body of an [`Answer`].
#[derive(Debug, Clone)]
pub(super) enum Body {
    Empty,
    Json(Value),
    /// Another media type, named by its value.
    Text(&'static str, String),
}

impl Answer {
    pub(super) fn json(value: Value) -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), body: Body::Json(value) }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty }
    }

    pub(super) fn text(media_type: &'static str, text: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), body: Body::Text(media_type, text.into()) }
    }

    /// An error as some BMCs send it: a MessageId with its arguments, and no text.
    pub(super) fn message(id: &str, args: &[String]) -> Self {
        Self::json(json!({"error": {
            "code": format!("{REGISTRY}.GeneralError"),
            "message": "A general error has occurred. See @Message.ExtendedInfo for more information.",
            "@Message.ExtendedInfo": [{"MessageId": id, "MessageArgs": args}],
        }}))
    }

    /// The same answer with one header more; a value that no header can carry is left out.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    #[must_use]
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

/// The release of the Base message registry that the error bodies name.
const REGISTRY: &str = "Base.1.18";

/// A refused request: status, the message of the Base registry, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    message_id: &'static str,
    message: String,
    args: Vec<String>,
    resolution: String,
    related: Option<String>,
    offers_basic: bool,
}

impl Refusal {
    fn new(status: StatusCode, message_id: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message_id,
            message: message.into(),
            args: Vec::new(),
            resolution: "None.".to_owned(),
            related: None,
            offers_basic: true,
        }
    }

    fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args = args.map(str::to_owned).to_vec();
        self
    }

    fn resolution(mut self, resolution: impl Into<String>) -> Self {
        self.resolution = resolution.into();
        self
    }

    fn related(mut self, property: &str) -> Self {
        self.related = Some(format!("#/{property}"));
        self
    }

    /// 404: nothing at that path.
    pub(super) fn not_found(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceMissingAtURI",
            format!("The resource at the URI '{path}' was not found."),
        )
        .args([path])
        .resolution("Place a valid resource at the URI or correct the URI and resubmit the request.")
    }

    /// 405: the resource does not know that method.
    pub(super) fn method(method: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "OperationNotAllowed",
            format!("The HTTP method {method} is not allowed on this resource."),
        )
    }

    /// 401: no or wrong credentials.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "NoValidSession",
            "There is no valid session established with the implementation.",
        )
        .resolution("Establish a session or send valid credentials with the request.")
    }

    /// 401 of a service without Basic authentication: it offers none.
    pub(super) fn only_sessions() -> Self {
        Self { offers_basic: false, ..Self::unauthorized() }
    }

    /// `status` because of too many bad logins.
    pub(super) fn locked_out(status: StatusCode) -> Self {
        Self::new(status, "AccessDenied", "The account is locked after too many failed logins.")
            .resolution("Wait until the lock-out has ended.")
    }

    /// 409: the state that the action asks for is there already, or the action does not fit the present state.
    pub(super) fn in_use(state: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "ResourceInUse",
            "The change to the requested resource failed because the resource is in use or in transition.",
        )
        .resolution(format!("The power state is {state}: the action does not apply to it."))
        .related("PowerState")
    }

    /// 409: there is an image in the drive already.
    pub(super) fn media_in_use() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "ResourceInUse",
            "The change to the requested resource failed because the resource is in use or in transition.",
        )
        .resolution("An image is inserted already: eject it first.")
        .related("Inserted")
    }

    /// 412: the ETag in `If-Match` is not the present one.
    pub(super) fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "PreconditionFailed",
            "The ETag supplied did not match the ETag required to change this resource.",
        )
        .resolution("Read the resource and try again with its present ETag.")
    }

    /// 503: the service does not answer for now.
    pub(super) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceTemporarilyUnavailable",
            "The service is temporarily unavailable. Retry later.",
        )
    }

    /// 400: the body is not JSON.
    pub(super) fn malformed() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "MalformedJSON",
            "The request body submitted was malformed JSON and could not be parsed by the receiving service.",
        )
        .resolution("Ensure that the request body is a valid JSON object and resubmit the request.")
    }

    /// 400: a body that changes nothing.
    pub(super) fn no_operation() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "NoOperation",
            "The request body submitted contained no data to act upon and no changes to the resource took place.",
        )
        .resolution("Add properties in the JSON object and resubmit the request.")
    }

    /// 413: the body is larger than a BMC takes.
    pub(super) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", "The request body is too large.")
    }

    /// 400: a property that this resource does not have, or that cannot be written.
    pub(super) fn property_unknown(name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PropertyUnknown",
            format!("The property {name} is not in the list of valid properties for the resource."),
        )
        .args([name])
        .resolution("Remove the unknown property from the request body and resubmit the request.")
        .related(name)
    }

    /// 400: the property exists and is read-only.
    pub(super) fn property_not_writable(name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PropertyNotWritable",
            format!("The property {name} is a read-only property and cannot be assigned a value."),
        )
        .args([name])
        .resolution("Remove the property from the request body and resubmit the request.")
        .related(name)
    }

    /// 400: a property that must be there.
    pub(super) fn property_missing(name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PropertyMissing",
            format!("The property {name} is a required property and must be included in the request."),
        )
        .args([name])
        .related(name)
    }

    /// 503: as many sessions as the service keeps.
    pub(super) fn session_limit() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "SessionLimitExceeded",
            "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the \
             implementation.",
        )
        .resolution("Reduce the number of other sessions before trying to establish the session.")
    }

    /// 400: a value of another JSON type.
    pub(super) fn property_value_type(name: &str, value: &Value) -> Self {
        let value = value.to_string();
        Self::new(
            StatusCode::BAD_REQUEST,
            "PropertyValueTypeError",
            format!(
                "The value '{value}' for the property {name} is not a type that the property can accept."
            ),
        )
        .args([&value, name])
        .related(name)
    }

    /// 400: a value that the property does not take.
    pub(super) fn property_not_in_list(name: &str, value: &str, known: &[&str]) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "PropertyValueNotInList",
            format!("The value '{value}' for the property {name} is not in the list of acceptable values."),
        )
        .args([value, name])
        .resolution(format!("Choose one of: {}.", known.join(", ")))
        .related(name)
    }

    /// 400: an action without its parameter.
    pub(super) fn parameter_missing(action: &str, name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "ActionParameterMissing",
            format!("The action {action} requires the parameter {name} to be present in the request body."),
        )
        .args([action, name])
    }

    /// 400: an action with a parameter that it does not know.
    pub(super) fn parameter_unknown(action: &str, name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "ActionParameterUnknown",
            format!("The action {action} was submitted with the invalid parameter {name}."),
        )
        .args([action, name])
    }

    /// 400: an action parameter with a value that it does not take.
    pub(super) fn parameter_not_in_list(action: &str, name: &str, value: &str, known: &[&str]) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "ActionParameterValueNotInList",
            format!(
                "The value '{value}' for the parameter {name} in the action {action} is not in the list of \
                 acceptable values."
            ),
        )
        .args([value, name, action])
        .resolution(format!("Choose one of: {}.", known.join(", ")))
    }

    /// Any status, for a misbehaviour rule.
    pub(super) fn declared(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            StatusCode::PRECONDITION_FAILED => Self::precondition_failed(),
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(),
            StatusCode::FORBIDDEN => Self::new(
                status,
                "InsufficientPrivilege",
                "There are insufficient privileges for the account or credentials associated with the \
                 current session to perform the requested operation.",
            ),
            StatusCode::PRECONDITION_REQUIRED => Self::new(
                status,
                "PreconditionRequired",
                "A precondition header or annotation is required to change this resource.",
            ),
            _ => Self::new(
                status,
                "GeneralError",
                "A general error has occurred. See Resolution for information on how to resolve the error.",
            ),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut info = json!({
            "@odata.type": "#Message.v1_2_1.Message",
            "MessageId": format!("{REGISTRY}.{}", refusal.message_id),
            "Message": refusal.message,
            "MessageArgs": refusal.args,
            "MessageSeverity": "Critical",
            "Resolution": refusal.resolution,
        });
        if let (Some(related), Some(object)) = (refusal.related, info.as_object_mut()) {
            object.insert("RelatedProperties".to_owned(), json!([related]));
        }
        let answer = Self::json(json!({"error": {
            "code": format!("{REGISTRY}.{}", refusal.message_id),
            "message": refusal.message,
            "@Message.ExtendedInfo": [info],
        }}))
        .status(refusal.status);
        match refusal.status {
            StatusCode::UNAUTHORIZED if refusal.offers_basic => {
                answer.with(header::WWW_AUTHENTICATE, "Basic realm=\"Redfish\"")
            }
            _ => answer,
        }
    }
}
