//! Wakes workers when there is something to take.
//!
//! A process wakes its own workers at once, after the commit. On PostgreSQL it tells others with
//! NOTIFY: outside of the transaction, because a transaction with one takes a lock of the whole
//! cluster at its commit, and for what is queued within 50 ms together. What is lost (by a
//! pooler, a connection that has ended, SQL, an older build) costs a second.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aura_orm::TypedQuery;
use sea_orm::Statement;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::{Executions, Worker};
use crate::context::Executor;

/// The channel of the notifications.
const CHANNEL: &str = "aura_executions";

/// How long what is queued is collected for one notification.
const COLLECTED: Duration = Duration::from_millis(50);

/// How long a worker waits that nothing wakes, more or less by a quarter.
const POLL: Duration = Duration::from_secs(1);

/// How long to wait before a connection that has ended is opened again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The most queues that are told apart; who queues in another wakes any worker.
const MOST_QUEUES: usize = 10_000;

/// Where the number of a queue begins in a key of a commit hook. Below it, a count makes each
/// execution of a transaction a key of its own.
const QUEUE_BITS: u32 = 40;

/// The workers of a process that wait.
#[derive(Debug)]
pub(crate) struct Waiters {
    executor: Executor,
    /// Tells the notifications of this process from others'.
    process: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The queues by their numbers, from 1.
    queues: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, i64>,
    /// What those who may wait wait for.
    workers: HashMap<u64, Arc<[String]>>,
    waiting: VecDeque<Waiting>,
    /// How many executions were queued while no worker of the queue was waiting.
    pending: HashMap<String, u64>,
    /// How many executions other processes are to be told of; with `None` of any queue.
    outgoing: BTreeMap<String, u64>,
    is_sending: bool,
    listening: Option<AbortHandle>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    queues: Arc<[String]>,
    wake: oneshot::Sender<()>,
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Wakes as many workers of a queue, or of any. What is left is for the next that wait.
    fn wake(&mut self, queue: Option<&str>, mut count: u64) {
        let takes =
            |queues: &[String]| queue.is_none_or(|queue| queues.iter().any(|taken| taken == queue));
        while count > 0 {
            let found = self
                .waiting
                .iter()
                .position(|waiting| takes(&waiting.queues));
            let Some(woken) = found.and_then(|index| self.waiting.remove(index)) else {
                break;
            };
            // One whose caller has gone wakes another.
            count -= u64::from(woken.wake.send(()).is_ok());
        }
        let workers = self.workers.values().filter(|queues| takes(queues));
        let most = workers.count() as u64;
        if let Some(queue) = queue.filter(|_| count > 0 && most > 0) {
            let pending = self.pending.entry(queue.to_owned()).or_default();
            *pending = (*pending + count).min(most);
        }
    }
}

impl Waiters {
    pub(crate) fn new(executor: Executor) -> Self {
        Self {
            executor,
            process: format!("{:016x}", rand::random::<u64>()),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a key of a commit hook, of an execution that is queued.
    pub(crate) fn key(&self, queue: &str) -> i64 {
        let mut state = self.state();
        let number = match state.numbers.get(queue) {
            Some(number) => *number,
            None if state.queues.len() < MOST_QUEUES => {
                let queue = Arc::<str>::from(queue);
                state.queues.push(queue.clone());
                let number = i64::try_from(state.queues.len()).unwrap_or(0);
                state.numbers.insert(queue, number);
                number
            }
            None => 0,
        };
        let count = state.ticket() & ((1 << QUEUE_BITS) - 1);
        number << QUEUE_BITS | i64::try_from(count).unwrap_or(0)
    }

    /// Wakes workers for what was queued.
    pub(crate) fn queued(self: &Arc<Self>, keys: &BTreeSet<i64>) {
        let mut state = self.state();
        let mut counts = BTreeMap::<Option<Arc<str>>, u64>::new();
        for key in keys {
            let index = usize::try_from((key >> QUEUE_BITS) - 1);
            let queue = index
                .ok()
                .and_then(|index| state.queues.get(index))
                .cloned();
            *counts.entry(queue).or_default() += 1;
        }
        let is_shared = self.executor.backend() == sea_orm::DbBackend::Postgres;
        for (queue, count) in counts {
            state.wake(queue.as_deref(), count);
            if is_shared {
                let queue = queue.as_deref().unwrap_or_default().to_owned();
                *state.outgoing.entry(queue).or_default() += count;
            }
        }
        let runtime = tokio::runtime::Handle::try_current();
        if let (true, false, Ok(runtime)) = (is_shared, state.is_sending, runtime) {
            state.is_sending = true;
            runtime.spawn(self.clone().send());
        }
    }

    /// Wakes workers of this process, of any queue.
    pub(super) fn wake_any(&self, count: u64) {
        self.state().wake(None, count);
    }

    /// Tells other processes, until there is nothing left to tell.
    async fn send(self: Arc<Self>) {
        loop {
            let outgoing = {
                let mut state = self.state();
                state.is_sending = !state.outgoing.is_empty();
                std::mem::take(&mut state.outgoing)
            };
            if outgoing.is_empty() {
                return;
            }
            for (queue, count) in outgoing {
                let text = format!("{} {count} {queue}", self.process);
                let sql = "SELECT pg_notify($1, $2)";
                let values = [CHANNEL.into(), text.into()];
                let notify = Statement::from_sql_and_values(self.executor.backend(), sql, values);
                let sent = self.executor.fetch_all(TypedQuery::<()>::sql(notify)).await;
                if let Err(error) = sent {
                    tracing::debug!(target: "aura_db::executions", %error, "telling other workers");
                }
            }
            tokio::time::sleep(COLLECTED).await;
        }
    }

    /// Wakes workers for what another process has queued.
    fn received(&self, text: &str) {
        let mut parts = text.splitn(3, ' ');
        let (Some(process), Some(count), Some(queue)) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        if let Ok(count) = count.parse::<u64>()
            && process != self.process
        {
            let queue = Some(queue).filter(|queue| !queue.is_empty());
            self.state().wake(queue, count);
        }
    }

    /// Closes the connection that notifications arrive on.
    pub(crate) fn close(&self) {
        if let Some(listening) = self.state().listening.take() {
            listening.abort();
        }
    }
}

/// Receives what other processes tell, as long as anybody waits for it.
async fn listen(waiters: Weak<Waiters>, executor: Executor) {
    let mut pause = FIRST_PAUSE;
    loop {
        match executor.listen(CHANNEL).await {
            Ok(None) => return,
            Ok(Some(mut listener)) => {
                pause = FIRST_PAUSE;
                while let Some(text) = listener.next().await {
                    let Some(waiters) = waiters.upgrade() else {
                        return;
                    };
                    waiters.received(&text);
                }
            }
            Err(error) => tracing::warn!(
                target: "aura_db::executions",
                %error,
                "no notifications: workers look each second"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Executions {
    /// Returns what wakes this worker when there may be something to [claim](Executions::claim)
    /// in its queues. Create it before the first claim, so that nothing falls in between.
    ///
    /// On PostgreSQL the workers of a process share a connection for it, which `DB_POOL_MAX`
    /// doesn't count and which is closed with the last of them; behind a pooler
    /// (`DB_PREPARED_STATEMENTS=false`) there is none.
    #[must_use]
    pub fn wakeups(&self, worker: &Worker) -> Wakeups {
        let waiters = self.0.waiters().clone();
        let queues = Arc::<[String]>::from(worker.queues.as_slice());
        let id = {
            let mut state = waiters.state();
            let id = state.ticket();
            state.workers.insert(id, queues.clone());
            let runtime = tokio::runtime::Handle::try_current();
            if let (None, Ok(runtime)) = (&state.listening, runtime) {
                let listen = listen(Arc::downgrade(&waiters), waiters.executor.clone());
                state.listening = Some(runtime.spawn(listen).abort_handle());
            }
            id
        };
        Wakeups {
            waiters,
            id,
            queues,
            poll: POLL,
        }
    }
}

/// Wakes a worker when there may be something to take. From [`Executions::wakeups`].
///
/// ```
/// # use std::time::Duration;
/// # use aura_db::{Database, Error, Outcome, Worker};
/// # async fn work(db: Database, stop: impl Future<Output = ()>) -> Result<(), Error> {
/// let (worker, lease) = (Worker::new("worker-1"), Duration::from_secs(60));
/// let mut wakeups = db.executions().wakeups(&worker);
/// tokio::pin!(stop);
/// loop {
///     if let Some(execution) = db.executions().claim(worker.clone(), lease).await? {
///         // …
///         db.executions().finish(&execution, Outcome::success(None)).await?;
///         continue;
///     }
///     tokio::select! {
///         () = wakeups.next() => {}
///         () = &mut stop => return Ok(()),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Wakeups {
    waiters: Arc<Waiters>,
    id: u64,
    queues: Arc<[String]>,
    poll: Duration,
}

impl Wakeups {
    /// Sets how long [`Wakeups::next`] waits where nothing wakes it, more or less by a quarter:
    /// a second, unless it is set, and a millisecond at least.
    #[must_use]
    pub fn poll_every(mut self, pause: Duration) -> Self {
        self.poll = pause.max(Duration::from_millis(1));
        self
    }

    /// Waits until there may be something to take: something was queued in one of the queues
    /// since the last call, by this process or on PostgreSQL by another; or a second has
    /// passed, in which what is due is found, and what was queued in another way. Of several
    /// that wait, each that is queued wakes one. It may be dropped: then another is woken.
    pub async fn next(&mut self) {
        let (wake, woken) = oneshot::channel();
        let ticket = {
            let mut state = self.waiters.state();
            for queue in self.queues.iter() {
                if let Some(pending) = state.pending.get_mut(queue) {
                    *pending -= 1;
                    if *pending == 0 {
                        state.pending.remove(queue);
                    }
                    return;
                }
            }
            let ticket = state.ticket();
            let queues = self.queues.clone();
            state.waiting.push_back(Waiting {
                ticket,
                queues,
                wake,
            });
            ticket
        };
        let mut place = Place {
            waiters: &self.waiters,
            queues: &self.queues,
            ticket,
            is_over: false,
        };
        let pause = self.poll.mul_f64(rand::random_range(0.75..1.25));
        tokio::select! {
            _ = woken => {}
            () = tokio::time::sleep(pause) => {}
        }
        place.is_over = true;
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        let mut state = self.waiters.state();
        state.workers.remove(&self.id);
        if state.workers.is_empty() {
            state.pending.clear();
            if let Some(listening) = state.listening.take() {
                listening.abort();
            }
        }
    }
}

/// The place of one who waits.
struct Place<'a> {
    waiters: &'a Waiters,
    queues: &'a [String],
    ticket: u64,
    /// Whether its caller will look.
    is_over: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.state();
        let before = state.waiting.len();
        state
            .waiting
            .retain(|waiting| waiting.ticket != self.ticket);
        let was_woken = state.waiting.len() == before;
        if was_woken && !self.is_over {
            // Which of its queues it was for isn't known any more.
            for queue in self.queues {
                state.wake(Some(queue), 1);
            }
        }
    }
}
