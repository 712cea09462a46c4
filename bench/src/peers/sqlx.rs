//! sqlx by hand: SQL in statements that each connection keeps prepared, columns by
//! position, and its own pool.

use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    Arguments, Connection, Database, Encode, Executor, IntoArguments, Pool, Postgres, Sqlite, Type,
};

use super::columns::{
    Columns, Get, account, all, delivery, log, plugin, summary, workflow, workflow_and_owner,
};
use super::sql;
use crate::Result;
use crate::data::{self, Entry, Shape, sqlite_time};
use crate::deliveries::NewDelivery;
use crate::peer::{BUSY, NO_DELIVERY, Setup, Target};
use crate::rows::{Account, Delivery, Details, Json, Log, Summary, Time, Workflow};
use crate::workload::Durability;

/// Returns the options of a connection to a file, for SeaORM's pool too.
pub(super) fn sqlite_options(
    options: SqliteConnectOptions,
    durability: Durability,
) -> SqliteConnectOptions {
    let synchronous = match durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Normal => SqliteSynchronous::Normal,
    };
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(BUSY)
}

/// Returns the options of a connection to a server, for SeaORM's pool too.
pub(super) fn postgres_options(options: PgConnectOptions, target: &Target) -> PgConnectOptions {
    let Target::Postgres {
        host,
        port,
        user,
        password,
        database,
    } = target
    else {
        return options;
    };
    let options = options
        .host(host)
        .port(*port)
        .username(user)
        .database(database)
        .ssl_mode(PgSslMode::Disable);
    match password {
        Some(password) => options.password(password),
        None => options,
    }
}

/// A database whose statements take values of a type.
pub(crate) trait Bind<T>: Database {
    /// Appends a value.
    fn bind(values: &mut Self::Arguments, value: T) -> Result<()>;
}

impl<DB: Database, T: Encode<'static, DB> + Type<DB>> Bind<T> for DB {
    fn bind(values: &mut Self::Arguments, value: T) -> Result<()> {
        values.add(value)
    }
}

/// A database that runs statements, each prepared at its first use of a connection.
pub(crate) trait Run: Database {
    /// Returns all rows.
    fn rows(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send;

    /// Returns the first row.
    fn row(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Option<Self::Row>>> + Send;

    /// Runs a statement that returns no rows.
    fn execute(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Self::QueryResult>> + Send;
}

impl<DB: Database> Run for DB
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
{
    async fn rows(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Self::Arguments,
    ) -> sqlx::Result<Vec<Self::Row>> {
        sqlx::query_with(sql, values).fetch_all(connection).await
    }

    async fn row(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Self::Arguments,
    ) -> sqlx::Result<Option<Self::Row>> {
        sqlx::query_with(sql, values)
            .fetch_optional(connection)
            .await
    }

    async fn execute(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Self::Arguments,
    ) -> sqlx::Result<Self::QueryResult> {
        sqlx::query_with(sql, values).execute(connection).await
    }
}

/// One of the two databases.
pub(crate) trait Engine:
    Database<Row: Columns<Error = sqlx::Error>>
    + Run
    + Bind<i64>
    + Bind<Option<i64>>
    + Bind<&'static str>
    + Bind<Option<&'static str>>
    + Bind<String>
    + Bind<Json>
    + Bind<Option<Json>>
    + Bind<Self::Moment>
    + Bind<Option<Self::Moment>>
{
    /// A moment as the columns hold it.
    type Moment: Send;

    /// The statement that begins a transaction with writes.
    const BEGIN: &'static str;

    /// The query for the settings that [`Durability::said_by`] returns.
    const DURABILITY: &'static str;

    /// Returns the options of each connection.
    fn options(setup: &Setup) -> Result<<Self::Connection as Connection>::Options>;

    /// Returns a moment as the columns hold it.
    fn moment(time: Time) -> Self::Moment;

    /// Returns the number of rows that a statement wrote.
    fn rows_affected(result: &Self::QueryResult) -> u64;
}

impl Engine for Postgres {
    type Moment = Time;
    const BEGIN: &'static str = "BEGIN";
    const DURABILITY: &'static str = "SHOW synchronous_commit";

    fn options(setup: &Setup) -> Result<PgConnectOptions> {
        Ok(postgres_options(PgConnectOptions::new(), &setup.target))
    }

    fn moment(time: Time) -> Time {
        time
    }

    fn rows_affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }
}

impl Engine for Sqlite {
    type Moment = String;
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const DURABILITY: &'static str = "SELECT concat(journal_mode, ' ', synchronous) FROM pragma_journal_mode, pragma_synchronous";

    fn options(setup: &Setup) -> Result<SqliteConnectOptions> {
        let options = SqliteConnectOptions::new().filename(setup.file()?);
        Ok(sqlite_options(options, setup.durability))
    }

    fn moment(time: Time) -> String {
        sqlite_time(time)
    }

    fn rows_affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }
}

/// sqlx.
pub(crate) struct Peer<DB: Database> {
    pool: Pool<DB>,
    shape: Shape,
}

/// Collects the values of a statement.
macro_rules! values {
    ($engine:ident: $($value:expr),+ $(,)?) => {{
        let mut values = <$engine as Database>::Arguments::default();
        $(<$engine as Bind<_>>::bind(&mut values, $value)?;)+
        values
    }};
}

/// Runs an insert of one row and returns the id. Not by `fetch_optional`: it would leave
/// the statement after its first row, where SQLite doesn't think of a checkpoint, and the
/// WAL would grow without limit.
async fn insert<DB: Engine>(
    connection: &mut DB::Connection,
    sql: &'static str,
    values: DB::Arguments,
) -> Result<i64> {
    let rows = DB::rows(connection, sql, values).await?;
    Ok(rows.first().ok_or("no id came back")?.value(0)?)
}

async fn insert_delivery<DB: Engine>(
    connection: &mut DB::Connection,
    new: NewDelivery,
) -> Result<i64> {
    let values = values![DB:
        new.workflow,
        new.url,
        new.event,
        new.status,
        new.attempts,
        new.response_code,
        new.error,
        new.payload,
        DB::moment(new.created_at),
        new.delivered_at.map(DB::moment),
    ];
    insert::<DB>(connection, sql::INSERT_DELIVERY, values).await
}

impl<DB: Engine> Peer<DB> {
    async fn row<T>(
        &self,
        sql: &'static str,
        values: DB::Arguments,
        read: fn(&DB::Row) -> sqlx::Result<T>,
    ) -> Result<Option<T>> {
        let mut connection = self.pool.acquire().await?;
        let row = DB::row(&mut connection, sql, values).await?;
        Ok(row.as_ref().map(read).transpose()?)
    }

    async fn list<T>(
        &self,
        sql: &'static str,
        values: DB::Arguments,
        read: fn(&DB::Row) -> sqlx::Result<T>,
    ) -> Result<Vec<T>> {
        let mut connection = self.pool.acquire().await?;
        Ok(all(&DB::rows(&mut connection, sql, values).await?, read)?)
    }
}

impl<DB: Engine> crate::peer::Peer for Peer<DB> {
    async fn open(setup: &Setup) -> Result<Self> {
        let options = PoolOptions::new()
            .max_connections(setup.connections)
            .test_before_acquire(false);
        Ok(Self {
            pool: options.connect_with(DB::options(setup)?).await?,
            shape: setup.shape,
        })
    }

    async fn durability(&self) -> Result<String> {
        let values = DB::Arguments::default();
        let settings = self.row(DB::DURABILITY, values, |row| row.value(0)).await?;
        settings.ok_or_else(|| "no answer".into())
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let values = values![DB: data::digest(token), DB::moment(data::now())];
        self.row(sql::AUTHENTICATE, values, account).await
    }

    async fn details(&self, id: i64) -> Result<Option<Details>> {
        let mut connection = self.pool.acquire().await?;
        let row = DB::row(&mut connection, sql::WORKFLOW_AND_OWNER, values![DB: id]).await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let (workflow, owner) = workflow_and_owner(&row)?;
        let plugins = DB::rows(&mut connection, sql::PLUGINS, values![DB: id]).await?;
        Ok(Some(Details {
            workflow,
            owner,
            plugins: all(&plugins, plugin)?,
        }))
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        self.list(sql::SUMMARIES, values![DB: owner], summary).await
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        self.list(sql::DOCUMENTS, values![DB: owner], workflow)
            .await
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let before = self.shape.before(place);
        self.list(sql::LOGS, values![DB: before], log).await
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        let values = values![DB:
            Entry::LEVEL,
            entry.message,
            entry.workflow,
            DB::moment(data::now()),
            Json::Value(entry.metadata),
        ];
        let mut connection = self.pool.acquire().await?;
        insert::<DB>(&mut connection, sql::APPEND, values).await
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let now = data::now();
        let mut values = DB::Arguments::default();
        for entry in entries {
            DB::bind(&mut values, Entry::LEVEL)?;
            DB::bind(&mut values, entry.message)?;
            DB::bind(&mut values, entry.workflow)?;
            DB::bind(&mut values, DB::moment(now))?;
            DB::bind(&mut values, Json::Value(entry.metadata))?;
        }
        let mut connection = self.pool.acquire().await?;
        let done = DB::execute(&mut connection, sql::append_many(), values).await?;
        Ok(DB::rows_affected(&done))
    }

    async fn update(&self, id: i64, name: String) -> Result<i64> {
        let mut connection = self.pool.acquire().await?;
        let row = DB::row(&mut connection, sql::WORKFLOW_BY_ID, values![DB: id]).await?;
        let read = workflow(&row.ok_or("no such workflow")?)?;
        let version = read.summary.version;
        let values = values![DB: name, read.nodes, DB::moment(data::now()), id, version];
        let done = DB::execute(&mut connection, sql::UPDATE, values).await?;
        match DB::rows_affected(&done) {
            1 => Ok(version + 1),
            _ => Err("the version is stale".into()),
        }
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        self.row(sql::DELIVERY, values![DB: id], delivery).await
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        let values = values![DB: workflow, after];
        self.list(sql::DELIVERIES, values, delivery).await
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        let mut connection = self.pool.acquire().await?;
        insert_delivery::<DB>(&mut connection, new).await
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        let mut transaction = self.pool.begin_with(DB::BEGIN).await?;
        let row = DB::row(&mut transaction, sql::DELIVERY, values![DB: id]).await?;
        let read = delivery(&row.ok_or(NO_DELIVERY)?)?;
        let [one, other] = new;
        let ids = [
            insert_delivery::<DB>(&mut transaction, one).await?,
            insert_delivery::<DB>(&mut transaction, other).await?,
        ];
        transaction.commit().await?;
        Ok((read, ids))
    }
}
