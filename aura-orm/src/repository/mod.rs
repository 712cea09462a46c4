//! The rows of any entity.
//!
//! ```
//! use aura_orm::repository::RepositoryEntity;
//! use aura_orm::{Executor, PageRequest};
//! # use aura_orm::page::Sort;
//! use sea_orm::ActiveValue::Set;
//!
//! # mod notes {
//! #     use sea_orm::entity::prelude::*;
//! #     #[sea_orm::model]
//! #     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
//! #     #[sea_orm(table_name = "notes")]
//! #     pub struct Model {
//! #         #[sea_orm(primary_key)]
//! #         pub id: i64,
//! #         pub title: String,
//! #     }
//! #     impl ActiveModelBehavior for ActiveModel {}
//! # }
//! impl RepositoryEntity for notes::Entity {}
//!
//! # async fn example(db: Executor) -> Result<(), aura_orm::Error> {
//! let notes = db.repository::<notes::Entity>();
//! let milk = notes
//!     .insert(notes::ActiveModel { title: Set("milk".to_owned()), ..Default::default() })
//!     .await?;
//! assert_eq!(notes.get(milk.id).await?, milk);
//! let page = notes
//!     .list(notes::COLUMN.title.contains("m"), &Sort::default(), PageRequest::first(50))
//!     .await?;
//! assert_eq!(page.items, [milk]);
//! # Ok(()) }
//! ```

mod delete;
mod entity;
mod filter;
mod hooks;
mod key;
mod projection;
mod query;
mod query_value;
mod read;
mod related;
mod row;
mod unique;
mod write;

use std::fmt;
use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, ExprTrait, QueryFilter, Select, Value,
};

use self::entity::EntityPlan;
use self::key::{Key, not_found};
use crate::error::Error;
use crate::executor::{Access, Executor, Operation};
use crate::policy::{Action, RoleSource, Scope};

pub use self::entity::{Conventions, RepositoryEntity};
pub use self::filter::{Deleted, Filter, Rows};
pub use self::hooks::Hooks;
pub use self::key::KeyOf;
pub use self::projection::Projection;
pub use self::query::{MAX_CONDITIONS, MAX_SEARCH, MAX_VALUES, Query};
pub use self::read::{MAX_KEYS, MAX_ROWS};

/// The rows of an entity. From [`Executor::repository`]. Cheap to clone.
pub struct Repository<E: RepositoryEntity, X = Error> {
    executor: Executor<X>,
    plan: &'static EntityPlan<E>,
    deleted: Deleted,
    /// The name of its operations, where it is not the verb.
    name: Option<&'static str>,
    /// Asked for the actor's role before each operation.
    roles: Option<Arc<dyn RoleSource>>,
    /// The role that was found, within a restricted operation.
    role: Option<Arc<str>>,
    /// The user to whose rows an operation is limited.
    own: Option<i64>,
}

impl<E: RepositoryEntity, X> Clone for Repository<E, X> {
    fn clone(&self) -> Self {
        Self {
            executor: self.executor.clone(),
            plan: self.plan,
            deleted: self.deleted,
            name: self.name,
            roles: self.roles.clone(),
            role: self.role.clone(),
            own: self.own,
        }
    }
}

impl<E: RepositoryEntity, X> fmt::Debug for Repository<E, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("table", &E::default().table_name())
            .field("deleted", &self.deleted)
            .field("executor", &self.executor)
            .finish_non_exhaustive()
    }
}

/// What the errors of the layer above must be able to do.
pub trait RepositoryError: From<Error> + fmt::Display + Send + 'static {}

impl<X: From<Error> + fmt::Display + Send + 'static> RepositoryError for X {}

impl<X> Executor<X> {
    /// Returns the repository of an entity, in the transaction of this executor where it
    /// is in one.
    #[must_use]
    pub fn repository<E: RepositoryEntity>(&self) -> Repository<E, X> {
        Repository {
            executor: self.clone(),
            plan: EntityPlan::get(),
            deleted: Deleted::Hidden,
            name: None,
            roles: None,
            role: None,
            own: None,
        }
    }
}

impl<E: RepositoryEntity, X: RepositoryError> Repository<E, X> {
    /// Returns the repository whose reads see soft-deleted rows too, or only those. Writes
    /// are always about rows that are not deleted.
    #[must_use]
    pub fn deleted(&self, deleted: Deleted) -> Self {
        Self {
            deleted,
            ..self.clone()
        }
    }

    /// Returns the repository whose operations have this name in spans and statistics, as
    /// `activate` for what is an update.
    #[must_use]
    pub fn named(&self, name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..self.clone()
        }
    }

    /// Returns the repository as the actor may use it: each operation asks for the actor's
    /// role, in its own transaction, and the entity's [policy](RepositoryEntity::policy) for
    /// what the role allows. Of a user who may reach own rows only, the rows of others are
    /// hidden, and new rows belong to the user. A write of a row that the user may read and
    /// not write is [`Error::Forbidden`]; of one that is hidden, [`Error::NotFound`].
    #[must_use]
    pub fn restricted(&self, roles: Arc<dyn RoleSource>) -> Self {
        Self {
            roles: Some(roles),
            ..self.clone()
        }
    }

    /// Returns the repository as a role may use it, for code that has asked for the actor's
    /// role already, in the same transaction. Without an actor the rows of no user are own.
    #[must_use]
    pub fn with_role(&self, role: &str) -> Self {
        Self {
            roles: None,
            role: Some(role.into()),
            ..self.clone()
        }
    }

    /// Runs an operation on the entity's table.
    async fn operate<T, F, Fut>(
        &self,
        name: &'static str,
        action: Action,
        access: Access,
        run: F,
    ) -> Result<T, X>
    where
        F: Fn(Self) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, X>> + Send,
        T: Send,
    {
        self.plan.check()?;
        let operation = Operation {
            table: E::default().table_name(),
            name: self.name.unwrap_or(name),
        };
        let with = |executor, own| Self {
            executor,
            plan: self.plan,
            deleted: self.deleted,
            name: None,
            roles: self.roles.clone(),
            role: self.role.clone(),
            own,
        };
        let Some(roles) = &self.roles else {
            let own = self.scope(action)?;
            let access = if own.is_some() && access.writes() {
                // For what is checked behind the write.
                access.in_transaction()
            } else {
                access
            };
            let run = |executor| run(with(executor, own));
            return self.executor.operate(operation, access, run).await;
        };
        let run = &run;
        let authorized = |executor| {
            let repository = with(executor, self.own);
            async move { run(repository.authorize(&**roles, action, access).await?).await }
        };
        let access = access.in_transaction();
        self.executor.operate(operation, access, authorized).await
    }

    /// Asks for the actor's role in the transaction of an operation, so that a demotion takes
    /// effect at once.
    async fn authorize(
        self,
        roles: &dyn RoleSource,
        action: Action,
        access: Access,
    ) -> Result<Self, X> {
        let user = self.executor.actor();
        let role = match user {
            Some(user) => {
                let tx = self.executor.uncounted().with_errors();
                roles.role(&tx, user, access.writes()).await?
            }
            None => None,
        };
        let Some(role) = role else {
            return Err(self.forbidden(action).into());
        };
        let found = Self {
            // Operations that this one calls are part of it.
            roles: None,
            role: Some(role.into()),
            ..self
        };
        Ok(found.allowed(action)?)
    }

    /// Returns the repository for another action of an operation, as the role that was
    /// found allows it.
    fn allowed(&self, action: Action) -> Result<Self, Error> {
        Ok(Self {
            own: self.scope(action)?,
            ..self.clone()
        })
    }

    /// Returns the user to whose rows the role that was found limits an action.
    fn scope(&self, action: Action) -> Result<Option<i64>, Error> {
        let Some(role) = &self.role else {
            return Ok(self.own);
        };
        let own = match E::policy(role, action) {
            None => return Err(self.forbidden(action)),
            Some(Scope::Any) => None,
            Some(Scope::Own) => match self.executor.actor() {
                None => return Err(self.forbidden(action)),
                actor => actor,
            },
        };
        if let Some(user) = own
            && self.own_rows(user).is_none()
        {
            let problem = format!(
                "the policy of {} allows a user's own rows, and neither `owner_id` nor \
                 `own_rows` says which they are",
                E::name()
            );
            return Err(Error::Other {
                context: "asking a policy",
                source: problem.into(),
            });
        }
        Ok(own)
    }

    /// Returns the repository of another entity, as the role that was found may read it.
    fn other<F: RepositoryEntity>(&self) -> Result<Repository<F, X>, Error> {
        let other = Repository::<F, X> {
            role: self.role.clone(),
            ..self.executor.repository()
        };
        other.plan.check()?;
        other.allowed(Action::Read)
    }

    fn forbidden(&self, action: Action) -> Error {
        Error::Forbidden {
            user: self.executor.actor().unwrap_or_default(),
            action,
            what: E::name(),
        }
    }

    /// Returns the condition of a user's own rows.
    fn own_rows(&self, user: i64) -> Option<Condition> {
        E::own_rows(user).or_else(|| {
            let owner = self.plan.conventions.owner_id?;
            Some(Condition::all().add(owner.eq(user)))
        })
    }

    /// Returns whether only rows may be reached that are a user's own through other tables.
    fn is_own_by_relation(&self) -> bool {
        self.own.is_some_and(|user| E::own_rows(user).is_some())
    }

    /// Refuses a row that was written and is not the user's own, where another table says
    /// whose it is. The transaction is undone.
    async fn ensure_own_by_relation(&self, action: Action, row: &E::Model) -> Result<(), X> {
        if !self.is_own_by_relation() {
            return Ok(());
        }
        let key = Key::of_model(self.plan, row);
        let own = E::find()
            .filter(key.condition(self.plan))
            .filter(self.reachable());
        if self.executor.exists(own).await? {
            Ok(())
        } else {
            Err(self.forbidden(action).into())
        }
    }

    /// Converts the error of a write. Where another table says which rows are the user's own, a
    /// reference to a row that isn't there looks like one to another's, which would say that
    /// it exists.
    fn hiding_parents(&self, action: Action, error: Error) -> Error {
        match error {
            Error::ForeignKey { .. } if self.is_own_by_relation() => self.forbidden(action),
            error => error,
        }
    }

    /// Refuses a key that the database chooses, where only own rows may be reached: a conflict
    /// would say that another's row has it.
    fn ensure_key_is_unset(&self, row: &E::ActiveModel) -> Result<(), X> {
        let generated = self.own.is_some() && self.plan.key_is_generated();
        if generated && Key::of_row(self.plan, row).is_some() {
            return Err(Error::field("key", "must not be set, the database chooses it").into());
        }
        Ok(())
    }

    /// Refuses a write of several rows, where another table says which are the user's own.
    fn ensure_bulk(&self, action: Action) -> Result<(), X> {
        if self.is_own_by_relation() {
            return Err(self.forbidden(action).into());
        }
        Ok(())
    }

    /// Returns why there is no row with this key to be written: it may be read, and not
    /// written; or it is not there, or hidden.
    async fn out_of_reach(&self, action: Action, key: &Key) -> Result<Error, X> {
        if self.own.is_some()
            && let Ok(readable) = self.allowed(Action::Read)
            && readable.own.is_none()
        {
            let row = E::find().filter(key.condition(self.plan));
            if self
                .executor
                .exists(readable.visible(row.into_rows()))
                .await?
            {
                return Ok(self.forbidden(action));
            }
        }
        Ok(not_found::<E>(key))
    }

    /// Refuses a row that would belong to another user, where only own rows may be reached.
    fn ensure_own(&self, action: Action, row: &E::ActiveModel) -> Result<(), X> {
        let (Some(user), Some(owner)) = (self.own, self.plan.conventions.owner_id) else {
            return Ok(());
        };
        match row.get(owner) {
            ActiveValue::Set(value) if value != Value::from(user) => {
                Err(self.forbidden(action).into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the condition of the rows that may be reached, deleted or not.
    fn reachable(&self) -> Condition {
        if self.roles.is_some() {
            // Not asked yet: none, should a caller forget it.
            return Condition::all().add(Expr::val(1).eq(0));
        }
        let own = self.own.and_then(|user| self.own_rows(user));
        own.unwrap_or_else(Condition::all)
    }

    /// Returns the condition of the rows that may be written: those that may be reached and
    /// aren't deleted.
    fn writable(&self) -> Condition {
        let deleted_at = self.plan.conventions.deleted_at;
        self.reachable()
            .add_option(deleted_at.map(|deleted_at| deleted_at.is_null()))
    }

    /// Returns the select of these rows, without those that are hidden.
    fn visible(&self, rows: Rows<E>) -> Select<E> {
        let select = rows.into_select().filter(self.reachable());
        let Some(deleted_at) = self.plan.conventions.deleted_at else {
            return select;
        };
        match self.deleted {
            Deleted::Hidden => select.filter(deleted_at.is_null()),
            Deleted::Included => select,
            Deleted::Only => select.filter(deleted_at.is_not_null()),
        }
    }
}
