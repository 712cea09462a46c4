//! The demo: two users, two plugins, and a workflow that uses them.

use aura_db::entity::{
    Document, LogLevel, PluginId, Role, UserId, WorkflowId, WorkflowStatus, logs, plugins, users,
    workflow_plugins, workflows,
};
use aura_db::sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, Set};
use aura_db::{Database, Environment, SeaOrmTransaction};
use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::Error;

/// What the demo did.
#[derive(Debug, Default)]
pub struct Report {
    /// What was created; empty when everything was there.
    pub created: Vec<(&'static str, String)>,
    /// E-mail addresses and the passwords that were made up for them. They are
    /// known nowhere else.
    pub generated: Vec<(&'static str, SecretString)>,
}

/// The variables that choose the passwords.
pub const ADMIN_PASSWORD: &str = "SEED_ADMIN_PASSWORD";
/// See [`ADMIN_PASSWORD`].
pub const BUILDER_PASSWORD: &str = "SEED_BUILDER_PASSWORD";

const WORKFLOW: &str = "GitHub to Slack Notifications";

/// Writes what is missing of the demo. Rows that are there, deleted ones
/// included, are left as they are.
///
/// Fails when a given password can't be used, or the database can't be written.
pub async fn run(db: &Database, environment: &Environment) -> Result<Report, Error> {
    let mut demo = Demo {
        transaction: crate::begin(db).await?,
        now: with_microseconds(db.now()),
        report: Report::default(),
    };
    let written = demo.write(environment).await;
    crate::end(demo.transaction, written).await?;
    Ok(demo.report)
}

struct Demo {
    transaction: SeaOrmTransaction,
    now: DateTime<Utc>,
    report: Report,
}

impl Demo {
    async fn write(&mut self, environment: &Environment) -> Result<(), Error> {
        let admin = (
            "Admin User",
            "admin@aura.local",
            Role::Admin,
            ADMIN_PASSWORD,
        );
        let builder = (
            "Workflow Builder",
            "builder@aura.local",
            Role::User,
            BUILDER_PASSWORD,
        );
        let admin = self.user(admin, environment).await?;
        self.user(builder, environment).await?;
        let github = self
            .plugin(
                "github",
                "GitHub integration for issues and pull requests",
                admin,
            )
            .await?;
        let slack = self
            .plugin("slack", "Send notifications to Slack channels", admin)
            .await?;
        self.workflow(admin, [github, slack]).await
    }

    async fn user(
        &mut self,
        (name, email, role, variable): (&str, &'static str, Role, &'static str),
        environment: &Environment,
    ) -> Result<UserId, Error> {
        let found = users::Entity::find()
            .filter(users::Column::Email.eq(email))
            .one(&*self.transaction)
            .await?;
        if let Some(user) = found {
            return Ok(user.id);
        }
        let password = environment.secret(variable).unwrap_or_else(|| {
            let password = generated_password();
            self.report.generated.push((email, password.clone()));
            password
        });
        let hash = aura_db::password::hash(&password)
            .await
            .map_err(|source| Error::Password { variable, source })?;
        let user = users::ActiveModel {
            name: Set(name.to_owned()),
            email: Set(email.to_owned()),
            hashed_password: Set(hash),
            role: Set(role),
            is_active: Set(true),
            created_at: Set(self.now),
            updated_at: Set(self.now),
            ..Default::default()
        };
        let user = user.insert(&*self.transaction).await?;
        self.report
            .created
            .push(("user", format!("{name} <{email}> ({role})")));
        Ok(user.id)
    }

    async fn plugin(
        &mut self,
        name: &str,
        description: &str,
        creator: UserId,
    ) -> Result<PluginId, Error> {
        let found = plugins::Entity::find()
            .filter(plugins::Column::Name.eq(name))
            .one(&*self.transaction)
            .await?;
        if let Some(plugin) = found {
            return Ok(plugin.id);
        }
        let plugin = plugins::ActiveModel {
            name: Set(name.to_owned()),
            description: Set(description.to_owned()),
            version: Set("1.0.0".to_owned()),
            author: Set(Some("AURA Team".to_owned())),
            is_enabled: Set(true),
            created_at: Set(self.now),
            updated_at: Set(self.now),
            created_by: Set(Some(creator)),
            updated_by: Set(Some(creator)),
            ..Default::default()
        };
        let plugin = plugin.insert(&*self.transaction).await?;
        self.report
            .created
            .push(("plugin", format!("{name} {}", plugin.version)));
        Ok(plugin.id)
    }

    async fn workflow(&mut self, owner: UserId, uses: [PluginId; 2]) -> Result<(), Error> {
        let found = workflows::Entity::find()
            .filter(workflows::Column::Name.eq(WORKFLOW))
            .filter(workflows::Column::OwnerId.eq(owner))
            .one(&*self.transaction)
            .await?;
        if found.is_some() {
            return Ok(());
        }
        let workflow = workflows::ActiveModel {
            name: Set(WORKFLOW.to_owned()),
            description: Set(Some(
                "Notify Slack when a GitHub issue is created".to_owned(),
            )),
            status: Set(WorkflowStatus::Draft),
            version: Set(1),
            owner_id: Set(owner),
            deleted_with_owner: Set(false),
            created_at: Set(self.now),
            updated_at: Set(self.now),
            created_by: Set(Some(owner)),
            updated_by: Set(Some(owner)),
            nodes: Set(Some(Document::from(json!({
                "githubTrigger": { "type": "trigger", "options": { "event": "issue.created" } },
                "slackNotifier": { "type": "action", "options": { "channel": "#alerts" } },
            })))),
            connections: Set(Some(Document::from(
                json!({ "githubTrigger": ["slackNotifier"] }),
            ))),
            settings: Set(Some(Document::from(
                json!({ "retry": { "maxAttempts": 3 } }),
            ))),
            ..Default::default()
        };
        let workflow = workflow.insert(&*self.transaction).await?;
        self.report.created.push((
            "workflow",
            format!("{WORKFLOW} (of admin@aura.local, with github and slack)"),
        ));
        self.uses(workflow.id, uses).await?;
        self.log(workflow.id).await
    }

    async fn uses(&self, workflow: WorkflowId, plugins: [PluginId; 2]) -> Result<(), Error> {
        let links = plugins.map(|plugin| workflow_plugins::ActiveModel {
            workflow_id: Set(workflow),
            plugin_id: Set(plugin),
        });
        workflow_plugins::Entity::insert_many(links)
            .exec(&*self.transaction)
            .await?;
        Ok(())
    }

    async fn log(&mut self, workflow: WorkflowId) -> Result<(), Error> {
        let message = "Workflow seeded for demo purposes";
        let entry = logs::ActiveModel {
            level: Set(LogLevel::Info),
            message: Set(message.to_owned()),
            workflow_id: Set(workflow),
            created_at: Set(self.now),
            metadata: Set(Some(Document::from(
                json!({ "environment": "development" }),
            ))),
            ..Default::default()
        };
        entry.insert(&*self.transaction).await?;
        self.report
            .created
            .push(("log", format!("info: {message}")));
        Ok(())
    }
}

/// Returns a time that isn't a whole number of milliseconds: `SeaORM`'s connections would write it to
/// SQLite with three digits, and it wouldn't be equal to the same time with six.
fn with_microseconds(time: DateTime<Utc>) -> DateTime<Utc> {
    match time.timestamp_subsec_micros() % 1000 {
        0 => time + TimeDelta::microseconds(1),
        _ => time,
    }
}

/// 24 letters and digits, 143 bits, without those that look alike.
fn generated_password() -> SecretString {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..24)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect::<String>()
        .into()
}

impl Report {
    /// The passwords as lines for a terminal.
    #[must_use]
    pub fn passwords(&self) -> Vec<String> {
        self.generated
            .iter()
            .map(|(email, password)| format!("{email:<20}  {}", password.expose_secret()))
            .collect()
    }
}
