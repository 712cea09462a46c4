//! Where the time comes from.

use std::fmt;

use chrono::{DateTime, SubsecRound, Utc};

/// The source of every time that is written or compared with.
///
/// Tests give [`Executor::with_clock`](crate::Executor::with_clock) one that
/// stands still or jumps.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present moment, to the microsecond: the finest that both databases
    /// keep, so that what was written compares equal to what is read.
    fn now(&self) -> DateTime<Utc>;

    /// Returns whether it is the machine's, in whose place a server's may be used.
    fn is_system(&self) -> bool {
        false
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the machine's clock"
        )]
        let now = Utc::now();
        now.trunc_subsecs(6)
    }

    fn is_system(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_has_whole_microseconds() {
        assert_eq!(SystemClock.now().timestamp_subsec_nanos() % 1000, 0);
    }
}
