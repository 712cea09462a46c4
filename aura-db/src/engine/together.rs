//! What several callers do at the same moment, done at once.
//!
//! A commit waits for the disk, and a statement for the network. So while some are
//! under way, those who want the same wait, and then go together. Nobody waits for
//! company: who comes when few are under way goes alone, at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many go together at most.
const TOGETHER: usize = 128;

/// So many are under way at once: a server merges the commits of several, too.
const UNDER_WAY: usize = 2;

/// Those who wait, each with what it wants, and is to be told.
#[derive(Debug)]
pub(crate) struct Together<T, R>(Mutex<Line<T, R>>);

#[derive(Debug)]
struct Line<T, R> {
    waiting: Vec<(T, oneshot::Sender<Option<R>>)>,
    /// So many are under way, whose end is noticed.
    under_way: usize,
}

/// How it goes on for who came.
pub(crate) enum Turn<T: Send + 'static, R: Send + 'static, F: Run<T, R>> {
    /// Alone. Until this is dropped it counts as under way.
    First(First<T, R, F>),
    /// It was done with others'; or not, and is to be done alone.
    Told(Option<R>),
}

/// Does what several want. Each is told what is in its place, if there is
/// something.
pub(crate) trait Run<T, R>: Clone + Send + 'static {
    fn run(self, wanted: Vec<T>) -> impl Future<Output = Vec<Option<R>>> + Send;
}

/// One that is under way. At its end those who wait go.
pub(crate) struct First<T: Send + 'static, R: Send + 'static, F: Run<T, R>> {
    together: Arc<Together<T, R>>,
    run: F,
}

impl<T, R> Default for Together<T, R> {
    fn default() -> Self {
        Self(Mutex::new(Line {
            waiting: Vec::new(),
            under_way: 0,
        }))
    }
}

impl<T: Send + 'static, R: Send + 'static> Together<T, R> {
    fn line(&self) -> MutexGuard<'_, Line<T, R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes at once when few are under way, and else with the others.
    pub(crate) async fn join<F: Run<T, R>>(
        self: &Arc<Self>,
        wanted: impl FnOnce() -> T,
        run: F,
    ) -> Turn<T, R, F> {
        let told = {
            let mut line = self.line();
            if line.under_way < UNDER_WAY {
                line.under_way += 1;
                let together = self.clone();
                return Turn::First(First { together, run });
            }
            let (sender, told) = oneshot::channel();
            line.waiting.push((wanted(), sender));
            told
        };
        Turn::Told(told.await.unwrap_or(None))
    }
}

impl<T: Send + 'static, R: Send + 'static, F: Run<T, R>> Drop for First<T, R, F> {
    fn drop(&mut self) {
        let mut line = self.together.line();
        let count = line.waiting.len().min(TOGETHER);
        let next: Vec<_> = line.waiting.drain(..count).collect();
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (next.is_empty(), runtime) else {
            // Without a runtime nobody waits any more.
            line.waiting.clear();
            line.under_way -= 1;
            return;
        };
        drop(line);
        let under_way = Self {
            together: self.together.clone(),
            run: self.run.clone(),
        };
        // In a task of its own, because the caller may hang up.
        runtime.spawn(async move {
            let (wanted, waiting): (Vec<_>, Vec<_>) = next.into_iter().unzip();
            let results = under_way.run.clone().run(wanted).await;
            for (waiting, result) in waiting.into_iter().zip(results) {
                // Who has hung up doesn't need to be told.
                let _ = waiting.send(result);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Doubles numbers, but not the unlucky one; counts how often it ran.
    #[derive(Clone)]
    struct Double(Arc<AtomicUsize>);

    impl Run<u64, u64> for Double {
        async fn run(self, wanted: Vec<u64>) -> Vec<Option<u64>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            assert!(!wanted.contains(&666), "a mistake in what is run");
            wanted
                .into_iter()
                .map(|number| (number != 13).then_some(number * 2))
                .collect()
        }
    }

    /// How many times it ran, and what was told to those who came while as many
    /// were under way as may; those at the odd places hang up.
    async fn those_after_the_first(wanted: &[u64]) -> (usize, Vec<Option<u64>>) {
        let together = Arc::new(Together::default());
        let runs = Arc::<AtomicUsize>::default();
        let mut first = Vec::new();
        for _ in 0..UNDER_WAY {
            first.push(together.join(|| 1, Double(runs.clone())).await);
        }
        let waiting = wanted.iter().enumerate().map(|(place, &number)| {
            let (together, runs) = (together.clone(), runs.clone());
            let waiting = tokio::spawn(async move {
                match together.join(|| number, Double(runs)).await {
                    Turn::First(_) => panic!("others are under way"),
                    Turn::Told(told) => told,
                }
            });
            (place, waiting)
        });
        let waiting: Vec<_> = waiting.collect();
        while together.line().waiting.len() < wanted.len() {
            tokio::task::yield_now().await;
        }
        for (_, odd) in waiting.iter().filter(|(place, _)| place % 2 == 1) {
            odd.abort();
        }
        drop(first);
        let mut told = Vec::new();
        for (_, waiting) in waiting.into_iter().filter(|(place, _)| place % 2 == 0) {
            told.push(waiting.await.expect("no panic"));
        }
        while together.line().under_way > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(
            together.join(|| 1, Double(runs.clone())).await,
            Turn::First(_)
        ));
        (runs.load(Ordering::Relaxed), told)
    }

    #[tokio::test]
    async fn those_who_wait_go_together_and_each_is_told_its_own() {
        let (runs, told) = those_after_the_first(&[2, 0, 13, 0, 4]).await;
        assert_eq!((runs, told), (1, vec![Some(4), None, Some(8)]));
    }

    #[tokio::test]
    async fn a_crowd_goes_in_parts() {
        let crowd: Vec<u64> = (0..300).collect();
        let (runs, told) = those_after_the_first(&crowd).await;
        assert_eq!(runs, 3);
        let doubled = (0..300).step_by(2).map(|n| (n != 13).then_some(n * 2));
        assert_eq!(told, doubled.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn after_a_panic_each_goes_alone() {
        let (runs, told) = those_after_the_first(&[2, 0, 666]).await;
        assert_eq!((runs, told), (1, vec![None, None]));
    }
}
