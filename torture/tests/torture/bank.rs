//! Sixteen who move amounts between the same few accounts: the sum is always
//! what it was, and nobody hears of a conflict.

use std::time::Duration;

use aura_db::entity::workflows;
use aura_db::sea_orm::sea_query::Query;
use aura_db::sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use aura_db::{Database, Error, Isolation, NewUser, NewWorkflow, Transaction, WorkflowId};
use testdb::TestDb;

use crate::{pick, rounds};

testdb::both!(migrated: the_sum_is_constant);

const ACCOUNTS: usize = 6;
const EACH: i64 = 1_000;

/// What is on an account: a number that repositories leave alone here.
async fn balance(tx: &Transaction, account: WorkflowId) -> Result<i64, Error> {
    let balance = workflows::Entity::find_by_id(account)
        .select_only()
        .column(workflows::Column::Version)
        .into_tuple::<i64>();
    tx.fetch_one(balance).await
}

async fn set(tx: &Transaction, account: WorkflowId, balance: i64) -> Result<(), Error> {
    let mut update = Query::update();
    update
        .table(workflows::Entity)
        .value(workflows::Column::Version, balance)
        .and_where(workflows::COLUMN.id.eq(account));
    tx.execute(update).await.map(drop)
}

/// Moves it if it is there, with everything read before anything is written.
async fn transfer(
    db: &Database,
    from: WorkflowId,
    to: WorkflowId,
    amount: i64,
) -> Result<(), Error> {
    db.transaction_at(Isolation::Serializable, |tx| async move {
        let (here, there) = (balance(&tx, from).await?, balance(&tx, to).await?);
        tokio::task::yield_now().await;
        if here >= amount {
            set(&tx, from, here - amount).await?;
            set(&tx, to, there + amount).await?;
        }
        Ok(())
    })
    .await
}

async fn sum(db: &Database) -> i64 {
    let all = workflows::Entity::find()
        .filter(workflows::COLUMN.name.eq("account"))
        .select_only()
        .column(workflows::Column::Version)
        .into_tuple::<i64>();
    db.fetch_all(all).await.expect("balances").into_iter().sum()
}

async fn the_sum_is_constant(test: TestDb) {
    let mut config = test.plain_config();
    // For how long conflicts are tried again: a machine that is busy has many.
    config.pool.connection_timeout = Duration::from_mins(1);
    let db = Database::connect(config).await.expect("it connects");
    let ada = NewUser::new("Ada", "ada@example.org", "correct horse battery");
    let ada = db.users().create(ada).await.expect("created");
    let mut accounts = Vec::new();
    for _ in 0..ACCOUNTS {
        let account = NewWorkflow::new("account").owner(ada.id);
        accounts.push(db.workflows().create(account).await.expect("created").id);
    }
    let open = accounts.clone();
    db.transaction(|tx| {
        let open = open.clone();
        async move {
            for account in open {
                set(&tx, account, EACH).await?;
            }
            Ok::<_, Error>(())
        }
    })
    .await
    .expect("opened");
    let whole = EACH * i64::try_from(ACCOUNTS).expect("few");
    let mut transfers = 0;
    for round in rounds(1) {
        let tellers: Vec<_> = (0..16)
            .map(|teller| {
                let (db, accounts) = (db.clone(), accounts.clone());
                tokio::spawn(async move {
                    for number in 0..15 {
                        let index = (round * 16 + teller) * 15 + number;
                        let (from, to) = (pick(2 * index, ACCOUNTS), pick(2 * index + 1, ACCOUNTS));
                        if from != to {
                            let amount = 1 + i64::from(number) * 20;
                            let done = transfer(&db, accounts[from], accounts[to], amount).await;
                            done.expect("nobody hears of a conflict");
                        }
                    }
                })
            })
            .collect();
        // A reader in between sees it, too.
        while tellers.iter().any(|teller| !teller.is_finished()) {
            assert_eq!(sum(&db).await, whole);
            tokio::task::yield_now().await;
        }
        for teller in tellers {
            teller.await.expect("no panic");
            transfers += 15;
        }
    }
    assert_eq!(sum(&db).await, whole);
    let retries = db.stats().retries;
    println!(
        "{:?}: {transfers} transfers, {retries} retries, the sum is exact",
        test.backend()
    );
    db.close().await;
}
