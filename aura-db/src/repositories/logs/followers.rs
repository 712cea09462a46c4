//! What the followers of the log share in one process: which entries wake which of them, and
//! one look at the head of the log for all that are woken at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entity::WorkflowId;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::watch;

use super::gap_queries::Head;

/// What the followers of the log share.
#[derive(Default)]
pub(crate) struct Followers {
    /// Numbers moments: appends that were committed, calls of followers, starts of looks.
    moments: AtomicU64,
    /// The last append for the followers of each workflow, and with `None` of all.
    appends: Mutex<BTreeMap<Option<WorkflowId>, watch::Sender<u64>>>,
    looks: Mutex<Looks>,
}

#[derive(Default)]
struct Looks {
    /// The last one that ended, and when it began.
    done: Option<(u64, Head)>,
    /// The newest, and when it began; 0 while it waits for the one before it.
    newest: Option<(Arc<AtomicU64>, WeakShared<Look>)>,
}

/// A look at the head; `None` when it failed. It goes on whichever of those who wait for it
/// is polled, and ends when none is left.
type Look = BoxFuture<'static, Option<Head>>;

impl Followers {
    /// Returns the number of this moment: greater than those of all that happened before it.
    pub(super) fn now(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns what changes when entries of a workflow, or any, are committed by this
    /// process: the moment of the last.
    pub(super) fn subscribe(&self, workflow: Option<WorkflowId>) -> watch::Receiver<u64> {
        let mut appends = self.appends();
        appends.retain(|_, append| append.receiver_count() > 0);
        let append = appends.entry(workflow);
        append.or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Wakes the followers of these workflows, and those of all.
    pub(crate) fn notify(&self, workflows: &BTreeSet<i64>) {
        let appends = self.appends();
        // Under the lock, so that a later append is never replaced by an earlier one.
        let now = self.now();
        let own = workflows.iter().map(|id| Some(WorkflowId(*id)));
        for key in std::iter::once(None).chain(own) {
            if let Some(append) = appends.get(&key) {
                append.send_replace(now);
            }
        }
    }

    /// Returns what a look at the head saw that began after this moment; `None` when it
    /// failed. One that is under way or done is shared; otherwise `look` runs, after the
    /// one that is under way.
    pub(super) async fn look<F, Fut>(self: &Arc<Self>, after: u64, look: F) -> Option<Head>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Option<Head>> + Send + 'static,
    {
        let shared = {
            let mut looks = self.looks();
            if let Some((_, head)) = looks.done.as_ref().filter(|(began, _)| *began > after) {
                return Some(head.clone());
            }
            let newest = looks.newest.as_ref();
            let newest = newest
                .and_then(|(began, look)| Some((began.load(Ordering::SeqCst), look.upgrade()?)));
            match newest {
                Some((began, newest)) if began == 0 || began > after => newest,
                newest => {
                    let began = Arc::default();
                    let before = newest.map(|(_, newest)| newest);
                    let next = self.clone().begin(Arc::clone(&began), before, look);
                    let next = next.boxed().shared();
                    looks.newest = next.downgrade().map(|weak| (began, weak));
                    next
                }
            }
        };
        shared.await
    }

    async fn begin<F, Fut>(
        self: Arc<Self>,
        began: Arc<AtomicU64>,
        before: Option<Shared<Look>>,
        look: F,
    ) -> Option<Head>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Option<Head>>,
    {
        if let Some(before) = before {
            before.await;
        }
        let now = self.now();
        began.store(now, Ordering::SeqCst);
        let head = look().await?;
        self.looks().done = Some((now, head.clone()));
        Some(head)
    }

    fn appends(&self) -> MutexGuard<'_, BTreeMap<Option<WorkflowId>, watch::Sender<u64>>> {
        self.appends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{join_all, poll_immediate};
    use tokio::sync::oneshot;

    use super::*;

    fn head(newest: i64) -> Head {
        Head {
            newest,
            ..Head::default()
        }
    }

    /// A look that sees this, and counts.
    fn seen(count: &Arc<AtomicU64>, newest: i64) -> impl FnOnce() -> Look + Send + 'static {
        let count = count.clone();
        move || {
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Some(head(newest))
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn followers_that_are_woken_together_share_a_look() {
        let (followers, count) = (Arc::<Followers>::default(), Arc::default());
        let all: Vec<_> = (0..50).map(|_| followers.subscribe(None)).collect();
        for round in 1..=3 {
            followers.notify(&BTreeSet::from([7]));
            let looks = all.iter().map(|news| {
                let woken = *news.borrow();
                followers.look(woken, seen(&count, round))
            });
            let heads = join_all(looks).await;
            assert!(heads.iter().all(|seen| *seen == Some(head(round))));
            // Also a later one.
            let late = followers.look(*all[0].borrow(), seen(&count, 99)).await;
            assert_eq!(late, Some(head(round)));
            assert_eq!(count.load(Ordering::SeqCst), round.unsigned_abs());
        }
    }

    /// What was committed after a look had begun may be missing in it.
    #[tokio::test]
    async fn a_later_call_gets_a_later_look() {
        let (followers, count) = (Arc::<Followers>::default(), Arc::default());
        let mut first = Box::pin(followers.look(followers.now(), seen(&count, 1)));
        assert!(poll_immediate(first.as_mut()).await.is_none());
        // All of these share the second.
        let later = (0..5).map(|_| followers.look(followers.now(), seen(&count, 2)));
        let later = join_all(later).await;
        assert!(later.iter().all(|seen| *seen == Some(head(2))), "{later:?}");
        assert_eq!(first.await, Some(head(1)));
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_unpolled_or_dropped_future_delays_no_other() {
        let (followers, count) = (Arc::<Followers>::default(), Arc::default());
        for is_dropped in [false, true] {
            let moment = followers.now();
            let mut first = Box::pin(followers.look(moment, seen(&count, 1)));
            assert!(poll_immediate(first.as_mut()).await.is_none());
            if is_dropped {
                drop(first);
                assert_eq!(followers.look(moment, seen(&count, 2)).await, Some(head(2)));
            } else {
                assert_eq!(followers.look(moment, seen(&count, 2)).await, Some(head(1)));
                let later = followers.look(followers.now(), seen(&count, 3)).await;
                assert_eq!(later, Some(head(3)));
            }
        }
    }

    #[tokio::test]
    async fn a_look_that_fails_is_made_again() {
        let (followers, count) = (Arc::<Followers>::default(), Arc::default());
        let moment = followers.now();
        assert_eq!(followers.look(moment, || async { None }).await, None);
        assert_eq!(followers.look(moment, seen(&count, 1)).await, Some(head(1)));
    }

    #[tokio::test]
    async fn a_look_ends_with_the_last_that_waits() {
        let followers = Arc::<Followers>::default();
        let (held, gone) = oneshot::channel::<()>();
        let never = || async move {
            let _held = held;
            std::future::pending().await
        };
        let mut only = Box::pin(followers.look(followers.now(), never));
        assert!(poll_immediate(only.as_mut()).await.is_none());
        drop(only);
        assert!(gone.await.is_err(), "it is dropped");
    }

    #[test]
    fn each_is_woken_by_its_own() {
        let followers = Followers::default();
        let (one, two) = (Some(WorkflowId(1)), Some(WorkflowId(2)));
        let mut news = [None, one, two].map(|key| followers.subscribe(key));
        let mut woken = |workflows: &[i64]| {
            followers.notify(&workflows.iter().copied().collect());
            news.each_mut().map(|news| {
                let has_changed = news.has_changed().expect("it is there");
                news.mark_unchanged();
                has_changed
            })
        };
        assert_eq!(woken(&[1]), [true, true, false]);
        assert_eq!(woken(&[2, 3]), [true, false, true]);
        assert_eq!(woken(&[3]), [true, false, false]);
        drop(news);
        let _other = followers.subscribe(two);
        assert_eq!(followers.appends().len(), 1, "those who have gone");
    }
}
