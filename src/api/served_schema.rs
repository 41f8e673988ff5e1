//! What a definition that is served lacks of what this release writes.

use serde_json::Value;

use super::crd::Definition;

/// How many fields are named at most.
const NAMED: usize = 5;

/// Fields of `status` that this release writes into a `Server` and that a served schema does not have: an API server refuses
/// a status with one of them. `served` is the schema of the whole object. In words, a few by name; `None`: it has them all.
pub fn lacks(served: &Value) -> Option<String> {
    let own = Definition::Server.value().ok()?;
    let own = own.pointer("/spec/versions/0/schema/openAPIV3Schema")?;
    let mut missing = Vec::new();
    compare("status", &own["properties"]["status"], &served["properties"]["status"], &mut missing);
    let more = missing.len().saturating_sub(NAMED);
    missing.truncate(NAMED);
    let named = missing.join(", ");
    match (missing.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named),
        (false, more) => Some(format!("{named} and {more} more")),
    }
}

fn compare(path: &str, own: &Value, served: &Value, missing: &mut Vec<String>) {
    if served["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true) {
        return;
    }
    for (name, own) in own["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match served["properties"].get(name) {
            Some(served) => compare(&path, own, served, missing),
            // A map takes any name.
            None if served["additionalProperties"].is_object() => {
                compare(&path, own, &served["additionalProperties"], missing);
            }
            None => missing.push(path),
        }
    }
    for part in ["items", "additionalProperties"] {
        if own[part].is_object() {
            compare(path, &own[part], &served[part], missing);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;

    fn own() -> Value {
        let own = Definition::Server.value().unwrap();
        own.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone()
    }

    #[test]
    fn the_own_definition_and_a_newer_one_lack_nothing() {
        let mut served = own();
        assert_eq!(lacks(&served), None);
        served["properties"]["status"]["properties"]["later"] = json!({"type": "string"});
        assert_eq!(lacks(&served), None);
        let anything = json!({"properties": {"status": {"x-kubernetes-preserve-unknown-fields": true}}});
        assert_eq!(lacks(&anything), None);
    }

    #[test]
    fn an_older_one_is_known_by_what_it_lacks_however_deep() {
        let mut served = own();
        let status = served["properties"]["status"]["properties"].as_object_mut().unwrap();
        status.remove("wipedAt").unwrap();
        status["job"]["properties"].as_object_mut().unwrap().remove("waitingFor").unwrap();
        status["conditions"]["items"]["properties"]
            .as_object_mut()
            .unwrap()
            .remove("observedGeneration")
            .unwrap();
        let said = lacks(&served).unwrap();
        for field in ["status.wipedAt", "status.job.waitingFor", "status.conditions.observedGeneration"] {
            assert!(said.contains(field), "{said}");
        }
        let none = lacks(&json!({})).unwrap();
        assert!(none.contains("status.") && none.contains(" more"), "{none}");
    }
}
