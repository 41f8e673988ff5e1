//! Reads the feed: which servers changed in the database since they were last shown, and wakes their reconciles.
//!
//! A row stays until its newest version was shown, so a wake-up that is lost is given again.
#![expect(clippy::disallowed_methods, reason = "pauses are jittered, and a wake-up is repeated after a time")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::context::Context;
use super::fleet::Standing;
use super::ghosts::Ghosts;
use crate::failpoint::crash_point;
use crate::http::Readiness;
use crate::job::ServerUid;
use crate::metrics;
use crate::queue::{Changed, FeedCursor, QueueError, Registered};

/// Rows in one read.
const PAGE: u16 = 500;
/// Between two reads while little comes: it is shown at once.
const QUICK: Duration = Duration::from_millis(50);
/// Between two reads while much comes: several changes of a server are then one patch of its status.
const BUSY: Duration = Duration::from_millis(250);
/// How many servers are much.
const MUCH: usize = 50;
/// Between two reads while nothing comes.
const IDLE: Duration = Duration::from_millis(250);
/// Between two reads while the database does not answer.
const AWAY: Duration = Duration::from_secs(1);
/// How long a woken reconcile has before it is woken again for the same version.
const AGAIN: Duration = Duration::from_secs(3);
/// While much waits to be shown, a server is woken for a newer version only after so long for each that waits: several changes
/// are then one patch, and what changes all the time takes no turns from the others.
const TURN: Duration = Duration::from_millis(20);
/// The longest such time.
const LONGEST_TURN: Duration = Duration::from_secs(5);

/// The versions for which a reconcile was woken.
#[derive(Debug, Default)]
struct Woken {
    last: HashMap<ServerUid, (i64, Instant)>,
    /// How long a server waits for its next turn.
    turn: Duration,
}

impl Woken {
    fn is_due(&mut self, row: &Changed, now: Instant) -> bool {
        let due = self.last.get(&row.uid).is_none_or(|(version, at)| {
            let since = now.saturating_duration_since(*at);
            since >= if *version == row.version { AGAIN } else { self.turn }
        });
        if due {
            self.last.insert(row.uid.clone(), (row.version, now));
        }
        due
    }

    /// What is not in the feed any more was shown; it may be back before its next turn.
    fn keep_only(&mut self, rows: &[Changed], now: Instant) {
        self.turn = match rows.len() {
            waiting if waiting < MUCH => Duration::ZERO,
            waiting => (TURN * u32::try_from(waiting).unwrap_or(u32::MAX)).min(LONGEST_TURN),
        };
        let left: std::collections::HashSet<&ServerUid> = rows.iter().map(|row| &row.uid).collect();
        let turn = self.turn;
        self.last.retain(|uid, (_, at)| left.contains(uid) || now.saturating_duration_since(*at) < turn);
    }
}

/// Reads for ever.
pub(super) async fn run(context: &Context, readiness: &Readiness) {
    let mut woken = Woken::default();
    let mut ghosts = Ghosts::default();
    let mut pause = BUSY;
    let mut said = String::new();
    context.fleet.synced().await;
    loop {
        match pass(context, &mut woken, &mut ghosts).await {
            Ok(new) => {
                if !said.is_empty() {
                    said.clear();
                    tracing::info!("the database answers again");
                }
                readiness.ready("database");
                pause = match new {
                    0 => (pause * 2).min(IDLE),
                    1..MUCH => QUICK,
                    _ => BUSY,
                };
            }
            Err(error) => {
                let message = error.to_string();
                readiness.waits("database", &message);
                if message != said {
                    tracing::warn!(reason = error.class(), "the feed was not read: {message}");
                    said = message;
                }
                pause = AWAY;
            }
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.9..1.1))).await;
    }
}

/// Reads the feed to its end; returns how many reconciles were woken.
async fn pass(context: &Context, woken: &mut Woken, ghosts: &mut Ghosts) -> Result<usize, QueueError> {
    let mut all = Vec::new();
    let mut cursor = Some(FeedCursor::default());
    let mut count = 0;
    while let Some(at) = cursor {
        let (page, next) = context.queue.feed(&at, PAGE).await?;
        if !page.is_empty() {
            crash_point("controller.feed.read");
        }
        count += wake(context, &page, woken, ghosts).await;
        all.extend(page);
        cursor = next;
    }
    woken.keep_only(&all, Instant::now());
    metrics::FEED_ROWS.set(&[], all.len() as f64);
    Ok(count)
}

async fn wake(context: &Context, page: &[Changed], woken: &mut Woken, ghosts: &mut Ghosts) -> usize {
    let mut count = 0;
    for row in page {
        match context.fleet.standing(&row.namespace, &row.name, &row.uid) {
            Standing::Present if context.retries.rests(row.uid.as_str()) => {}
            Standing::Present if woken.is_due(row, Instant::now()) => {
                context.fleet.wake(&row.namespace, &row.name);
                count += 1;
            }
            Standing::Present | Standing::Elsewhere => {}
            Standing::Missing => {
                let row = Registered {
                    uid: row.uid.clone(),
                    namespace: row.namespace.clone(),
                    name: row.name.clone(),
                };
                ghosts.look_at(context, &row).await;
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_wakes_once_and_again_only_when_it_was_not_shown_for_a_while() {
        let row = |version| Changed {
            uid: ServerUid("u".into()),
            namespace: String::new(),
            name: String::new(),
            version,
        };
        let mut woken = Woken::default();
        let begun = Instant::now();
        assert!(woken.is_due(&row(1), begun));
        assert!(!woken.is_due(&row(1), begun));
        assert!(woken.is_due(&row(2), begun));
        assert!(woken.is_due(&row(2), begun + AGAIN));
        woken.keep_only(&[], begun + AGAIN);
        assert!(woken.is_due(&row(2), begun + AGAIN));
    }

    #[test]
    fn while_much_waits_what_changes_all_the_time_has_one_turn_like_the_others() {
        let row = |number: usize, version| Changed {
            uid: ServerUid(number.to_string()),
            namespace: String::new(),
            name: String::new(),
            version,
        };
        let mut woken = Woken::default();
        let begun = Instant::now();
        let many: Vec<Changed> = (0..100).map(|number| row(number, 1)).collect();
        assert!(many.iter().all(|row| woken.is_due(row, begun)));
        woken.keep_only(&many, begun);
        assert!(!woken.is_due(&row(0, 2), begun), "it had its turn");
        assert!(woken.is_due(&row(0, 2), begun + TURN * 100));
        // It was shown, and is back at once: that is no way round.
        let others: Vec<Changed> = (1..100).map(|number| row(number, 1)).collect();
        let later = begun + TURN * 100;
        woken.keep_only(&others, later);
        assert!(!woken.is_due(&row(0, 3), later + TURN));
        woken.keep_only(&[], later + TURN);
        assert!(woken.is_due(&row(0, 3), later + TURN), "little waits");
    }
}
