//! SeaORM as its book shows it, on its own pool.

use entity::{Document, LogLevel, UserId, WorkflowId, logs, plugins, sessions, users, workflows};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend,
    EntityTrait, FromQueryResult, LoaderTrait, ModelTrait, QueryFilter, QueryOrder, QuerySelect,
    Set, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use super::sqlx::{postgres_options, sqlite_options};
use super::{attempts, deliveries};
use crate::Result;
use crate::data::{self, Entry, PAGE, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::{NO_DELIVERY, Setup, Target};
use crate::rows::{
    Account, Attempted, Delivery, Details, Json, Log, Plugin, Summary, Time, Workflow, all,
};
use crate::workload::Backend;

/// Plain SeaORM.
pub(crate) struct Peer {
    db: DatabaseConnection,
    backend: Backend,
    shape: Shape,
}

/// What a connection says about itself.
pub(crate) async fn durability(db: &DatabaseConnection, backend: Backend) -> Result<String> {
    let ask = async |sql: &str| -> Result<_> {
        let statement = Statement::from_string(db.get_database_backend(), sql);
        Ok(db.query_one_raw(statement).await?.ok_or("no answer")?)
    };
    Ok(match backend {
        Backend::Sqlite => {
            let mode: String = ask("PRAGMA journal_mode").await?.try_get_by_index(0)?;
            let synchronous: i32 = ask("PRAGMA synchronous").await?.try_get_by_index(0)?;
            format!("{mode} {synchronous}")
        }
        Backend::Postgres => ask("SHOW synchronous_commit").await?.try_get_by_index(0)?,
    })
}

fn options(setup: &Setup) -> ConnectOptions {
    let mut options = match &setup.target {
        Target::Sqlite { path } => {
            let mut options = ConnectOptions::new(format!("sqlite://{}", path.display()));
            let durability = setup.durability;
            options.map_sqlx_sqlite_opts(move |sqlite| sqlite_options(sqlite, durability));
            options
        }
        Target::Postgres { .. } => {
            let mut options = ConnectOptions::new("postgres://localhost");
            let target = setup.target.clone();
            options.map_sqlx_postgres_opts(move |postgres| postgres_options(postgres, &target));
            options
        }
    };
    options
        .max_connections(setup.connections)
        .sqlx_logging(false);
    options
}

/// The columns of a summary.
#[derive(FromQueryResult)]
struct Part {
    id: WorkflowId,
    name: String,
    description: Option<String>,
    status: entity::WorkflowStatus,
    version: i64,
    owner_id: UserId,
    created_at: Time,
    updated_at: Time,
    deleted_at: Option<Time>,
    created_by: Option<UserId>,
    updated_by: Option<UserId>,
}

impl From<Part> for Summary {
    fn from(part: Part) -> Self {
        Self {
            id: part.id.0,
            name: part.name,
            description: part.description,
            status: part.status.as_str().into(),
            version: part.version,
            owner_id: part.owner_id.0,
            created_at: part.created_at,
            updated_at: part.updated_at,
            deleted_at: part.deleted_at,
            created_by: part.created_by.map(|id| id.0),
            updated_by: part.updated_by.map(|id| id.0),
        }
    }
}

fn workflows_of(owner: i64) -> sea_orm::Select<workflows::Entity> {
    workflows::Entity::find()
        .filter(workflows::COLUMN.owner_id.eq(UserId(owner)))
        .filter(workflows::COLUMN.deleted_at.is_null())
        .order_by_desc(workflows::Column::UpdatedAt)
        .order_by_desc(workflows::Column::Id)
        .limit(PAGE)
}

fn model(entry: Entry) -> logs::ActiveModel {
    logs::ActiveModel {
        level: Set(LogLevel::Info),
        message: Set(entry.message),
        workflow_id: Set(WorkflowId(entry.workflow)),
        created_at: Set(data::now()),
        metadata: Set(Some(Document::from(entry.metadata))),
        ..Default::default()
    }
}

/// Its book's models hold documents parsed; those of `entity` don't, so that is
/// done here, wherever a row was read.
fn whole(row: workflows::Model) -> Result<Workflow> {
    let mut workflow = Workflow::from(row);
    Json::parse(&mut workflow.settings)?;
    Json::parse(&mut workflow.connections)?;
    Json::parse(&mut workflow.nodes)?;
    Json::parse(&mut workflow.metadata)?;
    Ok(workflow)
}

fn plugin(row: plugins::Model) -> Result<Plugin> {
    let mut plugin = Plugin::from(row);
    Json::parse(&mut plugin.config_schema)?;
    Ok(plugin)
}

fn log(row: logs::Model) -> Result<Log> {
    let mut log = Log::from(row);
    Json::parse(&mut log.metadata)?;
    Ok(log)
}

impl crate::peer::Peer for Peer {
    async fn open(setup: &Setup) -> Result<Self> {
        let db = sea_orm::Database::connect(options(setup)).await?;
        let backend = match db.get_database_backend() {
            DbBackend::Postgres => Backend::Postgres,
            _ => Backend::Sqlite,
        };
        Ok(Self {
            db,
            backend,
            shape: setup.shape,
        })
    }

    async fn durability(&self) -> Result<String> {
        durability(&self.db, self.backend).await
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let found = sessions::Entity::find()
            .find_also_related(users::Entity)
            .filter(sessions::Column::Token.eq(data::digest(token)))
            .filter(sessions::COLUMN.expires_at.gt(data::now()))
            .filter(users::COLUMN.is_active.eq(true))
            .filter(users::COLUMN.deleted_at.is_null())
            .one(&self.db)
            .await?;
        Ok(match found {
            Some((session, Some(user))) => Some(Account {
                session: session.into(),
                user: user.into(),
            }),
            _ => None,
        })
    }

    async fn details(&self, workflow: i64) -> Result<Option<Details>> {
        let found = workflows::Entity::find_by_id(WorkflowId(workflow))
            .find_also_related(users::Entity)
            .filter(workflows::COLUMN.deleted_at.is_null())
            .one(&self.db)
            .await?;
        let Some((workflow, Some(owner))) = found else {
            return Ok(None);
        };
        let plugins = workflow
            .find_related(plugins::Entity)
            .filter(plugins::COLUMN.deleted_at.is_null())
            .order_by_asc(plugins::Column::Name)
            .all(&self.db)
            .await?;
        Ok(Some(Details {
            workflow: whole(workflow)?,
            owner: owner.into(),
            plugins: plugins.into_iter().map(plugin).collect::<Result<_>>()?,
        }))
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        use workflows::Column;
        let parts: Vec<Part> = workflows_of(owner)
            .select_only()
            .columns([
                Column::Id,
                Column::Name,
                Column::Description,
                Column::Status,
                Column::Version,
                Column::OwnerId,
                Column::CreatedAt,
                Column::UpdatedAt,
                Column::DeletedAt,
                Column::CreatedBy,
                Column::UpdatedBy,
            ])
            .into_model()
            .all(&self.db)
            .await?;
        Ok(all(parts))
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        let rows = workflows_of(owner).all(&self.db).await?;
        rows.into_iter().map(whole).collect()
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let mut cursor = logs::Entity::find().cursor_by(logs::Column::Id);
        let rows = cursor
            .before(self.shape.before(place))
            .last(PAGE)
            .all(&self.db)
            .await?;
        // The cursor tells them oldest first.
        rows.into_iter().rev().map(log).collect()
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        Ok(log(model(entry).insert(&self.db).await?)?.id)
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let count = entries.len() as u64;
        logs::Entity::insert_many(entries.into_iter().map(model))
            .exec(&self.db)
            .await?;
        Ok(count)
    }

    async fn update(&self, workflow: i64, name: String) -> Result<i64> {
        let read = workflows::Entity::find_by_id(WorkflowId(workflow))
            .one(&self.db)
            .await?
            .ok_or("no such workflow")?;
        let (id, version) = (read.id, read.version);
        let nodes = match whole(read)?.nodes {
            Some(Json::Value(nodes)) => Some(nodes.into()),
            _ => None,
        };
        let updated = workflows::Entity::update_many()
            .set(workflows::ActiveModel {
                name: Set(name),
                nodes: Set(nodes),
                version: Set(version + 1),
                updated_at: Set(data::now()),
                ..Default::default()
            })
            .filter(workflows::COLUMN.id.eq(id))
            .filter(workflows::COLUMN.version.eq(version))
            .exec(&self.db)
            .await?;
        match updated.rows_affected {
            1 => Ok(version + 1),
            _ => Err("the version is stale".into()),
        }
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        let found = deliveries::Entity::find_by_id(id).one(&self.db).await?;
        Ok(found.map(Into::into))
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        Ok(all(deliveries::page(workflow, after).all(&self.db).await?))
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        let new = deliveries::ActiveModel::from(new);
        Ok(new.insert(&self.db).await?.id)
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        // On SQLite, one that reads before it writes fails when another has written
        // meanwhile, however long it may wait.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let transaction = self.db.begin_with_options(options).await?;
        let read = deliveries::Entity::find_by_id(id).one(&transaction).await?;
        let read = read.ok_or(NO_DELIVERY)?;
        let [one, other] = new.map(deliveries::ActiveModel::from);
        let one = one.insert(&transaction).await?;
        let other = other.insert(&transaction).await?;
        transaction.commit().await?;
        Ok((read.into(), [one.id, other.id]))
    }

    async fn repository_update(&self, id: i64, attempts: i64) -> Result<Delivery> {
        Ok(deliveries::change(id, attempts)
            .update(&self.db)
            .await?
            .into())
    }

    async fn repository_related(&self, workflow: i64, after: i64) -> Result<Vec<Attempted>> {
        let rows = deliveries::page(workflow, after).all(&self.db).await?;
        let attempts = rows.load_many(attempts::Entity, &self.db).await?;
        Ok(attempts::with(rows, attempts))
    }
}
