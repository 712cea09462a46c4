//! Calls about agents.

use aura_db::agents::AgentSort;
use aura_db::sea_orm::ActiveValue::{self, Set};
use aura_db::{AgentChange, AgentFilter, AgentId, Deleted, Document, NewAgent, UserId};

use super::Kinds;
use super::pages::Pages;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Create(Box<NewAgent>),
    Find(AgentId),
    Get(AgentId),
    List(Query, Pages),
    ListFull(Query, Pages),
    Update(AgentId, Change),
    Enable(AgentId),
    Disable(AgentId),
    Delete(AgentId),
    Restore(AgentId),
    Purge(AgentId),
}

/// A change that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) description: ActiveValue<Option<String>>,
    pub(crate) config: ActiveValue<Option<Document>>,
}

impl Change {
    fn change(&self) -> AgentChange {
        let mut change = AgentChange::new();
        if let Some(name) = &self.name {
            change = change.name(name);
        }
        if let Some(model) = &self.model {
            change = change.model(model);
        }
        if let Set(text) = &self.description {
            change = change.description(text.clone());
        }
        if let Set(json) = &self.config {
            change = change.config(json.clone());
        }
        change
    }
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) owner: Option<UserId>,
    pub(crate) enabled: Option<bool>,
    pub(crate) text: Option<String>,
    pub(crate) deleted: Deleted,
    pub(crate) sort: AgentSort,
    pub(crate) descending: bool,
}

impl Query {
    /// Every agent.
    pub(crate) const ALL: Self = Self {
        owner: None,
        enabled: None,
        text: None,
        deleted: Deleted::Included,
        sort: AgentSort::Id,
        descending: false,
    };

    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        Self {
            sort: draw.pick(&[AgentSort::Id, AgentSort::Name, AgentSort::UpdatedAt]),
            descending: draw.yes(),
            deleted: draw.deleted(),
            owner: draw
                .rarely(4)
                .then(|| UserId(draw.handle(model.users.count()))),
            enabled: draw.rarely(4).then(|| draw.yes()),
            text: draw.rarely(4).then(|| draw.search()),
        }
    }

    fn filter(&self, side: &Side) -> AgentFilter {
        let mut filter = match self.owner {
            Some(owner) => AgentFilter::owner(side.real(owner)),
            None => AgentFilter::new(),
        };
        filter = filter.deleted(self.deleted).sort(self.sort);
        if let Some(enabled) = self.enabled {
            filter = filter.enabled(enabled);
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

fn agent(draw: &mut Draw<'_>, model: &Model) -> AgentId {
    AgentId(draw.handle(model.agents.count()))
}

/// Few names, so that owners have the same.
fn name(draw: &mut Draw<'_>) -> String {
    match draw.byte() % 4 {
        3 => draw.name(120),
        byte => ["a", "b", "A'"][byte].to_owned(),
    }
}

/// One that is deleted, most of the time.
fn gone(draw: &mut Draw<'_>, model: &Model) -> AgentId {
    let any = agent(draw, model);
    let rows = model.agents.rows.values();
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
        ($weight, |$draw, $model| super::Call::Agents($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(60, |draw, model| {
        let mut new = NewAgent::new(name(draw), draw.name(120));
        if draw.byte() % 8 != 7 {
            new = new.owner(UserId(draw.handle(model.users.count())));
        }
        new = new.config(draw.maybe(Draw::json));
        new = new.description(draw.maybe(Draw::text));
        Call::Create(Box::new(new))
    }),
    kind!(19, |draw, model| Call::Find(agent(draw, model))),
    kind!(19, |draw, model| Call::Get(agent(draw, model))),
    kind!(20, |draw, model| Call::List(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(20, |draw, model| Call::ListFull(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(90, |draw, model| Call::Update(
        agent(draw, model),
        Change {
            name: draw.maybe(name),
            model: draw.rarely(3).then(|| draw.name(120)),
            description: draw.change(Draw::text),
            config: draw.change(Draw::json),
        }
    )),
    kind!(19, |draw, model| Call::Enable(agent(draw, model))),
    kind!(19, |draw, model| Call::Disable(agent(draw, model))),
    kind!(19, |draw, model| Call::Delete(agent(draw, model))),
    kind!(34, |draw, model| Call::Restore(gone(draw, model))),
    kind!(19, |draw, model| Call::Purge(gone(draw, model))),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let agents = door.agents();
        let real = |id: &AgentId| side.real(*id);
        match self {
            Self::Create(new) => {
                let mut new = NewAgent::clone(new);
                if let Some(owner) = new.as_ref().owner_id.try_as_ref().copied() {
                    new = new.owner(side.real(owner));
                }
                side.made(agents.create(new).await, |agent| agent.id)
            }
            Self::Find(id) => side.told(agents.find(real(id)).await),
            Self::Get(id) => side.told(agents.get(real(id)).await),
            Self::List(query, pages) => {
                side.pages(pages, |page| agents.list(query.filter(side), page))
                    .await
            }
            Self::ListFull(query, pages) => {
                side.pages(pages, |page| agents.list_full(query.filter(side), page))
                    .await
            }
            Self::Update(id, change) => side.told(agents.update(real(id), change.change()).await),
            Self::Enable(id) => side.told(agents.enable(real(id)).await),
            Self::Disable(id) => side.told(agents.disable(real(id)).await),
            Self::Delete(id) => side.told(agents.delete(real(id)).await),
            Self::Restore(id) => side.told(agents.restore(real(id)).await),
            Self::Purge(id) => side.told(agents.purge(real(id)).await),
        }
    }
}
