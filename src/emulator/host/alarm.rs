//! When the keeper must look at which machine, and which hosts have started and want a task.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::time::Millis;

/// A life of a host that needs a task.
#[derive(Debug, Clone)]
pub(super) struct Start {
    /// The machine, by its index.
    pub(super) index: usize,
    /// Which of the host's lives.
    pub(super) life: u64,
    /// Cancelled when the life ends.
    pub(super) over: CancellationToken,
    /// When the self-test ends.
    pub(super) tested: Millis,
    pub(super) source: Source,
}

/// Where a host boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// From its disk.
    Disk,
    /// From the network.
    Network {
        /// The address that the BMC was given; empty: as the network tells.
        uri: String,
    },
    /// From the image in the virtual CD drive.
    Media {
        /// Its address.
        image: String,
    },
}

#[derive(Debug, Default)]
struct Book {
    /// One per machine and time at the most, so that it stays as small as the fleet's agenda.
    looks: BTreeSet<(Millis, usize)>,
    /// The newest life of each machine.
    starts: HashMap<usize, Start>,
}

/// The keeper's list.
#[derive(Debug, Default)]
pub(in crate::emulator) struct Alarms {
    book: Mutex<Book>,
    rung: Notify,
}

impl Alarms {
    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something happens to that machine at that time.
    pub(in crate::emulator) fn look(&self, index: usize, at: Millis) {
        self.with(|book| book.looks.insert((at, index)));
        self.rung.notify_one();
    }

    /// A host started and wants a task.
    pub(super) fn start(&self, start: Start) {
        self.with(|book| book.starts.insert(start.index, start));
        self.rung.notify_one();
    }

    /// The machines to look at now, and the time of the next look.
    pub(super) fn due(&self, now: Millis) -> (Vec<usize>, Option<Millis>) {
        self.with(|book| {
            let later = book.looks.split_off(&(now.saturating_add(1), 0));
            let due = std::mem::replace(&mut book.looks, later);
            (due.into_iter().map(|(_, index)| index).collect(), book.looks.first().map(|(at, _)| *at))
        })
    }

    /// The lives that began since.
    pub(super) fn starts(&self) -> Vec<Start> {
        self.with(|book| std::mem::take(&mut book.starts).into_values().collect())
    }

    /// Waits until something was added.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }
}
