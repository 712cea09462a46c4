//! What a repository knows of an entity.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sea_orm::sea_query::{ArrayType, StringLen};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ColumnType, Condition, EntityTrait, Iterable, ModelTrait,
    PrimaryKeyToColumn, PrimaryKeyTrait, QueryFilter, Select,
};

use super::hooks::Hooks;
use super::unique;
use crate::CachedSql;
use crate::error::{Error, FieldError};
use crate::policy::{Action, Scope};
use crate::row::EntityModel;

/// An entity that has a [`Repository`](super::Repository).
///
/// One line is enough: `impl RepositoryEntity for credentials::Entity {}`. The repository
/// then maintains the columns of [`Conventions`] that the entity has.
///
/// `SeaORM`'s `ActiveModelBehavior::new` is called by `ActiveModel::new`; its other hooks
/// are not, because they need a connection of `SeaORM`'s. [`RepositoryEntity::hooks`] has
/// others.
pub trait RepositoryEntity:
    EntityModel<
        ActiveModel: Send + Sync,
        Model: Sync,
        PrimaryKey: PrimaryKeyToColumn<Column = Self::Column>,
    >
{
    /// Returns what a row is called in errors, in a word. The default is the table's name.
    #[must_use]
    fn name() -> &'static str {
        Self::default().table_name()
    }

    /// Returns the columns that the repository maintains.
    #[must_use]
    fn conventions() -> Conventions<Self::Column> {
        Conventions::by_name::<Self>()
    }

    /// Returns a select of the rows that are not soft-deleted, for a query of your own:
    /// `find()` hides none.
    #[must_use]
    fn not_deleted() -> Select<Self> {
        let select = Self::find();
        match EntityPlan::<Self>::get().conventions.deleted_at {
            Some(deleted_at) => select.filter(deleted_at.is_null()),
            None => select,
        }
    }

    /// Checks the values that are set in a row before it is written, and returns all
    /// that is wrong. Not called by [`increment`](super::Repository::increment), which sets
    /// none. That text fits the length of its column is checked before.
    #[must_use]
    fn validate(row: &Self::ActiveModel) -> Vec<FieldError> {
        let _ = row;
        Vec::new()
    }

    /// Returns whose rows a role may do this with; `None` when it may not. Asked by
    /// [restricted](super::Repository::restricted) repositories; the default refuses.
    #[must_use]
    fn policy(role: &str, action: Action) -> Option<Scope> {
        let _ = (role, action);
        None
    }

    /// Returns the condition of a user's own rows, where a policy allows a role no others and
    /// another table says whose they are. `None` where it is the column `owner_id` of the
    /// conventions.
    ///
    /// A row that is inserted or updated must meet it afterwards; `insert_many`,
    /// `update_where` and `upsert`, whose rows can't be asked one by one, are refused to
    /// such a user. A reference to a row that doesn't exist is refused as one to another's
    /// (`Error::Forbidden`), whatever it refers to; a foreign key that is deferred is checked
    /// at the COMMIT only, and its error says that there is no such row.
    #[must_use]
    fn own_rows(user: i64) -> Option<Condition> {
        let _ = user;
        None
    }

    /// Returns the hooks that run inside the transaction of each write of a single row.
    #[must_use]
    fn hooks() -> Option<&'static dyn Hooks<Self>> {
        None
    }
}

/// The columns that a repository maintains. `None` for those that the entity lacks.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Conventions<C> {
    /// When the row was inserted: a time with a zone.
    pub created_at: Option<C>,
    /// When the row was written last: a time with a zone.
    pub updated_at: Option<C>,
    /// The user who inserted the row: an integer that may be NULL.
    pub created_by: Option<C>,
    /// The user who wrote the row last: an integer that may be NULL.
    pub updated_by: Option<C>,
    /// When the row was soft-deleted: a time with a zone that may be NULL. Such rows are
    /// hidden unless they are asked for.
    pub deleted_at: Option<C>,
    /// The user whom the row belongs to: an integer. The actor's, unless it is set.
    pub owner_id: Option<C>,
    /// The optimistic lock: an integer that each update of the row checks and adds 1 to.
    /// No name makes a column one; see [`Conventions::lock`].
    pub version: Option<C>,
}

impl<C: ColumnTrait> Conventions<C> {
    /// Finds the columns by their names.
    #[must_use]
    pub fn by_name<E: EntityTrait<Column = C>>() -> Self {
        let column = |name: &str| E::Column::iter().find(|column| column.as_str() == name);
        Self {
            created_at: column("created_at"),
            updated_at: column("updated_at"),
            created_by: column("created_by"),
            updated_by: column("updated_by"),
            deleted_at: column("deleted_at"),
            owner_id: column("owner_id"),
            version: None,
        }
    }

    /// Makes a column the optimistic lock: an update must hold the value that was read.
    #[must_use]
    pub fn lock(self, version: C) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    /// Sets the column that soft-deletes a row; `None` when rows are deleted for good.
    #[must_use]
    pub fn deleted_at(self, column: Option<C>) -> Self {
        Self {
            deleted_at: column,
            ..self
        }
    }

    /// Sets the column of the user whom a row belongs to.
    #[must_use]
    pub fn owner_id(self, column: Option<C>) -> Self {
        Self {
            owner_id: column,
            ..self
        }
    }

    /// Sets the columns of the times at which a row was inserted and written last.
    #[must_use]
    pub fn times(self, created_at: Option<C>, updated_at: Option<C>) -> Self {
        Self {
            created_at,
            updated_at,
            ..self
        }
    }

    /// Sets the columns of the user who inserted a row and of the one who wrote it last.
    #[must_use]
    pub fn authors(self, created_by: Option<C>, updated_by: Option<C>) -> Self {
        Self {
            created_by,
            updated_by,
            ..self
        }
    }

    /// Checks the types of the columns.
    fn check<E: EntityTrait<Column = C>>(&self) -> Result<(), String> {
        let kind = |column: C| <E::Model as ModelTrait>::get_value_type(column);
        let is_time = |kind: &ArrayType| {
            matches!(
                kind,
                ArrayType::ChronoDateTimeUtc | ArrayType::ChronoDateTimeWithTimeZone
            )
        };
        let is_integer = |kind: &ArrayType| matches!(kind, ArrayType::BigInt);
        let times = [self.created_at, self.updated_at, self.deleted_at];
        let integers = [
            self.created_by,
            self.updated_by,
            self.owner_id,
            self.version,
        ];
        let refuse = |column: C, needed: &str| {
            Err(format!(
                "{}.{} must be {needed} to be what its name says; override \
                 `RepositoryEntity::conventions` where it is something else",
                E::default().table_name(),
                column.as_str()
            ))
        };
        for column in times.into_iter().flatten() {
            if !is_time(&kind(column)) {
                return refuse(column, "a time with a zone");
            }
        }
        for column in integers.into_iter().flatten() {
            if !is_integer(&kind(column)) {
                return refuse(column, "a 64-bit integer");
            }
        }
        let nullable = [self.deleted_at, self.created_by, self.updated_by];
        for column in nullable.into_iter().flatten() {
            if !column.def().is_null() {
                return refuse(column, "nullable");
            }
        }
        match self.version {
            Some(version) if version.def().is_null() => refuse(version, "NOT NULL"),
            _ => Ok(()),
        }
    }
}

/// What is found out about an entity once in a process.
pub(super) struct EntityPlan<E: RepositoryEntity> {
    pub(super) conventions: Conventions<E::Column>,
    problem: Option<String>,
    pub(super) key: Vec<E::Column>,
    /// The columns that are unique together.
    pub(super) unique: Vec<Vec<E::Column>>,
    /// The texts with a limit, in characters.
    pub(super) lengths: Vec<(E::Column, usize)>,
    pub(super) find: CachedSql,
    pub(super) find_with_deleted: CachedSql,
    pub(super) find_own: CachedSql,
    /// The inserts, each for the columns that are set.
    inserts: RwLock<HashMap<u64, &'static CachedSql>>,
}

/// The most inserts that are kept of an entity.
const MAX_INSERTS: usize = 32;

impl<E: RepositoryEntity> EntityPlan<E> {
    /// Returns whether the database chooses the key of a new row, from numbers that can be
    /// guessed.
    pub(super) fn key_is_generated(&self) -> bool {
        let is_number = |column: &E::Column| {
            matches!(
                <E::Model as ModelTrait>::get_value_type(*column),
                ArrayType::SmallInt
                    | ArrayType::Int
                    | ArrayType::BigInt
                    | ArrayType::SmallUnsigned
                    | ArrayType::Unsigned
                    | ArrayType::BigUnsigned
            )
        };
        E::PrimaryKey::auto_increment() && self.key.len() == 1 && self.key.iter().all(is_number)
    }

    fn new() -> Self {
        let conventions = E::conventions();
        let key: Vec<_> = E::PrimaryKey::iter()
            .map(PrimaryKeyToColumn::into_column)
            .collect();
        // A document may be large, and would keep the reads behind it waiting.
        let has_document = E::Column::iter().any(|column| {
            matches!(
                column.def().get_column_type(),
                ColumnType::Json | ColumnType::JsonBinary | ColumnType::Blob
            )
        });
        let find = || {
            if has_document {
                CachedSql::new()
            } else {
                CachedSql::short_read()
            }
        };
        let lengths = E::Column::iter().filter_map(|column| {
            let length = match column.def().get_column_type() {
                ColumnType::String(StringLen::N(length)) | ColumnType::Char(Some(length)) => {
                    *length
                }
                _ => return None,
            };
            Some((column, usize::try_from(length).unwrap_or(usize::MAX)))
        });
        Self {
            lengths: lengths.collect(),
            unique: unique::declared::<E>(),
            problem: conventions.check::<E>().err(),
            conventions,
            key,
            find: find(),
            find_with_deleted: find(),
            find_own: find(),
            inserts: RwLock::default(),
        }
    }

    /// Returns the plan of an entity, which lives as long as the process.
    pub(super) fn get() -> &'static Self {
        type Plans = RwLock<HashMap<TypeId, &'static (dyn Any + Send + Sync)>>;
        static PLANS: OnceLock<Plans> = OnceLock::new();
        let plans = PLANS.get_or_init(Plans::default);
        let id = TypeId::of::<E>();
        let known = read(plans).get(&id).and_then(|plan| plan.downcast_ref());
        if let Some(known) = known {
            return known;
        }
        let plan: &'static Self = Box::leak(Box::new(Self::new()));
        let mut plans = write(plans);
        let plan: &'static (dyn Any + Send + Sync) = *plans.entry(id).or_insert(plan);
        plan.downcast_ref()
            .unwrap_or_else(|| unreachable!("by its type"))
    }

    /// Returns what keeps the insert of a row's columns; `None` when too many are kept.
    pub(super) fn insert_of(&self, row: &E::ActiveModel) -> Option<&'static CachedSql> {
        let mut columns = 0_u64;
        for (index, column) in E::Column::iter().enumerate() {
            let bit = 1_u64.checked_shl(u32::try_from(index).ok()?)?;
            if !row.is_not_set(column) {
                columns |= bit;
            }
        }
        let known = read(&self.inserts).get(&columns).copied();
        if known.is_some() {
            return known;
        }
        let mut inserts = write(&self.inserts);
        if inserts.len() >= MAX_INSERTS {
            return None;
        }
        let new = || &*Box::leak(Box::new(CachedSql::new()));
        Some(*inserts.entry(columns).or_insert_with(new))
    }

    /// Fails where a column of the conventions has another type.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.problem {
            None => Ok(()),
            Some(problem) => Err(Error::Other {
                context: "reading the conventions of an entity",
                source: problem.clone().into(),
            }),
        }
    }
}

// Nothing panics while a lock is held.

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
