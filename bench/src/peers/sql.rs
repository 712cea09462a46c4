//! The statements of the peers that write SQL by hand. Columns are in the order
//! in which the rows are read.

use std::sync::OnceLock;

use crate::data::ENTRIES;

macro_rules! session {
    () => {
        "s.id, s.token, s.user_agent, s.ip_address, s.expires_at, s.last_seen_at, s.created_at, \
         s.updated_at, s.user_id"
    };
}

macro_rules! user {
    () => {
        "u.id, u.name, u.email, u.hashed_password, u.role, u.is_active, u.created_at, \
         u.updated_at, u.deleted_at, u.created_by, u.updated_by"
    };
}

macro_rules! summary {
    () => {
        "w.id, w.name, w.description, w.status, w.version, w.owner_id, w.created_at, \
         w.updated_at, w.deleted_at, w.created_by, w.updated_by"
    };
}

macro_rules! workflow {
    () => {
        concat!(
            summary!(),
            ", w.deleted_with_owner, w.settings, w.connections, w.nodes, w.metadata"
        )
    };
}

macro_rules! list_end {
    () => {
        " FROM workflows w WHERE w.owner_id = $1 AND w.deleted_at IS NULL \
         ORDER BY w.updated_at DESC, w.id DESC LIMIT 50"
    };
}

macro_rules! delivery {
    () => {
        "SELECT id, workflow_id, url, event, status, attempts, response_code, error, payload, \
         created_at, delivered_at FROM deliveries"
    };
}

/// How many columns these parts have.
pub(super) const SESSION: usize = 9;
pub(super) const WORKFLOW: usize = 16;

/// By the digest of the token and the time.
pub(super) const AUTHENTICATE: &str = concat!(
    "SELECT ",
    session!(),
    ", ",
    user!(),
    " FROM sessions s JOIN users u ON u.id = s.user_id \
     WHERE s.token = $1 AND s.expires_at > $2 AND u.is_active AND u.deleted_at IS NULL"
);

/// By id.
pub(super) const WORKFLOW_AND_OWNER: &str = concat!(
    "SELECT ",
    workflow!(),
    ", ",
    user!(),
    " FROM workflows w JOIN users u ON u.id = w.owner_id \
     WHERE w.id = $1 AND w.deleted_at IS NULL AND u.deleted_at IS NULL"
);

/// By the workflow's id.
pub(super) const PLUGINS: &str = "SELECT p.id, p.name, p.description, p.version, p.author, p.is_enabled, \
     p.created_at, p.updated_at, p.deleted_at, p.created_by, p.updated_by, p.config_schema \
     FROM plugins p JOIN workflow_plugins wp ON wp.plugin_id = p.id \
     WHERE wp.workflow_id = $1 AND p.deleted_at IS NULL ORDER BY p.name";

/// By the owner's id.
pub(super) const SUMMARIES: &str = concat!("SELECT ", summary!(), list_end!());

/// By the owner's id.
pub(super) const DOCUMENTS: &str = concat!("SELECT ", workflow!(), list_end!());

/// By id.
pub(super) const WORKFLOW_BY_ID: &str = concat!(
    "SELECT ",
    workflow!(),
    " FROM workflows w WHERE w.id = $1 AND w.deleted_at IS NULL"
);

/// By the id before which they are.
pub(super) const LOGS: &str = "SELECT id, level, message, workflow_id, execution_id, created_at, metadata \
     FROM logs WHERE id < $1 ORDER BY id DESC LIMIT 50";

/// Level, message, workflow, time, metadata.
pub(super) const APPEND: &str = "INSERT INTO logs (level, message, workflow_id, created_at, metadata) \
     VALUES ($1, $2, $3, $4, $5) RETURNING id";

/// Returns the insert of as many entries as a batch has, each with the values of
/// [`APPEND`].
pub(super) fn append_many() -> &'static str {
    static SQL: OnceLock<String> = OnceLock::new();
    SQL.get_or_init(|| {
        let rows: Vec<_> = (0..ENTRIES)
            .map(|row| {
                let values = (row * 5 + 1..=row * 5 + 5).map(|value| format!("${value}"));
                format!("({})", values.collect::<Vec<_>>().join(", "))
            })
            .collect();
        format!(
            "INSERT INTO logs (level, message, workflow_id, created_at, metadata) VALUES {}",
            rows.join(", ")
        )
    })
}

/// Name, nodes, time, id and the version that was read.
pub(super) const UPDATE: &str = "UPDATE workflows SET name = $1, nodes = $2, updated_at = $3, \
     version = version + 1 WHERE id = $4 AND version = $5";

/// Time, data and workflow.
pub(super) const ENQUEUE: &str = "INSERT INTO executions (workflow_id, workflow_version, mode, \
     status, created_at, max_attempts, queue, priority, owner_id, data) \
     SELECT id, version, 'trigger', 'queued', $1, 3, 'default', 0, owner_id, $2 \
     FROM workflows WHERE id = $3 AND deleted_at IS NULL RETURNING *";

/// Worker, end of the lease and time.
macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "UPDATE executions SET status = 'running', worker_id = $1, lease_until = $2, \
             wait_until = NULL, started_at = COALESCE(started_at, $3), attempts = attempts + 1, \
             claim_no = claim_no + 1 WHERE id = (SELECT id FROM executions \
             WHERE status = 'queued' AND is_suspended = FALSE AND limit_id IS NULL \
             AND queue = 'default' ORDER BY owner_id, priority DESC, id LIMIT 1",
            $lock,
            ") RETURNING *"
        )
    };
}

pub(super) const CLAIM_POSTGRES: &str = claim!(" FOR UPDATE SKIP LOCKED");

pub(super) const CLAIM_SQLITE: &str = claim!("");

/// Time, id, worker and claim.
pub(super) const FINISH: &str = "UPDATE executions SET status = 'success', finished_at = $1, \
     lease_until = NULL WHERE id = $2 AND status = 'running' AND worker_id = $3 \
     AND claim_no = $4 RETURNING *";

/// What is wrong when a claim is lost.
pub(super) const LOST: &str = "the claim is lost";

/// By id.
pub(super) const DELIVERY: &str = concat!(delivery!(), " WHERE id = $1");

/// By the workflow's id and the id that they follow.
pub(super) const DELIVERIES: &str = concat!(
    delivery!(),
    " WHERE workflow_id = $1 AND id > $2 ORDER BY id LIMIT 50"
);

/// Attempts and id.
pub(super) const UPDATE_DELIVERY: &str = "UPDATE deliveries SET status = 'delivered', \
     attempts = $1 WHERE id = $2 RETURNING id, workflow_id, url, event, status, attempts, \
     response_code, error, payload, created_at, delivered_at";

/// By the ids of deliveries: an array.
pub(super) const ATTEMPTS_POSTGRES: &str = "SELECT id, delivery_id, response_code, ms \
     FROM delivery_attempts WHERE delivery_id = ANY ($1) ORDER BY id";

/// By the ids of deliveries: a list in JSON.
pub(super) const ATTEMPTS_SQLITE: &str = "SELECT id, delivery_id, response_code, ms \
     FROM delivery_attempts WHERE delivery_id IN (SELECT value FROM json_each($1)) ORDER BY id";

/// All columns but the id, in their order.
pub(super) const INSERT_DELIVERY: &str = "INSERT INTO deliveries (workflow_id, url, event, status, \
     attempts, response_code, error, payload, created_at, delivered_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id";
