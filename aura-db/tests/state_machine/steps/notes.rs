//! Calls about the rows of an application's own entity.

use aura_db::page::Sort;
use aura_db::sea_orm::ActiveValue::{self, NotSet, Set};
use aura_db::sea_orm::{ColumnTrait, Condition};
use aura_db::{Action, Deleted, PageRequest, Repository, UserId};
use serde_json::json;

use super::Kinds;
use super::pages::{At, Pages};
use crate::draw::Draw;
use crate::model::Model;
use crate::notes::{ActiveModel, Column, Entity, NoteId};
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Insert(New),
    InsertMany(Vec<New>),
    Upsert(New),
    Find(NoteId),
    Get(NoteId),
    FindMany(Vec<NoteId>),
    List(Query, Pages),
    Count(Which, Deleted),
    /// The row of a version.
    Update(NoteId, i64, Change),
    UpdateWhere(Which, Change),
    Increment(NoteId, i64),
    Delete(NoteId),
    DeleteWhere(Which),
    Restore(NoteId),
    Purge(NoteId),
}

#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) title: String,
    pub(crate) slug: Option<String>,
    pub(crate) rank: Option<i64>,
    pub(crate) owner: Option<UserId>,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) title: Option<String>,
    pub(crate) slug: ActiveValue<Option<String>>,
    pub(crate) rank: ActiveValue<Option<i64>>,
    pub(crate) owner: Option<UserId>,
}

/// A filter.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    All,
    Title(String),
    RankAbove(i64),
    Owner(UserId),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Id,
    Title,
    Rank,
    /// And then those that were written last.
    UsesAndTime,
}

#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) which: Which,
    pub(crate) deleted: Deleted,
    pub(crate) order: Order,
    pub(crate) descending: bool,
}

impl Query {
    /// Every note.
    pub(crate) const ALL: Self = Self {
        which: Which::All,
        deleted: Deleted::Included,
        order: Order::Id,
        descending: false,
    };

    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        Self {
            order: draw.pick(&[Order::Id, Order::Title, Order::Rank, Order::UsesAndTime]),
            descending: draw.yes(),
            deleted: draw.deleted(),
            which: Which::draw(draw, model),
        }
    }

    fn sort(&self) -> Sort<Entity> {
        let sort = match self.order {
            Order::Id => Sort::asc(Column::Id),
            Order::Title => Sort::asc(Column::Title),
            Order::Rank => Sort::asc(Column::Rank),
            Order::UsesAndTime => Sort::asc(Column::Uses).then_desc(Column::UpdatedAt),
        };
        if self.descending {
            sort.reverse()
        } else {
            sort
        }
    }
}

impl Which {
    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        match draw.byte() % 8 {
            0..3 => Self::All,
            // What a statement can't hold is refused before it is one.
            3 | 4 => Self::Title(title(draw).replace('\0', "")),
            5 | 6 => Self::RankAbove(rank(draw)),
            _ => Self::Owner(owner(draw, model)),
        }
    }

    fn filter(&self, side: &Side) -> Condition {
        let all = Condition::all();
        match self {
            Self::All => all,
            Self::Title(title) => all.add(Column::Title.eq(title.as_str())),
            Self::RankAbove(rank) => all.add(Column::Rank.gt(*rank)),
            Self::Owner(owner) => all.add(Column::OwnerId.eq(side.real(*owner))),
        }
    }
}

impl New {
    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        Self {
            title: title(draw),
            slug: draw.maybe(slug),
            rank: draw.maybe(rank),
            owner: (draw.byte() % 8 != 7).then(|| owner(draw, model)),
        }
    }

    fn row(&self, side: &Side) -> ActiveModel {
        ActiveModel {
            title: Set(self.title.clone()),
            slug: Set(self.slug.clone()),
            rank: Set(self.rank),
            owner_id: self.owner.map_or(NotSet, |owner| Set(side.real(owner))),
            ..Default::default()
        }
    }
}

impl Change {
    fn draw(draw: &mut Draw<'_>, model: &Model) -> Self {
        Self {
            title: draw.maybe(title),
            slug: draw.change(slug),
            rank: draw.change(rank),
            owner: draw.rarely(8).then(|| owner(draw, model)),
        }
    }

    /// Whether it writes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.title.is_none() && self.owner.is_none() && self.slug == NotSet && self.rank == NotSet
    }

    fn row(&self, side: &Side) -> ActiveModel {
        ActiveModel {
            title: self.title.clone().map_or(NotSet, Set),
            slug: self.slug.clone(),
            rank: self.rank.clone(),
            owner_id: self.owner.map_or(NotSet, |owner| Set(side.real(owner))),
            ..Default::default()
        }
    }
}

fn title(draw: &mut Draw<'_>) -> String {
    draw.name(40)
}

/// Few, so that they are taken.
fn slug(draw: &mut Draw<'_>) -> String {
    draw.pick(&["a", "b", "c", "d", "e", "É"]).to_owned()
}

fn rank(draw: &mut Draw<'_>) -> i64 {
    draw.pick(&[0, 1, 2, -1, i64::MAX, i64::MIN])
}

fn owner(draw: &mut Draw<'_>, model: &Model) -> UserId {
    UserId(draw.handle(model.users.count()))
}

fn note(draw: &mut Draw<'_>, model: &Model) -> NoteId {
    NoteId(draw.handle(model.notes.count()))
}

/// One that is deleted, most of the time.
fn gone(draw: &mut Draw<'_>, model: &Model) -> NoteId {
    let any = note(draw, model);
    let rows = model.notes.rows.values();
    let gone = rows.filter(|row| row.deleted_at.is_some());
    draw.rather(gone.map(|row| NoteId(row.id)), any)
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Notes($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(50, |draw, model| Call::Insert(New::draw(draw, model))),
    kind!(30, |draw, model| {
        let first = New::draw(draw, model);
        let mut rows = vec![first.clone()];
        for _ in 0..draw.byte() % 4 {
            // Of one owner: which of several faults is reported differs.
            let owner = first.owner;
            rows.push(New {
                owner,
                ..New::draw(draw, model)
            });
        }
        let owner = first
            .owner
            .is_some_and(|owner| model.users.rows.contains_key(&owner.0));
        if !owner {
            for row in &mut rows {
                row.slug = None;
            }
        }
        Call::InsertMany(rows)
    }),
    kind!(40, |draw, model| Call::Upsert(New::draw(draw, model))),
    kind!(19, |draw, model| Call::Find(note(draw, model))),
    kind!(19, |draw, model| Call::Get(note(draw, model))),
    kind!(19, |draw, model| Call::FindMany(vec![
        note(draw, model),
        note(draw, model),
        note(draw, model)
    ])),
    kind!(40, |draw, model| Call::List(
        Query::draw(draw, model),
        Pages::draw(draw)
    )),
    kind!(19, |draw, model| Call::Count(
        Which::draw(draw, model),
        draw.deleted()
    )),
    kind!(60, |draw, model| {
        let id = note(draw, model);
        let version = model.notes.rows.get(&id.0).map_or(1, |row| row.version);
        let version = version + draw.pick(&[0, 0, 0, -1, 0, 1]);
        Call::Update(id, version, Change::draw(draw, model))
    }),
    kind!(19, |draw, model| Call::UpdateWhere(
        Which::draw(draw, model),
        Change::draw(draw, model)
    )),
    kind!(19, |draw, model| Call::Increment(
        note(draw, model),
        draw.pick(&[1, -1, 5, 0])
    )),
    kind!(30, |draw, model| Call::Delete(note(draw, model))),
    kind!(22, |draw, model| Call::DeleteWhere(Which::draw(
        draw, model
    ))),
    kind!(19, |draw, model| Call::Restore(gone(draw, model))),
    kind!(19, |draw, model| Call::Purge(gone(draw, model))),
];

impl Call {
    /// What the policy is asked for.
    pub(crate) fn action(&self) -> Action {
        match self {
            Self::Insert(_) | Self::InsertMany(_) => Action::Create,
            Self::Find(_) | Self::Get(_) | Self::FindMany(_) | Self::List(..) | Self::Count(..) => {
                Action::Read
            }
            Self::Upsert(_) | Self::Update(..) | Self::UpdateWhere(..) | Self::Increment(..) => {
                Action::Update
            }
            Self::Delete(_) | Self::DeleteWhere(_) | Self::Restore(_) | Self::Purge(_) => {
                Action::Delete
            }
        }
    }

    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let notes = door.notes();
        let real = |id: &NoteId| side.real(*id).0;
        match self {
            Self::Insert(new) => {
                let row = new.row(side);
                side.made(notes.insert(row).await, |row| NoteId(row.id))
            }
            Self::InsertMany(new) => {
                let rows: Vec<_> = new.iter().map(|new| new.row(side)).collect();
                let inserted = notes.insert_many(rows).await;
                if inserted.is_ok() {
                    let all = notes.deleted(Deleted::Included).find_by(()).await;
                    for row in all.expect("what was inserted can be read") {
                        side.born_once(NoteId(row.id));
                    }
                }
                side.told(inserted)
            }
            Self::Upsert(new) => {
                let written = notes.upsert(new.row(side), &[Column::Slug]).await;
                if let Ok(row) = &written {
                    side.born_once(NoteId(row.id));
                }
                side.told(written)
            }
            Self::Find(id) => side.told(notes.find(real(id)).await),
            Self::Get(id) => side.told(notes.get(real(id)).await),
            Self::FindMany(ids) => {
                let ids: Vec<i64> = ids.iter().map(real).collect();
                side.told(notes.find_many(ids).await)
            }
            Self::List(query, pages) => list(side, &notes, query, pages).await,
            Self::Count(which, deleted) => {
                let count = notes.deleted(*deleted).count(which.filter(side)).await;
                side.told(count)
            }
            Self::Update(id, version, change) => {
                let row = ActiveModel {
                    id: ActiveValue::Unchanged(real(id)),
                    version: ActiveValue::Unchanged(*version),
                    ..change.row(side)
                };
                side.told(notes.update(row).await)
            }
            Self::UpdateWhere(which, change) => {
                let changed = notes.update_where(which.filter(side), change.row(side));
                side.told(changed.await)
            }
            Self::Increment(id, by) => {
                side.told(notes.increment(real(id), Column::Uses, *by).await)
            }
            Self::Delete(id) => side.told(notes.delete(real(id)).await),
            Self::DeleteWhere(which) => side.told(notes.delete_where(which.filter(side)).await),
            Self::Restore(id) => side.told(notes.restore(real(id)).await),
            Self::Purge(id) => side.told(notes.purge(real(id)).await),
        }
    }
}

/// One page, or all of them, which must be the same on the way back.
async fn list(side: &Side, notes: &Repository<Entity>, query: &Query, pages: &Pages) -> Outcome {
    let notes = notes.deleted(query.deleted);
    let (filter, sort) = (query.which.filter(side), query.sort());
    let list = |page| notes.list(filter.clone(), &sort, page);
    let forth = side.pages(pages, &list).await;
    let (At::All, Ok(parts)) = (pages.at, &forth.result) else {
        return forth;
    };
    let count = parts.as_array().map_or(0, Vec::len);
    let mut ids = Vec::new();
    let mut page = PageRequest::first(pages.size);
    for number in 1..=count {
        let part = list(page).await.expect("it was listed before");
        ids.push(part.items.iter().map(|row| row.id).collect::<Vec<_>>());
        let Some(next) = part.next else {
            assert_eq!(number, count, "{query:?}");
            let Some(mut before) = part.previous else {
                break;
            };
            let mut back = vec![ids[count - 1].clone()];
            loop {
                let part = list(PageRequest::before(before, pages.size)).await;
                let part = part.expect("it was listed before");
                back.push(part.items.iter().map(|row| row.id).collect());
                match part.previous {
                    Some(previous) => before = previous,
                    None => break,
                }
            }
            back.reverse();
            if back != ids {
                return Outcome::ok(json!({"forth": ids, "back": back}));
            }
            break;
        };
        page = PageRequest::after(next, pages.size);
    }
    forth
}
