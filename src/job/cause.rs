//! The circumstances of a failure: what has to differ before the same is tried again.
//!
//! Only what is named here counts. What destroys data is tried again by a person's word alone: one of few fields of spec, a
//! token, or an annotation; never because a Secret was labelled, or because a later release knows one field more.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::named_hash::NamedHash;
use super::{Action, Effect, SecretVersion};
use crate::api::{
    BmcSpec, BmcTls, CaRefKind, CredentialsRef, ImageWish, RootDevice, Server, ServerSpec, UserDataRef, names,
};
use crate::api::{CaRef, TlsVerify};

/// How a cause of this release begins. What earlier ones stored are 64 hexadecimal digits over the whole spec.
const FORM: &str = "2-";
/// Digits of the wish's half; with the form, the dash between them and the other half they fill the 64 of the column.
const WISH: usize = 30;
const ACCESS: usize = 31;

/// The circumstances of a failure. Stored as two fields of what has it, so that the release before goes on to compare
/// what it knows, and repeats nothing, when somebody goes back to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// In two halves: what is wished, as far as it can cure what failed, with the newest `autobuild.dev/reconcile-requested-at`;
    /// and how the BMC is reached: `spec.bmc` and the version of its Secret. Empty: the release before stored it.
    #[serde(default, rename = "named_cause", skip_serializing_if = "String::is_empty")]
    pub named: String,
    /// As the release before has it: SHA-256 over the whole spec without `priority` and `paused`, the version of the Secret
    /// and the annotation. No release reads it once that one is served no more.
    #[serde(rename = "cause")]
    pub whole: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.named.is_empty() { &self.whole } else { &self.named })
    }
}

/// What the circumstances of something are made of.
#[derive(Debug, Clone, Copy)]
pub struct Circumstance<'a> {
    /// The object.
    pub server: &'a Server,
    /// The Secret with the login of its BMC, where there is one.
    pub secret: Option<&'a SecretVersion>,
    /// The newest value of `autobuild.dev/reconcile-requested-at`, whether or not the object still has it.
    pub asked: Option<&'a str>,
}

impl Cause {
    /// The circumstances of `action`.
    pub fn of(action: Action, circumstance: Circumstance<'_>) -> Self {
        let Circumstance { server, secret, asked } = circumstance;
        let (wish, access) = (wish(action, &server.spec, asked), access(&server.spec.bmc, secret));
        Self { named: format!("{FORM}{wish:.WISH$}-{access:.ACCESS$}"), whole: whole(server, secret) }
    }

    /// Whether an earlier release stored it: what it was made of is not known here.
    pub fn is_of_earlier_release(&self) -> bool {
        !self.named.starts_with(FORM)
    }

    /// Whether nothing has changed at all.
    pub fn same(&self, now: &Self) -> bool {
        if self.named.is_empty() || now.named.is_empty() {
            self.whole == now.whole
        } else {
            self.named == now.named
        }
    }

    /// Whether nothing that is wished has changed which could cure what failed; not known of an earlier release's, which
    /// stands.
    pub fn same_wish(&self, now: &Self) -> bool {
        self.halves().zip(now.halves()).is_none_or(|((before, _), (wish, _))| before == wish)
    }

    /// Whether the BMC is reached as it was then; not known of an earlier release's, which stands.
    pub fn same_access(&self, now: &Self) -> bool {
        self.halves().zip(now.halves()).is_none_or(|((_, before), (_, access))| before == access)
    }

    fn halves(&self) -> Option<(&str, &str)> {
        self.named.strip_prefix(FORM)?.split_once('-')
    }
}

/// The form of the release before.
fn whole(server: &Server, secret: Option<&SecretVersion>) -> String {
    let mut bare = server.spec.clone();
    bare.priority = None;
    bare.paused = None;
    let annotations = server.metadata.annotations.as_ref();
    let mut hash = NamedHash::new("cause/1");
    // A struct of strings and enums always serialises; should it ever not, the cause is merely coarser.
    hash.text(&serde_json::to_string(&bare).unwrap_or_default());
    hash.optional(secret.map(SecretVersion::to_string).as_deref());
    hash.optional(annotations.and_then(|all| all.get(names::RECONCILE_REQUESTED_AT)).map(String::as_str));
    hash.finish()
}

/// The fields of spec that can cure a failure of `action`, beside those of its intent. Taken apart without `..`: a new field
/// has to be put to one side or the other, and `each_field_of_spec_cures_what_it_can` has the reason.
fn wish(action: Action, spec: &ServerSpec, asked: Option<&str>) -> String {
    let ServerSpec {
        site: _,
        bmc,
        lifecycle: _,
        power,
        image,
        provisioning: _,
        boot_mac_address,
        boot_method,
        reimage_token: _,
        shutdown_mode,
        reboot_token: _,
        priority: _,
        paused: _,
        deletion_policy: _,
    } = spec;
    let mut hash = NamedHash::new("cause/2/wish");
    hash.optional(asked);
    hash.text(&bmc.address);
    if action.effect() == Effect::Destructive {
        hash.optional(boot_mac_address.as_deref());
        hash.text(boot_method.as_str());
        if action.installs() {
            image_fields(&mut hash, image.as_ref());
        }
    } else {
        hash.text(&bmc.credentials_ref.name);
        hash.text(match shutdown_mode {
            crate::api::ShutdownMode::Graceful => "Graceful",
            crate::api::ShutdownMode::Forced => "Forced",
        });
        // What a job left off is switched on at once when somebody wishes it on.
        if action == Action::PowerOn
            && let Some(power) = power
        {
            hash.text(power.as_str());
        }
    }
    hash.finish()
}

/// What an installer is given; the name is part of the intent.
fn image_fields(hash: &mut NamedHash, image: Option<&ImageWish>) {
    let Some(ImageWish { name: _, user_data_ref, vars, root_device }) = image else { return };
    if let Some(UserDataRef { name, key, sha256 }) = user_data_ref {
        hash.text("userDataRef");
        hash.text(name);
        hash.text(key);
        hash.optional(sha256.as_deref());
    }
    for (name, value) in vars {
        hash.text("var");
        hash.text(name);
        hash.text(value);
    }
    if let Some(RootDevice { serial_number, wwn, model, min_size_gib }) = root_device {
        hash.text("rootDevice");
        hash.optional(serial_number.as_deref());
        hash.optional(wwn.as_deref());
        hash.optional(model.as_deref());
        hash.optional(min_size_gib.map(|size| size.to_string()).as_deref());
    }
}

/// How the BMC is reached. Another version of the Secret may be a label: it leads to a look, and starts nothing.
fn access(bmc: &BmcSpec, secret: Option<&SecretVersion>) -> String {
    let BmcSpec { address, credentials_ref: CredentialsRef { name }, tls, boot_mode } = bmc;
    let mut hash = NamedHash::new("cause/2/access");
    hash.text(address);
    hash.text(name);
    hash.optional(secret.map(SecretVersion::to_string).as_deref());
    if let Some(BmcTls { ca_ref, certificate_sha256, verify }) = tls {
        if let Some(CaRef { kind, name, key }) = ca_ref {
            hash.text(match kind {
                CaRefKind::ConfigMap => "ConfigMap",
                CaRefKind::Secret => "Secret",
            });
            hash.text(name);
            hash.text(key);
        }
        hash.optional(certificate_sha256.as_deref());
        hash.optional(verify.map(|TlsVerify::Disabled| "Disabled"));
    }
    // Without one the hash is that of releases that know none.
    if let Some(boot_mode) = boot_mode {
        hash.text("bootMode");
        hash.text(boot_mode.as_str());
    }
    hash.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::{BootMethod, DeletionPolicy, Lifecycle, Power, Priority, Provisioning, ShutdownMode};

    fn spec() -> ServerSpec {
        ServerSpec {
            site: "default".into(),
            bmc: BmcSpec {
                address: "redfish+https://192.0.2.10".into(),
                credentials_ref: CredentialsRef { name: "bmc".into() },
                tls: None,
                boot_mode: None,
            },
            image: Some(ImageWish { name: "debian".into(), ..ImageWish::default() }),
            ..ServerSpec::default()
        }
    }

    fn secret(resource_version: &str) -> SecretVersion {
        SecretVersion { uid: "s".into(), resource_version: resource_version.into() }
    }

    fn of(action: Action, spec: &ServerSpec, secret: Option<&SecretVersion>, asked: Option<&str>) -> Cause {
        let server = Server::new("a", spec.clone());
        Cause::of(action, Circumstance { server: &server, secret, asked })
    }

    fn cause(action: Action, spec: &ServerSpec) -> Cause {
        of(action, spec, Some(&secret("7")), None)
    }

    fn image(spec: &mut ServerSpec) -> &mut ImageWish {
        spec.image.as_mut().unwrap()
    }

    /// What a change does to what failed: `D` what destroys data is tried again, `P` a change of power is, `L` the BMC is
    /// looked at.
    #[test]
    fn each_field_of_spec_cures_what_it_can() {
        type Change = fn(&mut ServerSpec);
        let cases: [(&str, &str, Change); 23] = [
            // Another site is another Server.
            ("site", "", |s| s.site = "b".into()),
            // Another address is another BMC: nothing is known of it yet. It is part of every intent, too.
            ("bmc.address", "DPL", |s| s.bmc.address = "redfish+https://192.0.2.11".into()),
            // Another account may have the right that was missing; no installation fails for that, once it was begun.
            ("bmc.credentialsRef", "PL", |s| s.bmc.credentials_ref.name = "b".into()),
            // How a certificate is judged decides whether the BMC can be spoken to at all, and a look shows it.
            ("bmc.tls", "L", |s| {
                s.bmc.tls = Some(BmcTls { verify: Some(TlsVerify::Disabled), ..BmcTls::default() });
            }),
            // What ends a life is another wish with another intent.
            ("lifecycle", "", |s| s.lifecycle = Lifecycle::Decommissioned),
            // Another power is another intent of power, and no reason to install.
            ("power", "", |s| s.power = Some(Power::PoweredOff)),
            // Another name is another intent.
            ("image.name", "", |s| image(s).name = "other".into()),
            // What an installer is given may be what it stumbled over.
            ("image.userDataRef", "D", |s| {
                image(s).user_data_ref =
                    Some(UserDataRef { name: "a".into(), key: "b".into(), sha256: None });
            }),
            ("image.vars", "D", |s| drop(image(s).vars.insert("a".into(), "b".into()))),
            ("image.rootDevice", "D", |s| image(s).root_device = Some(RootDevice::default())),
            // Another one is another intent.
            ("provisioning", "", |s| s.provisioning = Provisioning::Adopt),
            // A machine that never booted may boot from another card, or in another way.
            ("bootMACAddress", "D", |s| s.boot_mac_address = Some("52:54:00:12:34:56".into())),
            ("bootMethod", "D", |s| s.boot_method = BootMethod::HTTP),
            // A new token is another intent.
            ("reimageToken", "", |s| s.reimage_token = Some("a".into())),
            ("rebootToken", "", |s| s.reboot_token = Some("a".into())),
            // What cannot be shut down may be cut.
            ("shutdownMode", "P", |s| s.shutdown_mode = ShutdownMode::Forced),
            // When something is done says nothing about how it ends.
            ("priority", "", |s| s.priority = Some(Priority::Low)),
            ("paused", "", |s| s.paused = Some(true)),
            // A deletion has intents of its own.
            ("deletionPolicy", "", |s| s.deletion_policy = DeletionPolicy::Wipe),
            ("bmc.tls.caRef", "L", |s| {
                let reference = CaRef { kind: CaRefKind::Secret, name: "a".into(), key: "b".into() };
                s.bmc.tls = Some(BmcTls { ca_ref: Some(reference), ..BmcTls::default() });
            }),
            ("bmc.tls.certificateSHA256", "L", |s| {
                s.bmc.tls = Some(BmcTls { certificate_sha256: Some("00".into()), ..BmcTls::default() });
            }),
            ("image", "", |s| s.image = Some(ImageWish { name: "debian".into(), ..ImageWish::default() })),
            ("nothing", "", |_| {}),
        ];
        for (field, cures, change) in cases {
            let (before, mut after) = (spec(), spec());
            change(&mut after);
            let differs = |action| !cause(action, &before).same_wish(&cause(action, &after));
            let (install, power) = (Action::Reimage, Action::PowerOff);
            let looks = !cause(install, &before).same_access(&cause(install, &after));
            let found = [(differs(install), "D"), (differs(power), "P"), (looks, "L")];
            let found: String = found.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
            assert_eq!(found, cures, "{field}");
        }
        // Every field that there is has its case: the schema says which those are.
        let mut all = ServerSpec { power: Some(Power::PoweredOn), ..spec() };
        all.priority = Some(Priority::Low);
        all.paused = Some(true);
        (all.reimage_token, all.reboot_token) = (Some("a".into()), Some("b".into()));
        all.boot_mac_address = Some("52:54:00:12:34:56".into());
        let value = serde_json::to_value(all).unwrap();
        for field in value.as_object().unwrap().keys().filter(|field| *field != "bmc") {
            assert!(cases.iter().any(|(case, ..)| case == field), "{field} has no case");
        }
    }

    #[test]
    fn a_label_on_the_secret_starts_nothing_and_leads_to_a_look() {
        for action in Action::ALL {
            let before = of(action, &spec(), Some(&secret("7")), None);
            let labelled = of(action, &spec(), Some(&secret("8")), None);
            assert!(before.same_wish(&labelled), "{action}");
            assert!(!before.same_access(&labelled), "{action}");
        }
    }

    #[test]
    fn a_persons_word_is_a_cause_for_everything() {
        for action in Action::ALL {
            let asked = |word| of(action, &spec(), None, word);
            assert!(!asked(None).same_wish(&asked(Some("a"))), "{action}");
            assert!(!asked(Some("a")).same_wish(&asked(Some("b"))), "{action}");
        }
    }

    #[test]
    fn what_an_earlier_release_stored_stands() {
        let stored = r#"{"cause":"a39f1ac98571a5388a278ddbd4691efc25f750d4f5383ac3e9bddbd854e0c367"}"#;
        let earlier: Cause = serde_json::from_str(stored).unwrap();
        let now = cause(Action::Reimage, &spec());
        assert!(earlier.is_of_earlier_release() && !now.is_of_earlier_release());
        assert!(earlier.same_wish(&now) && earlier.same_access(&now));
    }

    /// A changed value starts every failed installation of a fleet again when this release is installed: a new field is
    /// hashed only where it is set.
    #[test]
    fn the_values_are_those_of_the_release_before() {
        for (action, value) in [
            (Action::Reimage, "2-04d970260f9af224d6598492018f7f-dc1bc3310181645125101e61e4864f3"),
            (Action::Decommission, "2-04d970260f9af224d6598492018f7f-dc1bc3310181645125101e61e4864f3"),
            (Action::Reboot, "2-4b4c2cabacdae3bbfd413408fec886-dc1bc3310181645125101e61e4864f3"),
        ] {
            let found = cause(action, &spec());
            assert_eq!((found.named.as_str(), found.named.len()), (value, 64), "{action}");
        }
    }

    /// It compares this one: another value, and every failed installation begins again when somebody goes back.
    #[test]
    fn the_release_before_finds_the_value_that_it_would_have_stored() {
        let mut server = Server::new("a", spec());
        server.metadata.annotations =
            Some([(names::RECONCILE_REQUESTED_AT.to_owned(), "w".to_owned())].into());
        let circumstance = Circumstance { server: &server, secret: Some(&secret("7")), asked: Some("w") };
        let stored = serde_json::to_value(Cause::of(Action::Reimage, circumstance)).unwrap();
        assert_eq!(stored["cause"], "debbbbc261b2ff726e79922dad028173c7f182cc726d29f3f4fa62534760742c");
    }
}
