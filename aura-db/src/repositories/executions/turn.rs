//! Whose turn it is.
//!
//! Owners take turns, so that one who queues 100,000 executions doesn't keep the others
//! waiting: each claim begins behind the owner of the last, and wraps around once. Each process
//! has its own turns, and of each queue, because owners of one may have nothing in another.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use entity::executions;

use super::limits::LimitOf;

/// How often a process looks for what is due or has lost its worker while there is other work.
const PAUSE: TimeDelta = TimeDelta::seconds(1);

/// How often a process looks for what waits for limits that are gone.
const SWEEP: TimeDelta = TimeDelta::minutes(1);

/// The most limits that are remembered. What waits for others is let go by the look each second.
const MOST_LIMITS: usize = 10_000;

/// The most queues whose turns are remembered.
const MOST_QUEUES: usize = 1_024;

/// What a process remembers about the queues.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By queue the owner whose execution was taken last.
    last: HashMap<String, i64>,
    /// When the queues were last looked after.
    maintained: Option<DateTime<Utc>>,
    /// When what waits for limits that are gone was last looked for.
    swept: Option<DateTime<Utc>>,
    /// Whether there were limits at the last look.
    has_limits: bool,
    /// The limits that claims of this process were under, by what they count.
    limits: HashMap<LimitOf, i64>,
}

/// A stretch of a queue: the owners from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) queue: String,
    pub(super) low: i64,
    pub(super) high: i64,
}

impl Turns {
    fn state<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what to look at, one after the other.
    pub(super) fn ranges(&self, queues: &[String]) -> Vec<Range> {
        let range = |queue: &String, low, high| Range {
            queue: queue.clone(),
            low,
            high,
        };
        self.state(|state| {
            let of_queue = |queue| match state.last.get(queue) {
                Some(&last) if last < i64::MAX => vec![
                    range(queue, last + 1, i64::MAX),
                    range(queue, i64::MIN, last),
                ],
                _ => vec![range(queue, i64::MIN, i64::MAX)],
            };
            queues.iter().flat_map(of_queue).collect()
        })
    }

    /// Remembers by queue whose executions were taken last.
    pub(super) fn taken(&self, last: Vec<(String, i64)>) {
        self.state(|state| {
            if state.last.len() >= MOST_QUEUES {
                state.last.clear();
            }
            state.last.extend(last);
        });
    }

    /// Returns whether it is time to look after the queues, also when the clock was set back.
    pub(super) fn needs_maintenance(&self, now: DateTime<Utc>) -> bool {
        self.state(|state| {
            state
                .maintained
                .is_none_or(|last| now < last || now - last >= PAUSE)
        })
    }

    /// Returns whether it is time to look for what waits for limits that are gone.
    pub(super) fn needs_sweep(&self, now: DateTime<Utc>) -> bool {
        let is_old = |last| now < last || now - last >= SWEEP;
        self.state(|state| state.swept.is_none_or(is_old))
    }

    /// Remembers that it was looked for.
    pub(super) fn swept(&self, now: DateTime<Utc>) {
        self.state(|state| state.swept = Some(now));
    }

    /// Returns whether there were limits at the last look.
    pub(super) fn has_limits(&self) -> bool {
        self.state(|state| state.has_limits)
    }

    /// Remembers whether there are limits. Returns whether that is new.
    pub(super) fn set_has_limits(&self, has_limits: bool) -> bool {
        let before = self.state(|state| std::mem::replace(&mut state.has_limits, has_limits));
        has_limits && !before
    }

    /// Remembers limits.
    pub(super) fn learn(&self, limits: &[(LimitOf, i64)]) {
        self.state(|state| {
            for &(of, id) in limits {
                if state.limits.len() >= MOST_LIMITS && !state.limits.contains_key(&of) {
                    state.limits.clear();
                }
                state.limits.insert(of, id);
            }
        });
    }

    pub(super) fn forget(&self, of: LimitOf) {
        self.state(|state| state.limits.remove(&of));
    }

    /// Returns the limits of these that are remembered.
    pub(super) fn limits_of(&self, keys: &[LimitOf]) -> Vec<i64> {
        self.state(|state| {
            let limits = keys.iter().filter_map(|of| state.limits.get(of));
            limits.copied().collect()
        })
    }

    /// Remembers that they were looked after, and for now completely.
    pub(super) fn maintained(&self, now: DateTime<Utc>) {
        self.state(|state| state.maintained = Some(now));
    }
}

/// Returns by queue whose executions were taken last. Of the two ranges of a queue it is the
/// later that gave something.
pub(super) fn last_of(ranges: &[Range], taken: &[executions::Model]) -> Vec<(String, i64)> {
    let owner_in = |range: &Range| {
        let of_range = taken.iter().filter(|execution| {
            execution.queue == range.queue
                && (range.low..=range.high).contains(&execution.owner_id.0)
        });
        of_range.map(|execution| execution.owner_id.0).max()
    };
    let last = ranges
        .iter()
        .filter_map(|range| Some((range.queue.clone(), owner_in(range)?)));
    last.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(turns: &Turns) -> Vec<(i64, i64)> {
        let ranges = turns.ranges(&["q".to_owned()]);
        ranges.iter().map(|range| (range.low, range.high)).collect()
    }

    #[test]
    fn each_look_begins_behind_the_last_and_wraps_around_once() {
        let turns = Turns::default();
        assert_eq!(ranges(&turns), [(i64::MIN, i64::MAX)]);
        for owner in [0, -3, i64::MAX - 1] {
            turns.state(|state| state.last.insert("q".to_owned(), owner));
            assert_eq!(ranges(&turns), [(owner + 1, i64::MAX), (i64::MIN, owner)]);
        }
        turns.state(|state| state.last.insert("q".to_owned(), i64::MAX));
        assert_eq!(ranges(&turns), [(i64::MIN, i64::MAX)]);
    }

    #[test]
    fn queues_are_looked_after_each_second_and_when_the_clock_was_set_back() {
        let turns = Turns::default();
        let now = DateTime::UNIX_EPOCH;
        assert!(turns.needs_maintenance(now));
        turns.maintained(now);
        assert!(!turns.needs_maintenance(now));
        assert!(!turns.needs_maintenance(now + TimeDelta::milliseconds(999)));
        assert!(turns.needs_maintenance(now + PAUSE));
        assert!(turns.needs_maintenance(now - TimeDelta::microseconds(1)));
    }
}
