//! diesel-async: diesel's query builder on tokio-postgres, with a pool of deadpool's.

use diesel::result::ConnectionError;
use diesel::{OptionalExtension, QueryDsl, QueryResult, QueryableByName, SelectableHelper};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use tokio_postgres::{Config, NoTls};

use super::diesel_queries as queries;
use super::diesel_rows::{
    DeliveryRow, LogRow, NewDeliveryRow, NewLogRow, PluginRow, SessionRow, SummaryRow, UserRow,
    WorkflowRow,
};
use super::diesel_schema::{Moment, deliveries, logs};
use super::postgres;
use crate::Result;
use crate::data::{self, Entry, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::Setup;
use crate::rows::{Account, Delivery, Details, Log, Summary, Workflow, all};

/// diesel-async.
pub(crate) struct Peer {
    pool: Pool<AsyncPgConnection>,
    shape: Shape,
}

#[derive(QueryableByName)]
struct Durability {
    #[diesel(sql_type = diesel::sql_types::Text)]
    synchronous_commit: String,
}

impl Peer {
    async fn connection(&self) -> Result<Object<AsyncPgConnection>> {
        Ok(self.pool.get().await?)
    }
}

async fn connect(config: Config) -> diesel::ConnectionResult<AsyncPgConnection> {
    let connected = config.connect(NoTls).await;
    let (client, connection) =
        connected.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

async fn delivery(connection: &mut AsyncPgConnection, id: i64) -> QueryResult<DeliveryRow> {
    queries::delivery(id)
        .select(DeliveryRow::as_select())
        .first(connection)
        .await
}

async fn insert_delivery(connection: &mut AsyncPgConnection, new: NewDelivery) -> QueryResult<i64> {
    diesel::insert_into(deliveries::table)
        .values(NewDeliveryRow::from(new))
        .returning(deliveries::id)
        .get_result(connection)
        .await
}

impl crate::peer::Peer for Peer {
    async fn open(setup: &Setup) -> Result<Self> {
        let config = postgres::config(setup)?;
        let mut manager = ManagerConfig::default();
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |_| Box::pin(connect(config.clone())));
        let manager = AsyncDieselConnectionManager::new_with_config("", manager);
        let pool = Pool::builder(manager).max_size(setup.connections as usize);
        let peer = Self {
            pool: pool.build()?,
            shape: setup.shape,
        };
        drop(peer.connection().await?);
        Ok(peer)
    }

    async fn durability(&self) -> Result<String> {
        let setting: Durability = diesel::sql_query("SHOW synchronous_commit")
            .get_result(&mut self.connection().await?)
            .await?;
        Ok(setting.synchronous_commit)
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let found: Option<(SessionRow, UserRow)> =
            queries::account(data::digest(token), Moment(data::now()))
                .select((SessionRow::as_select(), UserRow::as_select()))
                .first(&mut self.connection().await?)
                .await
                .optional()?;
        Ok(found.map(Account::from))
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        let mut connection = self.connection().await?;
        let found: Option<(WorkflowRow, UserRow)> = queries::workflow_and_owner(id)
            .select((WorkflowRow::as_select(), UserRow::as_select()))
            .first(&mut connection)
            .await
            .optional()?;
        let Some((workflow, owner)) = found else {
            return Ok(None);
        };
        let rows: Vec<PluginRow> = queries::plugins_of(id)
            .select(PluginRow::as_select())
            .load(&mut connection)
            .await?;
        Ok(Some(Details {
            workflow: workflow.into(),
            owner: owner.into(),
            plugins: all(rows),
        }))
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        let rows: Vec<SummaryRow> = queries::workflows_of(owner)
            .select(SummaryRow::as_select())
            .load(&mut self.connection().await?)
            .await?;
        Ok(all(rows))
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        let rows: Vec<WorkflowRow> = queries::workflows_of(owner)
            .select(WorkflowRow::as_select())
            .load(&mut self.connection().await?)
            .await?;
        Ok(all(rows))
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let rows: Vec<LogRow> = queries::logs_before(self.shape.before(place))
            .select(LogRow::as_select())
            .load(&mut self.connection().await?)
            .await?;
        Ok(all(rows))
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        let insert = diesel::insert_into(logs::table)
            .values(NewLogRow::from(entry))
            .returning(logs::id);
        Ok(insert.get_result(&mut self.connection().await?).await?)
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let rows: Vec<NewLogRow> = all(entries);
        let insert = diesel::insert_into(logs::table).values(&rows);
        Ok(insert.execute(&mut self.connection().await?).await? as u64)
    }

    async fn update(&self, id: i64, name: String) -> Result<i64> {
        let mut connection = self.connection().await?;
        let read: WorkflowRow = queries::workflow(id)
            .select(WorkflowRow::as_select())
            .first(&mut connection)
            .await?;
        let (version, renamed) = read.rename(name);
        let update = diesel::update(queries::workflow_at(id, version)).set(renamed);
        match update.execute(&mut connection).await? {
            1 => Ok(version + 1),
            _ => Err("the version is stale".into()),
        }
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        let found = delivery(&mut *self.connection().await?, id).await;
        Ok(found.optional()?.map(Delivery::from))
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        let rows: Vec<DeliveryRow> = queries::deliveries_of(workflow, after)
            .select(DeliveryRow::as_select())
            .load(&mut self.connection().await?)
            .await?;
        Ok(all(rows))
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        Ok(insert_delivery(&mut *self.connection().await?, new).await?)
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction(async |connection| {
            let read = delivery(connection, id).await?;
            let [one, other] = new;
            let one = insert_delivery(connection, one).await?;
            let other = insert_delivery(connection, other).await?;
            QueryResult::Ok((read, [one, other]))
        });
        let (read, ids) = transaction.await?;
        Ok((read.into(), ids))
    }
}
