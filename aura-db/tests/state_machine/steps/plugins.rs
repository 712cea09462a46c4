//! Calls about plugins.

use aura_db::plugins::PluginSort;
use aura_db::{Deleted, NewPlugin, PluginFilter, PluginId};
use serde_json::{Value, json};

use super::Kinds;
use super::pages::Pages;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Register(Box<NewPlugin>),
    Find(PluginId),
    Get(PluginId),
    FindByName(String),
    GetByName(String),
    List(Query, Pages),
    ListFull(Query, Pages),
    Enable(PluginId),
    Disable(PluginId),
    ValidateConfig(PluginId, Value),
    Delete(PluginId),
    Restore(PluginId),
    Purge(PluginId),
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) enabled: Option<bool>,
    pub(crate) author: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) deleted: Deleted,
    pub(crate) sort: PluginSort,
    pub(crate) descending: bool,
}

impl Query {
    /// Every plugin.
    pub(crate) const ALL: Self = Self {
        enabled: None,
        author: None,
        text: None,
        deleted: Deleted::Included,
        sort: PluginSort::Id,
        descending: false,
    };

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self {
            sort: draw.pick(&[PluginSort::Name, PluginSort::Id, PluginSort::UpdatedAt]),
            descending: draw.yes(),
            deleted: draw.deleted(),
            enabled: draw.rarely(4).then(|| draw.yes()),
            author: draw.rarely(5).then(|| draw.name(160)),
            text: draw.rarely(4).then(|| draw.search()),
        }
    }

    fn filter(&self) -> PluginFilter {
        let mut filter = PluginFilter::new().deleted(self.deleted).sort(self.sort);
        if let Some(enabled) = self.enabled {
            filter = filter.enabled(enabled);
        }
        if let Some(author) = &self.author {
            filter = filter.author(author);
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

/// The schema that configs are tried with, and one that can't be used.
pub(crate) fn schema() -> Value {
    json!({"type": "object", "required": ["url"]})
}

fn plugin(draw: &mut Draw<'_>, model: &Model) -> PluginId {
    PluginId(draw.handle(model.plugins.count()))
}

fn name(draw: &mut Draw<'_>, model: &Model) -> String {
    let known = plugin(draw, model);
    match model.plugins.rows.get(&known.0) {
        Some(row) if draw.byte() % 8 != 7 => row.name.clone(),
        _ => draw.name(120),
    }
}

/// One that is deleted, most of the time.
fn gone(draw: &mut Draw<'_>, model: &Model) -> PluginId {
    let any = plugin(draw, model);
    let rows = model.plugins.rows.values();
    let gone = rows
        .filter(|row| row.deleted_at.is_some())
        .map(|row| row.id);
    draw.rather(gone, any)
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Plugins($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(40, |draw, _model| {
        let mut new = NewPlugin::new(draw.name(120), draw.pick(&["1", "2.0'", " ", "1.0.0-β"]));
        new = new.description(draw.text());
        new = new.author(draw.maybe(|draw| draw.name(160)));
        let new = match draw.byte() % 8 {
            0..3 => new,
            3..6 => new.config_schema(schema()),
            6 => new.config_schema(json!({"type": 7})),
            _ => new.config_schema(json!({"k\0": 1})),
        };
        Call::Register(Box::new(new))
    }),
    kind!(19, |draw, model| Call::Find(plugin(draw, model))),
    kind!(19, |draw, model| Call::Get(plugin(draw, model))),
    kind!(19, |draw, model| Call::FindByName(name(draw, model))),
    kind!(19, |draw, model| Call::GetByName(name(draw, model))),
    kind!(20, |draw, _model| Call::List(
        Query::draw(draw),
        Pages::draw(draw)
    )),
    kind!(20, |draw, _model| Call::ListFull(
        Query::draw(draw),
        Pages::draw(draw)
    )),
    kind!(19, |draw, model| Call::Enable(plugin(draw, model))),
    kind!(19, |draw, model| Call::Disable(plugin(draw, model))),
    kind!(19, |draw, model| {
        let config = match draw.byte() % 6 {
            0 => json!({}),
            1 => json!({"url": "'"}),
            2 => json!(7),
            // More than a mebibyte.
            3 | 4 => json!({"url": vec!["0123456789".repeat(1_000); 110]}),
            _ => json!({"url": [null, 1]}),
        };
        let any = plugin(draw, model);
        let rows = model.plugins.rows.values();
        let strict = rows.filter(|row| row.config_schema.is_some() && row.deleted_at.is_none());
        Call::ValidateConfig(draw.rather(strict.map(|row| row.id), any), config)
    }),
    kind!(19, |draw, model| Call::Delete(plugin(draw, model))),
    kind!(19, |draw, model| Call::Restore(gone(draw, model))),
    kind!(19, |draw, model| Call::Purge(gone(draw, model))),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let plugins = door.plugins();
        let real = |id: &PluginId| side.real(*id);
        match self {
            Self::Register(new) => {
                let row = plugins.register(NewPlugin::clone(new)).await;
                if let Ok(row) = &row
                    && !side.ids().knows(row.id)
                {
                    side.ids().born(row.id);
                }
                side.told(row)
            }
            Self::Find(id) => side.told(plugins.find(real(id)).await),
            Self::Get(id) => side.told(plugins.get(real(id)).await),
            Self::FindByName(name) => side.told(plugins.find_by_name(name).await),
            Self::GetByName(name) => side.told(plugins.get_by_name(name).await),
            Self::List(query, pages) => {
                side.pages(pages, |page| plugins.list(query.filter(), page))
                    .await
            }
            Self::ListFull(query, pages) => {
                side.pages(pages, |page| plugins.list_full(query.filter(), page))
                    .await
            }
            Self::Enable(id) => side.told(plugins.enable(real(id)).await),
            Self::Disable(id) => side.told(plugins.disable(real(id)).await),
            Self::ValidateConfig(id, config) => {
                let problems = plugins.validate_config(real(id), config.clone()).await;
                side.outcome(problems.map(crate::outcome::json_of))
            }
            Self::Delete(id) => side.told(plugins.delete(real(id)).await),
            Self::Restore(id) => side.told(plugins.restore(real(id)).await),
            Self::Purge(id) => side.told(plugins.purge(real(id)).await),
        }
    }
}
