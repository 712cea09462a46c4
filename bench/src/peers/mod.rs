//! The peers, one module each.

mod attempts;
pub(crate) mod aura;
mod columns;
mod deliveries;
pub(crate) mod diesel;
pub(crate) mod diesel_async;
mod diesel_queries;
mod diesel_rows;
mod diesel_schema;
mod json;
mod models;
mod plugins;
pub(crate) mod postgres;
pub(crate) mod seaorm;
mod sql;
pub(crate) mod sqlite;
pub(crate) mod sqlx;
