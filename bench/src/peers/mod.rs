//! The peers, one module each.

pub(crate) mod aura;
mod deliveries;
pub(crate) mod diesel;
mod diesel_rows;
mod models;
pub(crate) mod postgres;
mod postgres_rows;
pub(crate) mod seaorm;
mod sql;
pub(crate) mod sqlite;
