//! The time of the queue.
//!
//! Workers on several machines compare the same leases, and their clocks differ. So on
//! PostgreSQL it is the server's, and a database's own clock only where a test has set one.
//! `statement_timestamp()` is fixed during a statement, and can be looked up in an index;
//! `now()` is the start of the transaction.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbBackend;
use sea_orm::sea_query::{Expr, SimpleExpr};

use crate::context::Context;

/// Returns the present moment: the database's own clock, or the server's.
pub(super) fn moment(now: Option<DateTime<Utc>>) -> SimpleExpr {
    match now {
        Some(now) => Expr::val(now),
        None => Expr::cust("statement_timestamp()"),
    }
}

/// Returns the moment after a time from now.
pub(super) fn after(h: &Context, time: TimeDelta) -> SimpleExpr {
    let micros = time.num_microseconds().unwrap_or(i64::MAX);
    match h.shared_now() {
        Some(now) => Expr::val(now + time),
        None => Expr::cust(format!(
            "statement_timestamp() + {micros} * interval '1 microsecond'"
        )),
    }
}

/// Returns the present moment, or that of the start, where that is later: a clock may have
/// been set back.
pub(super) fn ended_at(backend: DbBackend, now: Option<DateTime<Utc>>) -> SimpleExpr {
    let now = || moment(now);
    match backend {
        DbBackend::Postgres => Expr::cust_with_exprs("GREATEST($1, \"started_at\")", [now()]),
        _ => Expr::cust_with_exprs("max(?, coalesce(\"started_at\", ?))", [now(), now()]),
    }
}
