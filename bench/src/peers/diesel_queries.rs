//! diesel's queries, for both databases. What they select is left to the caller, because
//! it depends on the database.

use diesel::dsl::auto_type;
use diesel::{ExpressionMethods, JoinOnDsl, QueryDsl};

use super::diesel_schema::{
    Moment, deliveries, logs, plugins, sessions, users, workflow_plugins, workflows,
};
use crate::data;

/// The length of a list.
const PAGE: i64 = data::PAGE.cast_signed();

/// Finds the session with this digest of a token that expires after a time, with its user.
#[auto_type]
pub(super) fn account(digest: String, now: Moment) -> _ {
    sessions::table
        .inner_join(users::table)
        .filter(sessions::token.eq(digest))
        .filter(sessions::expires_at.gt(now))
        .filter(users::is_active.eq(true))
        .filter(users::deleted_at.is_null())
}

/// Finds a workflow with its owner.
#[auto_type]
pub(super) fn workflow_and_owner(id: i64) -> _ {
    workflows::table
        .inner_join(users::table)
        .filter(workflows::id.eq(id))
        .filter(workflows::deleted_at.is_null())
        .filter(users::deleted_at.is_null())
}

/// Finds the plugins of a workflow.
#[auto_type]
pub(super) fn plugins_of(workflow: i64) -> _ {
    plugins::table
        .inner_join(workflow_plugins::table.on(workflow_plugins::plugin_id.eq(plugins::id)))
        .filter(workflow_plugins::workflow_id.eq(workflow))
        .filter(plugins::deleted_at.is_null())
        .order(plugins::name)
}

/// Finds the owner's workflows that were changed last.
#[auto_type]
pub(super) fn workflows_of(owner: i64) -> _ {
    let page: i64 = PAGE;
    workflows::table
        .filter(workflows::owner_id.eq(owner))
        .filter(workflows::deleted_at.is_null())
        .order((workflows::updated_at.desc(), workflows::id.desc()))
        .limit(page)
}

/// Finds a workflow.
#[auto_type]
pub(super) fn workflow(id: i64) -> _ {
    workflows::table
        .filter(workflows::id.eq(id))
        .filter(workflows::deleted_at.is_null())
}

/// Finds the newest log entries before this id.
#[auto_type]
pub(super) fn logs_before(id: i64) -> _ {
    let page: i64 = PAGE;
    logs::table
        .filter(logs::id.lt(id))
        .order(logs::id.desc())
        .limit(page)
}

/// Finds the row of a workflow that an update writes, if it is at this version still.
#[auto_type]
pub(super) fn workflow_at(id: i64, version: i64) -> _ {
    workflows::table
        .filter(workflows::id.eq(id))
        .filter(workflows::version.eq(version))
}

/// Finds a delivery.
#[auto_type]
pub(super) fn delivery(id: i64) -> _ {
    deliveries::table.filter(deliveries::id.eq(id))
}

/// Finds the workflow's deliveries that follow this id.
#[auto_type]
pub(super) fn deliveries_of(workflow: i64, after: i64) -> _ {
    let page: i64 = PAGE;
    deliveries::table
        .filter(deliveries::workflow_id.eq(workflow))
        .filter(deliveries::id.gt(after))
        .order(deliveries::id)
        .limit(page)
}
