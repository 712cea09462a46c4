//! The repositories and transactions, as a service uses them, on both
//! databases.

mod access;
mod agents;
mod audit;
mod errors;
mod executions;
mod logs;
mod pages;
mod people;
mod plugins;
mod sessions;
mod stats;
mod support;
mod transactions;
mod users;
mod users_ownership;
mod users_passwords;
mod users_races;
mod workflows;
