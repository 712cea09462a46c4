//! Who takes executions, and from which queues.

use crate::validate::Check;

/// The queue of executions that name none.
pub const DEFAULT_QUEUE: &str = "default";

/// The most queues of a worker.
pub(super) const MOST_QUEUES: usize = 16;

/// Who takes executions, and from which queues. A name alone is a worker of
/// [the default queue](DEFAULT_QUEUE).
///
/// ```
/// use aura_db::Worker;
///
/// let worker = Worker::new("worker-1").queues(["urgent", "default"]);
/// # let _ = worker;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub(super) name: String,
    pub(super) queues: Vec<String>,
}

impl Worker {
    /// Creates a worker of the default queue. The name has at most 64 characters.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queues: vec![DEFAULT_QUEUE.to_owned()],
        }
    }

    /// Sets the queues, from 1 to 16: what is in the first is taken before what is in the
    /// others.
    #[must_use]
    pub fn queues(mut self, queues: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn check(&self) -> Check {
        let mut check = Check::default();
        if self.queues.is_empty() || self.queues.len() > MOST_QUEUES {
            check.refuse("queues", "must be from 1 to 16");
        }
        for queue in &self.queues {
            check.name("queues", queue, 64);
        }
        check
    }
}

impl<S: Into<String>> From<S> for Worker {
    fn from(name: S) -> Self {
        Self::new(name)
    }
}
