//! The repositories and transactions, as a service uses them, on both
//! databases.

mod agents;
mod beside;
mod contention;
mod execution_stats;
mod executions;
mod injection;
mod logs;
mod logs_tail;
mod plugins;
mod sessions;
mod support;
mod transactions;
mod users;
mod workflow_history;
mod workflows;
