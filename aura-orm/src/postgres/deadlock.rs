//! Finds deadlocks sooner, once there was one.
//!
//! A session looks for a deadlock when it has waited for a lock for `deadlock_timeout`, which
//! is a second. Transactions that change the same rows in different orders lose that second
//! each time. Only a superuser may set it, and a role to which one has granted it (`GRANT SET
//! ON PARAMETER deadlock_timeout`, from PostgreSQL 15 on): so it is set where the role may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::pool::PoolInner;
use crate::{Statement, StatementKind};

/// SQL that sets it for a transaction.
const SOONER: &str = "; SET LOCAL deadlock_timeout = 100";

const ASK: &str = "
SELECT has_parameter_privilege('deadlock_timeout', 'SET')
    AND CAST(current_setting('deadlock_timeout') AS interval) > interval '100 ms'";

/// Whether transactions set `deadlock_timeout`.
#[derive(Debug, Default)]
pub(super) struct DeadlockTimeout {
    asked: AtomicBool,
    allowed: AtomicBool,
}

impl DeadlockTimeout {
    /// Returns SQL that follows a BEGIN.
    pub(super) fn sql(&self) -> &'static str {
        if self.allowed.load(Ordering::Relaxed) {
            SOONER
        } else {
            ""
        }
    }

    /// Notes a deadlock: asks the server once, in the background, whether the role may set
    /// the timeout.
    pub(super) fn note(pool: &Arc<PoolInner>) {
        if pool.deadlock_timeout().asked.swap(true, Ordering::Relaxed) {
            return;
        }
        let asking = pool.clone();
        pool.spawn(async move {
            let allowed = ask(&asking).await;
            let this = asking.deadlock_timeout();
            this.allowed.store(allowed == Some(true), Ordering::Relaxed);
            // Without an answer, the next one asks again.
            this.asked.store(allowed.is_some(), Ordering::Relaxed);
        });
    }
}

async fn ask(pool: &Arc<PoolInner>) -> Option<bool> {
    let mut connection = pool.acquire_spare().await?;
    let ask = Statement::new(StatementKind::Read, ASK, Vec::new());
    match connection.ask::<bool>(&ask).await {
        Ok(rows) => rows?.pop(),
        // Before PostgreSQL 15 there is no such function.
        Err(error) => error.refusal().map(|_| false),
    }
}
