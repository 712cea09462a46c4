//! Calls about executions.

use std::time::Duration;

use aura_db::{
    Claim, Document, ExecutionFilter, ExecutionId, ExecutionMode, ExecutionStatus, LimitOf,
    NewExecution, UserId, Worker, WorkflowId,
};
use chrono::{DateTime, Utc};

use super::Kinds;
use super::pages::Pages;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Enqueue(
        WorkflowId,
        ExecutionMode,
        Option<i64>,
        Option<Document>,
        (String, i64),
    ),
    EnqueueOnce(WorkflowId, ExecutionMode, Option<Document>, String),
    Find(ExecutionId),
    Get(ExecutionId),
    GetWithLogs(ExecutionId, u64),
    List(Query, Pages),
    ListFull(Query, Pages),
    Prune(DateTime<Utc>, u64),
    Claim(Taker, Duration),
    ClaimMany(Taker, Duration, u64),
    Attempts(ExecutionId),
    Extend(Held, Duration),
    Finish(Held, End),
    Wait(Held, Option<DateTime<Utc>>, Option<Document>),
    Release(Held),
    Resume(ExecutionId),
    Cancel(ExecutionId),
    Retry(ExecutionId),
    Discard(ExecutionId),
    SetConcurrencyLimit(LimitOf, Option<u32>),
    ConcurrencyLimit(LimitOf),
    RequeueExpired(u64),
    Stats(Query),
}

/// An outcome that can be read.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Success(Option<Document>),
    Error(Document, Option<Document>),
    Retryable(Document, Option<Document>, Duration),
}

/// A worker that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Taker {
    pub(crate) name: String,
    pub(crate) queues: Vec<String>,
}

impl Taker {
    fn draw(draw: &mut Draw<'_>) -> Self {
        let name = worker(draw);
        let queues: &[&str] = match draw.byte() % 16 {
            0..8 => &["default"],
            8..12 => &["b'", "default"],
            12 => &["default", "b'"],
            13 => &["b'", "b'"],
            14 => &[],
            _ => &["q"; 17],
        };
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        Self { name, queues }
    }

    fn worker(&self) -> Worker {
        if self.queues == ["default"] {
            return self.name.as_str().into();
        }
        Worker::new(&self.name).queues(&self.queues)
    }
}

/// A claim that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) id: ExecutionId,
    pub(crate) worker: String,
    pub(crate) number: i64,
}

impl Held {
    fn claim(&self, side: &Side) -> Claim {
        Claim {
            execution: side.real(self.id),
            worker: self.worker.clone(),
            number: self.number,
            attempt: 1,
        }
    }
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) workflow: Option<WorkflowId>,
    pub(crate) statuses: Vec<ExecutionStatus>,
    pub(crate) mode: Option<ExecutionMode>,
    pub(crate) worker: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) oldest_first: bool,
}

impl Query {
    /// Every execution.
    pub(crate) const ALL: Self = Self {
        workflow: None,
        statuses: Vec::new(),
        mode: None,
        worker: None,
        queue: None,
        from: None,
        until: None,
        oldest_first: true,
    };

    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        Self {
            oldest_first: draw.yes(),
            workflow: draw.rarely(3).then(|| workflow(draw, model)),
            statuses: (0..draw.byte() % 4 / 2 * 2).map(|_| status(draw)).collect(),
            mode: draw.rarely(5).then(|| mode(draw)),
            worker: draw.rarely(3).then(|| {
                let long = draw.rarely(5);
                if long { "w".repeat(65) } else { worker(draw) }
            }),
            queue: draw.rarely(3).then(|| queue(draw)),
            from: draw.rarely(4).then(|| past(draw, model)),
            until: draw.rarely(4).then(|| past(draw, model)),
        }
    }

    fn filter(&self, side: &Side) -> ExecutionFilter {
        let mut filter = match self.workflow {
            Some(id) => ExecutionFilter::workflow(side.real(id)),
            None => ExecutionFilter::new(),
        };
        if !self.statuses.is_empty() {
            filter = filter.statuses(self.statuses.iter().copied());
        }
        if let Some(mode) = self.mode {
            filter = filter.mode(mode);
        }
        if let Some(worker) = &self.worker {
            filter = filter.worker(worker);
        }
        if let Some(queue) = &self.queue {
            filter = filter.queue(queue);
        }
        if let Some(from) = self.from {
            filter = filter.from(from);
        }
        if let Some(until) = self.until {
            filter = filter.until(until);
        }
        if self.oldest_first {
            filter = filter.oldest_first();
        }
        filter
    }
}

fn mode(draw: &mut Draw<'_>) -> ExecutionMode {
    draw.pick(&[
        ExecutionMode::Manual,
        ExecutionMode::Trigger,
        ExecutionMode::Webhook,
        ExecutionMode::Cron,
    ])
}

fn status(draw: &mut Draw<'_>) -> ExecutionStatus {
    draw.pick(&[
        ExecutionStatus::Queued,
        ExecutionStatus::Running,
        ExecutionStatus::Waiting,
        ExecutionStatus::Success,
        ExecutionStatus::Error,
        ExecutionStatus::Canceled,
        ExecutionStatus::Dead,
    ])
}

/// A moment at which an execution was queued, or nearly, or any.
fn past(draw: &mut Draw<'_>, model: &Model) -> DateTime<Utc> {
    let queued = model.executions.rows.values().nth(draw.byte() % 8);
    let around = queued.map_or(model.now, |row| row.finished_at.unwrap_or(row.created_at));
    draw.moment(around)
}

fn workflow(draw: &mut Draw<'_>, model: &Model) -> WorkflowId {
    WorkflowId(draw.handle(model.workflows.count()))
}

/// What most executions are of, most of the time.
fn limit_of(draw: &mut Draw<'_>, model: &Model) -> LimitOf {
    let row = model.executions.rows.values().next_back();
    let (workflow, owner) = match row {
        Some(row) if draw.byte() % 4 < 3 => (row.workflow_id, row.owner_id),
        _ => (
            workflow(draw, model),
            UserId(draw.handle(model.users.count())),
        ),
    };
    if draw.yes() {
        workflow.into()
    } else {
        owner.into()
    }
}

fn execution(draw: &mut Draw<'_>, model: &Model) -> ExecutionId {
    ExecutionId(draw.handle(model.executions.count()))
}

fn worker(draw: &mut Draw<'_>) -> String {
    match draw.byte() % 16 {
        13 => "w".repeat(65),
        14 => draw.name(64),
        15 => String::new(),
        byte => format!("w'{}", byte % 2),
    }
}

fn queue(draw: &mut Draw<'_>) -> String {
    match draw.byte() % 16 {
        0..10 => "default".to_owned(),
        10..14 => "b'".to_owned(),
        14 => String::new(),
        _ => "q".repeat(65),
    }
}

/// An execution and the claim that holds it, most of the time.
fn held(draw: &mut Draw<'_>, model: &Model) -> Held {
    let id = execution(draw, model);
    let mut row = model.executions.rows.get(&id.0);
    let running = |status| status == ExecutionStatus::Running;
    if draw.byte() % 4 != 3 && !row.is_some_and(|row| running(row.status)) {
        row = model
            .executions
            .rows
            .values()
            .rfind(|row| running(row.status));
    }
    let number = row.map_or(0, |row| row.claim_no) - i64::from(draw.rarely(8));
    let id = row.map_or(id, |row| row.id);
    let worker = match row.and_then(|row| row.worker_id.clone()) {
        Some(worker) if draw.byte() % 5 != 4 => worker,
        _ => worker(draw),
    };
    Held { id, worker, number }
}

/// A dead execution, most of the time.
fn dead(draw: &mut Draw<'_>, model: &Model) -> ExecutionId {
    let dead = |row: &&aura_db::Execution| row.status == ExecutionStatus::Dead;
    match model.executions.rows.values().find(dead) {
        Some(row) if draw.byte() % 4 < 3 => row.id,
        _ => execution(draw, model),
    }
}

fn lease(draw: &mut Draw<'_>) -> Duration {
    match draw.byte() % 16 {
        0..4 => Duration::from_mins(1),
        4..7 => Duration::from_secs(1),
        7 => Duration::from_micros(1),
        8 => Duration::from_nanos(1_999),
        9 => Duration::from_nanos(999),
        10 => Duration::ZERO,
        11 => Duration::from_hours(24),
        12 => Duration::MAX,
        _ => Duration::from_hours(1),
    }
}

fn limit(draw: &mut Draw<'_>) -> u64 {
    draw.pick(&[1, 2, 3, 1_000, 2, 0, u64::MAX, i64::MAX as u64 + 1])
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Executions($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(60, |draw, model| Call::Enqueue(
        workflow(draw, model),
        mode(draw),
        draw.rarely(3)
            .then(|| draw.pick(&[1, 2, 1, 5, 1_000, 0, 1_001])),
        draw.maybe(Draw::json),
        (queue(draw), draw.pick(&[0, 0, 5, -1_000, 1_000, 1_001]))
    )),
    kind!(40, |draw, model| {
        let data = draw.rarely(3).then(|| draw.json());
        let mode = draw.pick(&[ExecutionMode::Webhook, ExecutionMode::Manual]);
        let key = match draw.byte() % 16 {
            14 => "k".repeat(201),
            15 => String::new(),
            byte => format!("k'{}", byte % 2),
        };
        Call::EnqueueOnce(workflow(draw, model), mode, data, key)
    }),
    kind!(19, |draw, model| Call::Find(execution(draw, model))),
    kind!(19, |draw, model| Call::Get(execution(draw, model))),
    kind!(19, |draw, model| Call::GetWithLogs(
        execution(draw, model),
        draw.pick(&[1, 2, 0, 1_000, 3, 1_001, u64::MAX])
    )),
    kind!(20, |draw, model| Call::List(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(19, |draw, model| Call::ListFull(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(19, |draw, model| Call::Prune(
        past(draw, model),
        limit(draw)
    )),
    kind!(50, |draw, _model| Call::Claim(
        Taker::draw(draw),
        lease(draw)
    )),
    kind!(19, |draw, model| Call::Attempts(execution(draw, model))),
    kind!(20, |draw, _model| Call::ClaimMany(
        Taker::draw(draw),
        lease(draw),
        limit(draw)
    )),
    kind!(26, |draw, model| Call::Extend(
        held(draw, model),
        lease(draw)
    )),
    kind!(26, |draw, model| {
        let held = held(draw, model);
        let end = match draw.byte() % 6 {
            0 | 1 => End::Success(draw.maybe(Draw::json)),
            2 | 3 => End::Error(draw.json(), draw.maybe(Draw::json)),
            _ => {
                let (error, data) = (draw.json(), draw.maybe(Draw::json));
                let pauses = [0, 1, 60, 366 * 24 * 3_600, 366 * 24 * 3_600 + 1];
                let pause = Duration::from_secs(draw.pick(&pauses));
                End::Retryable(error, data, pause)
            }
        };
        Call::Finish(held, end)
    }),
    kind!(24, |draw, model| {
        let held = held(draw, model);
        let until = draw.maybe(|draw| draw.moment(model.now));
        Call::Wait(held, until, draw.maybe(Draw::json))
    }),
    kind!(19, |draw, model| Call::Release(held(draw, model))),
    kind!(19, |draw, model| Call::Retry(dead(draw, model))),
    kind!(19, |draw, model| Call::Discard(dead(draw, model))),
    kind!(19, |draw, model| {
        let waiting = |row: &&aura_db::Execution| row.status == ExecutionStatus::Waiting;
        let row = model.executions.rows.values().find(waiting);
        Call::Resume(match row {
            Some(row) if draw.byte() % 4 < 2 => row.id,
            _ => execution(draw, model),
        })
    }),
    kind!(19, |draw, model| Call::Cancel(execution(draw, model))),
    kind!(19, |draw, model| Call::SetConcurrencyLimit(
        limit_of(draw, model),
        draw.pick(&[
            Some(1),
            Some(2),
            None,
            Some(1),
            Some(2),
            Some(0),
            None,
            Some(u32::MAX)
        ])
    )),
    kind!(19, |draw, model| Call::ConcurrencyLimit(limit_of(
        draw, model
    ))),
    kind!(19, |draw, _model| Call::RequeueExpired(limit(draw))),
    kind!(19, |draw, model| Call::Stats(Query::draw(draw, model))),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let executions = door.executions();
        let real = |id: &ExecutionId| side.real(*id);
        match self {
            Self::Enqueue(workflow, mode, attempts, data, (queue, priority)) => {
                let mut new = NewExecution::new(side.real(*workflow), *mode);
                new = new.queue(queue).priority(*priority);
                if let Some(attempts) = attempts {
                    new = new.max_attempts(*attempts);
                }
                new.data = data.clone();
                side.made(executions.enqueue(new).await, |row| row.id)
            }
            Self::EnqueueOnce(workflow, mode, data, key) => {
                let mut new = NewExecution::new(side.real(*workflow), *mode);
                new.data = data.clone();
                let queued = executions.enqueue_once(new, key).await;
                if let Ok(queued) = &queued {
                    side.born_once(queued.execution.id);
                }
                side.told(queued.map(|queued| (queued.execution, queued.is_new)))
            }
            Self::Find(id) => side.told(executions.find(real(id)).await),
            Self::Get(id) => side.told(executions.get(real(id)).await),
            Self::GetWithLogs(id, entries) => {
                side.told(executions.get_with_logs(real(id), *entries).await)
            }
            Self::List(query, pages) => {
                side.pages(pages, |page| executions.list(query.filter(side), page))
                    .await
            }
            Self::ListFull(query, pages) => {
                side.pages(pages, |page| executions.list_full(query.filter(side), page))
                    .await
            }
            Self::Prune(before, limit) => side.told(executions.prune(*before, *limit).await),
            Self::Claim(worker, lease) => {
                side.told(executions.claim(worker.worker(), *lease).await)
            }
            Self::ClaimMany(worker, lease, limit) => {
                let taken = executions.claim_many(worker.worker(), *lease, *limit);
                side.told(taken.await)
            }
            Self::Attempts(id) => side.told(executions.attempts(real(id)).await),
            Self::Extend(held, lease) => {
                side.told(executions.extend(held.claim(side), *lease).await)
            }
            Self::Finish(held, end) => {
                let (outcome, data) = match end.clone() {
                    End::Success(data) => (aura_db::Outcome::success(None), data),
                    End::Error(error, data) => (aura_db::Outcome::error(error), data),
                    End::Retryable(error, data, pause) => {
                        (aura_db::Outcome::retryable(error).after(pause), data)
                    }
                };
                let outcome = match data {
                    Some(data) => outcome.data(data),
                    None => outcome,
                };
                side.told(executions.finish(held.claim(side), outcome).await)
            }
            Self::Wait(held, until, data) => {
                let waits = executions.wait(held.claim(side), *until, data.clone());
                side.told(waits.await)
            }
            Self::Release(held) => side.told(executions.release(held.claim(side)).await),
            Self::Resume(id) => side.told(executions.resume(real(id)).await),
            Self::Cancel(id) => side.told(executions.cancel(real(id)).await),
            Self::Retry(id) => side.told(executions.retry(real(id)).await),
            Self::Discard(id) => side.told(executions.discard(real(id)).await),
            Self::SetConcurrencyLimit(of, limit) => {
                let set = executions.set_concurrency_limit(real_limit(side, *of), *limit);
                side.told(set.await)
            }
            Self::ConcurrencyLimit(of) => {
                let limit = executions.concurrency_limit(real_limit(side, *of));
                side.told(limit.await)
            }
            Self::RequeueExpired(limit) => side.told(executions.requeue_expired(*limit).await),
            Self::Stats(query) => side.told(executions.stats(query.filter(side)).await),
        }
    }
}

fn real_limit(side: &Side, of: LimitOf) -> LimitOf {
    match of {
        LimitOf::Workflow(id) => side.real(id).into(),
        LimitOf::Owner(id) => side.real(id).into(),
    }
}
