//! Wakes workers when there is something to take.
//!
//! A process wakes its own workers at once, after the commit. On PostgreSQL it notifies others,
//! with NOTIFY: outside of the transaction, because a transaction with one takes a lock of the whole
//! cluster at its commit, and for what is queued within 50 ms together. What is lost (by a
//! pooler, a process that ends, SQL, an older build) costs a second.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aura_orm::TypedQuery;
use sea_orm::{DbBackend, Statement};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

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

/// The longest time between two looks.
const LONGEST_POLL: Duration = Duration::from_hours(24);

/// How long a connection lives, as those of the pool: another server may have its address now.
const MAX_LIFETIME: Duration = Duration::from_mins(30);

/// How long what was queued may keep the database from being closed, and how long the end of the
/// connection may.
const LAST_WORDS: Duration = Duration::from_secs(1);
const CLOSING: Duration = Duration::from_secs(6);

/// The most queues that are distinguished; an execution of another one wakes all workers.
const MOST_QUEUES: usize = 10_000;

/// Where the number of a queue begins in a key of a commit hook. Below it, a count makes each
/// execution of a transaction a key of its own.
const QUEUE_BITS: u32 = 40;

/// The workers of a process that wait.
#[derive(Debug)]
pub(crate) struct Waiters {
    executor: Executor,
    /// Marks the notifications of this process, which it ignores.
    process: String,
    /// The one that the database was opened in, which lives as long as it is used. One that
    /// queues something may end at once.
    runtime: Handle,
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
    /// Executions to notify other processes of, by queue; an empty name is any queue.
    outgoing: BTreeMap<String, u64>,
    is_sending: bool,
    listening: Option<Listening>,
    is_closed: bool,
}

/// What receives the notifications of others, until this is dropped.
#[derive(Debug)]
struct Listening {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    worker: u64,
    queues: Arc<[String]>,
    wake: oneshot::Sender<()>,
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Wakes as many workers of a queue. What is left is for the next that wait.
    fn wake(&mut self, queue: &str, mut count: u64) {
        while count > 0 {
            let mut waiting = self.waiting.iter();
            let found = waiting.position(|waiting| takes(&waiting.queues, queue));
            let Some(woken) = found.and_then(|index| self.waiting.remove(index)) else {
                break;
            };
            // One whose caller has gone wakes another.
            count -= u64::from(woken.wake.send(()).is_ok());
        }
        let workers = self.workers.values();
        let most = workers.filter(|queues| takes(queues, queue)).count() as u64;
        if count > 0 && most > 0 {
            let pending = self.pending.entry(queue.to_owned()).or_default();
            *pending = pending.saturating_add(count).min(most);
        }
    }

    /// Wakes all workers: what was queued meanwhile, or where, is unknown.
    fn wake_all(&mut self) {
        let waiting = self.waiting.drain(..);
        let woken: BTreeSet<_> = waiting
            .filter_map(|waiting| waiting.wake.send(()).is_ok().then_some(waiting.worker))
            .collect();
        let others = self.workers.iter().filter(|(id, _)| !woken.contains(id));
        for queue in others.flat_map(|(_, queues)| queues.iter()) {
            self.pending.entry(queue.clone()).or_insert(1);
        }
    }
}

fn takes(queues: &[String], queue: &str) -> bool {
    queues.iter().any(|taken| taken == queue)
}

impl Waiters {
    /// Must be called within a runtime.
    pub(crate) fn new(executor: Executor) -> Self {
        Self {
            executor,
            process: format!("{:016x}", rand::random::<u64>()),
            runtime: Handle::current(),
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
            let queue = index.ok().and_then(|index| state.queues.get(index));
            *counts.entry(queue.cloned()).or_default() += 1;
        }
        let is_shared = self.executor.backend() == DbBackend::Postgres;
        for (queue, count) in counts {
            match &queue {
                Some(queue) => state.wake(queue, count),
                None => state.wake_all(),
            }
            if is_shared {
                let queue = queue.as_deref().unwrap_or_default().to_owned();
                *state.outgoing.entry(queue).or_default() += count;
            }
        }
        if is_shared && !state.is_sending && !state.is_closed {
            state.is_sending = true;
            self.runtime.spawn(self.clone().send());
        }
    }

    /// Notifies other processes, until there is nothing left to send.
    async fn send(self: Arc<Self>) {
        /// However it ends, as with its runtime.
        struct Sending<'a> {
            waiters: &'a Waiters,
            is_over: bool,
        }
        impl Drop for Sending<'_> {
            fn drop(&mut self) {
                if !self.is_over {
                    self.waiters.state().is_sending = false;
                }
            }
        }

        let mut sending = Sending {
            waiters: &self,
            is_over: false,
        };
        loop {
            {
                // Under one lock, so that what is queued from now on is sent by another task.
                let mut state = self.state();
                if state.outgoing.is_empty() {
                    state.is_sending = false;
                    sending.is_over = true;
                    return;
                }
            }
            self.send_once().await;
            tokio::time::sleep(COLLECTED).await;
        }
    }

    /// Notifies other processes of what there is.
    async fn send_once(&self) {
        let outgoing = std::mem::take(&mut self.state().outgoing);
        let texts = outgoing.iter();
        let texts = texts.map(|(queue, count)| format!("{} {count} {queue}", self.process));
        let texts = serde_json::Value::from(texts.collect::<Vec<_>>());
        if outgoing.is_empty() {
            return;
        }
        // In one transaction, which takes the lock of the cluster once.
        let sql = "SELECT pg_notify($1, text) \
             FROM json_array_elements_text(CAST($2 AS json)) AS text";
        let values = [CHANNEL.into(), texts.to_string().into()];
        let notify = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        let sent = self.executor.fetch_all(TypedQuery::<()>::sql(notify)).await;
        if let Err(error) = sent {
            tracing::debug!(target: "aura_db::executions", %error, "notifying other processes");
        }
    }

    /// Wakes workers for what another process has queued.
    fn received(&self, text: &str) {
        let mut parts = text.splitn(3, ' ');
        let (Some(process), Some(count), Some(queue)) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        match count.parse::<u64>() {
            Ok(_) if process == self.process => {}
            Ok(_) if queue.is_empty() => self.state().wake_all(),
            Ok(count) => self.state().wake(queue, count),
            Err(_) => {}
        }
    }

    /// Notifies other processes of what is left, and closes the connection that
    /// notifications arrive on.
    pub(crate) async fn close(&self) {
        let listening = {
            let mut state = self.state();
            state.is_closed = true;
            state.listening.take()
        };
        if self.executor.backend() == DbBackend::Postgres {
            let _ = tokio::time::timeout(LAST_WORDS, self.send_once()).await;
        }
        if let Some(Listening { task, stop }) = listening {
            drop(stop);
            let _ = tokio::time::timeout(CLOSING, task).await;
        }
    }
}

/// Receives the notifications of other processes, until `stop`.
async fn listen(waiters: Weak<Waiters>, executor: Executor, mut stop: oneshot::Receiver<()>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = tokio::select! {
            opened = executor.listen(CHANNEL) => opened,
            _ = &mut stop => return,
        };
        match opened {
            Ok(None) => return,
            Ok(Some(mut listener)) => {
                pause = FIRST_PAUSE;
                let lifetime = tokio::time::sleep(MAX_LIFETIME.mul_f64(jitter()));
                tokio::pin!(lifetime);
                if let Some(waiters) = waiters.upgrade() {
                    waiters.state().wake_all();
                }
                let is_over = loop {
                    tokio::select! {
                        text = listener.next() => match (text, waiters.upgrade()) {
                            (Some(text), Some(waiters)) => waiters.received(&text),
                            (None, Some(_)) => break false,
                            (_, None) => break true,
                        },
                        () = &mut lifetime => break false,
                        _ = &mut stop => break true,
                    }
                };
                listener.close().await;
                if is_over {
                    return;
                }
            }
            Err(error) => tracing::warn!(
                target: "aura_db::executions",
                %error,
                "no notifications: workers look each second"
            ),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut stop => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns a factor that differs by up to a quarter.
fn jitter() -> f64 {
    rand::random_range(0.75..1.25)
}

impl Executions {
    /// Returns what wakes this worker when there may be something to [claim](Executions::claim)
    /// in its queues. Create it before the first claim, so that nothing falls in between. It
    /// keeps the connections of the database open, unless that is [closed](crate::Database::close).
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
            let listening = state.listening.as_ref();
            if !state.is_closed && listening.is_none_or(|listening| listening.task.is_finished()) {
                let (stop, stopped) = oneshot::channel();
                let listen = listen(Arc::downgrade(&waiters), waiters.executor.clone(), stopped);
                let task = waiters.runtime.spawn(listen);
                state.listening = Some(Listening { task, stop });
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
    /// a second, unless it is set; from a millisecond to a day. What is due, what has lost its
    /// worker, and what no notification announces, is found after this time.
    #[must_use]
    pub fn poll_every(mut self, pause: Duration) -> Self {
        self.poll = pause.clamp(Duration::from_millis(1), LONGEST_POLL);
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
                worker: self.id,
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
        let pause = self.poll.mul_f64(jitter());
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
        let State {
            pending, workers, ..
        } = &mut *state;
        pending.retain(|queue, _| workers.values().any(|queues| takes(queues, queue)));
        if workers.is_empty() {
            state.listening = None;
        }
    }
}

/// The place of a waiting worker.
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
                state.wake(queue, 1);
            }
        }
    }
}
