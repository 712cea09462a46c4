//! Volume to measure with: believable, and the same rows for the same seed.

use aura_db::entity::{RepositoryEntity, users, workflows};
use aura_db::sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QuerySelect};
use aura_db::{Database, SeaOrmTransaction};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::Error;
use crate::bulk::{self, BATCH, Column};

/// How much to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Users, of whom nobody can log in.
    pub users: u32,
    /// Workflows, spread over the users.
    pub workflows: u32,
    /// Log entries, spread over the workflows.
    pub logs: u32,
    /// The same seed gives the same rows.
    pub rng_seed: u64,
}

/// What the load did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It wrote so many users, workflows and log entries: nothing without an
    /// owner.
    Written([u32; 3]),
    /// So many users of this seed were there, so it wrote nothing.
    AlreadyThere(u64),
}

/// Writes the volume. `progress` is told the rows that are done of each table.
///
/// Fails when the database can't be written; then it is as it was before.
pub async fn run(
    db: &Database,
    volume: Volume,
    progress: &mut (dyn FnMut(&'static str, u32) + Send),
) -> Result<Outcome, Error> {
    let transaction = crate::begin(db).await?;
    let load = Load {
        transaction,
        volume,
    };
    let there = users::Entity::find()
        .filter(users::Column::Email.ends_with(load.domain()))
        .count(&*load.transaction)
        .await?;
    if there > 0 {
        return crate::end(load.transaction, Ok(Outcome::AlreadyThere(there))).await;
    }
    let written = load.write(progress).await;
    let Load { transaction, .. } = load;
    crate::end(transaction, written).await
}

struct Load {
    transaction: SeaOrmTransaction,
    volume: Volume,
}

const GIVEN: &[&str] = &[
    "Ada", "Alan", "Barbara", "Claude", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Ken",
    "Leslie", "Margaret", "Niklaus", "Radia", "Tim", "Zoë",
];
const FAMILY: &[&str] = &[
    "Allen",
    "Berners",
    "Dijkstra",
    "Hamilton",
    "Hopper",
    "Kernighan",
    "Knuth",
    "Lamarr",
    "Lamport",
    "Liskov",
    "Lovelace",
    "Perlman",
    "Shannon",
    "Thompson",
    "Turing",
    "Wirth",
];
const VERBS: &[&str] = &[
    "Sync",
    "Mirror",
    "Archive",
    "Enrich",
    "Notify about",
    "Deduplicate",
    "Import",
    "Escalate",
];
const NOUNS: &[&str] = &[
    "new leads",
    "paid invoices",
    "open issues",
    "failed builds",
    "support tickets",
    "stock levels",
    "newsletter replies",
    "expense reports",
];
const SERVICES: &[&str] = &[
    "github",
    "slack",
    "postgres",
    "httpRequest",
    "googleSheets",
    "stripe",
    "sendgrid",
    "jira",
];
const STATUSES: &[&str] = &["active", "active", "active", "draft", "draft", "archived"];
const ROLES: &[&str] = &["user", "user", "user", "editor", "viewer"];
const LEVELS: &[(&str, &[&str])] = &[
    (
        "debug",
        &["Item passed the filter", "Credentials refreshed"],
    ),
    (
        "info",
        &[
            "Run started",
            "Run finished",
            "Webhook received",
            "3 items written",
        ],
    ),
    (
        "info",
        &[
            "Run started",
            "Run finished",
            "Schedule fired",
            "Batch acknowledged",
        ],
    ),
    (
        "warn",
        &[
            "Retry 1 of 3",
            "Rate limit near",
            "Response took longer than 5 s",
        ],
    ),
    (
        "error",
        &[
            "HTTP 500 from upstream",
            "Connection reset by peer",
            "Invalid JSON in response",
        ],
    ),
];

const USERS: &[Column] = &[
    ("name", "text"),
    ("email", "text"),
    ("hashed_password", "text"),
    ("role", "text"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
];
const WORKFLOWS: &[Column] = &[
    ("name", "text"),
    ("description", "text"),
    ("status", "text"),
    ("owner_id", "bigint"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("created_by", "bigint"),
    ("updated_by", "bigint"),
    ("settings", "json"),
    ("connections", "json"),
    ("nodes", "json"),
];
const LOGS: &[Column] = &[
    ("level", "text"),
    ("message", "text"),
    ("workflow_id", "bigint"),
    ("created_at", "timestamptz"),
    ("metadata", "jsonb"),
];

impl Load {
    fn domain(&self) -> String {
        format!("@load-{}.example.org", self.volume.rng_seed)
    }

    /// A generator per table, so that more users don't change the logs.
    fn rng(&self, table: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.volume.rng_seed.wrapping_mul(1000).wrapping_add(table))
    }

    async fn write(
        &self,
        progress: &mut (dyn FnMut(&'static str, u32) + Send),
    ) -> Result<Outcome, Error> {
        let Volume {
            users,
            mut workflows,
            mut logs,
            ..
        } = self.volume;
        let mut rng = self.rng(1);
        let domain = self.domain();
        self.table("users", USERS, users, progress, |number| {
            user(&mut rng, number, &domain)
        })
        .await?;
        let owners = self.owners().await?;
        if owners.is_empty() {
            workflows = 0;
        }
        let mut rng = self.rng(2);
        self.table("workflows", WORKFLOWS, workflows, progress, |number| {
            workflow(&mut rng, number, &owners)
        })
        .await?;
        let ids = self.workflows(&owners).await?;
        if ids.is_empty() {
            logs = 0;
        }
        let mut rng = self.rng(3);
        self.table("logs", LOGS, logs, progress, |number| {
            log(&mut rng, number, logs, &ids)
        })
        .await?;
        Ok(Outcome::Written([users, workflows, logs]))
    }

    async fn table(
        &self,
        table: &'static str,
        columns: &[Column],
        rows: u32,
        progress: &mut (dyn FnMut(&'static str, u32) + Send),
        mut row: impl FnMut(u32) -> Value + Send,
    ) -> Result<(), Error> {
        let mut done = 0;
        progress(table, done);
        while done < rows {
            let end = rows.min(done.saturating_add(u32::try_from(BATCH).unwrap_or(u32::MAX)));
            bulk::insert(
                &self.transaction,
                table,
                columns,
                (done..end).map(&mut row).collect(),
            )
            .await?;
            done = end;
            progress(table, done);
        }
        Ok(())
    }

    /// The new users' keys, in the order in which they were made up.
    async fn owners(&self) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64, String)> = users::Entity::not_deleted()
            .select_only()
            .columns([users::Column::Id, users::Column::Email])
            .filter(users::Column::Email.ends_with(self.domain()))
            .into_tuple()
            .all(&*self.transaction)
            .await?;
        Ok(in_order(&rows, |email| {
            email.split('@').next()?.rsplit('.').next()?.parse().ok()
        }))
    }

    async fn workflows(&self, owners: &[i64]) -> Result<Vec<i64>, Error> {
        let (Some(first), Some(last)) = (owners.iter().min(), owners.iter().max()) else {
            return Ok(Vec::new());
        };
        let rows: Vec<(i64, String)> = workflows::Entity::not_deleted()
            .select_only()
            .columns([workflows::Column::Id, workflows::Column::Name])
            .filter(workflows::Column::OwnerId.between(*first, *last))
            .into_tuple()
            .all(&*self.transaction)
            .await?;
        Ok(in_order(&rows, |name| {
            name.rsplit('#').next()?.parse().ok()
        }))
    }
}

/// Keys in the order of the numbers that the rows' texts end with. The order in
/// which a database returns rows is no promise.
fn in_order(rows: &[(i64, String)], number: impl Fn(&str) -> Option<u32>) -> Vec<i64> {
    let mut numbered: Vec<(u32, i64)> = rows
        .iter()
        .filter_map(|(id, text)| Some((number(text)?, *id)))
        .collect();
    numbered.sort_unstable();
    numbered.into_iter().map(|(_, id)| id).collect()
}

/// The end of the 90 days that the rows are spread over; fixed, so that the
/// same seed gives the same rows on any day.
fn end() -> DateTime<Utc> {
    DateTime::from_timestamp(1_782_777_600, 0).unwrap_or_default() // 2026-06-30T00:00:00Z
}

fn time(minutes_before_end: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "90 days are 7.8e12 microseconds"
    )]
    let micros = (minutes_before_end * 60e6) as i64;
    (end() - TimeDelta::microseconds(micros)).to_rfc3339_opts(SecondsFormat::Micros, false)
}

const NINETY_DAYS: f64 = 90.0 * 24.0 * 60.0;

fn pick<'a, T: ?Sized>(rng: &mut ChaCha8Rng, from: &[&'a T]) -> &'a T {
    from.choose(rng).copied().unwrap_or(from[0])
}

fn user(rng: &mut ChaCha8Rng, number: u32, domain: &str) -> Value {
    let (given, family) = (pick(rng, GIVEN), pick(rng, FAMILY));
    let ascii = given.to_lowercase().replace('ë', "e");
    let created = time(rng.random_range(0.0..NINETY_DAYS));
    json!([
        format!("{given} {family}"),
        format!("{ascii}.{}.{number}{domain}", family.to_lowercase()),
        aura_db::password::unusable().0,
        pick(rng, ROLES),
        created,
        created,
    ])
}

fn workflow(rng: &mut ChaCha8Rng, number: u32, owners: &[i64]) -> Value {
    let owner = owners[rng.random_range(0..owners.len())];
    let nodes: Vec<Value> = (0..rng.random_range(3..9))
        .map(|place| {
            json!({
                "id": format!("n{place}"),
                "name": format!("Step {place}"),
                "type": pick(rng, SERVICES),
                "position": [place * 220, rng.random_range(0..5) * 80],
                "parameters": { "url": format!("https://api.example.org/v1/{}", rng.random_range(0..1000)), "limit": rng.random_range(1..100) },
            })
        })
        .collect();
    let connections: serde_json::Map<String, Value> = nodes
        .windows(2)
        .filter_map(|pair| {
            Some((
                pair[0]["name"].as_str()?.to_owned(),
                json!({ "main": [[{ "node": pair[1]["name"], "type": "main", "index": 0 }]] }),
            ))
        })
        .collect();
    let age = rng.random_range(0.0..NINETY_DAYS);
    let changed = rng.random_range(0.0..1.0) * age;
    json!([
        format!("{} {} #{number}", pick(rng, VERBS), pick(rng, NOUNS)),
        rng.random_bool(0.7).then(|| format!(
            "Runs {} for the {} team",
            pick(rng, &["hourly", "nightly", "on demand"]),
            pick(rng, &["sales", "support", "platform"])
        )),
        pick(rng, STATUSES),
        owner,
        time(age),
        time(changed),
        owner,
        owner,
        json!({ "timezone": "UTC", "retry": { "maxAttempts": rng.random_range(1..6) } })
            .to_string(),
        Value::Object(connections).to_string(),
        Value::Array(nodes).to_string(),
    ])
}

fn log(rng: &mut ChaCha8Rng, number: u32, of: u32, workflows: &[i64]) -> Value {
    let (level, messages) = LEVELS[rng.random_range(0..LEVELS.len())];
    // Later entries have larger keys, as in a real log.
    let age = NINETY_DAYS * (1.0 - f64::from(number) / f64::from(of.max(1)));
    json!([
        level,
        pick(rng, messages),
        workflows[rng.random_range(0..workflows.len())],
        time(age),
        rng.random_bool(0.8).then(|| json!({ "durationMs": rng.random_range(1..5000), "node": format!("Step {}", rng.random_range(0..8)) }).to_string()),
    ])
}
