//! The name of a type that a text is cast to on its way into a column of
//! documents.
//!
//! PostgreSQL takes no bound text for a `json` column without a cast, and the
//! driver would bind a value as `jsonb`, which is not kept as it was written. A
//! cast to `json` would be wrong on SQLite, where that name means a number. A
//! name with TEXT in it means text there, whatever else it says, so a cast to
//! this one is right on both, and on SQLite there is nothing to create.

use aura_orm::migration::Migration;
use sea_orm::DbBackend;

pub(super) struct CreateJsonText;

impl Migration for CreateJsonText {
    fn name(&self) -> &'static str {
        "m20261123_000011_create_json_text"
    }

    fn domains(&self) -> &'static [&'static str] {
        &["json_text"]
    }

    fn up(&self, backend: DbBackend) -> Vec<String> {
        match backend {
            // `fresh` drops tables only, and so may meet the one from before.
            DbBackend::Postgres => vec![
                "DO $$ BEGIN CREATE DOMAIN \"json_text\" AS json; \
                 EXCEPTION WHEN duplicate_object THEN NULL; END $$"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }

    fn down(&self, backend: DbBackend) -> Vec<String> {
        match backend {
            DbBackend::Postgres => vec!["DROP DOMAIN \"json_text\"".to_owned()],
            _ => Vec::new(),
        }
    }
}
