//! The rows of an application's own entity.

use std::cmp::Ordering;

use aura_db::sea_orm::ActiveValue::Set;
use aura_db::{Action, Role, Scope, UserId};
use serde_json::{Value, json};

use super::check::Check;
use super::list::{part, visible};
use super::{Answer, Ctx, Model, amend};
use crate::notes::{Model as Note, NoteId};
use crate::outcome::{Failed, json_of};
use crate::steps::notes::{Call, Change, New, Order, Query, Which};

impl Model {
    pub(super) fn notes(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let own = self.enter_notes(ctx, call.action())?;
        match call {
            Call::Insert(new) => {
                let owner = self.insertable(ctx, own, new, Action::Create)?;
                if let Some(taken) = self.taken(new.slug.as_ref(), None) {
                    return Err(taken);
                }
                self.insert_note(ctx, owner, new)
            }
            Call::InsertMany(new) => {
                let checked = new.iter().try_for_each(|new| {
                    storable(&new.title)?;
                    owned_by(ctx, own, new.owner, Action::Create)
                });
                checked?;
                self.whole()?;
                let before = self.clone();
                for new in new {
                    let inserted = self.insert_next(ctx, own, new);
                    if let Err(failed) = inserted {
                        let in_transaction = self.in_transaction;
                        *self = before;
                        self.broken = in_transaction;
                        return Err(failed);
                    }
                }
                Ok(json!(new.len()))
            }
            Call::Upsert(new) => self.upsert_note(ctx, own, new),
            Call::Update(id, version, change) => self.update_note(ctx, own, *id, *version, change),
            Call::UpdateWhere(which, change) => self.update_notes(ctx, own, which, change),
            Call::Increment(id, by) => {
                self.whole()?;
                self.own_note(own, *id)?;
                self.adapt_note(ctx, *id, |row| row.uses += by)
            }
            Call::Delete(id) => {
                self.whole()?;
                self.own_note(own, *id)?;
                let now = self.now;
                self.adapt_note(ctx, *id, |row| row.deleted_at = Some(now))?;
                Ok(Value::Null)
            }
            Call::DeleteWhere(which) => {
                self.whole()?;
                let now = self.now;
                let ids = self.these(own, which);
                for id in &ids {
                    self.adapt_note(ctx, *id, |row| row.deleted_at = Some(now))?;
                }
                Ok(json!(ids.len()))
            }
            Call::Restore(id) => {
                self.whole()?;
                let row = self.any_note(own, *id)?;
                if row.deleted_at.is_none() {
                    return Ok(json_of(row));
                }
                self.adapt_note(ctx, *id, |row| row.deleted_at = None)
            }
            Call::Purge(id) => {
                self.whole()?;
                if self.any_note(own, *id)?.deleted_at.is_none() {
                    return Err(Failed::State {
                        what: "note".to_owned(),
                        id: id.0,
                    });
                }
                self.notes.rows.remove(&id.0);
                Ok(Value::Null)
            }
            read => self.read_notes(own, read),
        }
    }

    fn read_notes(&self, own: Option<UserId>, call: &Call) -> Answer {
        let shows = |row: &Note| own.is_none_or(|own| own == row.owner_id);
        match call {
            Call::Find(id) => {
                self.whole()?;
                Ok(self.own_note(own, *id).map_or(Value::Null, json_of))
            }
            Call::Get(id) => {
                self.whole()?;
                self.own_note(own, *id).map(json_of)
            }
            Call::FindMany(ids) => {
                self.whole()?;
                let mut found: Vec<&Note> = Vec::new();
                for id in ids {
                    if let Ok(row) = self.own_note(own, *id)
                        && found.iter().all(|other| other.id != row.id)
                    {
                        found.push(row);
                    }
                }
                Ok(json_of(found))
            }
            Call::List(query, pages) => {
                let rows = self.notes.rows.values().filter(|row| {
                    shows(row)
                        && fits(row, &query.which)
                        && visible(query.deleted, row.deleted_at.is_some())
                });
                let mut rows: Vec<&Note> = rows.collect();
                rows.sort_by(|left, right| compare(left, right, query));
                let parts = part(&rows.into_iter().map(json_of).collect::<Vec<_>>(), *pages)?;
                self.whole()?;
                Ok(parts)
            }
            Call::Count(which, deleted) => {
                self.whole()?;
                let rows = self.notes.rows.values().filter(|row| {
                    shows(row) && fits(row, which) && visible(*deleted, row.deleted_at.is_some())
                });
                Ok(json!(rows.count()))
            }
            _ => unreachable!("it writes"),
        }
    }

    /// To whose rows the call is limited, where the role allows it.
    fn enter_notes(&self, ctx: Ctx, action: Action) -> Result<Option<UserId>, Failed> {
        if !ctx.restricted {
            return Ok(None);
        }
        self.whole()?;
        let user = ctx.actor.and_then(|id| self.able(id));
        let scope = match user.map(|user| user.role) {
            Some(Role::Admin) => Some(Scope::Any),
            Some(Role::Editor) => Some(Scope::Own),
            Some(Role::Viewer) => (action == Action::Read).then_some(Scope::Any),
            Some(Role::User) | None => None,
        };
        match scope {
            None => Err(forbidden(ctx, action)),
            Some(scope) => Ok(ctx.actor.filter(|_| scope == Scope::Own)),
        }
    }

    /// Refuses a statement in a transaction that is broken.
    fn whole(&self) -> Result<(), Failed> {
        if self.broken {
            Err(Failed::Aborted)
        } else {
            Ok(())
        }
    }

    /// A statement that the database refuses breaks its transaction.
    fn refused(&mut self, failed: Failed) -> Failed {
        self.broken = self.in_transaction;
        failed
    }

    /// The owner of a row that may be inserted, as far as that is known without the others.
    fn insertable(
        &mut self,
        ctx: Ctx,
        own: Option<UserId>,
        new: &New,
        action: Action,
    ) -> Result<UserId, Failed> {
        storable(&new.title)?;
        owned_by(ctx, own, new.owner, action)?;
        self.whole()?;
        match new.owner.or(ctx.actor) {
            Some(owner) => Ok(owner),
            None => Err(self.refused(Failed::NotNull {
                table: "notes".to_owned(),
                column: "owner_id".to_owned(),
            })),
        }
    }

    /// The conflict with another row of this slug, deleted or not.
    fn taken(&self, slug: Option<&String>, except: Option<NoteId>) -> Option<Failed> {
        let slug = slug?;
        let mut rows = self.notes.rows.values();
        let other = rows.find(|row| {
            row.slug.as_ref() == Some(slug) && except.is_none_or(|except| except.0 != row.id)
        })?;
        Some(conflict(other.deleted_at.is_some()))
    }

    fn insert_note(&mut self, ctx: Ctx, owner: UserId, new: &New) -> Answer {
        if !self.users.rows.contains_key(&owner.0) {
            return Err(self.refused(Failed::ForeignKey("notes".to_owned())));
        }
        let now = self.now;
        Ok(json_of(self.notes.insert(|id| Note {
            id,
            title: new.title.clone(),
            slug: new.slug.clone(),
            rank: new.rank,
            uses: 0,
            version: 1,
            owner_id: owner,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            created_by: ctx.actor,
            updated_by: ctx.actor,
        })))
    }

    /// One row of several: of a conflict the database says no more than the columns.
    fn insert_next(&mut self, ctx: Ctx, own: Option<UserId>, new: &New) -> Answer {
        let owner = self.insertable(ctx, own, new, Action::Create)?;
        if self.taken(new.slug.as_ref(), None).is_some() {
            return Err(conflict(false));
        }
        self.insert_note(ctx, owner, new)
    }

    fn upsert_note(&mut self, ctx: Ctx, own: Option<UserId>, new: &New) -> Answer {
        let owner = self.insertable(ctx, own, new, Action::Update)?;
        let mut rows = self.notes.rows.values();
        let other = rows.find(|row| new.slug.is_some() && row.slug == new.slug);
        let Some(other) = other else {
            return self.insert_note(ctx, owner, new);
        };
        let hidden = own.is_some_and(|own| own != other.owner_id);
        if other.deleted_at.is_some() || hidden {
            return Err(conflict(own.is_none()));
        }
        let id = NoteId(other.id);
        self.adapt_note(ctx, id, |row| {
            row.title.clone_from(&new.title);
            row.rank = new.rank;
        })
    }

    fn update_note(
        &mut self,
        ctx: Ctx,
        own: Option<UserId>,
        id: NoteId,
        version: i64,
        change: &Change,
    ) -> Answer {
        changeable(change)?;
        owned_by(ctx, own, change.owner, Action::Update)?;
        self.whole()?;
        if change.is_empty() {
            return self.own_note(own, id).map(json_of);
        }
        if let Set(slug) = &change.slug
            && let Some(taken) = self.taken(slug.as_ref(), Some(id))
        {
            return Err(taken);
        }
        let row = self.own_note(own, id)?;
        if row.version != version {
            return Err(Failed::Stale {
                what: "note".to_owned(),
                id: id.0,
                read: version,
                found: row.version,
            });
        }
        self.known_owner(change)?;
        self.adapt_note(ctx, id, |row| change_note(row, change))
    }

    fn update_notes(
        &mut self,
        ctx: Ctx,
        own: Option<UserId>,
        which: &Which,
        change: &Change,
    ) -> Answer {
        changeable(change)?;
        owned_by(ctx, own, change.owner, Action::Update)?;
        if change.is_empty() {
            return Ok(json!(0));
        }
        self.whole()?;
        let ids = self.these(own, which);
        if let Set(Some(slug)) = &change.slug {
            let except = ids.first().filter(|_| ids.len() == 1).copied();
            let is_taken = ids.len() > 1 || self.taken(Some(slug), except).is_some();
            if !ids.is_empty() && is_taken {
                return Err(self.refused(conflict(false)));
            }
        }
        if !ids.is_empty() {
            self.known_owner(change)?;
        }
        for id in &ids {
            self.adapt_note(ctx, *id, |row| change_note(row, change))?;
        }
        Ok(json!(ids.len()))
    }

    fn known_owner(&mut self, change: &Change) -> Result<(), Failed> {
        match change.owner {
            Some(owner) if !self.users.rows.contains_key(&owner.0) => {
                Err(self.refused(Failed::ForeignKey("notes".to_owned())))
            }
            _ => Ok(()),
        }
    }

    /// The rows of a filter that may be written.
    fn these(&self, own: Option<UserId>, which: &Which) -> Vec<NoteId> {
        let rows = self.notes.rows.values().filter(|row| {
            row.deleted_at.is_none()
                && own.is_none_or(|own| own == row.owner_id)
                && fits(row, which)
        });
        rows.map(|row| NoteId(row.id)).collect()
    }

    fn any_note(&self, own: Option<UserId>, id: NoteId) -> Result<&Note, Failed> {
        let row = self.notes.rows.get(&id.0);
        row.filter(|row| own.is_none_or(|own| own == row.owner_id))
            .ok_or_else(|| Failed::not_found("note", &id.0))
    }

    fn own_note(&self, own: Option<UserId>, id: NoteId) -> Result<&Note, Failed> {
        let row = self.any_note(own, id)?;
        if row.deleted_at.is_some() {
            return Err(Failed::not_found("note", &id.0));
        }
        Ok(row)
    }

    fn adapt_note(&mut self, ctx: Ctx, id: NoteId, change: impl FnOnce(&mut Note)) -> Answer {
        let now = self.now;
        let row = self.notes.rows.get_mut(&id.0);
        let row = row.ok_or_else(|| Failed::not_found("note", &id.0))?;
        change(row);
        row.version += 1;
        amend!(row, ctx, now);
        Ok(json_of(&*row))
    }
}

fn forbidden(ctx: Ctx, action: Action) -> Failed {
    Failed::Forbidden {
        user: ctx.actor.unwrap_or(UserId(0)),
        action,
        what: "note",
    }
}

fn owned_by(
    ctx: Ctx,
    own: Option<UserId>,
    owner: Option<UserId>,
    action: Action,
) -> Result<(), Failed> {
    match (own, owner) {
        (Some(user), Some(owner)) if user != owner => Err(forbidden(ctx, action)),
        _ => Ok(()),
    }
}

fn conflict(deleted: bool) -> Failed {
    Failed::conflict("notes", &["slug"], deleted)
}

fn storable(title: &str) -> Result<(), Failed> {
    let mut check = Check::default();
    check.name("title", title, 40);
    check.done()
}

fn changeable(change: &Change) -> Result<(), Failed> {
    change
        .title
        .as_ref()
        .map_or(Ok(()), |title| storable(title))
}

fn change_note(row: &mut Note, change: &Change) {
    if let Some(title) = &change.title {
        row.title.clone_from(title);
    }
    if let Set(slug) = &change.slug {
        row.slug.clone_from(slug);
    }
    if let Set(rank) = change.rank {
        row.rank = rank;
    }
    if let Some(owner) = change.owner {
        row.owner_id = owner;
    }
}

fn fits(row: &Note, which: &Which) -> bool {
    match which {
        Which::All => true,
        Which::Title(title) => row.title == *title,
        Which::RankAbove(rank) => row.rank.is_some_and(|of| of > *rank),
        Which::Owner(owner) => row.owner_id == *owner,
    }
}

/// The order of a list, with NULL last in either direction.
fn compare(left: &Note, right: &Note, query: &Query) -> Ordering {
    let turn = |order: Ordering| {
        if query.descending {
            order.reverse()
        } else {
            order
        }
    };
    let by = match query.order {
        Order::Id => Ordering::Equal,
        Order::Title => turn(left.title.cmp(&right.title)),
        Order::Rank => match (left.rank, right.rank) {
            (Some(left), Some(right)) => turn(left.cmp(&right)),
            (left, right) => left.is_none().cmp(&right.is_none()),
        },
        Order::UsesAndTime => {
            let times = right.updated_at.cmp(&left.updated_at);
            turn(left.uses.cmp(&right.uses).then(times))
        }
    };
    // The key goes with the last column.
    let ids = match query.order {
        Order::UsesAndTime => right.id.cmp(&left.id),
        _ => left.id.cmp(&right.id),
    };
    by.then(turn(ids))
}
