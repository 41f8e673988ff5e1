//! Lanes: the order in which waiting jobs are claimed.

use serde::{Deserialize, Serialize};

use crate::api::Priority;

/// Where a job waits. A lane is emptied before the next one is looked at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[repr(u8)]
pub enum Lane {
    /// `spec.priority: Urgent`.
    Urgent = 0,
    /// `spec.priority: High`; the default of power changes and reboots.
    High = 1,
    /// `spec.priority: Normal`; the default of reimages.
    Normal = 2,
    /// `spec.priority: Low`; the default of builds, wipes and decommissions.
    Low = 3,
    /// Inspections, whatever the spec says.
    Background = 4,
}

/// Bits of an order key below the lane: milliseconds since the Unix epoch fit with room to spare.
const ORDER_BITS: u32 = 56;

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Urgent, Self::High, Self::Normal, Self::Low, Self::Background];

    /// The name in logs, status and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "Urgent",
            Self::High => "High",
            Self::Normal => "Normal",
            Self::Low => "Low",
            Self::Background => "Background",
        }
    }

    /// The number in the database.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The lane of that number; `None` for one of another release.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }

    /// The first and last order key of this lane.
    pub const fn order_range(self) -> (i64, i64) {
        let first = (self as i64) << ORDER_BITS;
        (first, first | ((1 << ORDER_BITS) - 1))
    }
}

impl From<Priority> for Lane {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Urgent => Self::Urgent,
            Priority::High => Self::High,
            Priority::Normal => Self::Normal,
            Priority::Low => Self::Low,
        }
    }
}

/// The key by which `ready` and `queued` rows are ordered: lane first, then `order` (milliseconds since the Unix
/// epoch at which the job was enqueued; a job keeps it for life).
pub const fn order_key(lane: Lane, order: i64) -> i64 {
    ((lane as i64) << ORDER_BITS) | (order & ((1 << ORDER_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_lane_never_sorts_before_a_higher_one() {
        assert!(order_key(Lane::Urgent, i64::from(u32::MAX) << 10) < order_key(Lane::High, 0));
        for lane in Lane::ALL {
            let (first, last) = lane.order_range();
            let key = order_key(lane, 1_795_000_000_000);
            assert!(first <= key && key <= last);
            assert_eq!(Lane::from_number(lane.number()), Some(lane));
        }
    }
}
