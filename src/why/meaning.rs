//! What a value of the API means: the very text that `kubectl explain` has, out of the schema.

use schemars::{JsonSchema, SchemaGenerator};

/// The first sentence about that value, without its end: fit to stand in another one.
pub(super) fn of<T: JsonSchema>(value: &str) -> Option<String> {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>();
    let values = schema.as_value().get("oneOf")?.as_array()?;
    let found = values.iter().find(|one| one.get("const").and_then(|name| name.as_str()) == Some(value))?;
    let text = found.get("description")?.as_str()?;
    let sentence = text.split(". ").next().unwrap_or(text).trim_end_matches('.').replace('\n', " ");
    let mut letters = sentence.chars();
    let first = letters.next()?;
    // "BMC" keeps its capitals.
    let is_word = letters.clone().next().is_none_or(|second| !second.is_uppercase());
    Some(if is_word { first.to_lowercase().chain(letters).collect() } else { sentence })
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::job::{Action, JobState, Step, WaitingFor};

    #[test]
    fn every_value_that_status_can_show_has_a_meaning() {
        for value in WaitingFor::ALL {
            assert!(of::<WaitingFor>(value.as_str()).is_some(), "{value:?}");
        }
        for value in Step::ALL {
            assert!(of::<Step>(value.as_str()).is_some(), "{value:?}");
        }
        for value in Action::ALL {
            assert!(of::<Action>(value.as_str()).is_some(), "{value:?}");
        }
        assert_eq!(
            of::<JobState>("Cancelling").as_deref(),
            Some("asked to stop; a worker that takes it undoes what it had begun")
        );
        assert_eq!(
            of::<WaitingFor>("NetworkBoot").as_deref(),
            Some("the machine to fetch its boot script, or to ask for its session")
        );
        assert_eq!(of::<Step>("PowerOff").as_deref(), Some("powers off and reads it back"));
        assert_eq!(of::<Step>("Fly"), None);
    }
}
