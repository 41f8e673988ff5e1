//! Turns at BMCs: of all jobs of a worker one at a time talks to a BMC. The others wait in the queue, parked, and hold no slot;
//! as soon as the BMC is free the first of them is woken, and the BMC is kept for it for a moment.
//!
//! What a BMC is, is told by its lines: its host and each of its addresses ([`crate::bmc::Bmc::lines`]). A BMC that gave one job
//! no answer gives the others none either: one of them asks it again, after a pause, and the others go on waiting.
#![expect(
    clippy::disallowed_methods,
    reason = "what is kept for a job is kept for a moment, and pauses are jittered"
)]

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::Reason;
use crate::bmc::{BmcError, BmcErrorKind, Delivery};
use crate::job::{JobId, Lane, LiveJob, RetryClass, ServerUid, backoff};
use crate::metrics;
use crate::queue::{CancelOutcome, Claim, Queue, QueueError};

/// For how long a BMC that came free is kept for the job that was woken for it: a worker with a free slot claims it within a
/// tenth of that. One that comes later, because all slots are busy or another worker took it, waits again.
const KEPT: Duration = Duration::from_secs(3);
/// Between two looks for what nobody tells: a pause that is over, a BMC that was kept in vain, a wake-up that met a lock.
const SWEEP: Duration = Duration::from_millis(250);
/// The longest pause between two tries of a BMC that answers nobody, while jobs wait for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long it is remembered that a BMC answered nobody, where nobody asks.
const REMEMBERED: Duration = Duration::from_mins(10);
/// One turn in so many goes to the job that has waited longest, whatever is more urgent.
const OLDEST_SHARE: u32 = 4;
/// After how long a job that waits for a turn looks by itself, in milliseconds, should its worker have died; and how much
/// longer for each that waits before it.
const LOOKS_AGAIN_MS: (i64, i64) = (20_000, 1_000);

/// Who asks for a turn, and where it comes among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asks {
    uid: ServerUid,
    id: JobId,
    /// Those first that are in the middle of something, then by lane and age.
    order: (bool, Lane, i64, JobId),
}

impl Asks {
    /// The job of a claim.
    pub(super) fn of(claim: &Claim) -> Self {
        Self::by(claim.uid(), claim.job())
    }

    fn by(uid: &ServerUid, job: &LiveJob) -> Self {
        let order = (!job.request_stored, job.lane, job.enqueued_at_ms, job.id);
        Self { uid: uid.clone(), id: job.id, order }
    }
}

/// Why there is no turn now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Set where the BMC gave another job no answer, and is not asked again yet.
    pub silent: Option<Reason>,
    /// How many others wait.
    pub others: usize,
}

impl Wait {
    /// After how many milliseconds the job looks by itself.
    pub(super) fn looks_again_ms(self) -> i64 {
        let (first, each) = LOOKS_AGAIN_MS;
        first
            + each.saturating_mul(i64::try_from(self.others).unwrap_or(0))
            + i64::from(rand::random_range(0..1000_u16))
    }
}

/// What one who had a turn heard from the BMC last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Answer,
    Silence(Reason),
}

#[derive(Debug)]
struct Waiting {
    asks: Asks,
    since: Instant,
}

/// A BMC that answered nobody.
#[derive(Debug, Clone, Copy)]
struct Silent {
    since: Instant,
    until: Instant,
    reason: Reason,
}

/// What keeps a job from a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bar {
    /// Another job has it, or it is kept for one.
    Taken,
    /// The BMC answered nobody, and is not asked again yet.
    Silent(Reason),
}

/// What is known of one line.
#[derive(Debug, Default)]
struct Line {
    taken: bool,
    kept_for: Option<(JobId, Instant)>,
    waiting: Vec<Waiting>,
    silent: Option<Silent>,
    given: u32,
}

impl Line {
    /// What keeps this job from the line.
    fn bar(&self, id: JobId, is_asked: bool, now: Instant) -> Option<Bar> {
        let kept_for = self.kept_for.filter(|(_, until)| *until > now).map(|(id, _)| id);
        if self.taken || kept_for.is_some_and(|kept_for| kept_for != id) {
            return Some(Bar::Taken);
        }
        let silent = self.silent.filter(|silent| silent.until > now && !is_asked && kept_for.is_none());
        silent.map(|silent| Bar::Silent(silent.reason))
    }

    /// Keeps the line, where it is free, for the one whose turn is next.
    fn next(&mut self, now: Instant) -> Option<Asks> {
        let is_kept = self.kept_for.is_some_and(|(_, until)| until > now);
        if self.taken || is_kept || self.silent.is_some_and(|silent| silent.until > now) {
            return None;
        }
        self.kept_for = None;
        let numbered = self.waiting.iter().enumerate();
        let oldest = self.given % OLDEST_SHARE == OLDEST_SHARE - 1;
        let (at, _) = if oldest {
            numbered.min_by_key(|(_, waiting)| waiting.since)?
        } else {
            numbered.min_by_key(|(_, waiting)| &waiting.asks.order)?
        };
        let Waiting { asks, .. } = self.waiting.swap_remove(at);
        self.given = self.given.wrapping_add(1);
        self.kept_for = Some((asks.id, now + KEPT));
        Some(asks)
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        let silent = self.silent.is_some_and(|silent| silent.until + REMEMBERED > now);
        let is_kept = self.kept_for.is_some_and(|(_, until)| until > now);
        !self.taken && !is_kept && self.waiting.is_empty() && !silent
    }
}

/// All lines, and who is to be woken.
#[derive(Debug, Default)]
struct Book {
    lines: HashMap<String, Line>,
    due: Vec<Asks>,
}

impl Book {
    fn take(
        &mut self,
        lines: &BTreeSet<String>,
        asks: &Asks,
        is_asked: bool,
        now: Instant,
    ) -> Result<(), Wait> {
        let barred = lines.iter().find_map(|name| {
            let bar = self.lines.get(name)?.bar(asks.id, is_asked, now)?;
            Some((name, bar))
        });
        let Some((name, bar)) = barred else {
            for name in lines {
                let line = self.lines.entry(name.clone()).or_default();
                line.taken = true;
                line.kept_for = None;
                line.waiting.retain(|waiting| waiting.asks.id != asks.id);
            }
            return Ok(());
        };
        let line = self.lines.entry(name.clone()).or_default();
        let others = line.waiting.iter().filter(|waiting| waiting.asks.id != asks.id).count();
        // Who looks again keeps its place.
        match line.waiting.iter_mut().find(|waiting| waiting.asks.id == asks.id) {
            Some(waiting) => waiting.asks = asks.clone(),
            None => line.waiting.push(Waiting { asks: asks.clone(), since: now }),
        }
        let silent = match bar {
            Bar::Taken => None,
            Bar::Silent(reason) => Some(reason),
        };
        Err(Wait { silent, others })
    }

    fn leave(&mut self, lines: &BTreeSet<String>, heard: Heard, now: Instant) {
        for name in lines {
            let Some(line) = self.lines.get_mut(name) else { continue };
            line.taken = false;
            match heard {
                Heard::Nothing => {}
                Heard::Answer => line.silent = None,
                Heard::Silence(reason) => {
                    let since = line.silent.map_or(now, |silent| silent.since);
                    line.silent = Some(Silent { since, until: now + pause(now - since), reason });
                }
            }
            self.due.extend(line.next(now));
        }
        self.lines.retain(|name, line| !lines.contains(name) || !line.is_forgotten(now));
    }

    /// What nobody tells: pauses that are over, and BMCs that were kept in vain.
    fn sweep(&mut self, now: Instant) {
        let due = &mut self.due;
        self.lines.retain(|_, line| {
            due.extend(line.next(now));
            !line.is_forgotten(now)
        });
    }

    /// A job that was woken is gone: the next one is.
    fn gone(&mut self, id: JobId, now: Instant) {
        for line in self.lines.values_mut() {
            line.waiting.retain(|waiting| waiting.asks.id != id);
            if line.kept_for.is_some_and(|(kept_for, _)| kept_for == id) {
                line.kept_for = None;
                self.due.extend(line.next(now));
            }
        }
    }

    fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).sum()
    }
}

/// How long a BMC that has been silent for so long is left alone: never longer than a job of its own that met it would wait.
fn pause(lasts: Duration) -> Duration {
    let attempt = 64 - lasts.as_secs().leading_zeros();
    let shortest = backoff(RetryClass::Unreachable, attempt, 0, 0);
    Duration::from_millis(shortest.unsigned_abs()).min(LONGEST_PAUSE)
}

/// The turns at all BMCs that this process talks to. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    /// Somebody is to be woken.
    due: Notify,
    /// Somebody was woken, and may be claimed.
    woken: Notify,
}

/// A turn at a BMC: it is the next one's as soon as this is dropped.
#[derive(Debug)]
#[must_use = "the BMC is free for the next job as soon as this is dropped"]
pub(super) struct Turn {
    turns: Turns,
    lines: BTreeSet<String>,
    heard: Heard,
}

impl Turn {
    /// The BMC answered.
    pub(super) fn answered(&mut self) {
        self.heard = Heard::Answer;
    }

    /// What became of a request. Only what would have met every other job as well counts as silence: a certificate or a system
    /// is the matter of one.
    pub(super) fn met(&mut self, error: &BmcError) {
        let no_answer = match error.kind {
            BmcErrorKind::Unreachable | BmcErrorKind::Timeout => true,
            // A gateway before it gave up waiting.
            BmcErrorKind::Busy(_) => error.delivery != Delivery::Answered,
            _ => false,
        };
        if no_answer {
            self.heard = Heard::Silence(error.kind.reason());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut book = self.turns.book();
        book.leave(&self.lines, self.heard, Instant::now());
        if !book.due.is_empty() {
            self.turns.0.due.notify_one();
        }
    }
}

impl Turns {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn at the BMC of these lines, or why not now: then the job is woken when it comes. `is_asked`: a person asked
    /// for a try of a BMC that was silent.
    pub(super) fn take(&self, lines: BTreeSet<String>, asks: &Asks, is_asked: bool) -> Result<Turn, Wait> {
        self.book().take(&lines, asks, is_asked, Instant::now())?;
        Ok(Turn { turns: self.clone(), lines, heard: Heard::Nothing })
    }

    /// Waits until a job was woken for its turn.
    pub(super) async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// Wakes the jobs whose turn has come, for ever.
    pub(super) async fn wake(&self, queue: &Queue) {
        loop {
            tokio::select! {
                () = self.0.due.notified() => {}
                () = tokio::time::sleep(SWEEP) => self.book().sweep(Instant::now()),
            }
            let due = std::mem::take(&mut self.book().due);
            let mut woken = false;
            for asks in due {
                match queue.signal(&asks.uid, asks.id).await {
                    Ok(CancelOutcome::Gone) => self.book().gone(asks.id, Instant::now()),
                    Ok(_) => woken = true,
                    // It is being claimed or parked right now, or the database is away: with the next sweep.
                    Err(error) => {
                        if !matches!(error, QueueError::Busy) {
                            tracing::warn!(reason = error.class(), "cannot wake a job for its turn: {error}");
                        }
                        self.book().due.push(asks);
                    }
                }
            }
            if woken {
                self.0.woken.notify_one();
            }
            metrics::TURNS.set(&[], self.book().waiting() as f64);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn asks(number: i64, lane: Lane) -> Asks {
        let id = JobId(number);
        Asks { uid: ServerUid(format!("uid-{number}")), id, order: (true, lane, number, id) }
    }

    fn lines(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn due(book: &mut Book) -> Vec<i64> {
        std::mem::take(&mut book.due).iter().map(|asks| asks.id.0).collect()
    }

    /// A chassis in whose BMC job 0 is, and for whose turn these wait.
    fn chassis(now: Instant, waiting: &[Asks]) -> Book {
        let mut book = Book::default();
        book.take(&lines(&["c"]), &asks(0, Lane::High), false, now).unwrap();
        for asks in waiting {
            book.take(&lines(&["c"]), asks, false, now).unwrap_err();
        }
        book
    }

    #[test]
    fn one_job_has_a_bmc_and_the_others_are_woken_one_by_one_in_their_order() {
        let now = Instant::now();
        let (mut book, c) = (Book::default(), lines(&["c"]));
        book.take(&c, &asks(0, Lane::High), false, now).unwrap();
        for (at, (number, lane)) in
            [(1, Lane::Low), (3, Lane::High), (2, Lane::High), (4, Lane::Urgent)].into_iter().enumerate()
        {
            let wait = book.take(&c, &asks(number, lane), false, now).unwrap_err();
            assert_eq!(wait, Wait { silent: None, others: at });
        }
        assert!(book.take(&lines(&["d"]), &asks(9, Lane::Low), false, now).is_ok(), "another BMC is free");
        book.leave(&c, Heard::Answer, now);
        for next in [4, 2, 3, 1] {
            assert_eq!(due(&mut book), [next], "one at a time");
            let other = asks(8, Lane::Urgent);
            assert_eq!(book.lines["c"].bar(other.id, false, now), Some(Bar::Taken), "it is kept for {next}");
            book.take(&c, &asks(next, Lane::High), false, now).unwrap();
            book.leave(&c, Heard::Answer, now);
        }
        assert_eq!(due(&mut book), [0; 0]);
        assert_eq!(book.lines.len(), 1, "what nobody waits for is forgotten: {book:?}");
    }

    #[test]
    fn whoever_has_waited_longest_has_a_turn_among_four_whatever_comes_before_it() {
        let now = Instant::now();
        let mut book = chassis(now, &[asks(1, Lane::Background)]);
        let mut had = Vec::new();
        for turn in 2..10 {
            let more_urgent = asks(turn, Lane::Urgent);
            book.take(&lines(&["c"]), &more_urgent, false, now + Duration::from_millis(1)).unwrap_err();
            book.leave(&lines(&["c"]), Heard::Answer, now);
            let next = due(&mut book);
            book.take(&lines(&["c"]), &asks(next[0], Lane::Urgent), false, now).unwrap();
            had.extend(next);
        }
        assert_eq!(had.len(), 8, "one at a time: {had:?}");
        assert!(had[..4].contains(&1), "{had:?}");
    }

    #[test]
    fn a_bmc_that_was_kept_in_vain_is_the_next_ones_and_one_that_is_gone_keeps_nobody_waiting() {
        let now = Instant::now();
        let mut book = chassis(now, &[asks(1, Lane::High), asks(2, Lane::High), asks(3, Lane::High)]);
        book.leave(&lines(&["c"]), Heard::Answer, now);
        assert_eq!(due(&mut book), [1]);
        book.sweep(now + KEPT / 2);
        assert_eq!(due(&mut book), [0; 0]);
        book.sweep(now + KEPT);
        assert_eq!(due(&mut book), [2]);
        book.gone(JobId(2), now + KEPT);
        assert_eq!(due(&mut book), [3]);
    }

    #[test]
    fn silence_towards_one_is_silence_towards_all_and_one_of_them_asks_again() {
        let now = Instant::now();
        let mut book = chassis(now, &[asks(1, Lane::High), asks(2, Lane::High)]);
        let c = lines(&["c"]);
        book.leave(&c, Heard::Silence(Reason::Unreachable), now);
        assert_eq!(due(&mut book), [0; 0], "not at once");
        let wait = book.take(&c, &asks(3, Lane::Urgent), false, now).unwrap_err();
        assert_eq!((wait.silent, wait.others), (Some(Reason::Unreachable), 2));
        let later = now + LONGEST_PAUSE;
        book.sweep(later);
        assert_eq!(due(&mut book), [3], "one of them");
        book.sweep(later);
        assert_eq!(due(&mut book), [0; 0], "and no other meanwhile");
        book.take(&c, &asks(3, Lane::Urgent), false, later).unwrap();
        book.leave(&c, Heard::Answer, later);
        assert_eq!(due(&mut book), [1], "once it answers they follow at once");
        book.take(&c, &asks(1, Lane::High), false, later).unwrap();
        book.leave(&c, Heard::Answer, later);
        assert_eq!(due(&mut book), [2]);
    }

    #[test]
    fn a_person_may_have_a_silent_bmc_asked_at_once_but_not_out_of_turn() {
        let now = Instant::now();
        let mut book = chassis(now, &[]);
        let c = lines(&["c"]);
        book.take(&c, &asks(1, Lane::High), true, now).unwrap_err();
        book.leave(&c, Heard::Silence(Reason::Unreachable), now);
        book.take(&c, &asks(2, Lane::High), false, now).unwrap_err();
        book.take(&c, &asks(1, Lane::High), true, now).unwrap();
    }

    #[test]
    fn a_bmc_is_the_same_by_its_name_and_by_each_of_its_addresses() {
        let now = Instant::now();
        let mut book = Book::default();
        let both = lines(&["name", "address"]);
        book.take(&both, &asks(1, Lane::High), false, now).unwrap();
        book.take(&lines(&["address"]), &asks(2, Lane::High), false, now).unwrap_err();
        book.take(&lines(&["name"]), &asks(3, Lane::High), false, now).unwrap_err();
        book.leave(&both, Heard::Answer, now);
        let mut woken = due(&mut book);
        woken.sort_unstable();
        assert_eq!(woken, [2, 3]);
    }

    #[test]
    fn no_pause_is_longer_than_that_of_a_job_that_met_the_silence_itself() {
        for seconds in 0..1_000 {
            let lasts = Duration::from_secs(seconds);
            let attempt = 64 - seconds.leading_zeros();
            let own = backoff(RetryClass::Unreachable, attempt, 0, 0);
            assert!(pause(lasts) <= LONGEST_PAUSE && pause(lasts).as_millis() <= own.unsigned_abs().into());
        }
        assert!(pause(Duration::ZERO) < pause(Duration::from_mins(1)));
    }

    #[test]
    fn only_what_would_meet_every_job_counts_as_silence() {
        let turns = Turns::default();
        let mut turn = turns.take(lines(&["c"]), &asks(1, Lane::High), false).unwrap();
        turn.answered();
        for (kind, delivery, heard) in [
            (BmcErrorKind::Tls, Delivery::NotSent, Heard::Answer),
            (BmcErrorKind::NotFound, Delivery::Answered, Heard::Answer),
            (BmcErrorKind::Busy(None), Delivery::Answered, Heard::Answer),
            (BmcErrorKind::Busy(None), Delivery::Unknown, Heard::Silence(Reason::BMCBusy)),
            (BmcErrorKind::Timeout, Delivery::Unknown, Heard::Silence(Reason::Unreachable)),
        ] {
            turn.met(&BmcError::new(kind.clone(), delivery, "x"));
            assert_eq!(turn.heard, heard, "{kind:?} {delivery:?}");
        }
    }
}
