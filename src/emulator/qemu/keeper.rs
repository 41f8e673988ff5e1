//! The tasks that carry out what BMCs want of their virtual machines, and tell what those do by themselves.

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::fleet::Fleet;
use super::super::power::PowerState;
use super::super::system::{Behind, System};
use super::command_line::Start;
use super::orders::{BootFrom, Machine, Numbered, Order};
use super::process::Process;

/// Keeps the virtual machines of a fleet until `shutdown`, which ends them.
pub(in crate::emulator) async fn keep(fleet: Fleet, shutdown: CancellationToken) {
    let mut machines = JoinSet::new();
    for (index, system) in fleet.0.systems.iter().enumerate() {
        let Behind::Qemu(machine) = &system.behind else { continue };
        let Some(orders) = machine.receiver() else { continue };
        // Those that are on at the start are started now.
        system.at(fleet.now(), |_| ());
        let (fleet, shutdown) = (fleet.clone(), shutdown.clone());
        machines.spawn(async move {
            if let Some(system) = fleet.0.systems.get(index)
                && let Behind::Qemu(machine) = &system.behind
            {
                Keeper { fleet: &fleet, system, machine }.run(orders, shutdown).await;
            }
        });
    }
    while let Some(ended) = machines.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "the keeper of a virtual machine ended with an error");
        }
    }
}

/// What happens next to a machine.
enum Next {
    Order(Numbered),
    /// The guest turned itself off, or QEMU failed.
    Ended,
    Over,
}

struct Keeper<'a> {
    fleet: &'a Fleet,
    system: &'a System,
    machine: &'a Machine,
}

impl Keeper<'_> {
    async fn run(&self, mut orders: UnboundedReceiver<Numbered>, shutdown: CancellationToken) {
        let mut running: Option<Process> = None;
        let mut last = 0;
        loop {
            let ended = async {
                match &mut running {
                    Some(process) => process.ended().await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Over,
                order = orders.recv() => order.map_or(Next::Over, Next::Order),
                () = ended => Next::Ended,
            };
            match next {
                Next::Over => break,
                Next::Ended => running = None,
                Next::Order(Numbered { number, order }) => {
                    last = number;
                    running = self.carry_out(order, running).await;
                }
            }
            let power = if running.is_some() { PowerState::On } else { PowerState::Off };
            self.system.at(self.fleet.now(), |state| {
                // A later order has said already what comes next.
                if self.machine.is_latest(last) {
                    state.become_power(power);
                }
            });
        }
        if let Some(process) = running {
            process.quit().await;
        }
    }

    async fn carry_out(&self, order: Order, running: Option<Process>) -> Option<Process> {
        match (order, running) {
            (Order::Start(_), Some(process)) => Some(process),
            (Order::Start(from), None) => self.start(from).await,
            (Order::Quit, Some(process)) => {
                process.quit().await;
                None
            }
            (Order::PressButton, Some(process)) => self.press(process, "system_powerdown").await,
            (Order::Reset(BootFrom::Disk), Some(process)) => self.press(process, "system_reset").await,
            // The firmware takes its boot order from the start of the process: resets of its own follow a reset, and
            // nothing tells the last of them.
            (Order::Reset(BootFrom::Network) | Order::Cycle(_), Some(process)) => {
                process.quit().await;
                let (Order::Reset(from) | Order::Cycle(from)) = order else { return None };
                self.start(from).await
            }
            // It ended just before.
            (Order::Quit | Order::PressButton | Order::Reset(_), None) => None,
            (Order::Cycle(from), None) => self.start(from).await,
        }
    }

    async fn press(&self, mut process: Process, button: &'static str) -> Option<Process> {
        match process.press(button).await {
            Ok(()) => Some(process),
            Err(error) => {
                tracing::warn!(system = self.system.name, %error, button, "a virtual machine does not answer");
                process.quit().await;
                None
            }
        }
    }

    async fn start(&self, from: BootFrom) -> Option<Process> {
        let settings = &self.machine.settings;
        let seed = self.fleet.0.seed;
        let inventory = self.system.at(self.fleet.now(), |state| self.system.inventory(seed, state));
        let boot_file = self.fleet.boot_url().map(|url| format!("{url}/boot.ipxe"));
        let name = self.system.name.as_str();
        let start = Start {
            name,
            inventory: &inventory,
            from,
            boot_file: boot_file.as_deref(),
            disk: &settings.disk(name),
            serial_log: &settings.serial_log(name),
        };
        match Process::start(settings, start).await {
            Ok(process) => Some(process),
            Err(error) => {
                tracing::error!(system = name, %error, "a virtual machine did not start");
                None
            }
        }
    }
}
