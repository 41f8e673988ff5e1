//! The seal of a checkpoint: a worker of this installation wrote it, for this job at this step. Whoever can write rows, and has not
//! the key that all workers share (`--login-key-file`, which the database never sees), cannot make one. HMAC-SHA-256 (RFC 2104).

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::job::{Action, JobId, Step};
use crate::queue::Claim;

/// The same key has another use: what is sealed here is nothing there.
const PURPOSE: &str = "checkpoint of a job";
/// The field of a checkpoint that has it.
const FIELD: &str = "seal";

/// What a checkpoint belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed<'a> {
    uid: &'a str,
    namespace: &'a str,
    name: &'a str,
    id: JobId,
    action: Action,
    step: Step,
    /// Whether a request of the job is stored.
    begun: bool,
}

impl<'a> Sealed<'a> {
    /// The job of a claim as it stands.
    pub(super) fn of(claim: &'a Claim) -> Self {
        let job = claim.job();
        Self {
            uid: claim.uid().as_str(),
            namespace: claim.namespace(),
            name: claim.name(),
            id: job.id,
            action: job.action,
            step: job.step,
            begun: job.request_stored,
        }
    }

    /// The same as it is once its first request is stored.
    pub(super) const fn begun(self) -> Self {
        Self { begun: true, ..self }
    }

    /// The same at another step.
    pub(super) const fn at(self, step: Step) -> Self {
        Self { step, ..self }
    }

    /// The text of a checkpoint, with its seal.
    pub(super) fn seal(&self, key: &[u8], text: &str) -> String {
        let Some((mut fields, _)) = parts(text) else { return text.to_owned() };
        let Some(mac) = self.mac(key, &fields) else { return text.to_owned() };
        let digits: Vec<String> =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        fields[FIELD] = Value::String(digits.concat());
        fields.to_string()
    }

    /// Whether a worker wrote this text for the job as it stands.
    pub(super) fn is_sealed(&self, key: &[u8], text: &str) -> bool {
        let Some((fields, Some(seal))) = parts(text) else { return false };
        let Some(seal) = bytes(&seal) else { return false };
        self.mac(key, &fields).is_some_and(|mac| mac.verify_slice(&seal).is_ok())
    }

    fn mac(&self, key: &[u8], fields: &Value) -> Option<Hmac<Sha256>> {
        // It takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        let (id, begun, text) = (self.id.to_string(), self.begun.to_string(), fields.to_string());
        let Self { uid, namespace, name, .. } = self;
        let (action, step) = (self.action.as_str(), self.step.as_str());
        for part in [PURPOSE, uid, namespace, name, &id, action, step, &begun, &text] {
            // Lengths first: no two different lists give the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Some(mac)
    }
}

/// The fields of a checkpoint without its seal, and that.
fn parts(text: &str) -> Option<(Value, Option<String>)> {
    let mut fields: Value = serde_json::from_str(text).ok()?;
    let seal = fields.as_object_mut()?.remove(FIELD);
    Some((fields, seal.and_then(|seal| seal.as_str().map(str::to_owned))))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"sixteen bytes or more";

    fn job() -> Sealed<'static> {
        Sealed {
            uid: "u",
            namespace: "lab",
            name: "a",
            id: JobId(7),
            action: Action::Reboot,
            step: Step::Off,
            begun: true,
        }
    }

    #[test]
    fn a_seal_holds_for_one_job_as_it_stands_and_for_no_other() {
        for text in ["{}", r#"{"bmc":{"address":"a"},"undone":null}"#] {
            let sealed = job().seal(KEY, text);
            assert!(job().is_sealed(KEY, &sealed), "{sealed}");
            assert_eq!(job().seal(KEY, &sealed), sealed, "and again the same");
            for other in [
                Sealed { uid: "v", ..job() },
                Sealed { namespace: "labo", ..job() },
                Sealed { name: "b", ..job() },
                Sealed { id: JobId(8), ..job() },
                Sealed { action: Action::Reimage, ..job() },
                job().at(Step::On),
                Sealed { begun: false, ..job() },
            ] {
                assert!(!other.is_sealed(KEY, &sealed), "{other:?}");
            }
            assert!(!job().is_sealed(b"another key of some length", &sealed));
        }
    }

    #[test]
    fn what_was_changed_or_never_sealed_is_not_sealed() {
        let sealed = job().seal(KEY, r#"{"accepted":{"kind":"ForceOff","at_ms":1}}"#);
        for text in [
            sealed.replace("ForceOff", "PowerOn"),
            sealed.replace(r#""at_ms":1"#, r#""at_ms":2"#),
            sealed.replace('{', r#"{"bmc":null,"#),
            String::new(),
            "{}".to_owned(),
            r#"{"seal":""}"#.to_owned(),
            r#"{"seal":7}"#.to_owned(),
            r#"{"seal":"x"}"#.to_owned(),
            "[]".to_owned(),
        ] {
            assert!(!job().is_sealed(KEY, &text), "{text}");
        }
        assert_eq!(job().seal(KEY, "nonsense"), "nonsense");
    }
}
