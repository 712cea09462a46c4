//! The example service over real HTTP, on both databases: what somebody who
//! copies it relies on.

#[path = "../../examples/api/app/mod.rs"]
mod app;

mod credentials;
mod executions;
mod process;
mod requests;
mod support;
