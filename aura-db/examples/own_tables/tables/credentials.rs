//! Credentials of other services: a user has the own ones, an admin all.

use std::fmt;

use aura_db::migration::CreateTable;
use aura_db::sea_orm::{self, Set, entity::prelude::*};
use aura_db::{Action, RepositoryEntity, Scope, UserId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credentials")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    #[sea_orm(unique_key = "owner_name")]
    pub(crate) name: String,
    pub(crate) payload: Secret,
    #[sea_orm(unique_key = "owner_name")]
    pub(crate) owner_id: UserId,
    pub(crate) deleted_at: Option<DateTimeUtc>,
}

impl ActiveModelBehavior for ActiveModel {}

/// A text that no log shows. Encrypt it before it comes here.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl RepositoryEntity for Entity {
    fn policy(role: &str, _: Action) -> Option<Scope> {
        let any = role == "admin";
        Some(if any { Scope::Any } else { Scope::Own })
    }
}

pub(crate) const CREATE: CreateTable =
    CreateTable::new("m20261201_credentials", &["credentials"], |columns| {
        let mut table = columns.table("credentials");
        table
            .col(columns.string("name", 120).not_null())
            .col(columns.text("payload").not_null())
            .col(columns.integer("owner_id").not_null())
            .col(columns.time("deleted_at"))
            .foreign_key(&mut columns.cascade("credentials", "owner_id", "users"));
        let unique = columns.unique("credentials", &["owner_id", "name"]);
        columns.sql(&table, &[unique])
    });

pub(crate) fn new(name: &str, payload: &str) -> ActiveModel {
    ActiveModel {
        name: Set(name.to_owned()),
        payload: Set(Secret(payload.to_owned())),
        ..Default::default()
    }
}
