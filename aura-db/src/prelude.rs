//! What code with tables of its own uses, to be imported as a whole.
//!
//! An entity needs nothing of `sea-orm` in `Cargo.toml`: its macros find the crate here.
//!
//! ```
//! mod notes {
//!     use aura_db::prelude::*;
//!
//!     #[sea_orm::model]
//!     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
//!     #[sea_orm(table_name = "notes")]
//!     pub struct Model {
//!         #[sea_orm(primary_key)]
//!         pub id: i64,
//!         pub title: String,
//!         pub owner_id: UserId,
//!         pub created_at: DateTimeUtc,
//!     }
//!
//!     impl ActiveModelBehavior for ActiveModel {}
//!     impl RepositoryEntity for Entity {}
//! }
//! ```

pub use sea_orm::ActiveValue::{NotSet, Set, Unchanged};
pub use sea_orm::entity::prelude::*;
pub use sea_orm::{
    self, Condition, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
};

pub use crate::{
    Action, Conventions, Database, Deleted, Error, FieldError, Hooks, Page, PageRequest,
    Repository, RepositoryEntity, Restricted, Role, Scope, Sort, Transaction, UserId,
};
