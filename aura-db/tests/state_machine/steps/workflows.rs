//! Calls about workflows.

use aura_db::{
    Deleted, Document, NewWorkflow, PluginId, UserId, WorkflowFilter, WorkflowId, WorkflowSort,
    WorkflowStatus,
};

use super::Kinds;
use super::pages::Pages;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Create(Box<NewWorkflow>),
    Find(WorkflowId),
    Get(WorkflowId),
    GetDetails(WorkflowId),
    List(Query, Pages),
    ListFull(Query, Pages),
    Attach(WorkflowId, PluginId),
    Detach(WorkflowId, PluginId),
    Duplicate(WorkflowId, Option<String>),
    Delete(WorkflowId),
    Restore(WorkflowId),
    Purge(WorkflowId),
    Check(WorkflowId),
    SetStatus(WorkflowId, WorkflowStatus),
    Activate(WorkflowId),
    ActivateIfSound(WorkflowId),
    Deactivate(WorkflowId),
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) scheduled: bool,
    pub(crate) owner: Option<UserId>,
    pub(crate) status: Option<WorkflowStatus>,
    pub(crate) plugin: Option<PluginId>,
    pub(crate) name: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) deleted: Deleted,
    pub(crate) sort: WorkflowSort,
    pub(crate) descending: bool,
}

impl Query {
    /// Every workflow.
    pub(crate) const ALL: Self = Self {
        scheduled: false,
        owner: None,
        status: None,
        plugin: None,
        name: None,
        text: None,
        deleted: Deleted::Included,
        sort: WorkflowSort::Id,
        descending: false,
    };

    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        let sorts = [
            WorkflowSort::Id,
            WorkflowSort::Name,
            WorkflowSort::CreatedAt,
            WorkflowSort::UpdatedAt,
        ];
        Self {
            sort: draw.pick(&sorts),
            descending: draw.yes(),
            deleted: draw.deleted(),
            scheduled: draw.rarely(4),
            owner: draw
                .rarely(4)
                .then(|| UserId(draw.handle(model.users.count()))),
            status: draw.rarely(5).then(|| status(draw)),
            plugin: draw.rarely(6).then(|| plugin(draw, model)),
            name: draw.rarely(8).then(|| draw.name(160)),
            text: draw.rarely(4).then(|| draw.search()),
        }
    }

    fn filter(&self, side: &Side) -> WorkflowFilter {
        let mut filter = match (self.scheduled, self.owner) {
            (true, None) => WorkflowFilter::scheduled(),
            (true, Some(owner)) => WorkflowFilter::scheduled().owned_by(side.real(owner)),
            (false, None) => WorkflowFilter::new(),
            (false, Some(owner)) => WorkflowFilter::owner(side.real(owner)),
        };
        filter = filter.deleted(self.deleted).sort(self.sort);
        if let Some(status) = self.status {
            filter = filter.status(status);
        }
        if let Some(plugin) = self.plugin {
            filter = filter.plugin(side.real(plugin));
        }
        if let Some(name) = &self.name {
            filter = filter.name(name);
        }
        if let Some(text) = &self.text {
            filter = filter.text(text);
        }
        if self.descending {
            filter = filter.descending();
        }
        filter
    }
}

fn status(draw: &mut Draw<'_>) -> WorkflowStatus {
    draw.pick(&[
        WorkflowStatus::Draft,
        WorkflowStatus::Active,
        WorkflowStatus::Archived,
    ])
}

fn workflow(draw: &mut Draw<'_>, model: &Model) -> WorkflowId {
    WorkflowId(draw.handle(model.workflows.count()))
}

fn plugin(draw: &mut Draw<'_>, model: &Model) -> PluginId {
    PluginId(draw.handle(model.plugins.count()))
}

/// A workflow and a plugin, half of the time one that it uses.
fn pair(draw: &mut Draw<'_>, model: &Model) -> (WorkflowId, PluginId) {
    match model.attached.iter().nth(draw.byte() % 3) {
        Some((workflow, plugin)) if draw.yes() => ((*workflow).into(), (*plugin).into()),
        _ => (workflow(draw, model), plugin(draw, model)),
    }
}

fn document(draw: &mut Draw<'_>) -> Option<Document> {
    draw.maybe(Draw::json)
}

pub(crate) fn create(draw: &mut Draw<'_>, model: &Model) -> super::Call {
    let mut new = NewWorkflow::new(draw.name(160));
    if draw.byte() % 8 != 7 {
        new = new.owner(UserId(draw.handle(model.users.count())));
    }
    new = new.status(status(draw));
    new = new.settings(document(draw));
    new = new.nodes(document(draw));
    new = new.connections(document(draw));
    new = new.description(draw.maybe(Draw::text));
    super::Call::Workflows(Call::Create(Box::new(new)))
}

/// One that is deleted, most of the time.
fn gone(draw: &mut Draw<'_>, model: &Model) -> WorkflowId {
    let any = workflow(draw, model);
    let rows = model.workflows.rows.values();
    let gone: Vec<_> = rows.filter(|row| row.deleted_at.is_some()).collect();
    let orphans = gone.iter().filter(|row| {
        let owner = model.users.rows.get(&row.owner_id.0);
        owner.is_some_and(|owner| owner.deleted_at.is_some())
    });
    let any = draw.rather(gone.iter().map(|row| row.id), any);
    draw.rather(orphans.map(|row| row.id), any)
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Workflows($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    (40, create),
    kind!(19, |draw, model| Call::Find(workflow(draw, model))),
    kind!(19, |draw, model| Call::Get(workflow(draw, model))),
    kind!(19, |draw, model| Call::GetDetails(workflow(draw, model))),
    kind!(24, |draw, model| Call::List(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(24, |draw, model| Call::ListFull(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(36, |draw, model| {
        let (workflow, plugin) = pair(draw, model);
        Call::Attach(workflow, plugin)
    }),
    kind!(30, |draw, model| {
        let (workflow, plugin) = pair(draw, model);
        Call::Detach(workflow, plugin)
    }),
    kind!(26, |draw, model| Call::Duplicate(
        workflow(draw, model),
        draw.maybe(|draw| draw.name(160))
    )),
    kind!(19, |draw, model| Call::Delete(workflow(draw, model))),
    kind!(34, |draw, model| Call::Restore(gone(draw, model))),
    kind!(19, |draw, model| Call::Purge(gone(draw, model))),
    kind!(19, |draw, model| Call::Check(workflow(draw, model))),
    kind!(19, |draw, model| Call::SetStatus(
        workflow(draw, model),
        status(draw)
    )),
    kind!(19, |draw, model| Call::Activate(workflow(draw, model))),
    kind!(19, |draw, model| Call::ActivateIfSound(workflow(
        draw, model
    ))),
    kind!(19, |draw, model| Call::Deactivate(workflow(draw, model))),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let workflows = door.workflows();
        let real = |id: &WorkflowId| side.real(*id);
        match self {
            Self::Create(new) => {
                let mut new = NewWorkflow::clone(new);
                if let Some(owner) = new.as_ref().owner_id.try_as_ref().copied() {
                    new = new.owner(side.real(owner));
                }
                side.made(workflows.create(new).await, |workflow| workflow.id)
            }
            Self::Find(id) => side.told(workflows.find(real(id)).await),
            Self::Get(id) => side.told(workflows.get(real(id)).await),
            Self::GetDetails(id) => side.told(workflows.get_details(real(id)).await),
            Self::List(query, pages) => {
                side.pages(pages, |page| workflows.list(query.filter(side), page))
                    .await
            }
            Self::ListFull(query, pages) => {
                side.pages(pages, |page| workflows.list_full(query.filter(side), page))
                    .await
            }
            Self::Attach(id, plugin) => {
                side.told(workflows.attach(real(id), side.real(*plugin)).await)
            }
            Self::Detach(id, plugin) => {
                side.told(workflows.detach(real(id), side.real(*plugin)).await)
            }
            Self::Duplicate(id, name) => {
                let copy = workflows.duplicate(real(id), name.clone()).await;
                side.made(copy, |workflow| workflow.id)
            }
            Self::Delete(id) => side.told(workflows.delete(real(id)).await),
            Self::Restore(id) => side.told(workflows.restore(real(id)).await),
            Self::Purge(id) => side.told(workflows.purge(real(id)).await),
            Self::Check(id) => side.told(workflows.check(real(id)).await),
            Self::SetStatus(id, status) => side.told(workflows.set_status(real(id), *status).await),
            Self::Activate(id) => side.told(workflows.activate(real(id)).await),
            Self::ActivateIfSound(id) => side.told(workflows.activate_if_sound(real(id)).await),
            Self::Deactivate(id) => side.told(workflows.deactivate(real(id)).await),
        }
    }
}
