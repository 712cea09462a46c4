//! What `aura_db::testing` gives the tests of applications.

mod databases;
mod factories;
mod keys;
mod notes;
mod queries;
