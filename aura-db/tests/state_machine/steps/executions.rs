//! Calls about executions.

use std::time::Duration;

use aura_db::{
    Document, ExecutionFilter, ExecutionId, ExecutionMode, ExecutionStatus, NewExecution,
    WorkflowId,
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
    Enqueue(WorkflowId, ExecutionMode, Option<Document>),
    Find(ExecutionId),
    Get(ExecutionId),
    GetWithLogs(ExecutionId, u64),
    List(Query, Pages),
    ListFull(Query, Pages),
    Prune(DateTime<Utc>, u64),
    Claim(String, Duration),
    ClaimMany(String, Duration, u64),
    Extend(ExecutionId, String, Duration),
    Finish(ExecutionId, String, End),
    Wait(ExecutionId, String, Option<DateTime<Utc>>, Option<Document>),
    Resume(ExecutionId),
    Cancel(ExecutionId),
    RequeueExpired(u64),
    Stats(Query),
}

/// An outcome that can be read.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Success(Option<Document>),
    Error(Document, Option<Document>),
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) workflow: Option<WorkflowId>,
    pub(crate) statuses: Vec<ExecutionStatus>,
    pub(crate) mode: Option<ExecutionMode>,
    pub(crate) worker: Option<String>,
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

/// An execution and who holds it, most of the time.
fn held(draw: &mut Draw<'_>, model: &Model) -> (ExecutionId, String) {
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
    let id = row.map_or(id, |row| row.id);
    match row.and_then(|row| row.worker_id.clone()) {
        Some(worker) if draw.byte() % 5 != 4 => (id, worker),
        _ => (id, worker(draw)),
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
        11 => Duration::from_hours(366 * 24),
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
        draw.maybe(Draw::json)
    )),
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
    kind!(40, |draw, _model| Call::Claim(worker(draw), lease(draw))),
    kind!(20, |draw, _model| Call::ClaimMany(
        worker(draw),
        lease(draw),
        limit(draw)
    )),
    kind!(20, |draw, model| {
        let (id, worker) = held(draw, model);
        Call::Extend(id, worker, lease(draw))
    }),
    kind!(22, |draw, model| {
        let (id, worker) = held(draw, model);
        let end = match draw.byte() % 4 {
            0 | 1 => End::Success(draw.maybe(Draw::json)),
            _ => End::Error(draw.json(), draw.maybe(Draw::json)),
        };
        Call::Finish(id, worker, end)
    }),
    kind!(24, |draw, model| {
        let (id, worker) = held(draw, model);
        let until = draw.maybe(|draw| draw.moment(model.now));
        Call::Wait(id, worker, until, draw.maybe(Draw::json))
    }),
    kind!(19, |draw, model| {
        let waiting = |row: &&aura_db::Execution| row.status == ExecutionStatus::Waiting;
        let row = model.executions.rows.values().find(waiting);
        Call::Resume(match row {
            Some(row) if draw.byte() % 4 < 2 => row.id,
            _ => execution(draw, model),
        })
    }),
    kind!(19, |draw, model| Call::Cancel(execution(draw, model))),
    kind!(19, |draw, _model| Call::RequeueExpired(limit(draw))),
    kind!(19, |draw, model| Call::Stats(Query::draw(draw, model))),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let executions = door.executions();
        let real = |id: &ExecutionId| side.real(*id);
        match self {
            Self::Enqueue(workflow, mode, data) => {
                let mut new = NewExecution::new(side.real(*workflow), *mode);
                new.data = data.clone();
                side.made(executions.enqueue(new).await, |row| row.id)
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
            Self::Claim(worker, lease) => side.told(executions.claim(worker, *lease).await),
            Self::ClaimMany(worker, lease, limit) => {
                side.told(executions.claim_many(worker, *lease, *limit).await)
            }
            Self::Extend(id, worker, lease) => {
                side.told(executions.extend(real(id), worker, *lease).await)
            }
            Self::Finish(id, worker, end) => {
                let outcome = match end.clone() {
                    End::Success(data) => aura_db::Outcome::success(data),
                    End::Error(error, None) => aura_db::Outcome::error(error),
                    End::Error(error, Some(data)) => aura_db::Outcome::error(error).data(data),
                };
                side.told(executions.finish(real(id), worker, outcome).await)
            }
            Self::Wait(id, worker, until, data) => {
                let waits = executions.wait(real(id), worker, *until, data.clone());
                side.told(waits.await)
            }
            Self::Resume(id) => side.told(executions.resume(real(id)).await),
            Self::Cancel(id) => side.told(executions.cancel(real(id)).await),
            Self::RequeueExpired(limit) => side.told(executions.requeue_expired(*limit).await),
            Self::Stats(query) => side.told(executions.stats(query.filter(side)).await),
        }
    }
}
