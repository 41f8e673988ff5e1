//! The CustomResourceDefinitions, as they are committed to `crds/`.

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{OSImage, Server, kernel_args};

/// A kind that AutoBuild defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definition {
    /// `Server`.
    Server,
    /// `OSImage`.
    OSImage,
}

impl Definition {
    /// All of them, in the order in which they are printed.
    pub const ALL: [Self; 2] = [Self::Server, Self::OSImage];

    /// Where `crds` writes the definition, under the folder that it is given.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Server => "servers.autobuild.dev.yaml",
            Self::OSImage => "osimages.autobuild.dev.yaml",
        }
    }

    /// The definition as plain data.
    ///
    /// Differs from what the derive gives: `null` is not listed as a value of optional enums (the API server would name
    /// it among the allowed ones and refuse it), and explanations have no line breaks of the source. `status` lists no
    /// allowed values: a later release's controller may write more of them (Kubernetes API conventions: enums that may grow are
    /// documented strings). In that of `Server` the strings of conditions are bounded, and `status` begins as
    /// `{observedGeneration: -1}`, so that a Server that nobody looked at yet does not read as finished. In that of `OSImage` all
    /// `args` together are bounded, by a function of the API server that the derive's own tests do not know.
    pub fn value(self) -> Result<Value, serde_json::Error> {
        let mut crd = serde_json::to_value(match self {
            Self::Server => Server::crd(),
            Self::OSImage => OSImage::crd(),
        })?;
        strip_null(&mut crd);
        join_lines(&mut crd);
        if let Some(status) = crd.pointer_mut(&format!("{SCHEMA}/status")) {
            open_enums(status);
        }
        match self {
            Self::Server => bound_status(&mut crd),
            Self::OSImage => bound_args(&mut crd),
        }
        Ok(crd)
    }
}

/// Where the schemas of `spec` and `status` are in a definition.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

/// Where the arguments of an image are in that of `OSImage`.
const ARGS: &str = "spec/properties/source/properties/args";

/// Longest value of an enum in `status`, of whatever release.
const LONGEST_VALUE: usize = 64;

/// Makes documented strings of closed enums.
fn open_enums(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(values)) = map.remove("enum") {
                let names: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                let text = map.get("description").and_then(Value::as_str).unwrap_or_default();
                let text = format!("{text} One of {}; other releases may have more.", names.join(", "));
                map.insert("description".to_owned(), json!(text.trim_start()));
                map.insert("maxLength".to_owned(), json!(LONGEST_VALUE));
            }
            map.values_mut().for_each(open_enums);
        }
        Value::Array(values) => values.iter_mut().for_each(open_enums),
        _ => {}
    }
}

fn bound_status(crd: &mut Value) {
    if let Some(status) = crd.pointer_mut(&format!("{SCHEMA}/status")) {
        status["default"] = json!({"observedGeneration": -1});
    }
    let condition = format!("{SCHEMA}/status/properties/conditions/items/properties");
    for (field, longest) in [("type", 316), ("status", 16), ("reason", 1024), ("message", 32768)] {
        if let Some(field) = crd.pointer_mut(&format!("{condition}/{field}")) {
            field["maxLength"] = json!(longest);
        }
    }
}

fn bound_args(crd: &mut Value) {
    let args = format!("{SCHEMA}/{ARGS}");
    let rules = crd.pointer_mut(&args).and_then(|args| args["x-kubernetes-validations"].as_array_mut());
    if let Some(rules) = rules {
        let most = kernel_args::MOST_BYTES;
        rules.push(json!({
            "rule": format!("self.map(arg, size(arg) + 1).sum() <= {most}"),
            "message": format!(
                "args has more than {most} characters in all, the space before each item counted, and kernels lose what is beyond \
                 2047 without a word: take some away, or have the install data say it"
            ),
        }));
    }
}

fn strip_null(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(values)) = map.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            map.values_mut().for_each(strip_null);
        }
        Value::Array(values) => values.iter_mut().for_each(strip_null),
        _ => {}
    }
}

/// Makes one line of each paragraph of an explanation: `kubectl explain` breaks lines itself.
fn join_lines(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                let paragraphs: Vec<String> = text
                    .split("\n\n")
                    .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
                    .collect();
                *text = paragraphs.join("\n\n");
            }
            map.values_mut().for_each(join_lines);
        }
        Value::Array(values) => values.iter_mut().for_each(join_lines),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, missing_docs)]
mod tests {
    use super::super::{Phase, Reason};
    use super::*;
    use crate::job::Step;

    fn each(path: &str, value: &Value, see: &mut dyn FnMut(&str, &Value)) {
        see(path, value);
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    each(&format!("{path}/{key}"), value, see);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| each(path, value, see)),
            _ => {}
        }
    }

    fn properties(see: &mut dyn FnMut(&str, &Value)) {
        for definition in Definition::ALL {
            let crd = definition.value().unwrap();
            let root = crd.pointer(SCHEMA).unwrap();
            for part in ["spec", "status"] {
                if let Some(part_schema) = root.get(part) {
                    each(&format!("{definition:?}.{part}"), part_schema, see);
                }
            }
        }
    }

    #[test]
    fn no_enum_value_is_a_boolean_of_yaml_1_1_or_null() {
        let booleans = ["y", "n", "yes", "no", "on", "off", "true", "false"];
        properties(&mut |path, value| {
            for value in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
                let text = value.as_str().unwrap_or_else(|| panic!("{path}: {value}"));
                assert!(!booleans.contains(&text.to_ascii_lowercase().as_str()), "{path}: {text}");
            }
            assert!(value.get("nullable").is_none(), "{path}");
        });
    }

    #[test]
    fn status_takes_the_values_of_other_releases_and_spec_does_not() {
        let mut open = 0;
        properties(&mut |path, value| {
            let is_status = path.contains(".status");
            if value.get("enum").is_some() {
                assert!(!is_status, "{path} is closed: a newer controller's value would be refused");
            }
            let text = value.get("description").and_then(Value::as_str).unwrap_or_default();
            open += usize::from(is_status && text.contains("other releases may have more"));
        });
        // The phase, the power, and those of both jobs.
        assert!(open >= 8, "{open} fields of status tell their values");
    }

    #[test]
    fn every_value_in_status_fits_the_definition() {
        let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
        let phases = Phase::ALL.iter().map(|phase| phase.as_str());
        let steps = Step::ALL.iter().map(|step| step.as_str());
        for name in reasons.chain(phases).chain(steps) {
            assert!(name.len() <= LONGEST_VALUE, "{name}");
        }
    }

    #[test]
    fn every_string_and_list_is_bounded() {
        properties(&mut |path, value| {
            let bounded = |key: &str| value.get(key).is_some();
            match value.get("type").and_then(Value::as_str) {
                Some("string") => assert!(
                    bounded("maxLength")
                        || bounded("enum")
                        || value.get("format") == Some(&json!("date-time")),
                    "{path} has no maxLength"
                ),
                Some("array") => assert!(bounded("maxItems"), "{path} has no maxItems"),
                _ => {}
            }
        });
    }

    #[test]
    fn every_field_explains_itself() {
        properties(&mut |path, value| {
            let Some(fields) = value.get("properties").and_then(Value::as_object) else { return };
            for (name, field) in fields {
                if field.is_object() {
                    let text = field.get("description").and_then(Value::as_str);
                    let text = text.unwrap_or_else(|| panic!("{path}.{name} has no description"));
                    assert!(!text.replace("\n\n", "").contains('\n'), "{path}.{name}: {text:?}");
                }
            }
        });
    }

    #[test]
    fn no_reference_has_a_namespace() {
        properties(&mut |path, _| assert!(!path.ends_with("/namespace"), "{path}"));
    }

    #[test]
    fn all_arguments_of_an_image_together_are_bounded() {
        let crd = Definition::OSImage.value().unwrap();
        let rules =
            crd.pointer(&format!("{SCHEMA}/{ARGS}")).unwrap()["x-kubernetes-validations"].as_array().unwrap();
        let rule = "self.map(arg, size(arg) + 1).sum() <= 1024";
        assert!(rules.iter().any(|found| found["rule"] == rule), "{rules:#?}");
    }

    #[test]
    fn an_unseen_server_does_not_read_as_finished() {
        let crd = Definition::Server.value().unwrap();
        let status = crd.pointer(&format!("{SCHEMA}/status/default")).unwrap();
        assert_eq!(status, &json!({"observedGeneration": -1}));
    }
}
