//! Runs of workflows.

use entity::{Action, Resource};

use crate::engine::{Handle, Op};

/// The executions. From [`Database::executions`](crate::Database::executions).
#[derive(Debug, Clone)]
pub struct Executions(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "executions",
        name,
        needs: (action, Resource::Execution),
    }
}
