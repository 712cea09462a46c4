//! What `aura_db::testing` gives the tests of applications.

mod databases;
mod factories;
mod notes;
mod queries;
