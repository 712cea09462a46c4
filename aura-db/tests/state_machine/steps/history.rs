//! Calls about the versions of workflows.

use aura_db::sea_orm::ActiveValue::{self, Set};
use aura_db::workflows::EarlierVersion;
use aura_db::{Document, WorkflowChange, WorkflowId};

use super::Kinds;
use super::pages::Pages;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Update(WorkflowId, i64, Box<Change>),
    History(WorkflowId, Pages),
    Version(WorkflowId, i64),
    RestoreVersion(WorkflowId, i64, i64),
    PruneHistory(WorkflowId, u32),
}

/// A change that can be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) description: ActiveValue<Option<String>>,
    pub(crate) settings: ActiveValue<Option<Document>>,
    pub(crate) connections: ActiveValue<Option<Document>>,
    pub(crate) nodes: ActiveValue<Option<Document>>,
    pub(crate) metadata: ActiveValue<Option<Document>>,
}

impl Change {
    fn draw(draw: &mut Draw<'_>) -> Self {
        Self {
            nodes: draw.change(Draw::json),
            settings: draw.change(Draw::json),
            connections: draw.change(Draw::json),
            metadata: draw.change(Draw::json),
            name: draw.maybe(|draw| draw.name(160)),
            description: draw.change(Draw::text),
        }
    }

    fn change(&self) -> WorkflowChange {
        let mut change = WorkflowChange::new();
        if let Some(name) = &self.name {
            change = change.name(name);
        }
        if let Set(text) = &self.description {
            change = change.description(text.clone());
        }
        if let Set(json) = &self.settings {
            change = change.settings(json.clone());
        }
        if let Set(json) = &self.connections {
            change = change.connections(json.clone());
        }
        if let Set(json) = &self.nodes {
            change = change.nodes(json.clone());
        }
        if let Set(json) = &self.metadata {
            change = change.metadata(json.clone());
        }
        change
    }
}

fn workflow(draw: &mut Draw<'_>, model: &Model) -> WorkflowId {
    WorkflowId(draw.handle(model.workflows.count()))
}

/// The version that the workflow is at, or another.
fn present(draw: &mut Draw<'_>, model: &Model, id: WorkflowId) -> i64 {
    let version = model.workflows.rows.get(&id.0).map_or(1, |row| row.version);
    match draw.byte() % 10 {
        0..7 => version,
        7 => version - 1,
        8 => version + 1,
        _ => draw.pick(&[0, -1, i64::MAX, i64::MIN]),
    }
}

/// A version before, most of the time.
fn earlier(draw: &mut Draw<'_>, model: &Model, id: WorkflowId) -> i64 {
    let version = model.workflows.rows.get(&id.0).map_or(1, |row| row.version);
    match draw.byte() % 10 {
        byte @ 0..8 => version - 1 - i64::try_from(byte / 4).unwrap_or(0),
        8 => version,
        _ => draw.pick(&[1, 0, i64::MAX, i64::MIN]),
    }
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::History($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(60, |draw, model| {
        let id = workflow(draw, model);
        Call::Update(id, present(draw, model, id), Box::new(Change::draw(draw)))
    }),
    kind!(28, |draw, model| Call::History(
        workflow(draw, model),
        Pages::draw(draw)
    )),
    kind!(28, |draw, model| {
        let id = workflow(draw, model);
        Call::Version(id, earlier(draw, model, id))
    }),
    kind!(28, |draw, model| {
        let id = workflow(draw, model);
        Call::RestoreVersion(id, present(draw, model, id), earlier(draw, model, id))
    }),
    kind!(28, |draw, model| Call::PruneHistory(
        workflow(draw, model),
        draw.pick(&[1, 0, 2, 3, 100, u32::MAX])
    )),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let workflows = door.workflows();
        let real = |id: &WorkflowId| side.real(*id);
        match self {
            Self::Update(id, version, change) => {
                side.told(workflows.update(real(id), *version, change.change()).await)
            }
            Self::History(id, pages) => {
                side.pages(pages, |page| workflows.history(real(id), page))
                    .await
            }
            Self::Version(id, version) => side.told(workflows.version(real(id), *version).await),
            Self::RestoreVersion(id, found, version) => side.told(
                workflows
                    .restore_version(real(id), *found, EarlierVersion(*version))
                    .await,
            ),
            Self::PruneHistory(id, keep) => {
                side.told(workflows.prune_history(real(id), *keep).await)
            }
        }
    }
}
