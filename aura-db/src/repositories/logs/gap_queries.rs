//! The queries of [`gap_tracker`](super::gap_tracker).

use std::collections::BTreeSet;
use std::sync::Arc;

use aura_orm::{Fetched, RowDecoder, RowReader, TypedQuery};
use entity::logs;
use sea_orm::{DbBackend, DbErr, Select, Statement};
use serde::{Deserialize, Serialize};

use super::Log;
use crate::context::Context;
use crate::error::Error;
use crate::repositories::report;

/// The newest id that is visible, and who inserts into the log of this database. The second
/// is read after the statement's snapshot was taken, so that a writer whose entry is not in
/// it is there, unless it has ended: then the next statement finds the entry.
const HEAD_POSTGRES: &str = "SELECT \
    coalesce((SELECT id FROM logs ORDER BY id DESC LIMIT 1), 0), \
    coalesce((SELECT string_agg(virtualtransaction, ' ') FROM pg_locks \
    WHERE locktype = 'relation' AND relation = 'logs'::regclass AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND mode = 'RowExclusiveLock'), '')";

/// There is one writer, and it has ended.
const HEAD_SQLITE: &str = "SELECT coalesce((SELECT id FROM logs ORDER BY id DESC LIMIT 1), 0), ''";

/// The ids after `$1` and up to `$2` that no visible entry has. The one after
/// them ends the last gap.
const GAPS: &str = "SELECT before + 1 AS first, id - 1 AS last FROM (\
    SELECT id, lag(id, 1, $1) OVER (ORDER BY id) AS before FROM (\
    SELECT id FROM logs WHERE id > $1 AND id <= $2 UNION ALL SELECT $2 + 1) AS ids\
    ) AS pairs WHERE id > before + 1 ORDER BY id";

/// The ids of the first entries that are visible in the gaps from `$1` to `$2`. The gaps
/// are read one after the other, and no further than the limit.
const APPEARED: &str = "SELECT found.id FROM \
    unnest(CAST($1 AS bigint[]), CAST($2 AS bigint[])) WITH ORDINALITY \
    AS gap (first, last, place) CROSS JOIN LATERAL (\
    SELECT id FROM logs WHERE id >= gap.first AND id <= gap.last ORDER BY id LIMIT $3\
    ) AS found ORDER BY gap.place, found.id LIMIT $3";

/// Ids that were not to be seen, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdGap {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl RowDecoder for IdGap {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(Self {
            first: cells.next_value()?,
            last: cells.next_value()?,
        })
    }
}

/// The id of an entry, and the entry when this build can read it.
pub(super) type SeenEntry = (i64, Option<Log>);

/// The entries of a query, as many as a page may have. One that can't be read is reported,
/// and passed over once and for all: a follower would never get any further.
pub(super) async fn seen_entries(
    h: &Context,
    query: Select<logs::Entity>,
) -> Result<Fetched<SeenEntry>, Error> {
    let Fetched { rows, cut } = h.fetch_results(query).await?;
    let rows = rows.into_iter().map(|row| match row {
        Ok(log) => Ok((log.id.0, Some(log))),
        Err(error) => match error.id {
            Some(id) => {
                report(&error.into());
                Ok((id, None))
            }
            // Without its key nothing could go on behind it.
            None => Err(error.into()),
        },
    });
    let rows = rows.collect::<Result<_, Error>>()?;
    Ok(Fetched { rows, cut })
}

/// The end of the log at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The highest id that is visible; 0 when there is none.
    pub(super) newest: i64,
    /// The transactions that write to the log, and may hold lower ids.
    pub(super) writers: Arc<BTreeSet<String>>,
}

/// Looks at the end of the log.
pub(super) async fn head(h: &Context) -> Result<Head, Error> {
    let sql = match h.backend() {
        DbBackend::Postgres => HEAD_POSTGRES,
        _ => HEAD_SQLITE,
    };
    let head = Statement::from_string(h.backend(), sql);
    let head = h
        .fetch_optional(TypedQuery::<(i64, String)>::sql(head))
        .await?;
    let (newest, writers) = head.unwrap_or_default();
    let writers = writers.split_whitespace().map(str::to_owned).collect();
    Ok(Head {
        newest,
        writers: Arc::new(writers),
    })
}

/// Only where there are writers beside each other, so on PostgreSQL.
pub(super) async fn gaps(h: &Context, after: i64, to: i64) -> Result<Vec<IdGap>, Error> {
    let values = [after.into(), to.into()];
    let gaps = Statement::from_sql_and_values(DbBackend::Postgres, GAPS, values);
    h.fetch_all(TypedQuery::<IdGap>::sql(gaps)).await
}

/// Returns the ids of at most `most` entries that are in the gaps, in order.
pub(super) async fn appeared(h: &Context, gaps: &[IdGap], most: u64) -> Result<Vec<i64>, Error> {
    let values = [
        array(gaps.iter().map(|gap| gap.first)).into(),
        array(gaps.iter().map(|gap| gap.last)).into(),
        most.into(),
    ];
    let appeared = Statement::from_sql_and_values(DbBackend::Postgres, APPEARED, values);
    h.fetch_all(TypedQuery::<i64>::sql(appeared)).await
}

/// An array of PostgreSQL's.
pub(super) fn array(ids: impl Iterator<Item = i64>) -> String {
    let ids: Vec<_> = ids.map(|id| id.to_string()).collect();
    format!("{{{}}}", ids.join(","))
}
