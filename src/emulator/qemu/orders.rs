//! What a BMC wants of its virtual machine, in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::settings::QemuSettings;

/// Where a start boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::emulator) enum BootFrom {
    /// The disk, and nothing else.
    Disk,
    /// The network, once, and then the disk.
    Network,
}

/// One order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::emulator) enum Order {
    /// Power on.
    Start(BootFrom),
    /// Power off at once.
    Quit,
    /// The power button: the guest is asked to shut down.
    PressButton,
    /// The reset button.
    Reset(BootFrom),
    /// Power off and on.
    Cycle(BootFrom),
}

/// An order with its number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) order: Order,
}

/// The BMC's end of a virtual machine.
#[derive(Debug)]
pub(in crate::emulator) struct Machine {
    pub(super) settings: QemuSettings,
    sender: UnboundedSender<Numbered>,
    receiver: Mutex<Option<UnboundedReceiver<Numbered>>>,
    given: AtomicU64,
}

impl Machine {
    pub(in crate::emulator) fn new(settings: QemuSettings) -> Self {
        let (sender, receiver) = unbounded_channel();
        Self { settings, sender, receiver: Mutex::new(Some(receiver)), given: AtomicU64::new(0) }
    }

    /// The size of a disk that is made anew, in bytes.
    pub(in crate::emulator) fn disk_bytes(&self) -> u64 {
        self.settings.disk_bytes()
    }

    /// Gives an order; the caller holds the lock of the machine's state, so that orders keep their order.
    pub(in crate::emulator) fn order(&self, order: Order) {
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        // Nobody hears it after the end of the fleet.
        let _ = self.sender.send(Numbered { number, order });
    }

    /// Whether no order came after that one: what its execution led to is what is so now.
    pub(super) fn is_latest(&self, number: u64) -> bool {
        self.given.load(Ordering::Relaxed) == number
    }

    /// The other end, for the one that carries the orders out.
    pub(super) fn receiver(&self) -> Option<UnboundedReceiver<Numbered>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
