//! A BMC's errors name fields of `spec`. Whoever imports has no Server yet: they are told in flags and the list. Pure.

/// What stands in messages, the longer one first, and what it is here.
const WORDS: &[(&str, &str)] = &[
    ("the account of spec.bmc.credentialsRef", "the account in --secrets-file (or AUTOBUILD_BMC_USERNAME)"),
    (
        "the Secret of spec.bmc.credentialsRef",
        "the Secret in --secrets-file (or AUTOBUILD_BMC_USERNAME and AUTOBUILD_BMC_PASSWORD)",
    ),
    ("spec.bmc.credentialsRef", "--secrets-file"),
    ("bmc.credentialsRef", "--secrets-file"),
    (
        "which is not spec.bmc.tls.certificateSHA256: if its certificate was renewed, compare and write the new one there",
        "which is not the one that it showed a moment ago to --pin-certificates: run it again",
    ),
    ("spec.bmc.tls.certificateSHA256", "--pin-certificates"),
    ("certificateSHA256", "--pin-certificates"),
    ("spec.bmc.tls.caRef", "--ca-file"),
    ("spec.bmc.tls.verify", "--pin-certificates"),
    ("spec.bmc.tls is set", "--ca-file or --pin-certificates is given"),
    ("spec.bmc.address has", "the address in the list has"),
    ("spec.bmc.address", "the address in the list"),
    ("let the operator start the workers with", "give"),
    ("let the operator allow it", "name its network there"),
    ("the worker's system", "this machine"),
    ("spec.bmc.bootMode", "the boot mode"),
    ("spec.bootMethod", "way to boot"),
    ("this worker", "autobuild import"),
];

/// The message for whoever imports.
pub fn in_flags(message: &str) -> String {
    WORDS.iter().fold(message.to_owned(), |text, (field, flag)| text.replace(field, flag))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn messages_are_told_in_flags() {
        for (message, told) in [
            (
                "refuses the user name or password: correct the Secret of spec.bmc.credentialsRef",
                "refuses the user name or password: correct the Secret in --secrets-file (or AUTOBUILD_BMC_USERNAME and \
                 AUTOBUILD_BMC_PASSWORD)",
            ),
            (
                "the BMC address 10.0.0.1 is outside --bmc-cidr: correct spec.bmc.address, or let the operator allow it",
                "the BMC address 10.0.0.1 is outside --bmc-cidr: correct the address in the list, or name its network there",
            ),
            (
                "spec.bmc.tls.certificateSHA256 can pin it, or spec.bmc.tls.caRef can name the CA that signed it",
                "--pin-certificates can pin it, or --ca-file can name the CA that signed it",
            ),
        ] {
            assert_eq!(in_flags(message), told);
        }
    }

    /// Reads the sources: a new message with another field is seen here first.
    #[test]
    fn no_message_of_a_bmc_names_a_field_to_whoever_imports() {
        let mut left: Vec<PathBuf> = vec!["src/bmc".into(), "src/api/bmc_address.rs".into()];
        let mut seen = 0;
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for line in code(&text) {
                seen += usize::from(line.contains("spec."));
                let told = in_flags(line);
                assert!(!told.contains("spec."), "{}: {told}", path.display());
            }
        }
        assert!(seen > 20, "{seen}");
    }

    fn code(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter(|line| !line.trim_start().starts_with("//"))
    }
}
