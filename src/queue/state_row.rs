//! A `server_state` row in memory: what is known of a server under its row lock, and which columns of it changed.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, Row};

use super::state::Report;
use super::{QueueError, inventory};
use crate::api::Reason;
use crate::job::{
    ClaimRefusal, Contents, Debt, FinishedJob, HandledTokens, ServerUid, StoredFailure, TokenValue,
    Unanswered,
};

/// A column that is written where it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    Reading,
    InventoryHash,
    LastGoodReadMs,
    LastTryMs,
    Unanswered,
    Handled,
    Contents,
    BootMac,
    Debt,
    Failure,
    LastJob,
    ClaimedAddress,
    Refusal,
    Machine,
}

impl Column {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::InventoryHash => "inventory_hash",
            Self::LastGoodReadMs => "last_good_read_ms",
            Self::LastTryMs => "last_try_ms",
            Self::Unanswered => "unanswered",
            Self::Handled => "handled",
            Self::Contents => "contents",
            Self::BootMac => "boot_mac",
            Self::Debt => "debt",
            Self::Failure => "failure",
            Self::LastJob => "last_job",
            Self::ClaimedAddress => "claimed_address",
            Self::Refusal => "refusal",
            Self::Machine => "machine",
        }
    }
}

/// A value, and whether it is still the one that was read.
#[derive(Debug, Default)]
pub(super) struct Field<T> {
    value: T,
    changed: bool,
}

impl<T: PartialEq> Field<T> {
    fn of(value: T) -> Self {
        Self { value, changed: false }
    }

    pub(super) fn get(&self) -> &T {
        &self.value
    }

    pub(super) fn set(&mut self, value: T) {
        self.changed |= self.value != value;
        self.value = value;
    }
}

/// A column that holds JSON, read only where it is needed.
pub(super) struct Json<T> {
    column: Column,
    text: Field<Option<String>>,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned + Serialize> Json<T> {
    pub(super) fn read(row: &MySqlRow, column: Column) -> Result<Self, QueueError> {
        Ok(Self { column, text: Field::of(row.try_get(column.name())?), of: PhantomData })
    }

    pub(super) fn get(&self, uid: &ServerUid) -> Result<Option<T>, QueueError> {
        let Some(text) = self.text.get() else { return Ok(None) };
        match serde_json::from_str(text) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(QueueError::unknown("server_state", uid.as_str(), self.column.name(), text)),
        }
    }

    /// Plain data always serialises; the empty text that stands for the impossible case does not parse and is noticed.
    pub(super) fn set(&mut self, value: Option<&T>) {
        self.text.set(value.map(|value| serde_json::to_string(value).unwrap_or_default()));
    }

    pub(super) fn is_set(&self) -> bool {
        self.text.get().is_some()
    }
}

/// What is known of a server under its row lock, and the database's time.
pub(super) struct Locked {
    pub version: i64,
    power: Field<Option<String>>,
    inventory_hash: Field<Option<i64>>,
    new_inventory: Option<String>,
    last_good_read_ms: Field<Option<i64>>,
    last_try_ms: Field<Option<i64>>,
    unanswered: Json<Unanswered>,
    pub handled: Json<HandledTokens>,
    pub contents: Json<Contents>,
    pub boot_mac: Field<Option<String>>,
    pub debt: Json<Debt>,
    pub failure: Json<StoredFailure>,
    pub last_job: Json<FinishedJob>,
    pub claimed_address: Field<Option<String>>,
    pub refusal: Json<ClaimRefusal>,
    pub machine: Field<Option<String>>,
    pub now_ms: i64,
}

impl Locked {
    pub(super) fn read(row: &MySqlRow) -> Result<Self, QueueError> {
        Ok(Self {
            version: row.try_get("version")?,
            power: Field::of(row.try_get("reading")?),
            inventory_hash: Field::of(row.try_get("inventory_hash")?),
            new_inventory: None,
            last_good_read_ms: Field::of(row.try_get("last_good_read_ms")?),
            last_try_ms: Field::of(row.try_get("last_try_ms")?),
            unanswered: Json::read(row, Column::Unanswered)?,
            handled: Json::read(row, Column::Handled)?,
            contents: Json::read(row, Column::Contents)?,
            boot_mac: Field::of(row.try_get("boot_mac")?),
            debt: Json::read(row, Column::Debt)?,
            failure: Json::read(row, Column::Failure)?,
            last_job: Json::read(row, Column::LastJob)?,
            claimed_address: Field::of(row.try_get("claimed_address")?),
            refusal: Json::read(row, Column::Refusal)?,
            machine: Field::of(row.try_get("machine")?),
            now_ms: row.try_get("now_ms")?,
        })
    }

    /// What is no longer as it was read.
    pub(super) fn changed(&self) -> impl Iterator<Item = Column> {
        [
            (Column::Reading, self.power.changed),
            (Column::InventoryHash, self.inventory_hash.changed),
            (Column::LastGoodReadMs, self.last_good_read_ms.changed),
            (Column::LastTryMs, self.last_try_ms.changed),
            (Column::Unanswered, self.unanswered.text.changed),
            (Column::Handled, self.handled.text.changed),
            (Column::Contents, self.contents.text.changed),
            (Column::BootMac, self.boot_mac.changed),
            (Column::Debt, self.debt.text.changed),
            (Column::Failure, self.failure.text.changed),
            (Column::LastJob, self.last_job.text.changed),
            (Column::ClaimedAddress, self.claimed_address.changed),
            (Column::Refusal, self.refusal.text.changed),
            (Column::Machine, self.machine.changed),
        ]
        .into_iter()
        .filter_map(|(column, changed)| changed.then_some(column))
    }

    /// Binds the value of a column.
    pub(super) fn bind<'q>(
        &'q self,
        column: Column,
        query: Query<'q, MySql, MySqlArguments>,
    ) -> Query<'q, MySql, MySqlArguments> {
        match column {
            Column::Reading => query.bind(self.power.get()),
            Column::InventoryHash => query.bind(self.inventory_hash.get()),
            Column::LastGoodReadMs => query.bind(self.last_good_read_ms.get()),
            Column::LastTryMs => query.bind(self.last_try_ms.get()),
            Column::Unanswered => query.bind(self.unanswered.text.get()),
            Column::Handled => query.bind(self.handled.text.get().as_deref().unwrap_or_default()),
            Column::Contents => query.bind(self.contents.text.get()),
            Column::BootMac => query.bind(self.boot_mac.get()),
            Column::Debt => query.bind(self.debt.text.get()),
            Column::Failure => query.bind(self.failure.text.get()),
            Column::LastJob => query.bind(self.last_job.text.get()),
            Column::ClaimedAddress => query.bind(self.claimed_address.get()),
            Column::Refusal => query.bind(self.refusal.text.get()),
            Column::Machine => query.bind(self.machine.get()),
        }
    }

    /// The inventory, where it is another one than before.
    pub(super) fn new_inventory(&self) -> Option<&str> {
        self.new_inventory.as_deref()
    }

    /// The machine and its contents as they are stored, where either is another one than before.
    pub(super) fn machine_news(&self) -> Option<(&str, &str)> {
        let changed = self.machine.changed || self.contents.text.changed;
        let (machine, contents) = (self.machine.get().as_deref()?, self.contents.text.get().as_deref()?);
        changed.then_some((machine, contents))
    }

    /// Counts tokens as handled.
    pub(super) fn record(&mut self, uid: &ServerUid, tokens: &[TokenValue]) -> Result<(), QueueError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let mut handled = self.handled.get(uid)?.unwrap_or_default();
        for token in tokens {
            handled.record(token.kind, &token.value);
        }
        self.handled.set(Some(&handled));
        Ok(())
    }

    /// What is owed from now on. With nothing owed, that the machine was left off is no failure any more.
    pub(super) fn owe(&mut self, uid: &ServerUid, debt: Option<&Debt>) -> Result<(), QueueError> {
        self.debt.set(debt);
        let failure = self.failure.get(uid)?.filter(|_| debt.is_none());
        if failure.is_some_and(|failure| failure.problem.reason == Reason::LeftPoweredOff) {
            self.failure.set(None);
        }
        Ok(())
    }

    /// Puts a worker's report into what is known. Returns whether anything but a timestamp changed.
    pub(super) fn absorb(&mut self, uid: &ServerUid, report: &Report) -> Result<bool, QueueError> {
        match report {
            Report::Nothing => Ok(false),
            Report::Good(reading) => {
                let parts = inventory::parts(reading);
                let other = *self.inventory_hash.get() != Some(parts.inventory_hash);
                // An answer is worth another try where the last one was in vain.
                let debt = self.debt.get(uid)?;
                let in_vain = debt.as_ref().is_some_and(|debt| debt.tried.is_some());
                if let Some(debt) = debt {
                    self.owe(uid, debt.after_reading(reading.power, self.now_ms).as_ref())?;
                }
                let changed = other
                    || in_vain
                    || self.debt.text.changed
                    || self.power.get().as_deref() != Some(&parts.power)
                    || self.unanswered.is_set();
                if other {
                    self.inventory_hash.set(Some(parts.inventory_hash));
                    self.new_inventory = Some(parts.inventory);
                }
                if let Some(foreign) =
                    Contents::seen_in(self.contents.get(uid)?.as_ref(), reading, self.now_ms)
                {
                    self.contents.set(Some(&foreign));
                }
                self.power.set(Some(parts.power));
                self.unanswered.set(None);
                self.last_good_read_ms.set(Some(self.now_ms));
                self.last_try_ms.set(Some(self.now_ms));
                Ok(changed)
            }
            Report::Unanswered(problem) => {
                self.last_try_ms.set(Some(self.now_ms));
                let before = self.unanswered.get(uid)?;
                let changed = before.as_ref().map(|before| before.problem.reason) != Some(problem.reason);
                if changed {
                    let since_ms = before.map_or(self.now_ms, |before| before.since_ms);
                    self.unanswered.set(Some(&Unanswered { problem: problem.clone(), since_ms }));
                }
                Ok(changed)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};
    use crate::job::{Problem, Reading};

    fn locked() -> Locked {
        fn empty<T>(column: Column) -> Json<T> {
            Json { column, text: Field::default(), of: PhantomData }
        }
        Locked {
            version: 1,
            power: Field::default(),
            inventory_hash: Field::default(),
            new_inventory: None,
            last_good_read_ms: Field::default(),
            last_try_ms: Field::default(),
            unanswered: empty(Column::Unanswered),
            handled: empty(Column::Handled),
            contents: empty(Column::Contents),
            boot_mac: Field::default(),
            debt: empty(Column::Debt),
            failure: empty(Column::Failure),
            last_job: empty(Column::LastJob),
            claimed_address: Field::default(),
            refusal: empty(Column::Refusal),
            machine: Field::default(),
            now_ms: 0,
        }
    }

    fn at(locked: &mut Locked, now_ms: i64, report: &Report) -> bool {
        locked.now_ms = now_ms;
        locked.absorb(&ServerUid("a".to_owned()), report).unwrap()
    }

    fn reading(power: PowerState) -> Report {
        Report::Good(Box::new(Reading {
            power,
            identity: HardwareIdentity::default(),
            hardware: Hardware::default(),
            last_reset_time: None,
        }))
    }

    #[test]
    fn the_same_reading_again_only_touches_the_timestamps() {
        let mut known = locked();
        assert!(at(&mut known, 1, &reading(PowerState::PoweredOn)));
        assert!(known.new_inventory.take().is_some());
        assert!(!at(&mut known, 2, &reading(PowerState::PoweredOn)));
        assert_eq!(known.last_good_read_ms.get(), &Some(2));
        assert!(at(&mut known, 3, &reading(PowerState::PoweredOff)));
        assert_eq!(known.new_inventory, None, "the inventory is the same");
    }

    #[test]
    fn silence_keeps_the_time_since_when_it_lasts() {
        let mut known = locked();
        let problem = Problem::new(Reason::Unreachable, "no route");
        assert!(at(&mut known, 5, &Report::Unanswered(problem.clone())));
        assert!(!at(&mut known, 9, &Report::Unanswered(problem)));
        let silence = known.unanswered.get(&ServerUid("a".to_owned())).unwrap();
        assert_eq!(silence.map(|silence| silence.since_ms), Some(5));
        assert_eq!(known.last_try_ms.get(), &Some(9));
    }

    #[test]
    fn a_reading_comes_back_from_its_two_parts() {
        let Report::Good(reading) = reading(PowerState::PoweredOff) else { return };
        let parts = inventory::parts(&reading);
        let back = inventory::reading("a", Some(&parts.power), Some(&parts.inventory)).unwrap();
        assert_eq!(back, Some(*reading));
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut known = locked();
        assert_eq!(known.changed().count(), 0);
        at(&mut known, 1, &reading(PowerState::PoweredOn));
        let first = [
            Column::Reading,
            Column::InventoryHash,
            Column::LastGoodReadMs,
            Column::LastTryMs,
            Column::Contents,
        ];
        assert_eq!(known.changed().collect::<Vec<_>>(), first);

        let mut silent = locked();
        silent.failure.set(None);
        assert_eq!(silent.changed().count(), 0, "the same value is no change");
    }
}
