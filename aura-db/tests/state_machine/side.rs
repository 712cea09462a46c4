//! One of the two databases, and how steps are run on it.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aura_db::agents::Agents;
use aura_db::entity::users;
use aura_db::executions::Executions;
use aura_db::logs::{Logs, Tail};
use aura_db::plugins::Plugins;
use aura_db::sea_orm::sea_query::Query;
use aura_db::sessions::{Issued, Sessions};
use aura_db::testing::TestClock;
use aura_db::users::Users;
use aura_db::workflows::Workflows;
use aura_db::{
    Clock, Database, Error, Isolation, NewUser, Page, PageRequest, Repository, Restricted,
    Transaction, User, UserId,
};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Value, json};
use testdb::{Backend, TestDb};

use crate::canary::{look, look_at};
use crate::ids::{Ids, Known};
use crate::logical::Logical;
use crate::notes;
use crate::outcome::{Failed, Outcome, json_of};
use crate::steps::pages::{At, Pages, bad_cursor};
use crate::steps::{Call, Step, What, Who};

/// A database with the handles of its rows.
pub(crate) struct Side {
    test: TestDb,
    pub(crate) db: Database,
    pub(crate) clock: TestClock,
    ids: Mutex<Ids>,
    pub(crate) tail: Mutex<Option<Tail>>,
}

/// The way in: what a service holds.
#[derive(Clone)]
pub(crate) enum Door {
    Database(Database),
    Transaction(Transaction),
    Restricted(Restricted),
}

macro_rules! repositories {
    ($($name:ident: $repository:ident),+) => {
        impl Door {
            $(pub(crate) fn $name(&self) -> $repository {
                match self {
                    Self::Database(db) => db.$name(),
                    Self::Transaction(tx) => tx.$name(),
                    Self::Restricted(restricted) => restricted.$name(),
                }
            })+
        }
    };
}

repositories!(
    users: Users, sessions: Sessions, workflows: Workflows, plugins: Plugins,
    executions: Executions, logs: Logs, agents: Agents
);

impl Door {
    pub(crate) fn notes(&self) -> Repository<notes::Entity> {
        match self {
            Self::Database(db) => db.repository(),
            Self::Transaction(tx) => tx.repository(),
            Self::Restricted(restricted) => restricted.repository(),
        }
    }
}

/// How a transaction's closure ends.
enum Undone {
    Chosen,
    Failed(Error),
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Side {
    pub(crate) async fn open(backend: Backend) -> Self {
        let test = TestDb::migrated(backend).await;
        let applied = notes::runner().up(&test.config()).await;
        applied.expect("the table of notes");
        let clock = TestClock::default();
        let db = Database::connect(test.config()).await.expect("it connects");
        Self {
            test,
            db: db.with_clock(Arc::new(clock.clone())),
            clock,
            ids: Mutex::default(),
            tail: Mutex::new(None),
        }
    }

    /// Empties it for the next sequence.
    pub(crate) async fn empty(&self) {
        for table in ["notes", "users", "plugins"] {
            // The rest goes with them.
            self.test.execute(&format!("DELETE FROM {table}")).await;
        }
        // So that the first claim looks after the queue.
        let now = TestClock::default().now();
        self.clock.set(now - Duration::from_mins(1));
        let none = self
            .db
            .executions()
            .claim("w", Duration::from_mins(1))
            .await;
        assert_eq!(none.expect("an answer"), None);
        self.clock.set(now);
        *self.ids() = Ids::default();
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) async fn close(self) {
        drop(self.tail);
        self.db.close().await;
    }

    /// Every row of every table.
    pub(crate) async fn rows(&self) -> String {
        let mut tables = aura_db::migration::runner().tables();
        tables.push("notes");
        self.test.rows(&tables).await
    }

    pub(crate) fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the database calls it.
    pub(crate) fn real<I: Known>(&self, handle: I) -> I {
        self.ids().real(handle)
    }

    /// The outcome of a call that makes no row.
    pub(crate) fn told<T: Logical + Serialize + Debug>(&self, result: Result<T, Error>) -> Outcome {
        if let Ok(value) = &result {
            look_at(value);
        }
        self.outcome(result.map(|value| json_of(value.logical(&self.ids()))))
    }

    /// The outcome of a call that makes one.
    pub(crate) fn made<T, I>(&self, result: Result<T, Error>, id: fn(&T) -> I) -> Outcome
    where
        T: Logical + Serialize + Debug,
        I: Known,
    {
        if let Ok(row) = &result {
            self.ids().born(id(row));
        }
        self.told(result)
    }

    /// A row may be new, and gets a handle then.
    pub(crate) fn born_once(&self, id: impl Known) {
        let mut ids = self.ids();
        if !ids.knows(id) {
            ids.born(id);
        }
    }

    /// The outcome of a call that may open a session, or give it a new token.
    pub(crate) fn issued(&self, result: Result<Option<Issued>, Error>, new: bool) -> Outcome {
        if let Ok(issued) = &result {
            look_at(issued);
        }
        self.told(result.map(|issued| {
            issued.map(|issued| {
                if new {
                    self.ids().born(issued.session.id);
                }
                self.ids().keep(issued.token);
                issued.session
            })
        }))
    }

    pub(crate) fn outcome(&self, result: Result<Value, Error>) -> Outcome {
        match result {
            Ok(value) => {
                look(&value.to_string());
                Outcome::of(Ok(value))
            }
            Err(error) => {
                look(&error.to_string());
                look_at(&error);
                let words = matches!(error, Error::Validation(_)).then(|| error.to_string());
                Outcome {
                    words,
                    ..Outcome::of(Err(self.ids().error(&error)))
                }
            }
        }
    }

    /// One page of a list, or all, one after the other.
    pub(crate) async fn pages<T, F, Fut>(&self, pages: &Pages, list: F) -> Outcome
    where
        T: Logical + Serialize + Debug,
        F: Fn(PageRequest) -> Fut,
        Fut: Future<Output = Result<Page<T>, Error>>,
    {
        let size = pages.size;
        let mut page = match pages.at {
            At::First | At::All => PageRequest::first(size),
            At::Number(number) => PageRequest::number(number, size),
            At::Bad(which) => PageRequest::after(bad_cursor(which), size),
        };
        let mut told = Vec::new();
        loop {
            let part = match list(page).await {
                Ok(part) => part,
                Err(error) => return self.outcome(Err(error)),
            };
            look_at(&part);
            let (items, next) = (part.items.logical(&self.ids()), part.next);
            told.push(json!({"items": items, "more": next.is_some(), "total": part.total}));
            match next {
                Some(next) if pages.at == At::All => page = PageRequest::after(next, size),
                _ => return Outcome::ok(told),
            }
        }
    }

    fn enter(&self, door: &Door, who: Who) -> Door {
        match (door, who) {
            (Door::Database(db), Who::Acting(user)) => {
                Door::Database(db.acting_as(self.real(user)))
            }
            (Door::Database(db), Who::Restricted(user)) => {
                Door::Restricted(db.restricted_to(&card(self.real(user))))
            }
            (Door::Transaction(tx), Who::Acting(user)) => {
                Door::Transaction(tx.acting_as(self.real(user)))
            }
            (Door::Transaction(tx), Who::Restricted(user)) => {
                Door::Restricted(tx.restricted_to(&card(self.real(user))))
            }
            (door, _) => door.clone(),
        }
    }

    /// Runs a step.
    pub(crate) fn run<'a>(&'a self, door: &'a Door, step: &'a Step) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.clock.advance(step.tick);
            let door = self.enter(door, step.who);
            match &step.what {
                What::Call(call) => self.call(&door, call).await,
                What::Transaction {
                    isolation,
                    steps,
                    fails,
                } => self.transaction(&door, *isolation, steps, *fails).await,
            }
        })
    }

    async fn call(&self, door: &Door, call: &Call) -> Outcome {
        match call {
            Call::Users(call) => call.run(self, door).await,
            Call::Sessions(call) => call.run(self, door).await,
            Call::Workflows(call) => call.run(self, door).await,
            Call::History(call) => call.run(self, door).await,
            Call::Executions(call) => call.run(self, door).await,
            Call::Logs(call) => call.run(self, door).await,
            Call::Plugins(call) => call.run(self, door).await,
            Call::Agents(call) => call.run(self, door).await,
            Call::Notes(call) => call.run(self, door).await,
            Call::Broken(email) => {
                let insert = Query::insert()
                    .into_table(users::Entity)
                    .columns([
                        users::Column::Name,
                        users::Column::Email,
                        users::Column::HashedPassword,
                    ])
                    .values_panic(["".into(), email.as_str().into(), "".into()])
                    .take();
                self.told(match door {
                    Door::Database(db) => db.execute(insert).await,
                    Door::Transaction(tx) => tx.execute(insert).await,
                    Door::Restricted(_) => unreachable!("it has no statements of its own"),
                })
            }
        }
    }

    async fn transaction(
        &self,
        door: &Door,
        isolation: Isolation,
        steps: &[Step],
        fails: bool,
    ) -> Outcome {
        let before = self.ids().clone();
        let inner = Mutex::new(Vec::new());
        let all = |door: Door| {
            let inner = &inner;
            async move {
                for step in steps {
                    let outcome = self.run(&door, step).await;
                    inner
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(outcome);
                }
                if fails { Err(Undone::Chosen) } else { Ok(()) }
            }
        };
        let result = match door {
            Door::Database(db) => {
                db.transaction_at(isolation, |tx| all(Door::Transaction(tx)))
                    .await
            }
            Door::Transaction(tx) => tx.transaction(|tx| all(Door::Transaction(tx))).await,
            Door::Restricted(tx) => tx.transaction(|tx| all(Door::Restricted(tx))).await,
        };
        if result.is_err() {
            *self.ids() = before;
        }
        let outcome = match result {
            Ok(()) => Outcome::ok("committed"),
            Err(Undone::Chosen) => Outcome::of(Err(Failed::Chosen)),
            Err(Undone::Failed(error)) => self.outcome(Err(error)),
        };
        Outcome {
            inner: inner.into_inner().unwrap_or_else(PoisonError::into_inner),
            ..outcome
        }
    }
}

/// Somebody who shows an id and claims to be an admin.
fn card(id: UserId) -> User {
    let new = NewUser::new("", "", "");
    let now = TestClock::default().now();
    User {
        id,
        name: new.name,
        email: new.email,
        hashed_password: aura_db::entity::PasswordHash(String::new()),
        role: aura_db::Role::Admin,
        is_active: true,
        created_at: now,
        updated_at: now,
        deleted_at: None,
        created_by: None,
        updated_by: None,
    }
}
