//! Automations and their history.

use entity::{Action, Resource};

use crate::engine::{Handle, Op};

/// The workflows. From [`Database::workflows`](crate::Database::workflows).
#[derive(Debug, Clone)]
pub struct Workflows(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "workflows",
        name,
        needs: (action, Resource::Workflow),
    }
}
