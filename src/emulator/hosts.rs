//! What a fleet offers about the hosts behind its BMCs.

use super::fleet::Fleet;
use super::host::{ActiveHostRule, BootUrl, Disk, HostEntry, HostRule, HostRuleError};
use super::pattern;
use super::system::Behind;

/// What came of giving a machine another disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskChange {
    /// It has it.
    Done,
    /// There is no such machine.
    NoSuchSystem,
    /// It is a virtual machine: its disk is a file.
    IsAFile,
}

impl Fleet {
    /// The boot service that the network tells, if there is one.
    pub fn boot_url(&self) -> Option<BootUrl> {
        self.0.hosts.boot_url()
    }

    /// Tells hosts that start from now on another boot service, or none.
    pub fn set_boot_url(&self, url: Option<BootUrl>) {
        self.0.hosts.set_boot_url(url);
    }

    /// Gives one machine another disk.
    pub fn set_disk(&self, name: &str, disk: Disk) -> DiskChange {
        let Some(system) = self.find(name) else { return DiskChange::NoSuchSystem };
        match system.behind {
            Behind::Emulated => system.at(self.now(), |state| state.host.replace_disk(disk)),
            Behind::Qemu(_) => return DiskChange::IsAFile,
        }
        DiskChange::Done
    }

    /// Sets a rule for hosts; its number.
    pub fn add_host_rule(&self, rule: HostRule) -> Result<u64, HostRuleError> {
        rule.check()?;
        if let Some(wanted) = &rule.system
            && !self.names().any(|name| pattern::matches(wanted, name))
        {
            return Err(HostRuleError::NoSuchSystem(wanted.clone()));
        }
        Ok(self.0.hosts.rules.add(rule, self.now()))
    }

    /// The rules for hosts, with how often they acted.
    pub fn host_rules(&self) -> Vec<ActiveHostRule> {
        self.0.hosts.rules.list()
    }

    /// Deletes one rule for hosts; whether there was one.
    pub fn remove_host_rule(&self, id: u64) -> bool {
        self.0.hosts.rules.remove(id)
    }

    /// Deletes all rules for hosts; how many there were.
    pub fn clear_host_rules(&self) -> usize {
        self.0.hosts.rules.clear()
    }

    /// What hosts did by themselves after `since` (a `seq`; 0 for all), in order.
    pub fn host_acts(&self, system: Option<&str>, since: u64) -> Vec<HostEntry> {
        self.0.log.acts(system, since, usize::MAX).0
    }
}
