//! diesel: its query builder, its `r2d2` pool, and a blocking thread for each
//! call, as an asynchronous service has to do it.

use diesel::connection::SimpleConnection;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::{
    ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, QueryableByName, RunQueryDsl,
    SelectableHelper, SqliteConnection,
};

use super::diesel_rows::{
    DeliveryRow, LogRow, Moment, NewDeliveryRow, NewLogRow, PluginRow, SessionRow, SummaryRow,
    UserRow, WorkflowRow, deliveries, logs, plugins, sessions, users, workflow_plugins, workflows,
};
use crate::Result;
use crate::data::{self, Entry, PAGE, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::{BUSY, Setup};
use crate::rows::{Account, Delivery, Details, Json, Log, Summary, Workflow, all};
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

fn row(entry: Entry) -> NewLogRow {
    NewLogRow {
        level: Entry::LEVEL,
        message: entry.message,
        workflow_id: entry.workflow,
        created_at: Moment(data::now()),
        metadata: entry.metadata.to_string(),
    }
}

/// Returns the id of the one row that was inserted. Not by `get_result`: it would leave
/// the statement after its first row, where SQLite doesn't think of a checkpoint, and the
/// WAL would grow without limit.
fn only(ids: &[i64]) -> diesel::QueryResult<i64> {
    ids.first().copied().ok_or(diesel::result::Error::NotFound)
}

fn delivery(connection: &mut SqliteConnection, id: i64) -> diesel::QueryResult<Option<Delivery>> {
    let found: Option<DeliveryRow> = deliveries::table
        .filter(deliveries::id.eq(id))
        .select(DeliveryRow::as_select())
        .first(connection)
        .optional()?;
    Ok(found.map(Into::into))
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
            let found: Option<(SessionRow, UserRow)> = sessions::table
                .inner_join(users::table)
                .filter(sessions::token.eq(digest))
                .filter(sessions::expires_at.gt(Moment(data::now())))
                .filter(users::is_active.eq(true))
                .filter(users::deleted_at.is_null())
                .select((SessionRow::as_select(), UserRow::as_select()))
                .first(connection)
                .optional()?;
            Ok(found.map(|(session, user)| Account {
                session: session.into(),
                user: user.into(),
            }))
        })
        .await
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        self.call(move |connection| {
            let found: Option<(WorkflowRow, UserRow)> = workflows::table
                .inner_join(users::table)
                .filter(workflows::id.eq(id))
                .filter(workflows::deleted_at.is_null())
                .filter(users::deleted_at.is_null())
                .select((WorkflowRow::as_select(), UserRow::as_select()))
                .first(connection)
                .optional()?;
            let Some((workflow, owner)) = found else {
                return Ok(None);
            };
            let rows: Vec<PluginRow> = plugins::table
                .inner_join(workflow_plugins::table.on(workflow_plugins::plugin_id.eq(plugins::id)))
                .filter(workflow_plugins::workflow_id.eq(id))
                .filter(plugins::deleted_at.is_null())
                .order(plugins::name)
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
            let rows: Vec<SummaryRow> = workflows::table
                .filter(workflows::owner_id.eq(owner))
                .filter(workflows::deleted_at.is_null())
                .order((workflows::updated_at.desc(), workflows::id.desc()))
                .limit(PAGE.cast_signed())
                .select(SummaryRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        self.call(move |connection| {
            let rows: Vec<WorkflowRow> = workflows::table
                .filter(workflows::owner_id.eq(owner))
                .filter(workflows::deleted_at.is_null())
                .order((workflows::updated_at.desc(), workflows::id.desc()))
                .limit(PAGE.cast_signed())
                .select(WorkflowRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let before = self.shape.before(place);
        self.call(move |connection| {
            let rows: Vec<LogRow> = logs::table
                .filter(logs::id.lt(before))
                .order(logs::id.desc())
                .limit(PAGE.cast_signed())
                .select(LogRow::as_select())
                .load(connection)?;
            Ok(all(rows))
        })
        .await
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        self.call(move |connection| {
            let insert = diesel::insert_into(logs::table).values(row(entry));
            only(&insert.returning(logs::id).load(connection)?)
        })
        .await
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let rows: Vec<_> = entries.into_iter().map(row).collect();
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
                let read: WorkflowRow = workflows::table
                    .filter(workflows::id.eq(id))
                    .filter(workflows::deleted_at.is_null())
                    .select(WorkflowRow::as_select())
                    .first(connection)?;
                let read = Workflow::from(read);
                let version = read.summary.version;
                let updated = diesel::update(workflows::table)
                    .filter(workflows::id.eq(id))
                    .filter(workflows::version.eq(version))
                    .set((
                        workflows::name.eq(name),
                        workflows::nodes.eq(read.nodes.map(Json::into_text)),
                        workflows::updated_at.eq(Moment(data::now())),
                        workflows::version.eq(version + 1),
                    ))
                    .execute(connection)?;
                Ok((updated == 1).then_some(version + 1))
            })
            .await?;
        version.ok_or_else(|| "the version is stale".into())
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        self.call(move |connection| delivery(connection, id)).await
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        self.call(move |connection| {
            let rows: Vec<DeliveryRow> = deliveries::table
                .filter(deliveries::workflow_id.eq(workflow))
                .filter(deliveries::id.gt(after))
                .order(deliveries::id)
                .limit(PAGE.cast_signed())
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
                let read = delivery(connection, id)?.ok_or(diesel::result::Error::NotFound)?;
                let [one, other] = new;
                let one = insert_delivery(connection, one)?;
                let other = insert_delivery(connection, other)?;
                Ok((read, [one, other]))
            })
        })
        .await
    }
}
