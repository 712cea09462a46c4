//! The repositories and transactions, as a service uses them, on both
//! databases.

mod access;
mod agents;
mod audit;
mod beside;
mod contention;
mod errors;
mod execution_stats;
mod executions;
mod injection;
mod logs;
mod logs_follow;
mod logs_tail;
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
mod workflow_history;
mod workflows;
