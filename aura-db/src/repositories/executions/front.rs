//! What stands first in the queues.

use entity::ExecutionMode;
use sea_orm::{DbBackend, Iterable, Value};

use super::turn::Range;

/// Returns a query for the first `{limit}` that a worker takes of this many
/// [`Range`]s, with the number of theirs. Queue, first and last owner of each are parameters, from
/// `first` on: see [`values`]. What stands behind those that are enough isn't read, and with
/// `lock` not locked: others would pass it over, and none would have it. What is found and not
/// taken, because of a limit or of its bytes, is locked until the end of the transaction.
///
/// What was queued with a mode that this build doesn't know is left to a newer one.
pub(super) fn front(backend: DbBackend, ranges: usize, first: usize, lock: bool) -> String {
    let (sign, lock) = match backend {
        DbBackend::Postgres if lock => ("$", " FOR UPDATE OF e SKIP LOCKED"),
        DbBackend::Postgres => ("$", ""),
        _ => ("?", ""),
    };
    let known: Vec<_> = ExecutionMode::iter()
        .map(|mode| format!("'{mode}'"))
        .collect();
    let known = known.join(", ");
    let of_range = |nth: usize| {
        let [queue, low, high] = [0, 1, 2].map(|of| format!("{sign}{}", first + nth * 3 + of));
        format!(
            "SELECT id, workflow_id, owner_id, priority, {nth} AS nth FROM (
                SELECT e.id, e.workflow_id, e.owner_id, e.priority FROM executions AS e
                WHERE e.status = 'queued' AND e.is_suspended = FALSE AND e.limit_id IS NULL
                    AND e.mode IN ({known})
                    AND e.queue = {queue} AND e.owner_id BETWEEN {low} AND {high}
                ORDER BY e.owner_id, e.priority DESC, e.id LIMIT {{limit}}{lock}) AS range_{nth}"
        )
    };
    let all: Vec<_> = (0..ranges).map(of_range).collect();
    format!("{} LIMIT {{limit}}", all.join("\n            UNION ALL "))
}

/// Returns the values of the parameters of [`front`].
pub(super) fn values(ranges: &[Range]) -> impl Iterator<Item = Value> {
    ranges.iter().flat_map(|range| {
        [
            range.queue.as_str().into(),
            range.low.into(),
            range.high.into(),
        ]
    })
}
