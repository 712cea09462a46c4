//! Calls about log entries.

use std::sync::PoisonError;

use aura_db::logs::TailFrom;
use aura_db::{Error, ExecutionId, LogFilter, LogId, LogLevel, NewLog, PageRequest, WorkflowId};
use chrono::{DateTime, Utc};

use super::Kinds;
use super::pages::Pages;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Append(NewLog),
    AppendMany(Vec<NewLog>),
    Find(LogId),
    Get(LogId),
    List(Query, Pages),
    Prune(DateTime<Utc>, u64),
    Stats(Query),
    /// Opens a follower, which replaces the one before, and looks once.
    Tail(Query, Begin),
    /// The open follower looks again.
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Now,
    Start,
    /// Where the one before was.
    After,
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) workflow: Option<WorkflowId>,
    pub(crate) execution: Option<ExecutionId>,
    pub(crate) level: Option<LogLevel>,
    pub(crate) at_least: Option<LogLevel>,
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) text: Option<String>,
    pub(crate) oldest_first: bool,
}

impl Query {
    /// Every entry.
    pub(crate) const ALL: Self = Self {
        workflow: None,
        execution: None,
        level: None,
        at_least: None,
        from: None,
        until: None,
        text: None,
        oldest_first: true,
    };

    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        Self {
            oldest_first: draw.yes(),
            workflow: draw.rarely(3).then(|| workflow(draw, model)),
            execution: draw.rarely(6).then(|| execution(draw, model)),
            level: draw.rarely(5).then(|| level(draw)),
            at_least: draw.rarely(5).then(|| level(draw)),
            from: draw.rarely(5).then(|| past(draw, model)),
            until: draw.rarely(5).then(|| past(draw, model)),
            text: draw.rarely(3).then(|| draw.search()),
        }
    }

    fn filter(&self, side: &Side) -> LogFilter {
        let mut filter = match (self.workflow, self.execution) {
            (Some(id), _) => LogFilter::workflow(side.real(id)),
            (None, Some(id)) => LogFilter::execution(side.real(id)),
            (None, None) => LogFilter::new(),
        };
        if let Some(level) = self.level {
            filter = filter.level(level);
        }
        if let Some(level) = self.at_least {
            filter = filter.at_least(level);
        }
        if let Some(from) = self.from {
            filter = filter.from(from);
        }
        if let Some(until) = self.until {
            filter = filter.until(until);
        }
        if let Some(text) = &self.text {
            filter = filter.text(text);
        }
        if self.oldest_first {
            filter = filter.oldest_first();
        }
        filter
    }
}

fn level(draw: &mut Draw<'_>) -> LogLevel {
    draw.pick(&[
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Warn,
        LogLevel::Error,
    ])
}

fn past(draw: &mut Draw<'_>, model: &Model) -> DateTime<Utc> {
    let written = model.logs.rows.values().nth(draw.byte() % 8);
    draw.moment(written.map_or(model.now, |row| row.created_at))
}

fn workflow(draw: &mut Draw<'_>, model: &Model) -> WorkflowId {
    WorkflowId(draw.handle(model.workflows.count()))
}

fn execution(draw: &mut Draw<'_>, model: &Model) -> ExecutionId {
    ExecutionId(draw.handle(model.executions.count()))
}

fn log(draw: &mut Draw<'_>, model: &Model) -> LogId {
    LogId(draw.handle(model.logs.count()))
}

fn entry(draw: &mut Draw<'_>, model: &Model) -> NewLog {
    let mut id = workflow(draw, model);
    let execution = draw.maybe(|draw| execution(draw, model));
    if let Some(row) = execution.and_then(|id| model.executions.rows.get(&id.0))
        && draw.byte() % 4 != 3
    {
        id = row.workflow_id;
    }
    let mut new = NewLog::new(id, level(draw), draw.text());
    new.execution = execution;
    new.metadata = draw.maybe(Draw::json);
    new
}

fn begin_of(side: &Side, begin: Begin) -> TailFrom {
    let before = side.tail.lock().unwrap_or_else(PoisonError::into_inner);
    match (begin, &*before) {
        (Begin::After, Some(tail)) => TailFrom::After(tail.position()),
        (Begin::Start, _) => TailFrom::Start,
        _ => TailFrom::Now,
    }
}

fn real(new: &NewLog, side: &Side) -> NewLog {
    let mut new = new.clone();
    new.workflow = side.real(new.workflow);
    new.execution = new.execution.map(|id| side.real(id));
    new
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Logs($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(50, |draw, model| Call::Append(entry(draw, model))),
    kind!(26, |draw, model| Call::AppendMany(
        (0..draw.byte() % 4).map(|_| entry(draw, model)).collect()
    )),
    kind!(26, |draw, model| Call::Find(log(draw, model))),
    kind!(26, |draw, model| Call::Get(log(draw, model))),
    kind!(26, |draw, model| Call::List(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(26, |draw, model| Call::Prune(
        past(draw, model),
        draw.pick(&[1, 2, 0, 10, u64::MAX])
    )),
    kind!(26, |draw, model| Call::Stats(Query::draw(draw, model))),
    kind!(26, |draw, model| {
        match (
            draw.pick(&[Begin::Now, Begin::Start, Begin::After]),
            &model.tail,
        ) {
            // Only the same filter goes on from there.
            (Begin::After, Some((_, query, _))) => Call::Tail(query.clone(), Begin::After),
            (Begin::After, None) => Call::Tail(Query::ALL, Begin::Start),
            (begin, _) => Call::Tail(Query::draw(draw, model), begin),
        }
    }),
    kind!(
        50,
        |_draw, model| if model.in_transaction || model.tail.is_none() {
            Call::Tail(Query::ALL, Begin::Now)
        } else {
            Call::Look
        }
    ),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let logs = door.logs();
        match self {
            Self::Append(new) => side.made(logs.append(real(new, side)).await, |log| log.id),
            Self::AppendMany(entries) => {
                let entries = entries.iter().map(|new| real(new, side)).collect();
                let appended = logs.append_many(entries).await;
                if let Ok(count @ 1..) = appended {
                    // Their ids are not told.
                    let newest = logs.list(LogFilter::new(), PageRequest::first(count)).await;
                    for log in newest.expect("a list").items.iter().rev() {
                        side.ids().born(log.id);
                    }
                }
                side.told(appended)
            }
            Self::Find(id) => side.told(logs.find(side.real(*id)).await),
            Self::Get(id) => side.told(logs.get(side.real(*id)).await),
            Self::List(query, pages) => {
                side.pages(pages, |page| logs.list(query.filter(side), page))
                    .await
            }
            Self::Prune(before, limit) => side.told(logs.prune(*before, *limit).await),
            Self::Stats(query) => side.told(logs.stats(query.filter(side)).await),
            Self::Tail(query, begin) => {
                let from = begin_of(side, *begin);
                let tailed: Result<_, Error> = async {
                    let mut tail = logs.tail(query.filter(side), from).await?;
                    let entries = tail.poll().await?;
                    Ok((tail, entries))
                }
                .await;
                side.told(tailed.map(|(tail, entries)| {
                    *side.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
                    entries
                }))
            }
            Self::Look => {
                let tail = side
                    .tail
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                let mut tail = tail.expect("one is open");
                let entries = tail.poll().await;
                *side.tail.lock().unwrap_or_else(PoisonError::into_inner) = Some(tail);
                side.told(entries)
            }
        }
    }
}
