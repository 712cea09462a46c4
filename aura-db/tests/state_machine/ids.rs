//! Rows have other ids in each database, so the steps speak of handles: the
//! first user that is made is user 1, whatever its id.

use std::collections::HashMap;

use aura_db::{AgentId, Error, ExecutionId, LogId, PluginId, SessionId, Token, UserId, WorkflowId};

use crate::notes::NoteId;

/// The handles of one table's rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    ids: Vec<i64>,
    handles: HashMap<i64, i64>,
}

impl Table {
    /// The id behind a handle; what is no handle stands for itself.
    fn id(&self, handle: i64) -> i64 {
        let index = handle.checked_sub(1);
        index
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.ids.get(index).copied())
            .unwrap_or(handle)
    }

    /// The handle of an id; a row that nobody made is none of ours.
    fn handle(&self, id: i64) -> i64 {
        self.handles.get(&id).copied().unwrap_or(match id {
            1..1_000_000 => -id,
            id => id,
        })
    }

    fn born(&mut self, id: i64) {
        self.ids.push(id);
        let handle = i64::try_from(self.ids.len()).unwrap_or(0);
        self.handles.insert(id, handle);
    }
}

/// The handles of everything in one database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids {
    users: Table,
    sessions: Table,
    plugins: Table,
    workflows: Table,
    executions: Table,
    logs: Table,
    agents: Table,
    notes: Table,
    tokens: Vec<Token>,
}

/// An id that has a handle.
pub(crate) trait Known: Copy {
    fn table(ids: &Ids) -> &Table;
    fn table_mut(ids: &mut Ids) -> &mut Table;
    fn number(self) -> i64;
    fn of(number: i64) -> Self;
}

macro_rules! known {
    ($($id:ident: $table:ident),+) => {
        $(impl Known for $id {
            fn table(ids: &Ids) -> &Table {
                &ids.$table
            }

            fn table_mut(ids: &mut Ids) -> &mut Table {
                &mut ids.$table
            }

            fn number(self) -> i64 {
                self.0
            }

            fn of(number: i64) -> Self {
                Self(number)
            }
        })+
    };
}

known!(
    UserId: users,
    SessionId: sessions,
    PluginId: plugins,
    WorkflowId: workflows,
    ExecutionId: executions,
    LogId: logs,
    AgentId: agents,
    NoteId: notes
);

impl Ids {
    /// What the database calls it.
    pub(crate) fn real<I: Known>(&self, handle: I) -> I {
        I::of(I::table(self).id(handle.number()))
    }

    /// What the steps call it.
    pub(crate) fn handle<I: Known>(&self, id: I) -> I {
        I::of(I::table(self).handle(id.number()))
    }

    /// A row is new and gets the next handle.
    pub(crate) fn born<I: Known>(&mut self, id: I) {
        I::table_mut(self).born(id.number());
    }

    pub(crate) fn knows<I: Known>(&self, id: I) -> bool {
        I::table(self).handles.contains_key(&id.number())
    }

    pub(crate) fn token(&self, handle: usize) -> Token {
        let known = handle
            .checked_sub(1)
            .and_then(|index| self.tokens.get(index));
        known
            .cloned()
            .unwrap_or_else(|| Token::new("nobody's 'token'"))
    }

    /// Every token that was given out.
    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(crate) fn keep(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// The key of an error, with its ids as handles.
    fn key(&self, what: &str, key: &str) -> String {
        let of = |word: &str| -> String {
            let Ok(id) = word.parse::<i64>() else {
                return word.to_owned();
            };
            match what {
                "user" | "active user" => self.users.handle(id),
                "plugin" => self.plugins.handle(id),
                "workflow" | "earlier version" => self.workflows.handle(id),
                "execution" => self.executions.handle(id),
                "log entry" => self.logs.handle(id),
                "agent" => self.agents.handle(id),
                "note" => self.notes.handle(id),
                _ => id,
            }
            .to_string()
        };
        if let Some((version, id)) = key.split_once(" of workflow ") {
            return format!("{version} of workflow {}", of(id));
        }
        if let Some(id) = key.strip_suffix(" of that workflow") {
            return format!("{} of that workflow", of(id));
        }
        of(key)
    }

    /// An error as the model says it, and what only the databases can compare.
    pub(crate) fn error(&self, error: &Error) -> crate::outcome::Failed {
        use crate::outcome::Failed;
        match error {
            Error::NotFound { what, key } => Failed::not_found(what, &self.key(what, key)),
            Error::Conflict {
                table,
                columns,
                deleted,
            } => Failed::Conflict {
                table: table.clone(),
                columns: columns.clone(),
                deleted: *deleted,
            },
            Error::Stale {
                what,
                key,
                read,
                found,
            } => {
                let id = number(key);
                Failed::Stale {
                    what: (*what).to_owned(),
                    id: match *what {
                        "note" => self.notes.handle(id),
                        _ => self.workflows.handle(id),
                    },
                    read: *read,
                    found: *found,
                }
            }
            Error::ForeignKey { table, .. } => Failed::ForeignKey(table.clone()),
            Error::NotNull { table, column } => Failed::NotNull {
                table: table.clone(),
                column: column.clone(),
            },
            Error::Validation(errors) => {
                let mut fields: Vec<String> = Vec::new();
                for error in errors {
                    if fields.iter().all(|field| field != error.field) {
                        fields.push(error.field.to_owned());
                    }
                }
                Failed::Validation(fields)
            }
            Error::State { what, key, .. } => {
                let id = number(key);
                Failed::State {
                    what: (*what).to_owned(),
                    id: match *what {
                        "user" => self.users.handle(id),
                        "plugin" => self.plugins.handle(id),
                        "workflow" => self.workflows.handle(id),
                        "execution" => self.executions.handle(id),
                        "agent" => self.agents.handle(id),
                        "note" => self.notes.handle(id),
                        _ => id,
                    },
                }
            }
            Error::LeaseLost { execution, worker } => Failed::LeaseLost {
                execution: self.handle(*execution),
                worker: worker.clone(),
            },
            Error::OwnsRows {
                user,
                workflows,
                agents,
            } => Failed::OwnsRows {
                user: self.handle(*user),
                workflows: *workflows,
                agents: *agents,
            },
            Error::Credentials => Failed::Credentials,
            Error::Forbidden { user, action, what } => Failed::Forbidden {
                user: self.handle(*user),
                action: *action,
                what,
            },
            Error::Unsound { workflow, problems } => Failed::Unsound {
                workflow: self.handle(*workflow),
                problems: problems.clone(),
            },
            Error::Aborted => Failed::Aborted,
            other => Failed::Unexpected(format!("{other:?}")),
        }
    }
}

/// The id that a key is.
fn number(key: &str) -> i64 {
    key.parse().expect("an id")
}
