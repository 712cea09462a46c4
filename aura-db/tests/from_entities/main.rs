//! Steps that are made of entities.

mod columns;
mod notes;
mod support;
mod tables;
