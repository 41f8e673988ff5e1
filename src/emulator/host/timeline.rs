//! When an installer says how far it is, and when it stops.

use super::super::time::Millis;

/// One moment of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It says how far it is.
    Progress(u8),
    /// It gets no further.
    Stop,
    /// All is written.
    Done,
}

/// The moments of an installation that takes `duration`, in milliseconds after its start. One that stops at a
/// percentage has no moment after that.
pub(super) fn timeline(
    duration: Millis,
    interval: Millis,
    stops_at: Option<u8>,
) -> impl Iterator<Item = (Millis, Moment)> {
    let interval = interval.max(1);
    let end = match stops_at {
        Some(percent) => duration * Millis::from(percent.min(100)) / 100,
        None => duration,
    };
    let last = if stops_at.is_some() { Moment::Stop } else { Moment::Done };
    let said = (0..)
        .map(move |step: u64| step * interval)
        .take_while(move |at| *at < end)
        .map(move |at| (at, Moment::Progress((at * 100 / duration.max(1)) as u8)));
    said.chain([(end, last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_said_from_the_start_in_steps_until_all_is_written() {
        let moments: Vec<_> = timeline(100, 40, None).collect();
        let said = [0, 40, 80].map(|at| (at, Moment::Progress(at as u8)));
        assert_eq!(moments[..3], said);
        assert_eq!(moments[3..], [(100, Moment::Done)]);
        assert_eq!(timeline(0, 0, None).collect::<Vec<_>>(), [(0, Moment::Done)]);
    }

    #[test]
    fn an_installation_that_stops_says_nothing_afterwards() {
        let moments: Vec<_> = timeline(1_000, 400, Some(50)).collect();
        assert_eq!(moments, [(0, Moment::Progress(0)), (400, Moment::Progress(40)), (500, Moment::Stop)]);
        assert_eq!(timeline(1_000, 1, Some(0)).collect::<Vec<_>>(), [(0, Moment::Stop)]);
    }
}
