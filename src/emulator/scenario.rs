//! The scenario file: exceptions for single machines, and misbehaviour from the start.

use serde::Deserialize;

use super::fault::Rule;
use super::fleet::{ButtonPower, FleetError};
use super::host::{Disk, HostRule};
use super::pattern;
use super::system::{Credentials, System};

/// What a scenario file (YAML) says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Machines that differ from the rest; a later entry wins.
    #[serde(default)]
    pub systems: Vec<SystemException>,
    /// Rules that are in force from the start.
    #[serde(default)]
    pub faults: Vec<Rule>,
    /// Rules for hosts that are in force from the start.
    #[serde(default)]
    pub hosts: Vec<HostRule>,
}

/// How some machines differ from the rest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemException {
    /// Their name (`*` stands for any text).
    pub name: String,
    /// Their power at the start: `PoweredOn` or `PoweredOff`.
    #[serde(default)]
    pub power: Option<ButtonPower>,
    /// Their credentials.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Their serial number.
    #[serde(default)]
    pub serial_number: Option<String>,
    /// Their UUID.
    #[serde(default)]
    pub uuid: Option<String>,
    /// What is on their disks at the start: `Empty`, `Unknown` or a digest.
    #[serde(default)]
    pub disk: Option<Disk>,
}

impl Scenario {
    /// Reads a scenario; the error says the line and the field.
    pub fn parse(yaml: &str) -> Result<Self, serde_yaml::Error> {
        if yaml.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml::from_str(yaml)
    }

    /// Changes the machines that the entries name.
    pub(super) fn apply(&self, systems: &[System]) -> Result<(), FleetError> {
        for (index, exception) in self.systems.iter().enumerate() {
            let mut found = false;
            for system in systems.iter().filter(|system| pattern::matches(&exception.name, &system.name)) {
                found = true;
                system.at(0, |state| exception.change(state));
            }
            if !found {
                return Err(FleetError::NoSuchSystem {
                    index,
                    name: exception.name.clone(),
                    first: systems.first().map(|system| system.name.clone()).unwrap_or_default(),
                });
            }
        }
        Ok(())
    }
}

impl SystemException {
    fn change(&self, state: &mut super::system::State) {
        if let Some(power) = self.power {
            state.begin_with(power.into());
        }
        if self.credentials.is_some() {
            state.credentials.clone_from(&self.credentials);
        }
        if self.serial_number.is_some() {
            state.serial.clone_from(&self.serial_number);
        }
        if self.uuid.is_some() {
            state.uuid.clone_from(&self.uuid);
        }
        if let Some(disk) = &self.disk {
            state.host.disk.clone_from(disk);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod tests {
    use super::*;
    use crate::emulator::{Fleet, PowerState};

    #[test]
    fn a_scenario_changes_the_machines_that_it_names_and_sets_rules() {
        let scenario = Scenario::parse(
            "systems:\n- name: system-0002\n  power: PoweredOn\n  serial_number: ABC\n\
             faults:\n- system: system-0001\n  behaviour: {kind: Delay, ms: 5}\n",
        )
        .unwrap();
        let fleet = Fleet::builder().systems(3).scenario(scenario).build().unwrap();
        let view = fleet.system("system-0002").unwrap();
        assert_eq!((view.power, view.serial_number.as_str()), (PowerState::On, "ABC"));
        assert_eq!(fleet.system("system-0001").unwrap().power, PowerState::Off);
        assert_eq!(fleet.faults().len(), 1);
    }

    #[test]
    fn names_of_nobody_and_unknown_fields_are_refused_by_name() {
        let nobody = Scenario::parse("systems: [{name: rack-9}]").unwrap();
        let error = Fleet::builder().scenario(nobody).build().unwrap_err().to_string();
        assert!(error.contains("rack-9") && error.contains("system-0001"), "{error}");
        let error = Scenario::parse("systems: [{name: a, powr: PoweredOn}]").unwrap_err().to_string();
        assert!(error.contains("powr") && error.contains("power"), "{error}");
        let rule = Scenario::parse("faults: [{system: rack-9, behaviour: {kind: Hang}}]").unwrap();
        let error = Fleet::builder().scenario(rule).build().unwrap_err().to_string();
        assert!(error.contains("faults[0].system is 'rack-9'"), "{error}");
    }
}
