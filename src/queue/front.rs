//! The front of the queue as one fetcher sees it: where to claim next, so that slots are filled in the right order.

use super::{Claim, ClaimFrom, PlaceInQueue, Queue, QueueError, Served};
use crate::job::Incarnation;

/// How many jobs may be taken up now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Slots for jobs of any lane.
    pub any: u32,
    /// Slots beyond those that only `Urgent` jobs may use.
    pub urgent: u32,
}

/// What one fetcher remembers between two claims. One per process: it feeds all slots.
#[derive(Debug)]
pub struct Front {
    served: Served,
}

impl Front {
    /// Knows nothing yet.
    pub fn new(served: Served) -> Self {
        Self { served }
    }
}

impl Queue {
    /// One claim: up to `room` jobs of one lane of one shard, or nothing where nothing waits.
    pub async fn fetch(
        &self,
        front: &mut Front,
        me: Incarnation,
        room: Room,
    ) -> Result<Vec<Claim>, QueueError> {
        for head in self.heads(&front.served).await? {
            if head.place == PlaceInQueue::Parked {
                continue;
            }
            let from = ClaimFrom {
                site: front.served.site.clone(),
                shard: head.shard,
                place: head.place,
                lane: head.lane,
            };
            let claims = self.claim(me, from, room.any).await?;
            if !claims.is_empty() {
                return Ok(claims);
            }
        }
        Ok(Vec::new())
    }
}
