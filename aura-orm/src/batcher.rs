//! Requests of concurrent callers, sent together.
//!
//! A commit waits for the disk, and a statement for the network. So while some
//! requests are in flight, those that arrive meanwhile wait, and are then sent in one
//! batch. No delay is added: below the in-flight limit a request is sent at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The most requests in one batch.
const MAX_BATCH: usize = 128;

/// The most bytes of the requests in one batch, unless one has more: they are copied on
/// their way.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// The most bytes of the requests that wait.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The most requests and batches in flight: a server merges the commits of several,
/// too.
const MAX_IN_FLIGHT: usize = 2;

/// Collects requests that arrive while others are in flight.
#[derive(Debug)]
pub struct Batcher<T, R>(Mutex<Queue<T, R>>);

#[derive(Debug)]
struct Queue<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    /// Of the requests that wait.
    bytes: usize,
    in_flight: usize,
}

/// A request with its caller.
#[derive(Debug)]
struct Waiting<T, R> {
    request: T,
    bytes: usize,
    caller: oneshot::Sender<Option<R>>,
}

impl<T, R> Queue<T, R> {
    /// Takes the requests of the next batch; at least one, if there is one.
    fn next_batch(&mut self) -> Unsent<T, R> {
        let (mut batch, mut bytes) = (Vec::new(), 0_usize);
        while let Some(next) = self.waiting.pop_front_if(|next| {
            bytes = bytes.saturating_add(next.bytes);
            batch.is_empty() || batch.len() < MAX_BATCH && bytes <= MAX_BATCH_BYTES
        }) {
            self.bytes -= next.bytes;
            batch.push(next);
        }
        Unsent(batch)
    }
}

/// Requests that were not sent. Dropped, it has each caller send its own.
struct Unsent<T, R>(Vec<Waiting<T, R>>);

impl<T, R> Drop for Unsent<T, R> {
    fn drop(&mut self) {
        for unsent in self.0.drain(..) {
            // A caller that has gone needs no result.
            let _ = unsent.caller.send(None);
        }
    }
}

/// How a request goes on.
pub enum Slot<T: Send + 'static, R: Send + 'static, B: Batch<T, R>> {
    /// The caller sends it, alone. Until this is dropped it counts as in flight.
    Leader(Leader<T, R, B>),
    /// The result of the batch that it was sent with; `None` when the caller is to
    /// send it alone after all, also where those that wait have 64 MiB already.
    Follower(Option<R>),
    /// The batch was sent and its task ended without a result, as with its runtime: the
    /// request may have been done.
    Lost,
}

/// Sends several requests.
pub trait Batch<T, R>: Clone + Send + 'static {
    /// Returns about how many bytes a request has. A batch has at most 8 MiB, unless one
    /// request has more.
    #[must_use]
    fn bytes(_: &T) -> usize {
        0
    }

    /// Sends the requests and returns the results in their order; `None` for a
    /// request that its caller is to send alone.
    fn send(self, requests: Vec<T>) -> impl Future<Output = Vec<Option<R>>> + Send;
}

/// A request in flight. Its end sends what waits.
pub struct Leader<T: Send + 'static, R: Send + 'static, B: Batch<T, R>> {
    batcher: Arc<Batcher<T, R>>,
    batch: B,
}

impl<T, R> Default for Batcher<T, R> {
    fn default() -> Self {
        Self(Mutex::new(Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            in_flight: 0,
        }))
    }
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    fn queue(&self) -> MutexGuard<'_, Queue<T, R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place: returns at once below the in-flight limit, and otherwise with
    /// the result of the batch that the request was sent with.
    pub async fn join<B: Batch<T, R>>(
        self: &Arc<Self>,
        request: impl FnOnce() -> T,
        batch: B,
    ) -> Slot<T, R, B> {
        let result = {
            let mut queue = self.queue();
            if queue.in_flight < MAX_IN_FLIGHT {
                queue.in_flight += 1;
                let batcher = self.clone();
                return Slot::Leader(Leader { batcher, batch });
            }
            let request = request();
            let bytes = B::bytes(&request);
            if queue.bytes.saturating_add(bytes) > MAX_WAITING_BYTES {
                return Slot::Follower(None);
            }
            queue.bytes += bytes;
            let (caller, result) = oneshot::channel();
            queue.waiting.push_back(Waiting {
                request,
                bytes,
                caller,
            });
            result
        };
        // A caller's sender is dropped without a result only after its request was sent.
        result.await.map_or(Slot::Lost, Slot::Follower)
    }
}

impl<T: Send + 'static, R: Send + 'static, B: Batch<T, R>> Drop for Leader<T, R, B> {
    fn drop(&mut self) {
        let mut queue = self.batcher.queue();
        let mut next = queue.next_batch();
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (next.0.is_empty(), runtime) else {
            // Without a runtime there is no task to send them in.
            let unsent = Unsent(queue.waiting.drain(..).collect());
            queue.bytes = 0;
            queue.in_flight -= 1;
            drop(queue);
            drop(unsent);
            return;
        };
        drop(queue);
        let in_flight = Self {
            batcher: self.batcher.clone(),
            batch: self.batch.clone(),
        };
        // In a task of its own, because the caller may be dropped.
        runtime.spawn(async move {
            let unsent = std::mem::take(&mut next.0);
            let unsent = unsent
                .into_iter()
                .map(|unsent| (unsent.request, unsent.caller));
            let (requests, callers): (Vec<_>, Vec<_>) = unsent.unzip();
            let results = in_flight.batch.clone().send(requests).await;
            for (caller, result) in callers.into_iter().zip(results) {
                let _ = caller.send(result);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use tokio::runtime::Builder;
    use tokio::sync::Notify;

    use super::*;

    /// Doubles numbers, but for 13; counts its sent.
    #[derive(Clone)]
    struct Double(Arc<AtomicUsize>);

    impl Batch<u64, u64> for Double {
        async fn send(self, requests: Vec<u64>) -> Vec<Option<u64>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            assert!(!requests.contains(&666), "a bug in the batch");
            requests
                .into_iter()
                .map(|number| (number != 13).then_some(number * 2))
                .collect()
        }
    }

    /// Sends requests while the in-flight limit is reached, and drops the callers at
    /// the odd places. Returns the number of sent and the results of the others: none for
    /// one that is lost.
    async fn send_behind_others(requests: &[u64]) -> (usize, Vec<Option<Option<u64>>>) {
        let batcher = Arc::new(Batcher::default());
        let sent = Arc::<AtomicUsize>::default();
        let mut leaders = Vec::new();
        for _ in 0..MAX_IN_FLIGHT {
            leaders.push(batcher.join(|| 1, Double(sent.clone())).await);
        }
        let waiting = requests.iter().enumerate().map(|(place, &number)| {
            let (batcher, sent) = (batcher.clone(), sent.clone());
            let waiting = tokio::spawn(async move {
                match batcher.join(|| number, Double(sent)).await {
                    Slot::Leader(_) => panic!("the limit is reached"),
                    Slot::Follower(result) => Some(result),
                    Slot::Lost => None,
                }
            });
            (place, waiting)
        });
        let waiting: Vec<_> = waiting.collect();
        while batcher.queue().waiting.len() < requests.len() {
            tokio::task::yield_now().await;
        }
        for (_, odd) in waiting.iter().filter(|(place, _)| place % 2 == 1) {
            odd.abort();
        }
        drop(leaders);
        let mut results = Vec::new();
        for (_, waiting) in waiting.into_iter().filter(|(place, _)| place % 2 == 0) {
            results.push(waiting.await.expect("no panic"));
        }
        while batcher.queue().in_flight > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(
            batcher.join(|| 1, Double(sent.clone())).await,
            Slot::Leader(_)
        ));
        (sent.load(Ordering::Relaxed), results)
    }

    #[tokio::test]
    async fn each_request_of_a_batch_gets_its_own_result() {
        let (sent, results) = send_behind_others(&[2, 0, 13, 0, 4]).await;
        let expected = vec![Some(Some(4)), Some(None), Some(Some(8))];
        assert_eq!((sent, results), (1, expected));
    }

    #[tokio::test]
    async fn many_requests_are_sent_in_several_batches() {
        let many: Vec<u64> = (0..300).collect();
        let (sent, results) = send_behind_others(&many).await;
        assert_eq!(sent, 3);
        let doubled = (0..300)
            .step_by(2)
            .map(|n| Some((n != 13).then_some(n * 2)));
        assert_eq!(results, doubled.collect::<Vec<_>>());
    }

    /// Counts the bytes of each batch.
    #[derive(Clone)]
    struct Sizes(Arc<Mutex<Vec<usize>>>);

    impl Batch<usize, usize> for Sizes {
        fn bytes(request: &usize) -> usize {
            *request
        }

        async fn send(self, requests: Vec<usize>) -> Vec<Option<usize>> {
            let mut sizes = self.0.lock().expect("no panic");
            sizes.push(requests.iter().sum());
            requests.into_iter().map(Some).collect()
        }
    }

    /// Sends requests of these bytes behind others, and returns the bytes of each batch, and
    /// how many requests are to be sent alone.
    async fn send_bytes(requests: &[usize]) -> (Vec<usize>, usize) {
        let batcher = Arc::new(Batcher::default());
        let sizes = Sizes(Arc::default());
        let join = |request| batcher.join(move || request, sizes.clone());
        let leader = (join(1).await, join(1).await);
        let mut waiting: Vec<_> = requests.iter().map(|&one| Box::pin(join(one))).collect();
        let polled: Vec<_> = waiting.iter_mut().map(FutureExt::now_or_never).collect();
        let alone = polled.iter().flatten().count();
        drop(leader);
        for (waiting, polled) in waiting.into_iter().zip(polled) {
            if polled.is_none() {
                assert!(matches!(waiting.await, Slot::Follower(Some(_))));
            }
        }
        assert_eq!(batcher.queue().bytes, 0);
        let sizes = sizes.0.lock().expect("no panic").clone();
        (sizes, alone)
    }

    #[tokio::test]
    async fn a_batch_ends_with_its_bytes() {
        const MIB: usize = 1 << 20;
        let (sizes, alone) = send_bytes(&[4 * MIB, 4 * MIB, 1, 17 * MIB, 1, 1]).await;
        assert_eq!((sizes, alone), (vec![8 * MIB, 1, 17 * MIB, 2], 0));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes() {
        const MIB: usize = 1 << 20;
        let (sizes, alone) = send_bytes(&[17 * MIB; 5]).await;
        assert_eq!((sizes, alone), (vec![17 * MIB; 3], 2));
    }

    #[tokio::test]
    async fn requests_of_a_batch_that_panics_are_lost() {
        let (sent, results) = send_behind_others(&[2, 0, 666]).await;
        assert_eq!((sent, results), (1, vec![None, None]));
    }

    /// Says that it was sent, and never ends.
    #[derive(Clone)]
    struct Endless(Arc<Notify>);

    impl Batch<u64, u64> for Endless {
        async fn send(self, _: Vec<u64>) -> Vec<Option<u64>> {
            self.0.notify_one();
            std::future::pending().await
        }
    }

    /// Ends the runtime of the leaders, before or after it has sent the request of a
    /// follower in another, and returns how the follower goes on.
    fn end_of_runtime(sent: bool) -> Slot<u64, u64, Endless> {
        let runtime = || Builder::new_current_thread().build().expect("a runtime");
        let (leaders, followers) = (runtime(), runtime());
        let batcher = Arc::new(Batcher::default());
        let begun = Arc::new(Notify::new());
        let join = || batcher.join(|| 1, Endless(begun.clone()));
        let mut follower = Box::pin(join());
        leaders.block_on(async {
            let places = (join().await, join().await);
            assert!(follower.as_mut().now_or_never().is_none());
            drop(places);
            if sent {
                begun.notified().await;
            }
        });
        drop(leaders);
        let slot = followers.block_on(follower);
        assert_eq!(batcher.queue().in_flight, 0);
        slot
    }

    #[test]
    fn a_request_is_lost_with_the_runtime_that_sent_it() {
        assert!(matches!(end_of_runtime(true), Slot::Lost));
        assert!(matches!(end_of_runtime(false), Slot::Follower(None)));
    }
}
