//! What executions tell.

use entity::{Action, Resource};

use crate::engine::{Handle, Op};

/// The logs. From [`Database::logs`](crate::Database::logs).
#[derive(Debug, Clone)]
pub struct Logs(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "logs",
        name,
        needs: (action, Resource::Execution),
    }
}
