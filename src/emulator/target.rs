//! Paths of the Redfish tree as a closed set.

use super::media::DRIVE;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Versions,
    Root,
    Odata,
    Metadata,
    Systems,
    Managers,
    ChassisAll,
    Manager(&'a str),
    VirtualMedia(&'a str),
    CdDrive(&'a str),
    InsertMedia(&'a str),
    EjectMedia(&'a str),
    Chassis(&'a str),
    System(&'a str),
    Reset(&'a str),
    Parts(&'a str, Parts),
    Part(&'a str, Parts, &'a str),
    Drive(&'a str, &'a str),
    ManagerReset(&'a str),
    SessionService,
    Sessions,
    Session(&'a str),
    AccountService,
    Accounts,
    Account(&'a str),
    Roles,
    Role(&'a str),
    TaskService,
    Tasks,
    Nothing,
}

/// The collections below a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    EthernetInterfaces,
    Storage,
    Processors,
    Memory,
}

impl Parts {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::EthernetInterfaces => "EthernetInterfaces",
            Self::Storage => "Storage",
            Self::Processors => "Processors",
            Self::Memory => "Memory",
        }
    }

    fn parse(segment: &str) -> Option<Self> {
        [Self::EthernetInterfaces, Self::Storage, Self::Processors, Self::Memory]
            .into_iter()
            .find(|parts| parts.as_str() == segment)
    }
}

impl<'a> Target<'a> {
    /// What `path` names; one slash at the end makes no difference.
    pub(super) fn parse(path: &'a str) -> Self {
        let path = path.strip_suffix('/').unwrap_or(path);
        let Some(rest) = path.strip_prefix("/redfish") else { return Self::Nothing };
        if rest.is_empty() {
            return Self::Versions;
        }
        let segments: Vec<&str> = rest.split('/').skip(1).collect();
        match segments.as_slice() {
            ["v1"] => Self::Root,
            ["v1", "odata"] => Self::Odata,
            ["v1", "$metadata"] => Self::Metadata,
            ["v1", "Systems"] => Self::Systems,
            ["v1", "Managers"] => Self::Managers,
            ["v1", "Chassis"] => Self::ChassisAll,
            ["v1", "SessionService"] => Self::SessionService,
            ["v1", "SessionService", "Sessions"] => Self::Sessions,
            ["v1", "SessionService", "Sessions", id] => Self::Session(id),
            ["v1", "AccountService"] => Self::AccountService,
            ["v1", "AccountService", "Accounts"] => Self::Accounts,
            ["v1", "AccountService", "Accounts", id] => Self::Account(id),
            ["v1", "AccountService", "Roles"] => Self::Roles,
            ["v1", "AccountService", "Roles", id] => Self::Role(id),
            ["v1", "TaskService"] => Self::TaskService,
            ["v1", "TaskService", "Tasks"] => Self::Tasks,
            ["v1", "Managers", id, "Actions", "Manager.Reset"] => Self::ManagerReset(id),
            ["v1", "Managers", id] => Self::Manager(id),
            ["v1", "Managers", id, "VirtualMedia"] => Self::VirtualMedia(id),
            ["v1", "Managers", id, "VirtualMedia", DRIVE] => Self::CdDrive(id),
            ["v1", "Managers", id, "VirtualMedia", DRIVE, "Actions", action] => match *action {
                "VirtualMedia.InsertMedia" => Self::InsertMedia(id),
                "VirtualMedia.EjectMedia" => Self::EjectMedia(id),
                _ => Self::Nothing,
            },
            ["v1", "Chassis", id] => Self::Chassis(id),
            ["v1", "Systems", id] => Self::System(id),
            ["v1", "Systems", id, "Actions", "ComputerSystem.Reset"] => Self::Reset(id),
            ["v1", "Systems", id, "Storage", "1", "Drives", drive] => Self::Drive(id, drive),
            ["v1", "Systems", id, parts] => {
                Parts::parse(parts).map_or(Self::Nothing, |parts| Self::Parts(id, parts))
            }
            ["v1", "Systems", id, parts, part] => {
                Parts::parse(parts).map_or(Self::Nothing, |parts| Self::Part(id, parts, part))
            }
            _ => Self::Nothing,
        }
    }

    /// The name of the system that the path belongs to.
    pub(super) fn system(&self) -> Option<&'a str> {
        match *self {
            Self::Manager(id)
            | Self::ManagerReset(id)
            | Self::VirtualMedia(id)
            | Self::CdDrive(id)
            | Self::InsertMedia(id)
            | Self::EjectMedia(id)
            | Self::Chassis(id)
            | Self::System(id)
            | Self::Reset(id)
            | Self::Parts(id, _)
            | Self::Part(id, _, _)
            | Self::Drive(id, _) => Some(id),
            Self::Versions
            | Self::Root
            | Self::Odata
            | Self::Metadata
            | Self::Systems
            | Self::Managers
            | Self::ChassisAll
            | Self::SessionService
            | Self::Sessions
            | Self::Session(_)
            | Self::AccountService
            | Self::Accounts
            | Self::Account(_)
            | Self::Roles
            | Self::Role(_)
            | Self::TaskService
            | Self::Tasks
            | Self::Nothing => None,
        }
    }

    /// Whether Redfish lets everybody read it.
    pub(super) fn is_public(&self) -> bool {
        matches!(self, Self::Versions | Self::Root | Self::Odata | Self::Metadata)
    }

    /// The methods that it knows, for `Allow`.
    pub(super) fn allowed(&self) -> &'static str {
        match self {
            Self::System(_) => "GET, HEAD, PATCH",
            Self::Reset(_) | Self::ManagerReset(_) | Self::InsertMedia(_) | Self::EjectMedia(_) => "POST",
            Self::Sessions => "GET, HEAD, POST",
            Self::Session(_) => "GET, HEAD, DELETE",
            Self::Account(_) => "GET, HEAD, PATCH",
            _ => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_redfish_says() {
        for (path, expected) in [
            ("/redfish", Target::Versions),
            ("/redfish/v1/", Target::Root),
            ("/redfish/v1/Systems/a", Target::System("a")),
            ("/redfish/v1/Systems/a/Storage/1/Drives/Disk0", Target::Drive("a", "Disk0")),
            ("/redfish/v1/Managers/a/VirtualMedia/CD1", Target::CdDrive("a")),
            ("/redfish/v1/Managers/a/VirtualMedia/CD2", Target::Nothing),
            ("/redfish/v1/Systems/a/Memory", Target::Parts("a", Parts::Memory)),
            ("/redfish/v1/Systems/a/Bios", Target::Nothing),
            ("/redfish/v1/SessionService/Sessions/7", Target::Session("7")),
            ("/redfish/v1/Managers/a/Actions/Manager.Reset", Target::ManagerReset("a")),
            ("/redfishy", Target::Nothing),
            ("/", Target::Nothing),
        ] {
            assert_eq!(Target::parse(path), expected, "{path}");
        }
    }
}
