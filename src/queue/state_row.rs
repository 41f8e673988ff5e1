//! A `server_state` row in memory: what is known of a server under its row lock, and which columns of it changed.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, Row};

use super::state::Report;
use super::{QueueError, inventory};
use crate::api::Reason;
use crate::job::{
    ClaimRefusal, Contents, Debt, Event, FinishedJob, HandledTokens, Problem, ReadThrough, Reading,
    ReconcileRequest, ServerUid, StoredFailure, TokenValue, Unanswered,
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
    ReconcileRequest,
    ReadThrough,
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
            Self::ReconcileRequest => "reconcile_request",
            Self::ReadThrough => "read_through",
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

    /// The same for what is added to: fields that a later release keeps beside ours stay.
    pub(super) fn set_keeping(&mut self, value: &T) {
        let mut new = serde_json::to_value(value).unwrap_or_default();
        let before = self.text.get().as_deref().and_then(|text| serde_json::from_str(text).ok());
        if let (Some(Value::Object(before)), Value::Object(new)) = (before, &mut new) {
            for (name, kept) in before {
                new.entry(name).or_insert(kept);
            }
        }
        self.text.set(Some(new.to_string()));
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
    reconcile_request: Json<ReconcileRequest>,
    remembered: Vec<TokenValue>,
    given_back: Vec<TokenValue>,
    pub read_through: Field<Option<String>>,
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
            reconcile_request: Json::read(row, Column::ReconcileRequest)?,
            remembered: Vec::new(),
            given_back: Vec::new(),
            read_through: Field::of(row.try_get("read_through")?),
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
            (Column::ReconcileRequest, self.reconcile_request.text.changed),
            (Column::ReadThrough, self.read_through.changed),
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
            Column::ReconcileRequest => query.bind(self.reconcile_request.text.get()),
            Column::ReadThrough => query.bind(self.read_through.get()),
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
        if tokens.iter().all(|token| handled.is_handled(token.kind, Some(&token.value))) {
            return Ok(());
        }
        for token in tokens {
            handled.record(token.kind, &token.value);
        }
        // All of them: the row may be of a release that remembered no more than these.
        self.remembered = handled.values();
        self.handled.set_keeping(&handled.last(None));
        Ok(())
    }

    /// Counts a request for a look as acted on, by the value that was read before the BMC was asked; returns whether status
    /// shows another one then. One that was there before anybody kept count asks for nothing, and one that was taken away
    /// is still the newest.
    pub(super) fn heed(&mut self, uid: &ServerUid, asked: Option<&str>) -> Result<bool, QueueError> {
        let Some(asked) = asked else { return Ok(false) };
        let at_ms = match self.reconcile_request.get(uid)? {
            Some(before) if asked.is_empty() || before.value == asked => return Ok(false),
            Some(_) => self.now_ms,
            None => 0,
        };
        self.reconcile_request.set(Some(&ReconcileRequest { value: asked.to_owned(), at_ms }));
        Ok(!asked.is_empty())
    }

    /// Tokens of which nothing was carried out ask again.
    pub(super) fn give_back(&mut self, uid: &ServerUid, tokens: &[TokenValue]) -> Result<(), QueueError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let mut handled = self.handled.get(uid)?.unwrap_or_default();
        for token in tokens {
            handled.give_back(token);
        }
        self.handled.set_keeping(&handled);
        self.given_back = tokens.to_vec();
        Ok(())
    }

    /// Values that were handled with the change of this row.
    pub(super) fn remembered(&self) -> &[TokenValue] {
        &self.remembered
    }

    /// Values that ask again with the change of this row.
    pub(super) fn given_back(&self) -> &[TokenValue] {
        &self.given_back
    }

    /// Puts what happened into what is known of the disks, and ends the failures that are over with it. Returns whether
    /// one was.
    pub(super) fn happened(&mut self, uid: &ServerUid, event: &Event) -> Result<bool, QueueError> {
        if let Some(contents) = event.contents(self.contents.get(uid)?.as_ref(), self.now_ms) {
            self.contents.set(Some(&contents));
        }
        let stored = self.failure.get(uid)?;
        let left = stored.clone().and_then(|failure| failure.left_after(event));
        let over = left != stored;
        if over {
            self.failure.set(left.as_ref());
        }
        Ok(over)
    }

    /// What is owed from now on. With nothing owed, that the machine was left off is no failure any more.
    pub(super) fn owe(&mut self, uid: &ServerUid, debt: Option<&Debt>) -> Result<(), QueueError> {
        self.debt.set(debt);
        let failure = self.failure.get(uid)?.filter(|_| debt.is_none());
        if let Some(failure) = failure.filter(|failure| failure.problem.reason == Reason::LeftPoweredOff) {
            self.failure.set(failure.behind.as_deref());
        }
        Ok(())
    }

    /// Puts a worker's report into what is known. Returns whether anything but a timestamp changed.
    pub(super) fn absorb(&mut self, uid: &ServerUid, report: &Report) -> Result<bool, QueueError> {
        match report {
            Report::Nothing => Ok(false),
            Report::Good(reading) => self.absorb_reading(uid, reading),
            Report::Unanswered(problem) => self.absorb_silence(uid, problem, None),
            Report::Through(through, report) => match &**report {
                Report::Good(reading) => {
                    let before = self.read_through.get().clone();
                    self.read_through.set(Some(through.0.clone()));
                    // That a reading of an older release was one of this address is no news.
                    let moved = before.is_some_and(|before| before != through.0);
                    Ok(self.absorb_reading(uid, reading)? || moved)
                }
                Report::Unanswered(problem) => self.absorb_silence(uid, problem, Some(through)),
                report => self.absorb(uid, report),
            },
        }
    }

    fn absorb_reading(&mut self, uid: &ServerUid, reading: &Reading) -> Result<bool, QueueError> {
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
        let changed = self.happened(uid, &Event::Read(reading.power))? || changed;
        self.power.set(Some(parts.power));
        self.unanswered.set(None);
        self.last_good_read_ms.set(Some(self.now_ms));
        self.last_try_ms.set(Some(self.now_ms));
        Ok(changed)
    }

    /// Whether the server was let in at the address that is claimed for it, since it was.
    pub(super) fn was_let_in(&self) -> bool {
        self.power.get().is_some() && *self.read_through.get() != Some(ReadThrough::nothing().0)
    }

    /// What was read, or met, belongs to no address any more: the machine is looked at before anything is said of it.
    pub(super) fn read_nothing(&mut self, uid: &ServerUid) -> Result<(), QueueError> {
        if self.power.get().is_some() {
            self.read_through.set(Some(ReadThrough::nothing().0));
        }
        if let Some(silence) = self.unanswered.get(uid)? {
            let through = Some(ReadThrough::nothing());
            self.unanswered.set(Some(&Unanswered { through, ..silence }));
        }
        Ok(())
    }

    /// `through`: `None` where that is not known.
    fn absorb_silence(
        &mut self,
        uid: &ServerUid,
        problem: &Problem,
        through: Option<&ReadThrough>,
    ) -> Result<bool, QueueError> {
        self.last_try_ms.set(Some(self.now_ms));
        let before = self.unanswered.get(uid)?;
        // Silence at one address says nothing of another.
        let same = |before: &Unanswered| before.through.is_none() || before.through.as_ref() == through;
        let lasting = before.filter(same);
        let changed = lasting.as_ref().map(|before| &before.problem) != Some(problem);
        if changed {
            let since_ms = lasting.map_or(self.now_ms, |before| before.since_ms);
            let (problem, through) = (problem.clone(), through.cloned());
            self.unanswered.set(Some(&Unanswered { problem, since_ms, through }));
        }
        Ok(changed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::api::hardware::{Hardware, HardwareIdentity, PowerState};

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
            reconcile_request: empty(Column::ReconcileRequest),
            remembered: Vec::new(),
            given_back: Vec::new(),
            read_through: Field::default(),
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
        let silence = |known: &Locked| known.unanswered.get(&ServerUid("a".to_owned())).unwrap().unwrap();
        assert_eq!(silence(&known).since_ms, 5);
        assert_eq!(known.last_try_ms.get(), &Some(9));
        // Other words are news, and the silence is the same.
        assert!(at(&mut known, 11, &Report::Unanswered(Problem::new(Reason::Unreachable, "refused"))));
        assert_eq!((silence(&known).since_ms, silence(&known).problem.message.as_str()), (5, "refused"));
    }

    #[test]
    fn what_a_later_release_keeps_of_handled_tokens_stays() {
        let uid = ServerUid("a".to_owned());
        let mut known = locked();
        known.handled.text.set(Some(r#"{"reboot":["a"],"reimage":[],"ever":["hash"]}"#.to_owned()));
        known.record(&uid, &[TokenValue::reboot("b")]).unwrap();
        let text = known.handled.text.get().clone().unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, serde_json::json!({"reboot": ["a", "b"], "reimage": [], "ever": ["hash"]}));
    }

    #[test]
    fn every_new_value_of_a_request_for_a_look_is_acted_on_once() {
        let uid = ServerUid("a".to_owned());
        let mut known = locked();
        known.now_ms = 7;
        let mut heed = |asked| {
            let shown = known.heed(&uid, asked).unwrap();
            (shown, known.reconcile_request.get(&uid).unwrap().map(|asked| (asked.value, asked.at_ms)))
        };
        let at = |value: &str, at_ms| Some((value.to_owned(), at_ms));
        assert_eq!(heed(None), (false, None), "the object was not read");
        assert_eq!(heed(Some("")), (false, at("", 0)));
        assert_eq!(heed(Some("banana")), (true, at("banana", 7)));
        assert_eq!(heed(Some("banana")), (false, at("banana", 7)));
        assert_eq!(heed(Some("")), (false, at("banana", 7)), "taken away, it is still the newest");
        assert_eq!(heed(Some("2999-01-01T00:00:00Z")).1, at("2999-01-01T00:00:00Z", 7));
        assert!(locked().heed(&uid, Some("of before")).unwrap());
    }

    #[test]
    fn a_reading_belongs_to_the_address_that_it_came_from_and_the_first_such_word_is_no_news() {
        let through = |key: &str, report: &Report| {
            Report::Through(ReadThrough(key.to_owned()), Box::new(report.clone()))
        };
        let on = reading(PowerState::PoweredOn);
        let mut known = locked();
        at(&mut known, 1, &on);
        assert!(!at(&mut known, 2, &through("a", &on)), "of an older release");
        assert!(!at(&mut known, 3, &through("a", &on)));
        assert!(at(&mut known, 4, &through("b", &on)));
        assert_eq!(known.read_through.get().as_deref(), Some("b"));
        let silent = Report::Unanswered(Problem::new(Reason::Unreachable, "no route"));
        let since = |known: &Locked| {
            known.unanswered.get(&ServerUid("a".to_owned())).unwrap().map(|silence| silence.since_ms)
        };
        assert!(at(&mut known, 5, &through("b", &silent)));
        assert!(!at(&mut known, 6, &through("b", &silent)));
        assert!(at(&mut known, 7, &through("c", &silent)), "another address");
        assert_eq!(since(&known), Some(7));
        assert_eq!(known.read_through.get().as_deref(), Some("b"), "nothing was read there");
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
