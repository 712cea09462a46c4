//! What an application does around the writes of its rows.

use aura_db::sea_orm::entity::prelude::*;
use aura_db::sea_orm::{ActiveValue::Set, IntoActiveModel};
use aura_db::{Database, Error, Executor, Hooks, RepositoryEntity, async_trait};
use testdb::TestDb;

use crate::support::{assert_error, open, own_types};

testdb::both!(migrated:
    each_write_of_a_row_calls_its_hooks,
    an_error_undoes_the_write,
    writes_of_many_rows_call_none,
);

mod account {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "accounts")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        #[sea_orm(unique)]
        pub(super) name: String,
        pub(super) balance: i64,
        pub(super) deleted_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// What was done to the accounts.
mod entry {
    use super::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "account_entries")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i64,
        pub(super) text: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl RepositoryEntity for entry::Entity {}

impl RepositoryEntity for account::Entity {
    fn hooks() -> Option<&'static dyn Hooks<Self>> {
        Some(&Audit)
    }
}

/// Notes what is done, and trims names.
struct Audit;

impl Audit {
    async fn note(tx: &Executor<aura_db::OrmError>, text: String) -> Result<(), aura_db::OrmError> {
        let row = entry::ActiveModel {
            text: Set(text),
            ..Default::default()
        };
        tx.repository::<entry::Entity>()
            .insert(row)
            .await
            .map(|_| ())
    }

    fn trim(row: &mut account::ActiveModel) {
        if let Set(name) = &row.name {
            row.name = Set(name.trim().to_owned());
        }
    }
}

type Done = Result<(), aura_db::OrmError>;
type Tx = Executor<aura_db::OrmError>;

#[async_trait]
impl Hooks<account::Entity> for Audit {
    async fn before_insert(&self, tx: &Tx, row: &mut account::ActiveModel) -> Done {
        assert!(tx.in_transaction());
        Self::trim(row);
        Self::note(tx, "before insert".to_owned()).await
    }

    async fn after_insert(&self, tx: &Tx, row: &account::Model) -> Done {
        Self::note(tx, format!("inserted {}", row.name)).await?;
        match row.name.as_str() {
            "bad" => Err(aura_db::OrmError::field("name", "must not be bad")),
            // An error of this crate's, which the executor below knows nothing of.
            "secret" => Err(Error::Credentials)?,
            _ => Ok(()),
        }
    }

    async fn before_update(&self, tx: &Tx, row: &mut account::ActiveModel) -> Done {
        Self::trim(row);
        Self::note(tx, "before update".to_owned()).await
    }

    async fn after_update(&self, tx: &Tx, row: &account::Model) -> Done {
        Self::note(tx, format!("updated {} {}", row.name, row.balance)).await?;
        if row.balance < 0 {
            return Err(aura_db::OrmError::field("balance", "must not be negative"));
        }
        Ok(())
    }

    async fn before_delete(&self, tx: &Tx, row: &account::Model) -> Done {
        Self::note(tx, format!("before delete {}", row.name)).await?;
        if row.balance > 0 {
            return Err(aura_db::OrmError::field("balance", "must be zero"));
        }
        Ok(())
    }

    async fn after_delete(&self, tx: &Tx, row: &account::Model) -> Done {
        Self::note(tx, format!("deleted {}", row.name)).await
    }
}

async fn with_accounts(test: &TestDb) -> Database {
    let db = open(test).await;
    let (key, time) = own_types(&db);
    test.execute(&format!(
        "CREATE TABLE accounts (id {key}, name text NOT NULL UNIQUE,
         balance bigint NOT NULL DEFAULT 0, deleted_at {time})"
    ))
    .await;
    test.execute(&format!(
        "CREATE TABLE account_entries (id {key}, text text NOT NULL)"
    ))
    .await;
    db
}

fn account(name: &str) -> account::ActiveModel {
    account::ActiveModel {
        name: Set(name.to_owned()),
        ..Default::default()
    }
}

/// Takes what the hooks noted since.
async fn noted(db: &Database) -> Vec<String> {
    let entries = db.repository::<entry::Entity>();
    let rows = entries.find_by(()).await.expect("read");
    entries.delete_where(()).await.expect("deleted");
    rows.into_iter().map(|row| row.text).collect()
}

async fn each_write_of_a_row_calls_its_hooks(test: TestDb) {
    let db = with_accounts(&test).await;
    let accounts = db.repository::<account::Entity>();
    let row = accounts.insert(account(" a ")).await.expect("inserted");
    assert_eq!(row.name, "a");
    assert_eq!(noted(&db).await, ["before insert", "inserted a"]);
    let change = || account::ActiveModel {
        name: Set(" b".to_owned()),
        ..row.clone().into_active_model()
    };
    accounts.update(change()).await.expect("updated");
    assert_eq!(noted(&db).await, ["before update", "updated b 0"]);
    accounts.save(change()).await.expect("updated");
    assert_eq!(noted(&db).await, ["before update", "updated b 0"]);
    accounts.save(account("c")).await.expect("inserted");
    assert_eq!(noted(&db).await, ["before insert", "inserted c"]);
    let balance = account::Column::Balance;
    for by in [5, -5] {
        accounts
            .increment(row.id, balance, by)
            .await
            .expect("added");
    }
    assert_eq!(noted(&db).await, ["updated b 5", "updated b 0"]);
    accounts.delete(row.id).await.expect("deleted");
    assert_eq!(noted(&db).await, ["before delete b", "deleted b"]);
    accounts.restore(row.id).await.expect("restored");
    assert_eq!(noted(&db).await, ["updated b 0"]);
    accounts.delete(row.id).await.expect("deleted");
    accounts.purge(row.id).await.expect("purged");
    assert_eq!(
        noted(&db).await,
        [
            "before delete b",
            "deleted b",
            "before delete b",
            "deleted b"
        ]
    );
}

async fn an_error_undoes_the_write(test: TestDb) {
    let db = with_accounts(&test).await;
    let accounts = db.repository::<account::Entity>();
    let error = accounts.insert(account("bad")).await.expect_err("refused");
    assert_eq!(error.to_string(), "not valid: name: must not be bad");
    assert_eq!(accounts.count(()).await.expect("read"), 0);
    assert_eq!(noted(&db).await, [""; 0], "undone too");
    let refused = accounts.insert(account("secret")).await;
    assert_error!(refused, Error::Credentials);
    let row = accounts.insert(account("a")).await.expect("inserted");
    let balance = account::Column::Balance;
    let below = accounts.increment(row.id, balance, -1).await;
    assert_error!(below, Error::Validation(_));
    let rich = accounts.increment(row.id, balance, 1).await.expect("added");
    let kept = accounts.delete(row.id).await;
    assert_error!(kept, Error::Validation(_));
    assert_eq!(accounts.get(row.id).await.expect("there"), rich);
    // A transaction of the caller's is undone with it.
    let inside = db
        .transaction(|tx| async move {
            let accounts = tx.repository::<account::Entity>();
            let refused = accounts.insert(account("bad")).await;
            assert_error!(refused, Error::Validation(_));
            Ok::<_, Error>(())
        })
        .await;
    assert_error!(inside, Error::Aborted);
    assert_eq!(accounts.count(()).await.expect("read"), 1);
}

async fn writes_of_many_rows_call_none(test: TestDb) {
    let db = with_accounts(&test).await;
    let accounts = db.repository::<account::Entity>();
    accounts.insert(account("a")).await.expect("inserted");
    noted(&db).await;
    let change = account::ActiveModel {
        balance: Set(-1),
        ..Default::default()
    };
    assert_eq!(accounts.update_where((), change).await.expect("updated"), 1);
    let upserted = accounts
        .upsert(account("b"), &[account::Column::Name])
        .await;
    upserted.expect("inserted");
    assert_eq!(accounts.delete_where(()).await.expect("deleted"), 2);
    assert_eq!(noted(&db).await, [""; 0]);
}
