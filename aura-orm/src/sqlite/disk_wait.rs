//! How long commits wait for the disk, which decides where the next one runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::connection::INLINE_BUDGET;

/// How long commits wait for the disk.
#[derive(Debug)]
pub(super) struct DiskWait(AtomicU64);

impl DiskWait {
    /// Nanoseconds that are assumed before the first commits.
    const UNKNOWN: u64 = 16_000_000;

    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Self::UNKNOWN))
    }

    /// Notes a commit. One slow commit outweighs several quick ones: after 16 ms it takes
    /// 43 of them until [`DiskWait::is_short`] again.
    pub(super) fn note(&self, elapsed: Duration) {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let before = self.0.load(Ordering::Relaxed);
        self.0
            .store(elapsed.max(before - before / 16), Ordering::Relaxed);
    }

    /// Returns whether the next commit may be expected to take no longer than a read may
    /// keep a thread of the runtime.
    pub(super) fn is_short(&self) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) < INLINE_BUDGET.as_nanos()
    }
}
