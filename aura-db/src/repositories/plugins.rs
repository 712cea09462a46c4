//! What workflows are extended with.

use entity::{Action, Resource};

use crate::engine::{Handle, Op};

/// The plugins. From [`Database::plugins`](crate::Database::plugins).
#[derive(Debug, Clone)]
pub struct Plugins(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "plugins",
        name,
        needs: (action, Resource::Plugin),
    }
}
