//! How many passwords are hashed at once, and how many others wait.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::PasswordError;
use crate::context::Context;

/// The hashes of this process. Those of four are made at once, which bounds their memory to
/// 76 MiB (older hashes with parameters of their own may take up to 16 times as much). A
/// transaction that finds the four in use has one of its own, because it keeps a connection
/// meanwhile, and on SQLite the writer.
static QUEUE: Queue = Queue {
    places: Semaphore::const_new(1_000),
    slots: Semaphore::const_new(4),
    for_transactions: Semaphore::const_new(1),
    wait: Duration::from_secs(10),
    wait_in_transaction: Duration::from_secs(1),
};

struct Queue {
    /// One for each caller that may wait for a slot.
    places: Semaphore,
    /// One for each hash that is made at once.
    slots: Semaphore,
    /// One more for a caller in a transaction.
    for_transactions: Semaphore,
    /// How long a caller waits for a slot.
    wait: Duration,
    /// How long a caller in a transaction waits: less than others wait for SQLite's writer.
    wait_in_transaction: Duration,
}

/// Where a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Outside,
    InTransaction,
}

impl Caller {
    pub(crate) fn of(h: &Context) -> Self {
        if h.in_transaction() {
            Self::InTransaction
        } else {
            Self::Outside
        }
    }
}

impl Queue {
    /// Waits for a slot.
    async fn slot(&self, caller: Caller) -> Result<SemaphorePermit<'_>, PasswordError> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let (slots, wait, _place) = match caller {
            Caller::InTransaction => (&self.for_transactions, self.wait_in_transaction, None),
            Caller::Outside => {
                let place = self.places.try_acquire().map_err(|_| PasswordError::Busy)?;
                (&self.slots, self.wait, Some(place))
            }
        };
        let slot = tokio::time::timeout(wait, slots.acquire()).await;
        let slot = slot.map_err(|_| PasswordError::Busy)?;
        slot.map_err(|_| PasswordError::System)
    }
}

/// Does the slow work on a blocking thread, when a slot is free.
pub(super) async fn run<T: Send + 'static>(
    caller: Caller,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PasswordError> {
    let slot = QUEUE.slot(caller).await?;
    tokio::task::spawn_blocking(move || {
        // Held by the work and not by the caller, which may hang up.
        let _slot = slot;
        work()
    })
    .await
    .map_err(|_| PasswordError::System)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn queue(wait: Duration) -> Queue {
        Queue {
            places: Semaphore::const_new(2),
            slots: Semaphore::const_new(1),
            for_transactions: Semaphore::const_new(1),
            wait,
            wait_in_transaction: wait,
        }
    }

    #[tokio::test]
    async fn its_length_is_bounded() {
        let queue = queue(Duration::from_hours(1));
        let slot = queue.slot(Caller::Outside).await.expect("a slot");
        let mut one = Box::pin(queue.slot(Caller::Outside));
        let mut other = Box::pin(queue.slot(Caller::Outside));
        assert!((&mut one).now_or_never().is_none(), "it waits");
        assert!((&mut other).now_or_never().is_none(), "it waits");
        let third = queue.slot(Caller::Outside).now_or_never();
        assert_eq!(
            third.expect("at once").map(drop),
            Err(PasswordError::Busy),
            "there is no place"
        );
        drop(slot);
        drop(one.await.expect("a slot"));
        drop(other.await.expect("a slot"));
        drop(queue.slot(Caller::Outside).await.expect("a slot"));
    }

    #[tokio::test]
    async fn the_wait_is_bounded() {
        let queue = queue(Duration::ZERO);
        let slot = queue.slot(Caller::Outside).await.expect("a slot");
        let late = queue.slot(Caller::Outside).await.map(drop);
        assert_eq!(late, Err(PasswordError::Busy));
        let own = queue.slot(Caller::InTransaction).await.expect("its own");
        let late = queue.slot(Caller::InTransaction).await.map(drop);
        assert_eq!(late, Err(PasswordError::Busy));
        drop(own);
        drop(slot);
        drop(queue.slot(Caller::Outside).await.expect("a slot"));
    }

    #[tokio::test]
    async fn a_transaction_passes_those_that_wait() {
        let queue = queue(Duration::from_hours(1));
        let _slot = queue.slot(Caller::Outside).await.expect("a slot");
        let mut waiting = Box::pin(queue.slot(Caller::Outside));
        assert!((&mut waiting).now_or_never().is_none(), "it waits");
        let own = queue.slot(Caller::InTransaction).now_or_never();
        drop(own.expect("at once").expect("its own"));
    }
}
