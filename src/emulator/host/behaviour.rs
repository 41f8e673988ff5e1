//! How a host deviates from one that installs and calls home: a closed set, and the rule that says when.

use serde::{Deserialize, Serialize};

use super::super::time::Millis;

/// One rule: hosts that match it behave so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRule {
    /// Names of systems (`*` stands for any text). Absent: every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// How many occasions pass before it acts.
    #[serde(default)]
    pub skip: u32,
    /// On how many occasions it acts. Absent: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// For how long after it was set it acts. Absent: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<Millis>,
    /// On which share of the occasions it acts, 1 to 100; the choice follows from seed, rule, system and occasion.
    #[serde(default = "always")]
    pub percent: u8,
    /// What the host does.
    pub behaviour: HostBehaviour,
}

const fn always() -> u8 {
    100
}

/// What a host does otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum HostBehaviour {
    /// Its self-test takes this long.
    PostDelay {
        /// How long.
        ms: Millis,
    },
    /// It never gets past its self-test.
    StayInPost {},
    /// It boots from its disk although the override says network or CD; the override is used up.
    ForgetOverride {},
    /// It does not react to a reset that its BMC accepted.
    IgnoreReset {},
    /// Its installation takes this long.
    InstallDuration {
        /// How long.
        ms: Millis,
    },
    /// Its installer says so often how far it is.
    ProgressInterval {
        /// The time between two reports.
        ms: Millis,
    },
    /// Its installer reports that it failed, and waits.
    Fail {
        /// At which percentage, 0 (before the disk is touched) to 99.
        #[serde(default = "half")]
        at_percent: u8,
        /// The reason that it gives.
        reason: String,
    },
    /// Its installer stops, and says nothing more.
    Hang {
        /// At which percentage, 0 (before the disk is touched) to 99.
        #[serde(default = "half")]
        at_percent: u8,
    },
    /// It loses its power in mid-install.
    LosePower {
        /// At which percentage, 0 (before the disk is touched) to 99.
        #[serde(default = "half")]
        at_percent: u8,
    },
    /// What was installed never calls home.
    NeverCallHome {},
    /// What was installed calls home this much later.
    CallHomeLate {
        /// How much later.
        ms: Millis,
    },
    /// What was installed calls home twice.
    CallHomeTwice {},
}

const fn half() -> u8 {
    50
}

/// When a behaviour shows: a rule counts the occasions of its behaviour only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The host starts.
    Start,
    /// It starts with an override that says network, or CD with an image in the drive.
    NetworkStart,
    /// Its BMC accepted a reset.
    Reset,
    /// An installer begins.
    Install,
    /// What was installed is about to call home.
    CallHome,
}

/// A rule that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostRuleError {
    /// A number out of its range.
    #[error("{field} is {value}: use {allowed}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it was.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A reason that no form can carry as one line.
    #[error("behaviour.reason has {0} characters or more than one line: use 1 to 500 characters on one line")]
    Reason(usize),
    /// A system pattern that names nobody.
    #[error(
        "system is '{0}', and no system of the fleet matches it: use a name as GET /emulator/systems lists them; * stands for any text"
    )]
    NoSuchSystem(String),
}

impl HostBehaviour {
    /// One of each, for lists.
    pub fn examples() -> [Self; 12] {
        [
            Self::PostDelay { ms: 90_000 },
            Self::StayInPost {},
            Self::ForgetOverride {},
            Self::IgnoreReset {},
            Self::InstallDuration { ms: 600_000 },
            Self::ProgressInterval { ms: 5_000 },
            Self::Fail { at_percent: 50, reason: "no disk matches the hint".to_owned() },
            Self::Hang { at_percent: 50 },
            Self::LosePower { at_percent: 50 },
            Self::NeverCallHome {},
            Self::CallHomeLate { ms: 60_000 },
            Self::CallHomeTwice {},
        ]
    }

    /// The name, as in the JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PostDelay { .. } => "PostDelay",
            Self::StayInPost {} => "StayInPost",
            Self::ForgetOverride {} => "ForgetOverride",
            Self::IgnoreReset {} => "IgnoreReset",
            Self::InstallDuration { .. } => "InstallDuration",
            Self::ProgressInterval { .. } => "ProgressInterval",
            Self::Fail { .. } => "Fail",
            Self::Hang { .. } => "Hang",
            Self::LosePower { .. } => "LosePower",
            Self::NeverCallHome {} => "NeverCallHome",
            Self::CallHomeLate { .. } => "CallHomeLate",
            Self::CallHomeTwice {} => "CallHomeTwice",
        }
    }

    /// What it means, in a sentence.
    pub const fn explain(&self) -> &'static str {
        match self {
            Self::PostDelay { .. } => "The self-test takes this long.",
            Self::StayInPost {} => "The host never gets past its self-test.",
            Self::ForgetOverride {} => "The host boots from its disk; the override is used up.",
            Self::IgnoreReset {} => "The BMC accepts a reset, and nothing happens.",
            Self::InstallDuration { .. } => "The installation takes this long.",
            Self::ProgressInterval { .. } => "The installer says so often how far it is.",
            Self::Fail { .. } => "The installer reports failed with this reason, and waits.",
            Self::Hang { .. } => "The installer stops, and says nothing more.",
            Self::LosePower { .. } => "The host loses its power in mid-install.",
            Self::NeverCallHome {} => "What was installed never calls home.",
            Self::CallHomeLate { .. } => "What was installed calls home this much later.",
            Self::CallHomeTwice {} => "What was installed calls home twice.",
        }
    }

    pub(super) const fn occasion(&self) -> Occasion {
        match self {
            Self::PostDelay { .. } | Self::StayInPost {} => Occasion::Start,
            Self::ForgetOverride {} => Occasion::NetworkStart,
            Self::IgnoreReset {} => Occasion::Reset,
            Self::InstallDuration { .. }
            | Self::ProgressInterval { .. }
            | Self::Fail { .. }
            | Self::Hang { .. }
            | Self::LosePower { .. } => Occasion::Install,
            Self::NeverCallHome {} | Self::CallHomeLate { .. } | Self::CallHomeTwice {} => Occasion::CallHome,
        }
    }
}

/// The longest time that a rule can name.
const ONE_DAY: Millis = 86_400_000;

impl HostRule {
    /// A rule for the hosts that match `system`, until it is deleted.
    pub fn on_system(system: impl Into<String>, behaviour: HostBehaviour) -> Self {
        Self { system: Some(system.into()), skip: 0, count: None, for_ms: None, percent: 100, behaviour }
    }

    /// The same rule for this many occasions only.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Refuses what cannot be meant.
    pub(in crate::emulator) fn check(&self) -> Result<(), HostRuleError> {
        let range = |field, value: u64, allowed, good| {
            if good { Ok(()) } else { Err(HostRuleError::OutOfRange { field, value, allowed }) }
        };
        range("percent", self.percent.into(), "1 to 100", (1..=100).contains(&self.percent))?;
        match &self.behaviour {
            HostBehaviour::PostDelay { ms }
            | HostBehaviour::InstallDuration { ms }
            | HostBehaviour::CallHomeLate { ms } => {
                range("behaviour.ms", *ms, "0 to 86400000 (a day)", *ms <= ONE_DAY)
            }
            HostBehaviour::ProgressInterval { ms } => {
                range("behaviour.ms", *ms, "1 to 86400000 (a day)", (1..=ONE_DAY).contains(ms))
            }
            HostBehaviour::Fail { at_percent, reason } => {
                let length = reason.chars().count();
                if !(1..=500).contains(&length) || reason.chars().any(char::is_control) {
                    return Err(HostRuleError::Reason(length));
                }
                range("behaviour.at_percent", (*at_percent).into(), "0 to 99", *at_percent < 100)
            }
            HostBehaviour::Hang { at_percent } | HostBehaviour::LosePower { at_percent } => {
                range("behaviour.at_percent", (*at_percent).into(), "0 to 99", *at_percent < 100)
            }
            HostBehaviour::StayInPost {}
            | HostBehaviour::ForgetOverride {}
            | HostBehaviour::IgnoreReset {}
            | HostBehaviour::NeverCallHome {}
            | HostBehaviour::CallHomeTwice {} => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        serde_json::from_str::<HostRule>(json).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn every_behaviour_is_read_by_its_name_and_explained_on_the_emulators_page() {
        let page = include_str!("../../../docs/src/emulator.md");
        for behaviour in HostBehaviour::examples() {
            let json = serde_json::to_value(&behaviour).unwrap();
            assert_eq!(json["kind"], behaviour.as_str());
            HostRule::on_system("*", behaviour.clone()).check().unwrap();
            let (name, explained) = (format!("| `{}`", behaviour.as_str()), behaviour.explain());
            let explained = explained.trim_end_matches('.');
            let shown = page.lines().any(|line| line.starts_with(&name) && line.contains(explained));
            assert!(shown, "docs/src/emulator.md has no row {name} … {explained}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused_by_field_and_value() {
        assert!(refusal(r#"{"percent":0,"behaviour":{"kind":"Hang"}}"#).contains("percent is 0"));
        assert!(refusal(r#"{"behaviour":{"kind":"Hang","at_percent":100}}"#).contains("at_percent is 100"));
        assert!(refusal(r#"{"behaviour":{"kind":"ProgressInterval","ms":0}}"#).contains("ms is 0"));
        assert!(refusal(r#"{"behaviour":{"kind":"Fail","reason":""}}"#).contains("reason"));
        for json in [r#"{"behaviour":{"kind":"Explode"}}"#, r#"{"systm":"a","behaviour":{"kind":"Hang"}}"#] {
            assert!(serde_json::from_str::<HostRule>(json).is_err(), "{json}");
        }
    }
}
