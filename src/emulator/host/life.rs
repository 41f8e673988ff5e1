//! One life of a host that talks to the boot service, from its self-test on.

use url::Url;

use super::super::fleet::Fleet;
use super::super::power::ResetType;
use super::super::system::{State, System};
use super::super::time::Millis;
use super::alarm::{Source, Start};
use super::behaviour::{HostBehaviour, Occasion};
use super::command_line::{Orders, Session, Task, orders};
use super::network::{Ask, Network};
use super::record::{HostAct, Stage, Why};
use super::script::{Boot, Machine, Script, ScriptError, follow, hexhyp};
use super::settings::{AfterWipe, Payloads};
use super::shared::Lasting;
use super::timeline::{Moment, timeline};

/// Longer chains of scripts are circles.
const CHAINS: usize = 8;

/// What an installer fetches for the system that it writes. An image may have none of it.
const INSTALL_DATA: [&str; 4] = ["install", "user-data", "meta-data", "vendor-data"];

/// Why a network boot goes no further.
enum End {
    /// The host's life is over, or there is nothing left to do in it.
    Here,
    /// It came to nothing: the disk is next.
    GaveUp(Stage, Why),
}

/// A life and what it needs.
pub(super) struct Life<'a> {
    fleet: &'a Fleet,
    network: &'a Network,
    start: &'a Start,
}

impl<'a> Life<'a> {
    pub(super) fn new(fleet: &'a Fleet, network: &'a Network, start: &'a Start) -> Self {
        Self { fleet, network, start }
    }

    /// Lives until there is nothing to do that takes time.
    pub(super) async fn run(&self) {
        let Some(system) = self.fleet.0.systems.get(self.start.index) else { return };
        self.sleep_until(self.start.tested).await;
        let end = match &self.start.source {
            Source::Disk => return self.first_boot(system).await,
            Source::Network { uri } => match self.boot_script(system, uri).await {
                Ok(Some(boot)) => self.boot_kernel(system, &boot).await.err(),
                Ok(None) => None,
                Err(end) => Some(end),
            },
            Source::Media { image } => self.boot_media(system, image).await.err(),
        };
        match end {
            Some(End::Here) => return,
            Some(End::GaveUp(stage, why)) => self.gave_up(system, stage, why),
            None => {}
        }
        if self.act(system, |state, now| state.host.boot_from_disk(now)).is_ok() {
            self.first_boot(system).await;
        }
    }

    async fn sleep_until(&self, at: Millis) {
        self.fleet.0.clock.sleep_until(Some(at)).await;
    }

    /// Does something to the machine, unless this life is over.
    fn act<T>(&self, system: &System, act: impl FnOnce(&mut State, Millis) -> T) -> Result<T, End> {
        let now = self.fleet.now();
        let done = system.at(now, |state| state.host.lives(self.start.life).then(|| act(state, now)));
        done.ok_or(End::Here)
    }

    fn record(&self, system: &System, at: Millis, act: HostAct) {
        self.fleet.0.log.acted(&system.name, at, act);
    }

    fn gave_up(&self, system: &System, stage: Stage, why: Why) {
        tracing::debug!(system = system.name, ?stage, %why, "a host of the emulator gave up");
        self.record(system, self.fleet.now(), HostAct::GaveUp { stage, why });
    }

    /// What this host does otherwise on that occasion.
    fn habits(&self, system: &System, occasion: Occasion, nth: u64) -> Vec<HostBehaviour> {
        self.fleet.0.hosts.rules.meet(&system.name, occasion, nth, self.fleet.now())
    }

    /// The kernel that the boot service wants to be started; none where it says `exit`.
    async fn boot_script(&self, system: &System, uri: &str) -> Result<Option<Boot>, End> {
        let gave_up = |why| End::GaveUp(Stage::Script, why);
        let not_understood = |error: ScriptError| gave_up(Why::NotUnderstood { error: error.to_string() });
        let inventory = self.act(system, |state, _| system.inventory(self.fleet.0.seed, state))?;
        let mac = inventory.nics.first().map(|nic| nic.mac.clone()).unwrap_or_default();
        let machine = Machine { mac: &mac, uuid: &inventory.uuid, serial: &inventory.serial };
        let told = || {
            let base = self.fleet.0.hosts.boot_url().ok_or(Why::NoBootService)?;
            Ok(saying(base.script(&hexhyp(&mac)), machine))
        };
        let own = Url::parse(uri).ok().filter(|url| url.scheme() == "http");
        let mut by_bmc = own.is_some();
        let mut address = match own {
            Some(own) => own,
            None => told().map_err(gave_up)?,
        };
        for _ in 0..CHAINS {
            let text = self.network.ask(&address, &Ask::Text).await.map_err(gave_up)?;
            let text = String::from_utf8_lossy(&text);
            if std::mem::take(&mut by_bmc) && !text.starts_with("#!ipxe") {
                // A boot program for UEFI: an iPXE, which then asks the network.
                address = told().map_err(gave_up)?;
                continue;
            }
            match follow(&text, &address, machine).map_err(not_understood)? {
                Script::Boot(boot) => return Ok(Some(boot)),
                Script::Exit => return Ok(None),
                Script::Chain(next) => address = next,
            }
        }
        Err(gave_up(Why::NotUnderstood { error: format!("more than {CHAINS} scripts in a chain") }))
    }

    fn pretends(&self) -> bool {
        self.fleet.0.hosts.settings.payloads == Payloads::Pretend
    }

    async fn payload(&self, url: &Url) -> Result<(), End> {
        let payload = if self.pretends() { Ask::Head } else { Ask::Payload };
        let got = self.network.ask(url, &payload).await;
        got.map(|_| ()).map_err(|why| End::GaveUp(Stage::Payload, why))
    }

    fn installer_runs(&self, system: &System) -> Result<u64, End> {
        self.act(system, |state, now| {
            self.record(system, now, HostAct::InstallerStarted);
            state.host.run_installer()
        })
    }

    /// Starts the kernel, and does what its installer does.
    async fn boot_kernel(&self, system: &System, boot: &Boot) -> Result<(), End> {
        for url in std::iter::once(&boot.kernel).chain(&boot.initrds) {
            self.payload(url).await?;
        }
        let nth = self.installer_runs(system)?;
        self.install(system, &boot.args, nth).await
    }

    /// Starts the ISO, whose BMC fetches it, and does what its installer does: it asks the boot service that it was made for,
    /// here the one of the network, for its session.
    async fn boot_media(&self, system: &System, image: &str) -> Result<(), End> {
        let gave_up = |why| End::GaveUp(Stage::Session, why);
        let url = Url::parse(image).ok().filter(|url| url.scheme() == "http");
        let url = url.ok_or(End::GaveUp(
            Stage::Payload,
            Why::NotUnderstood { error: "the image has no http:// address".to_owned() },
        ))?;
        self.payload(&url).await?;
        let nth = self.installer_runs(system)?;
        let inventory = self.act(system, |state, _| system.inventory(self.fleet.0.seed, state))?;
        let mac = inventory.nics.first().map(|nic| nic.mac.clone()).unwrap_or_default();
        let base = self.fleet.0.hosts.boot_url().ok_or(gave_up(Why::NoBootService))?;
        let machine = Machine { mac: &mac, uuid: &inventory.uuid, serial: &inventory.serial };
        let address = saying(base.session(&hexhyp(&mac)), machine);
        let told = self.network.ask(&address, &Ask::Text).await.map_err(gave_up)?;
        let told = String::from_utf8_lossy(&told);
        let args: Vec<String> = told.split_whitespace().map(str::to_owned).collect();
        self.install(system, &args, nth).await
    }

    /// Does what an installer does that was given these arguments.
    async fn install(&self, system: &System, args: &[String], nth: u64) -> Result<(), End> {
        let Orders { session, task } = orders(args)
            .map_err(|error| End::GaveUp(Stage::Orders, Why::NotUnderstood { error: error.to_string() }))?;
        self.post(&session, Stage::Booted, Vec::new()).await?;
        if !self.pretends() {
            for name in INSTALL_DATA {
                match self.network.ask(&session.at(name), &Ask::Text).await {
                    Ok(_) | Err(Why::Refused { .. }) => {}
                    Err(why) => return Err(End::GaveUp(Stage::InstallData, why)),
                }
            }
        }
        self.write(system, &session, &task, nth).await?;
        if task == Task::Wipe {
            self.call_home(system, &session, nth).await;
        }
        self.act(system, |state, now| match (&task, self.fleet.0.hosts.settings.after_wipe) {
            (Task::Wipe, AfterWipe::PowerOff) => state.power.perform(ResetType::ForceOff, now),
            (Task::Wipe, AfterWipe::Reboot) | (Task::Install { .. }, _) => system.reboot(state, now),
        })?;
        Err(End::Here)
    }

    /// Writes (or erases) the disk, and says how far it is.
    async fn write(&self, system: &System, session: &Session, task: &Task, nth: u64) -> Result<(), End> {
        let hosts = &self.fleet.0.hosts;
        let habits = self.habits(system, Occasion::Install, nth);
        let duration = hosts.lasts(Lasting::Install, &system.name, nth, &habits);
        let interval = hosts.lasts(Lasting::Interval, &system.name, nth, &habits);
        let stop = habits.iter().find_map(|habit| match habit {
            HostBehaviour::Fail { at_percent, .. }
            | HostBehaviour::Hang { at_percent }
            | HostBehaviour::LosePower { at_percent } => Some((*at_percent, habit)),
            _ => None,
        });
        let (begun, done) = match task {
            Task::Install { digest } => {
                (HostAct::WriteBegun { digest: digest.clone() }, HostAct::Written { digest: digest.clone() })
            }
            Task::Wipe => (HostAct::WipeBegun, HostAct::Wiped),
        };
        let mut begun = Some(begun);
        let stop_percent = stop.map_or(0, |(percent, _)| percent);
        let from = self.fleet.now();
        for (after, moment) in timeline(duration, interval, stop.map(|(percent, _)| percent)) {
            self.sleep_until(from.saturating_add(after)).await;
            // Whoever stops later than at 0 % has begun, however short it takes.
            if let Some(act) = begun.take_if(|_| moment != Moment::Stop || stop_percent > 0) {
                self.act(system, |state, now| {
                    state.host.begin(task);
                    self.record(system, now, act);
                })?;
            }
            match moment {
                Moment::Progress(percent) => self.progress(session, percent).await?,
                Moment::Stop => match stop.map(|(_, habit)| habit) {
                    Some(HostBehaviour::Fail { reason, .. }) => {
                        self.post(session, Stage::Failed, vec![("reason", reason.clone())]).await?;
                        return Err(End::Here);
                    }
                    Some(HostBehaviour::LosePower { .. }) => {
                        self.act(system, |state, _| state.lose_power())?;
                        return Err(End::Here);
                    }
                    _ => return Err(End::Here),
                },
                Moment::Done => {}
            }
        }
        self.act(system, |state, now| {
            state.host.finish(task, session);
            self.record(system, now, done);
        })?;
        self.progress(session, 100).await
    }

    async fn progress(&self, session: &Session, percent: u8) -> Result<(), End> {
        let message = if percent == 100 { "written" } else { "writing" };
        let fields = vec![("percent", percent.to_string()), ("message", message.to_owned())];
        self.post(session, Stage::Progress, fields).await
    }

    async fn post(
        &self,
        session: &Session,
        stage: Stage,
        fields: Vec<(&'static str, String)>,
    ) -> Result<(), End> {
        let url = session.at(match stage {
            Stage::Booted => "booted",
            Stage::Progress => "progress",
            Stage::Failed => "failed",
            Stage::Installed => "installed",
            Stage::Script | Stage::Session | Stage::Payload | Stage::Orders | Stage::InstallData => {
                return Ok(());
            }
        });
        match self.network.ask(&url, &Ask::Post(fields)).await {
            Ok(_) => Ok(()),
            Err(why) => Err(End::GaveUp(stage, why)),
        }
    }

    /// The system on the disk runs: when it has just been installed, it says so.
    async fn first_boot(&self, system: &System) {
        let pending =
            self.act(system, |state, _| Some((state.host.call_home.clone()?, state.host.installers)));
        let Ok(Some((session, nth))) = pending else { return };
        self.call_home(system, &session, nth).await;
    }

    async fn call_home(&self, system: &System, session: &Session, nth: u64) {
        let habits = self.habits(system, Occasion::CallHome, nth);
        let mut calls = u32::from(!habits.contains(&HostBehaviour::NeverCallHome {}));
        for habit in &habits {
            match habit {
                HostBehaviour::CallHomeLate { ms } => {
                    self.sleep_until(self.fleet.now().saturating_add(*ms)).await;
                }
                HostBehaviour::CallHomeTwice {} => calls *= 2,
                _ => {}
            }
        }
        for _ in 0..calls {
            let status = match self.network.ask(&session.at("installed"), &Ask::Post(Vec::new())).await {
                Ok(_) => 200,
                Err(Why::Refused { status }) => status,
                // The next start from this disk tries again.
                Err(why) => return self.gave_up(system, Stage::Installed, why),
            };
            let told = self.act(system, |_, now| {
                self.record(system, now, HostAct::CalledHome { status });
            });
            if told.is_err() {
                return;
            }
        }
        let _ = self.act(system, |state, _| state.host.call_home = None);
    }
}

/// The address with what the machine says of itself, as a first script adds it.
fn saying(mut address: Url, machine: Machine<'_>) -> Url {
    address.query_pairs_mut().append_pair("uuid", machine.uuid).append_pair("serial", machine.serial);
    address
}
