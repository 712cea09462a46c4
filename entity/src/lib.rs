//! The tables of aura-db as SeaORM 2.0 entities.
//!
//! [`tables`] is generated from a migrated database (`just entities`) and never
//! edited; the types that its columns have are in [`types`], and which column
//! has which stands in `xtask/src/refine.rs`.
//!
//! ```
//! use entity::{RepositoryEntity, Role, users};
//! use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryTrait};
//!
//! let admins = users::Entity::not_deleted().filter(users::COLUMN.role.eq(Role::Admin));
//! assert!(admins.build(DbBackend::Sqlite).to_string().ends_with(
//!     r#"WHERE "users"."deleted_at" IS NULL AND "users"."role" = 'admin'"#
//! ));
//! ```

mod access;
mod document;
mod repositories;
#[expect(
    missing_docs,
    reason = "generated; the schema is documented in docs/schema.md and by the migrations"
)]
pub mod tables;
pub mod types;

pub use access::{Action, Resource, Scope};
pub use aura_orm::RepositoryEntity;
pub use document::{DocumentError, Outline};
pub use tables::*;
pub use types::*;
