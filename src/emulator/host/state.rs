//! What of a host changes.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::boot::{Boot, BootTarget};
use super::super::time::Millis;
use super::alarm::{Source, Start};
use super::behaviour::{HostBehaviour, Occasion};
use super::command_line::{Session, Task};
use super::disk::Disk;
use super::shared::{Lasting, Shared};

/// What runs on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Booted {
    /// Nothing: it is off, in its self-test, or found nothing to boot.
    Nothing,
    /// An installer from the network or from virtual media.
    Installer,
    /// The image on its disk.
    DiskImage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Running {
    Nothing,
    Installer,
    /// What is on the disk, from that time on.
    Disk(Millis),
}

/// What a start boots from.
#[derive(Debug, Clone, Copy)]
pub(in crate::emulator) struct StartFrom<'a> {
    /// What the override said before this start used it up.
    pub(in crate::emulator) target: BootTarget,
    pub(in crate::emulator) boot: &'a Boot,
    /// The image in the virtual CD drive.
    pub(in crate::emulator) media: Option<&'a str>,
}

/// A host.
#[derive(Debug)]
pub(in crate::emulator) struct Host {
    pub(in crate::emulator) disk: Disk,
    /// How many installations began to write.
    pub(in crate::emulator) installs: u64,
    /// How many began to erase.
    pub(in crate::emulator) wipes: u64,
    /// How often it started again by itself.
    pub(in crate::emulator) reboots: u64,
    /// How many installers ran.
    pub(super) installers: u64,
    /// How many resets its BMC accepted.
    accepted: u64,
    /// Whom the system on the disk has still to tell that it runs.
    pub(super) call_home: Option<Session>,
    running: Running,
    /// The number of its present life, and what ends it.
    life: u64,
    over: CancellationToken,
}

impl Host {
    pub(in crate::emulator) fn new(disk: Disk) -> Self {
        Self {
            disk,
            installs: 0,
            wipes: 0,
            reboots: 0,
            installers: 0,
            accepted: 0,
            call_home: None,
            running: Running::Nothing,
            life: 0,
            over: CancellationToken::new(),
        }
    }

    /// What runs at `now`.
    pub(in crate::emulator) fn booted(&self, now: Millis) -> Booted {
        match (self.running, &self.disk) {
            (Running::Installer, _) => Booted::Installer,
            (Running::Disk(since), Disk::Image { .. }) if since <= now => Booted::DiskImage,
            (Running::Nothing | Running::Disk(_), _) => Booted::Nothing,
        }
    }

    /// The power is gone, or it starts again: whatever ran ends at once.
    pub(in crate::emulator) fn stop(&mut self) {
        self.over.cancel();
        self.running = Running::Nothing;
    }

    /// Somebody puts another disk in: what ran from the old one has nobody to tell any more.
    pub(in crate::emulator) fn replace_disk(&mut self, disk: Disk) {
        self.disk = disk;
        self.call_home = None;
    }

    /// It ran before anybody looked.
    pub(in crate::emulator) fn runs_already(&mut self) {
        self.running = Running::Disk(0);
    }

    /// Whether it reacts to the reset that its BMC accepted.
    pub(in crate::emulator) fn reacts(&mut self, system: &str, now: Millis, hosts: &Shared) -> bool {
        self.accepted += 1;
        hosts.rules.meet(system, Occasion::Reset, self.accepted, now).is_empty()
    }

    /// A new life begins.
    pub(in crate::emulator) fn start(
        &mut self,
        (index, system): (usize, &str),
        StartFrom { target, boot, media }: StartFrom<'_>,
        now: Millis,
        hosts: &Shared,
    ) {
        self.stop();
        self.life += 1;
        self.over = CancellationToken::new();
        let habits = hosts.rules.meet(system, Occasion::Start, self.life, now);
        if habits.contains(&HostBehaviour::StayInPost {}) {
            return;
        }
        let tested = now.saturating_add(hosts.lasts(Lasting::Post, system, self.life, &habits));
        let source = match target {
            BootTarget::Pxe => Some(Source::Network { uri: String::new() }),
            BootTarget::UefiHttp => Some(Source::Network { uri: boot.http_boot_uri.clone() }),
            BootTarget::Cd => media.map(|image| Source::Media { image: image.to_owned() }),
            BootTarget::None | BootTarget::Hdd => None,
        };
        let source = source
            .filter(|_| hosts.rules.meet(system, Occasion::NetworkStart, self.life, now).is_empty())
            .unwrap_or(Source::Disk);
        if source == Source::Disk {
            self.running = Running::Disk(tested);
        }
        // A system that has nobody to tell needs no task.
        if source != Source::Disk || self.call_home.is_some() {
            hosts.alarms.start(Start { index, life: self.life, over: self.over.clone(), tested, source });
        }
    }

    /// Whether that life is still the present one.
    pub(super) fn lives(&self, life: u64) -> bool {
        self.life == life && !self.over.is_cancelled()
    }

    /// The boot came to nothing, or the script said so: the disk is next.
    pub(super) fn boot_from_disk(&mut self, now: Millis) {
        self.running = Running::Disk(now);
    }

    /// A kernel from the network runs; how many did so far.
    pub(super) fn run_installer(&mut self) -> u64 {
        self.running = Running::Installer;
        self.installers += 1;
        self.installers
    }

    /// The first byte is written: what was on the disk is gone.
    pub(super) fn begin(&mut self, task: &Task) {
        self.disk = Disk::Unknown;
        self.call_home = None;
        match task {
            Task::Install { .. } => self.installs += 1,
            Task::Wipe => self.wipes += 1,
        }
    }

    /// The last byte is written.
    pub(super) fn finish(&mut self, task: &Task, session: &Session) {
        match task {
            Task::Install { digest } => {
                self.disk = Disk::Image { digest: digest.clone() };
                self.call_home = Some(session.clone());
            }
            Task::Wipe => self.disk = Disk::Empty,
        }
    }
}
