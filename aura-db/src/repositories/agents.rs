//! Language models with instructions.

use entity::{Action, Resource};

use crate::engine::{Handle, Op};

/// The agents. From [`Database::agents`](crate::Database::agents).
#[derive(Debug, Clone)]
pub struct Agents(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "agents",
        name,
        needs: (action, Resource::Agent),
    }
}
