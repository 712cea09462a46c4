//! aura-db, as its users meet it.

use std::borrow::Cow;

use aura_db::{
    CachedSql, Config, Cursor, Database, ExecutionMode, LogFilter, LogLevel, NewExecution, NewLog,
    Outcome, PageRequest, PluginId, Repository, RepositoryEntity, Sort, Target as Place, TlsMode,
    Token, UserId, WorkflowChange, WorkflowFilter, WorkflowId, WorkflowSort, WorkflowSummary,
};
use sea_orm::EntityTrait;
use serde_json::json;
use tokio::sync::OnceCell;

use super::{attempts, deliveries, plugins};
use crate::Result;
use crate::data::{Entry, PAGE, PLACES, Shape};
use crate::deliveries::NewDelivery;
use crate::peer::{LEASE, Setup, Target};
use crate::rows::{Account, Attempted, Delivery, Details, Log, Plugin, Summary, Workflow, all};
use crate::workload::{Backend, Durability};

/// aura-db.
pub(crate) struct Peer {
    db: Database,
    backend: Backend,
    shape: Shape,
    /// Where the pages of logs begin.
    places: OnceCell<Vec<Cursor>>,
}

/// The settings that lead to a database.
pub(crate) fn config(target: &Target, connections: u32) -> Config {
    let mut config = match target {
        Target::Sqlite { path } => Config::sqlite(path),
        Target::Postgres {
            host,
            port,
            user,
            password,
            database,
        } => {
            let password = password.clone().map(secrecy::SecretString::from);
            let mut config = Config::postgres(host, database, user, password);
            if let Place::Postgres(postgres) = &mut config.target {
                postgres.port = *port;
                postgres.tls.mode = TlsMode::Disable;
            }
            config
        }
    };
    config.pool.max = connections;
    config
}

fn workflows_of(owner: i64) -> WorkflowFilter {
    WorkflowFilter::owner(UserId(owner))
        .sort(WorkflowSort::UpdatedAt)
        .descending()
}

fn new_log(entry: Entry) -> NewLog {
    NewLog::new(WorkflowId(entry.workflow), LogLevel::Info, entry.message).metadata(entry.metadata)
}

impl From<WorkflowSummary> for Summary {
    fn from(summary: WorkflowSummary) -> Self {
        Self {
            id: summary.id.0,
            name: summary.name,
            description: summary.description,
            status: Cow::Borrowed(summary.status.as_str()),
            version: summary.version,
            owner_id: summary.owner_id.0,
            created_at: summary.created_at,
            updated_at: summary.updated_at,
            deleted_at: summary.deleted_at,
            created_by: summary.created_by.map(|id| id.0),
            updated_by: summary.updated_by.map(|id| id.0),
        }
    }
}

impl RepositoryEntity for deliveries::Entity {}
impl RepositoryEntity for attempts::Entity {}
impl RepositoryEntity for plugins::Entity {}

impl Peer {
    fn deliveries(&self) -> Repository<deliveries::Entity> {
        self.db.repository()
    }
}

impl crate::peer::Peer for Peer {
    async fn open(setup: &Setup) -> Result<Self> {
        let mut config = config(&setup.target, setup.connections);
        config.durability = match setup.durability {
            Durability::Full => connection::Durability::Full,
            Durability::Normal => connection::Durability::Normal,
        };
        let db = Database::connect(config).await?;
        Ok(Self {
            db,
            backend: match setup.target {
                Target::Sqlite { .. } => Backend::Sqlite,
                Target::Postgres { .. } => Backend::Postgres,
            },
            shape: setup.shape,
            places: OnceCell::new(),
        })
    }

    async fn durability(&self) -> Result<String> {
        super::seaorm::durability(&*self.db.seaorm().writer().await?, self.backend).await
    }

    async fn prepare(&self) -> Result<()> {
        let places = self.places.get_or_try_init(async || {
            let mut places = Vec::new();
            for place in 0..PLACES {
                let page = (self.shape.depth + place * PAGE.cast_signed()) / PAGE.cast_signed();
                let page = PageRequest::number(page.cast_unsigned(), PAGE);
                let list = self.db.logs().list(LogFilter::new(), page).await?;
                places.push(list.next.ok_or("too few log entries")?);
            }
            Ok::<_, crate::Error>(places)
        });
        places.await?;
        Ok(())
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Account>> {
        let who = self.db.sessions().authenticate(&Token::new(token)).await?;
        Ok(who.map(|who| Account {
            session: who.session.into(),
            user: who.user.into(),
        }))
    }

    async fn details(&self, workflow: i64) -> Result<Option<Details>> {
        match self.db.workflows().get_details(WorkflowId(workflow)).await {
            Ok(details) => {
                let owner = details.owner.ok_or("a workflow without its owner")?;
                let plugins = details.plugins.unwrap_or_default();
                Ok(Some(Details {
                    workflow: details.workflow.into(),
                    owner: owner.into(),
                    plugins: all(plugins),
                }))
            }
            Err(aura_db::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn summaries(&self, owner: i64) -> Result<Vec<Summary>> {
        let list = self.db.workflows();
        let list = list
            .list(workflows_of(owner), PageRequest::first(PAGE))
            .await?;
        Ok(all(list.items))
    }

    async fn documents(&self, owner: i64) -> Result<Vec<Workflow>> {
        let list = self.db.workflows();
        let list = list
            .list_full(workflows_of(owner), PageRequest::first(PAGE))
            .await?;
        Ok(all(list.items))
    }

    async fn logs(&self, place: i64) -> Result<Vec<Log>> {
        let places = self.places.get().ok_or("it is not prepared")?;
        let cursor = places
            .get(usize::try_from(place)?)
            .ok_or("no such place")?
            .clone();
        let page = PageRequest::after(cursor, PAGE);
        let list = self.db.logs().list(LogFilter::new(), page).await?;
        Ok(all(list.items))
    }

    async fn append(&self, entry: Entry) -> Result<i64> {
        Ok(self.db.logs().append(new_log(entry)).await?.id.0)
    }

    async fn append_many(&self, entries: Vec<Entry>) -> Result<u64> {
        let entries = entries.into_iter().map(new_log).collect();
        Ok(self.db.logs().append_many(entries).await?)
    }

    async fn update(&self, workflow: i64, name: String) -> Result<i64> {
        let workflows = self.db.workflows();
        let read = workflows.get(WorkflowId(workflow)).await?;
        let change = WorkflowChange::new().name(name).nodes(read.nodes);
        Ok(workflows
            .update(read.id, read.version, change)
            .await?
            .version)
    }

    async fn own_row(&self, id: i64) -> Result<Option<Delivery>> {
        let found = deliveries::Entity::find_by_id(id);
        Ok(self.db.fetch_optional(found).await?.map(Into::into))
    }

    async fn own_row_cached(&self, id: i64) -> Result<Option<Delivery>> {
        static BY_ID: CachedSql = CachedSql::short_read();
        let found = BY_ID.with(vec![id.into()], move || {
            Ok(deliveries::Entity::find_by_id(id))
        });
        Ok(self.db.fetch_optional(found).await?.map(Into::into))
    }

    async fn own_page(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        let page = deliveries::page(workflow, after);
        Ok(all(self.db.fetch_all(page).await?))
    }

    async fn own_insert(&self, new: NewDelivery) -> Result<i64> {
        let new = deliveries::ActiveModel::from(new);
        Ok(self.db.fetch_one(deliveries::Entity::insert(new)).await?.id)
    }

    async fn transaction(&self, id: i64, new: [NewDelivery; 2]) -> Result<(Delivery, [i64; 2])> {
        let done = self.db.transaction(|tx| {
            // It is run again when it collides with others.
            let [one, other] = new.clone().map(deliveries::ActiveModel::from);
            async move {
                let read = tx.fetch_one(deliveries::Entity::find_by_id(id)).await?;
                let one = tx.fetch_one(deliveries::Entity::insert(one)).await?;
                let other = tx.fetch_one(deliveries::Entity::insert(other)).await?;
                Ok::<_, aura_db::Error>((read, [one.id, other.id]))
            }
        });
        let (read, ids) = done.await?;
        Ok((read.into(), ids))
    }

    async fn repository_find(&self, id: i64) -> Result<Option<Delivery>> {
        Ok(self.deliveries().find(id).await?.map(Into::into))
    }

    async fn repository_insert(&self, new: NewDelivery) -> Result<i64> {
        Ok(self.deliveries().insert(new.into()).await?.id)
    }

    async fn repository_update(&self, id: i64, attempts: i64) -> Result<Delivery> {
        let change = deliveries::change(id, attempts);
        Ok(self.deliveries().update(change).await?.into())
    }

    async fn repository_list(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        let filter = deliveries::after(workflow, after);
        let page = PageRequest::first(PAGE);
        let repository = self.deliveries();
        let rows = repository.list(filter, &Sort::default(), page).await?;
        Ok(all(rows.items))
    }

    async fn repository_query(&self, workflow: i64, after: i64) -> Result<Vec<Delivery>> {
        use deliveries::Column::{Id, WorkflowId};
        let repository = self.deliveries();
        let query = repository
            .query([Id, WorkflowId])
            .filter(&json!({ "workflow_id": workflow, "id": { "gt": after } }))
            .sort("id");
        Ok(all(query.list(PageRequest::first(PAGE)).await?.items))
    }

    async fn repository_related(&self, workflow: i64, after: i64) -> Result<Vec<Attempted>> {
        let repository = self.deliveries();
        let filter = deliveries::after(workflow, after);
        let page = PageRequest::first(PAGE);
        let rows = repository.list(filter, &Sort::default(), page).await?.items;
        let attempts = repository.load_many::<attempts::Entity>(&rows).await?;
        Ok(attempts::with(rows, attempts))
    }

    async fn queue(&self, number: i64) -> Result<i64> {
        let executions = self.db.executions();
        let new = NewExecution::new(WorkflowId(1), ExecutionMode::Trigger);
        executions.enqueue(new.data(json!({"run": number}))).await?;
        loop {
            let next = executions.claim("bench", LEASE).await?;
            let Some(next) = next else { continue };
            executions.finish(&next, Outcome::success(None)).await?;
            let data = next.data.ok_or("an execution without data")?;
            return Ok(data.json()?["run"].as_i64().ok_or("another's data")?);
        }
    }

    async fn built_in_find(&self, id: i64, any: bool) -> Result<Option<Plugin>> {
        if any {
            let found = self.db.repository::<plugins::Entity>().find(id).await?;
            return Ok(found.map(Into::into));
        }
        let found = self.db.plugins().find(PluginId(id)).await?;
        Ok(found.map(Into::into))
    }
}
