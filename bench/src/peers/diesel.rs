//! diesel: its query builder, its `r2d2` pool, and a blocking thread for each
//! call, as an asynchronous service has to do it.

use diesel::connection::SimpleConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::{
    OptionalExtension, QueryDsl, QueryableByName, RunQueryDsl, SelectableHelper, SqliteConnection,
};

use super::diesel_queries as queries;
use super::diesel_rows::{
    DeliveryRow, LogRow, NewDeliveryRow, NewLogRow, PluginRow, SessionRow, SummaryRow, UserRow,
    WorkflowRow,
};
use super::diesel_schema::{Moment, deliveries, logs};
use crate::Result;
use crate::data::{self, Entry, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::{BUSY, Setup};
use crate::rows::{Account, Delivery, Details, Log, Summary, Workflow, all};
use crate::workload::Durability;

/// diesel.
pub(crate) struct Peer {
    pool: Pool<ConnectionManager<SqliteConnection>>,
    shape: Shape,
}

/// What each connection is told.
#[derive(Debug)]
struct Pragmas(String);

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Pragmas {
    fn on_acquire(
        &self,
        connection: &mut SqliteConnection,
    ) -> std::result::Result<(), diesel::r2d2::Error> {
        connection
            .batch_execute(&self.0)
            .map_err(diesel::r2d2::Error::QueryError)
    }
}

#[derive(QueryableByName)]
struct Mode {
    #[diesel(sql_type = diesel::sql_types::Text)]
    journal_mode: String,
}

#[derive(QueryableByName)]
struct Synchronous {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    synchronous: i64,
}

impl Peer {
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut SqliteConnection) -> diesel::QueryResult<T> + Send + 'static,
    ) -> Result<T> {
        let pool = self.pool.clone();
        tokio::task::spawn_blocking(move || Ok(call(&mut *pool.get()?)?)).await?
    }
}

/// Returns the id of the one row that was inserted. Not by `get_result`: it would leave
/// the statement after its first row, where SQLite doesn't think of a checkpoint, and the
/// WAL would grow without limit.
fn only(ids: &[i64]) -> diesel::QueryResult<i64> {
    ids.first().copied().ok_or(diesel::result::Error::NotFound)
}

fn delivery(connection: &mut SqliteConnection, id: i64) -> diesel::QueryResult<DeliveryRow> {
    queries::delivery(id)
        .select(DeliveryRow::as_select())
        .first(connection)
}

fn insert_delivery(
    connection: &mut SqliteConnection,
    new: NewDelivery,
) -> diesel::QueryResult<i64> {
    let insert = diesel::insert_into(deliveries::table).values(NewDeliveryRow::from(new));
    only(&insert.returning(deliveries::id).load(connection)?)
}

impl crate::peer::Peer for Peer {
    async fn open(setup: &Setup) -> Result<Self> {
        let synchronous = match setup.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        let pragmas = format!(
            "PRAGMA busy_timeout = {}; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON;",
            BUSY.as_millis()
        );
        let path = setup.file()?.display().to_string();
        let connections = setup.connections;
        let pool = tokio::task::spawn_blocking(move || {
            Pool::builder()
                .max_size(connections)
                .min_idle(Some(1))
                .connection_customizer(Box::new(Pragmas(pragmas)))
                .build(ConnectionManager::new(path))
        });
        Ok(Self {
            pool: pool.await??,
            shape: setup.shape,
        })
    }

    async fn durability(&self) -> Result<String> {
        self.call(|connection| {
            let mode: Mode = diesel::sql_query("PRAGMA journal_mode").get_result(connection)?;
            let level: Synchronous =
                diesel::sql_query("PRAGMA synchronous").get_result(connection)?;
            Ok(format!("{} {}", mode.journal_mode, level.synchronous))
        })
        .await
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let digest = data::digest(token);
        self.call(move |connection| {
            let found: Option<(SessionRow, UserRow)> =
                queries::account(digest, Moment(data::now()))
                    .select((SessionRow::as_select(), UserRow::as_select()))
                    .first(connection)
                    .optional()?;
            Ok(found.map(Account::from))
        })
        .await
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        self.call(move |connection| {
            let found: Option<(WorkflowRow, UserRow)> = queries::workflow_and_owner(id)
                .select((WorkflowRow::as_select(), UserRow::as_select()))
                .first(connection)
                .optional()?;
            let Some((workflow, owner)) = found else {
                return Ok(None);
            };
            let rows: Vec<PluginRow> = queries::plugins_of(id)
                .select(PluginRow::as_select())
                .load(connection)?;
            Ok(Some(Details {
                workflow: workflow.into(),
                owner: owner.into(),
                plugins: all(rows),
            }))
        })
        .await
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        self.call(move |connection| {
            let rows: Vec<SummaryRow> = queries::workflows_of(owner)
                .select(SummaryRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        self.call(move |connection| {
            let rows: Vec<WorkflowRow> = queries::workflows_of(owner)
                .select(WorkflowRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let before = self.shape.before(place);
        self.call(move |connection| {
            let rows: Vec<LogRow> = queries::logs_before(before)
                .select(LogRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        self.call(move |connection| {
            let insert = diesel::insert_into(logs::table).values(NewLogRow::from(entry));
            only(&insert.returning(logs::id).load(connection)?)
        })
        .await
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let rows: Vec<NewLogRow> = all(entries);
        self.call(move |connection| {
            let count = diesel::insert_into(logs::table)
                .values(&rows)
                .execute(connection)?;
            Ok(count as u64)
        })
        .await
    }

    async fn update(&self, id: i64, name: String) -> Result<i64> {
        let version = self
            .call(move |connection| {
                let read: WorkflowRow = queries::workflow(id)
                    .select(WorkflowRow::as_select())
                    .first(connection)?;
                let (version, renamed) = read.rename(name);
                let updated = diesel::update(queries::workflow_at(id, version))
                    .set(renamed)
                    .execute(connection)?;
                Ok((updated == 1).then_some(version + 1))
            })
            .await?;
        version.ok_or_else(|| "the version is stale".into())
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        self.call(move |connection| Ok(delivery(connection, id).optional()?.map(Delivery::from)))
            .await
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        self.call(move |connection| {
            let rows: Vec<DeliveryRow> = queries::deliveries_of(workflow, after)
                .select(DeliveryRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        self.call(|connection| insert_delivery(connection, new))
            .await
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        self.call(move |connection| {
            connection.immediate_transaction(|connection| {
                let read = delivery(connection, id)?;
                let [one, other] = new;
                let one = insert_delivery(connection, one)?;
                let other = insert_delivery(connection, other)?;
                Ok((read.into(), [one, other]))
            })
        })
        .await
    }
}
