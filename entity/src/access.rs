//! What each role may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::Role;

pub use aura_orm::{Action, Scope};

/// What it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Accounts, with their sessions.
    User,
    /// Workflows, with their history.
    Workflow,
    /// Plugins.
    Plugin,
    /// Executions, with their logs.
    Execution,
    /// Agents.
    Agent,
}

impl Role {
    /// Whether the role may do this, at least to what the user owns: AURA's
    /// permission matrix.
    ///
    /// ```
    /// use entity::{Action, Resource, Role};
    ///
    /// assert!(Role::Editor.can(Action::Execute, Resource::Workflow));
    /// assert!(!Role::Editor.can(Action::Delete, Resource::Plugin));
    /// ```
    #[must_use]
    pub fn can(self, action: Action, resource: Resource) -> bool {
        use Action::{Create, Delete, Execute, Read, Update};
        match (self, resource) {
            (Self::Admin, _) => true,
            (Self::Editor, Resource::Workflow) => {
                matches!(action, Create | Read | Update | Delete | Execute)
            }
            (Self::Editor, Resource::Plugin) => matches!(action, Create | Read | Update),
            (Self::Viewer, Resource::Workflow | Resource::Plugin | Resource::Execution) => {
                action == Read
            }
            (Self::User, Resource::Workflow) => matches!(action, Read | Execute),
            (Self::Editor, Resource::User) | (Self::User, Resource::Execution) => action == Read,
            _ => false,
        }
    }

    /// Returns whose rows the role may do this to, or `None`: admins and viewers to the rows
    /// of all users, editors and users to their own. What has no owner (plugins, users)
    /// belongs to all.
    #[must_use]
    pub fn scope(self, action: Action, resource: Resource) -> Option<Scope> {
        self.can(action, resource).then_some(match self {
            Self::Admin | Self::Viewer => Scope::Any,
            Self::Editor | Self::User => Scope::Own,
        })
    }
}

impl Resource {
    /// Returns its name, in a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Workflow => "workflow",
            Self::Plugin => "plugin",
            Self::Execution => "execution",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
