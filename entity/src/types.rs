//! The types that columns have beyond their SQL type.

use std::fmt;

use sea_orm::entity::prelude::{DeriveActiveEnum, DeriveValueType, EnumIter, StringLen};
use serde::{Deserialize, Serialize};

pub use crate::document::Document;

macro_rules! ids {
    ($($(#[doc = $about:literal])* $name:ident),+ $(,)?) => {
        $(
            $(#[doc = $about])*
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType, Serialize, Deserialize,
            )]
            #[serde(transparent)]
            pub struct $name(pub i64);

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }

            impl From<i64> for $name {
                fn from(id: i64) -> Self {
                    Self(id)
                }
            }
        )+
    };
}

ids! {
    /// The key of a user.
    UserId,
    /// The key of a session; not the token.
    SessionId,
    /// The key of a plugin.
    PluginId,
    /// The key of a workflow.
    WorkflowId,
    /// The key of a stored version of a workflow; not its version number.
    WorkflowVersionId,
    /// The key of an execution.
    ExecutionId,
    /// The key of a past attempt of an execution.
    ExecutionAttemptId,
    /// The key of a limit of the executions of a workflow or an owner that run at once.
    ExecutionLimitId,
    /// The key of a log entry.
    LogId,
    /// The key of an agent.
    AgentId,
}

macro_rules! words {
    ($($(#[doc = $about:literal])* $name:ident { $($(#[doc = $what:literal])* $variant:ident = $word:literal),+ $(,)? })+) => {
        $(
            $(#[doc = $about])*
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize,
            )]
            #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))")]
            pub enum $name {
                $(
                    $(#[doc = $what])*
                    #[sea_orm(string_value = $word)]
                    #[serde(rename = $word)]
                    $variant,
                )+
            }

            impl $name {
                /// The word that the database holds.
                #[must_use]
                pub fn as_str(self) -> &'static str {
                    match self {
                        $(Self::$variant => $word,)+
                    }
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.as_str())
                }
            }
        )+
    };
}

words! {
    /// What a user may do.
    Role {
        /// Everything.
        Admin = "admin",
        /// Build workflows and plugins.
        Editor = "editor",
        /// Look.
        Viewer = "viewer",
        /// Run own workflows.
        User = "user",
    }

    /// Whether a workflow runs.
    WorkflowStatus {
        /// Being built.
        Draft = "draft",
        /// Runs when it is triggered.
        Active = "active",
        /// Kept, and doesn't run.
        Archived = "archived",
    }

    /// What started an execution.
    ExecutionMode {
        /// A person.
        Manual = "manual",
        /// An event.
        Trigger = "trigger",
        /// A request from outside.
        Webhook = "webhook",
        /// The clock.
        Cron = "cron",
    }

    /// Where an execution stands.
    ExecutionStatus {
        /// Not taken by a worker yet.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Until a moment or an event.
        Waiting = "waiting",
        /// Ended well.
        Success = "success",
        /// Failed.
        Error = "error",
        /// Somebody stopped it.
        Canceled = "canceled",
        /// Failed, or lost its worker, as often as it may: to be retried or discarded.
        Dead = "dead",
    }

    /// How much a log entry matters.
    LogLevel {
        /// For developers.
        Debug = "debug",
        /// For the record.
        Info = "info",
        /// To look at.
        Warn = "warn",
        /// To act on.
        Error = "error",
    }
}

impl ExecutionStatus {
    /// Returns whether no worker takes it any more. What is dead can be retried.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Success | Self::Error | Self::Canceled | Self::Dead => true,
            Self::Queued | Self::Running | Self::Waiting => false,
        }
    }
}

macro_rules! hashes {
    ($($(#[doc = $about:literal])* $name:ident),+ $(,)?) => {
        $(
            $(#[doc = $about])*
            ///
            /// `Debug` doesn't show it, and it is not serialized.
            #[derive(Clone, PartialEq, Eq, DeriveValueType)]
            pub struct $name(pub String);

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(concat!(stringify!($name), "(***)"))
                }
            }
        )+
    };
}

hashes! {
    /// A password's hash: a PHC string, or whatever an older system stored.
    PasswordHash,
    /// The SHA-256 of a token, in hexadecimal digits.
    TokenHash,
}
