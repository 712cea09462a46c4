//! What each role may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::Role;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Make a new one.
    Create,
    /// Look at it.
    Read,
    /// Change it.
    Update,
    /// Delete, restore or purge it.
    Delete,
    /// Run it.
    Execute,
}

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

/// Whose rows a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Those that the user owns. What nobody owns (plugins, users) is
    /// everybody's.
    Own,
    /// Everybody's.
    Any,
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

    /// Whose rows the role may do this to, or `None` when nobody's. Admins and
    /// viewers reach everybody's, editors and users their own.
    #[must_use]
    pub fn reach(self, action: Action, resource: Resource) -> Option<Reach> {
        self.can(action, resource).then_some(match self {
            Self::Admin | Self::Viewer => Reach::Any,
            Self::Editor | Self::User => Reach::Own,
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Execute => "execute",
        })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Workflow => "workflow",
            Self::Plugin => "plugin",
            Self::Execution => "execution",
            Self::Agent => "agent",
        })
    }
}
