//! How rows of the tables are read.

use entity::{agents, executions, logs, plugins, sessions, users, workflow_versions, workflows};

use crate::executor::row::shapes;

shapes! {
    "users": users::Model {
        id,
        name,
        email,
        hashed_password,
        role,
        is_active,
        created_at,
        updated_at,
        deleted_at,
        created_by,
        updated_by,
    }
    "sessions": sessions::Model {
        id,
        token,
        user_agent,
        ip_address,
        expires_at,
        last_seen_at,
        created_at,
        updated_at,
        user_id,
    }
    "plugins": plugins::Model {
        id,
        name,
        description,
        version,
        author,
        is_enabled,
        created_at,
        updated_at,
        deleted_at,
        created_by,
        updated_by,
        config_schema,
    }
    "workflows": workflows::Model {
        id,
        name,
        description,
        status,
        version,
        owner_id,
        deleted_with_owner,
        created_at,
        updated_at,
        deleted_at,
        created_by,
        updated_by,
        settings,
        connections,
        nodes,
        metadata,
    }
    "workflow_versions": workflow_versions::Model {
        id,
        workflow_id,
        version,
        name,
        description,
        created_at,
        created_by,
        settings,
        connections,
        nodes,
    }
    "executions": executions::Model {
        id,
        workflow_id,
        workflow_version,
        mode,
        status,
        worker_id,
        lease_until,
        wait_until,
        started_at,
        finished_at,
        created_at,
        data,
        error,
    }
    "logs": logs::Model {
        id,
        level,
        message,
        workflow_id,
        execution_id,
        created_at,
        metadata,
    }
    "agents": agents::Model {
        id,
        name,
        description,
        model,
        is_enabled,
        owner_id,
        deleted_with_owner,
        created_at,
        updated_at,
        deleted_at,
        created_by,
        updated_by,
        config,
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{Iden, Iterable};

    use super::*;

    /// What is inserted, updated and selected comes in the order of the
    /// entity's columns.
    #[test]
    fn shapes_have_the_order_of_the_columns() {
        macro_rules! entities {
            ($($table:ident),+) => {
                vec![$((
                    stringify!($table),
                    $table::Column::iter().map(|column| column.to_string()).collect::<Vec<_>>(),
                )),+]
            };
        }
        let entities = entities!(
            users,
            sessions,
            plugins,
            workflows,
            workflow_versions,
            executions,
            logs,
            agents
        );
        assert_eq!(
            columns()
                .into_iter()
                .map(|(table, columns)| (table, columns.into_iter().map(String::from).collect()))
                .collect::<Vec<_>>(),
            entities
        );
    }
}
