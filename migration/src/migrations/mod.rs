//! The steps, oldest first. `cargo run -p migration -- generate NAME` adds one
//! here; a step that was released is never edited.

use aura_orm::migration::Migration;

mod m20261122_000001_create_users;
mod m20261122_000002_create_sessions;
mod m20261122_000003_create_plugins;
mod m20261122_000004_create_workflows;
mod m20261122_000005_create_workflow_plugins;
mod m20261122_000006_create_workflow_versions;
mod m20261122_000007_create_executions;
mod m20261122_000008_create_logs;
mod m20261122_000009_create_agents;
mod m20261123_000010_index_executions;
mod m20261123_000011_create_json_text;
mod m20261124_000012_index_logs;
mod m20261127_000013_suspend_executions;
mod m20261127_000014_index_open_work;
mod m20261127_000015_write_microseconds;
mod m20261128_000016_count_attempts;
mod m20261128_000017_index_leases;
mod m20261128_000018_create_execution_attempts;
mod m20261128_000019_order_executions;
mod m20261128_000020_index_order;
mod m20261128_000021_limit_executions;
mod m20261128_000022_index_limits;

/// Returns all steps, in the order in which they are applied.
#[must_use]
pub fn all() -> Vec<Box<dyn Migration>> {
    vec![
        Box::new(m20261122_000001_create_users::CreateUsers),
        Box::new(m20261122_000002_create_sessions::CreateSessions),
        Box::new(m20261122_000003_create_plugins::CreatePlugins),
        Box::new(m20261122_000004_create_workflows::CreateWorkflows),
        Box::new(m20261122_000005_create_workflow_plugins::CreateWorkflowPlugins),
        Box::new(m20261122_000006_create_workflow_versions::CreateWorkflowVersions),
        Box::new(m20261122_000007_create_executions::CreateExecutions),
        Box::new(m20261122_000008_create_logs::CreateLogs),
        Box::new(m20261122_000009_create_agents::CreateAgents),
        Box::new(m20261123_000010_index_executions::INDEX_EXECUTIONS),
        Box::new(m20261123_000011_create_json_text::CreateJsonText),
        Box::new(m20261124_000012_index_logs::INDEX_LOGS),
        Box::new(m20261127_000013_suspend_executions::SuspendExecutions),
        Box::new(m20261127_000014_index_open_work::INDEX_OPEN_WORK),
        Box::new(m20261127_000015_write_microseconds::WRITE_MICROSECONDS),
        Box::new(m20261128_000016_count_attempts::CountAttempts),
        Box::new(m20261128_000017_index_leases::IndexLeases),
        Box::new(m20261128_000018_create_execution_attempts::CreateExecutionAttempts),
        Box::new(m20261128_000019_order_executions::OrderExecutions),
        Box::new(m20261128_000020_index_order::INDEX_ORDER),
        Box::new(m20261128_000021_limit_executions::LimitExecutions),
        Box::new(m20261128_000022_index_limits::INDEX_LIMITS),
    ]
}
