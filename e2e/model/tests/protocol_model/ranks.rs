//! One form for all states that differ only in names: of ranks, of workers, of what no longer matters.

use std::cmp::Ordering;

use crate::state::{Job, Leader, LeaderPhase, Object, Phase, Rank, State, Worker};

/// Replaces ranks by the smallest numbers of the same order.
fn compact<const N: usize>(ranks: [&mut Rank; N]) {
    let mut used = [false; 32];
    for rank in &ranks {
        used[usize::from(**rank)] = true;
    }
    let mut names = [0; 32];
    let mut next = 0;
    for value in 1..32 {
        if used[value] {
            next += 1;
            names[value] = next;
        }
    }
    for rank in ranks {
        *rank = names[usize::from(*rank)];
    }
}

impl State {
    /// The same state with ranks made small and dead parts reset; of two states that differ only in the names of
    /// the workers, the smaller one.
    pub(crate) fn normal(mut self) -> State {
        for worker in &mut self.workers {
            if matches!(worker.phase, Phase::Idle | Phase::StoredElsewhere(_)) {
                let Worker { lease, registration, phase, settling, flight, .. } = *worker;
                *worker = Worker { lease, registration, phase, settling, flight, ..Worker::default() };
            }
        }
        for leader in &mut self.leaders {
            // The reconcile needs only what it has yet to use.
            match leader.phase {
                LeaderPhase::Idle => *leader = Leader::default(),
                LeaderPhase::Patched => leader.object = Object::default(),
                LeaderPhase::RowOnly | LeaderPhase::Observed | LeaderPhase::Acted => {}
            }
            let Job { id, intent, step, started, cancel, .. } = leader.job;
            leader.job = Job { id, intent, step, started, cancel, ..Job::default() };
            leader.known.changed = false;
        }
        if self.job.id == 0 {
            self.job = Job::default();
        }
        let [a, b] = self.workers.map(|worker| {
            let Worker { phase, lease, registration, settling, flight, .. } = worker;
            (phase, lease, registration, settling, flight)
        });
        match a.cmp(&b) {
            Ordering::Less => self.compacted(),
            Ordering::Greater => self.swapped().compacted(),
            Ordering::Equal => self.compacted().min(self.swapped().compacted()),
        }
    }

    /// The same state with the workers' names exchanged.
    fn swapped(mut self) -> State {
        self.workers.swap(0, 1);
        self.replica.registrations.swap(0, 1);
        for owner in [&mut self.job.owner, &mut self.replica.job.owner] {
            if *owner != 0 {
                *owner = 3 - *owner;
            }
        }
        self
    }

    fn compacted(mut self) -> State {
        let State { job, known, workers: [a, b], leaders: [x, y], server, cache, shown, replica, .. } =
            &mut self;
        compact([&mut job.token, &mut a.token, &mut b.token, &mut replica.job.token]);
        compact([&mut job.signals, &mut a.signals, &mut b.signals]);
        compact([&mut known.version, &mut x.known.version, &mut y.known.version, shown]);
        let (from_x, from_y) = (&mut x.object, &mut y.object);
        compact([
            &mut server.resource_version,
            &mut cache.resource_version,
            &mut from_x.resource_version,
            &mut from_y.resource_version,
        ]);
        compact([
            &mut job.id,
            &mut a.job,
            &mut b.job,
            &mut x.job.id,
            &mut y.job.id,
            &mut server.status.job,
            &mut cache.status.job,
            &mut from_x.status.job,
            &mut from_y.status.job,
            &mut replica.job.id,
        ]);
        self
    }
}
