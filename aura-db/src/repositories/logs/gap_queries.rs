//! The queries of [`gap_tracker`](super::gap_tracker).

use std::collections::BTreeSet;

use aura_orm::{Fetched, RowDecoder, RowReader, TypedQuery};
use entity::logs;
use sea_orm::{DbBackend, DbErr, EntityTrait, QueryOrder, QuerySelect, Select, Statement};
use serde::{Deserialize, Serialize};

use super::Log;
use crate::context::Context;
use crate::error::Error;
use crate::repositories::report;

/// Who inserts into the log, in this database.
const WRITERS: &str = "SELECT virtualtransaction AS writer FROM pg_locks \
    WHERE locktype = 'relation' AND relation = 'logs'::regclass AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    AND mode = 'RowExclusiveLock'";

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

pub(super) async fn newest(h: &Context) -> Result<i64, Error> {
    let newest = logs::Entity::find()
        .select_only()
        .column(logs::Column::Id)
        .order_by_desc(logs::Column::Id)
        .limit(1);
    Ok(h.scalar(newest).await?.unwrap_or(0))
}

pub(super) async fn writers(h: &Context) -> Result<BTreeSet<String>, Error> {
    if h.backend() != DbBackend::Postgres {
        return Ok(BTreeSet::new());
    }
    let writers = Statement::from_string(DbBackend::Postgres, WRITERS);
    Ok(h.fetch_all(TypedQuery::<String>::sql(writers))
        .await?
        .into_iter()
        .collect())
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
