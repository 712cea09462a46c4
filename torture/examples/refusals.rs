//! Measures that the time of a refused login doesn't depend on the account:
//! `./scripts/with-postgres cargo run -p torture --example refusals [ROUNDS]`.
//!
//! `aura-db` `secrets` counts the hashes, which is the promise. The time is measured
//! here, on a machine that does nothing else: the medians of all kinds of refusal lie
//! within 5 % of each other, or it exits with 1.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aura_db::entity::{PasswordHash, users};
use aura_db::sea_orm::{ActiveModelTrait, Set};
use aura_db::users::OwnedRows;
use aura_db::{Database, Error, NewUser, SessionRequest, UserId};
use testdb::{Backend, TestDb};

const PASSWORD: &str = "correct horse battery";
const KINDS: [&str; 6] = [
    "current", "inactive", "deleted", "older", "unusable", "unknown",
];
/// The slowest kind's median in parts of the quickest's.
const MOST: f64 = 1.05;

async fn create(db: &Database, name: &str) -> Result<UserId, Error> {
    let user = NewUser::new(name, format!("{name}@example.org"), PASSWORD);
    Ok(db.users().create(user).await?.id)
}

/// Creates an account of each kind, but for the unknown one.
async fn accounts(db: &Database) -> Result<(), Box<dyn std::error::Error>> {
    create(db, "current").await?;
    let inactive = create(db, "inactive").await?;
    db.users().deactivate(inactive).await?;
    let deleted = create(db, "deleted").await?;
    db.users().delete(deleted, OwnedRows::Refuse).await?;
    let older = bcrypt::hash(PASSWORD, 10).map_err(|error| error.to_string())?;
    for (name, hash) in [("older", older.as_str()), ("unusable", "!")] {
        let planted = users::ActiveModel {
            id: Set(create(db, name).await?),
            hashed_password: Set(PasswordHash(hash.to_owned())),
            ..Default::default()
        };
        planted
            .update(&*db.seaorm().writer().await.expect("open"))
            .await?;
    }
    Ok(())
}

/// Returns the median time of a refusal of each kind.
async fn medians(
    db: &Database,
    rounds: usize,
) -> Result<[Duration; 6], Box<dyn std::error::Error>> {
    let mut times = [const { Vec::new() }; 6];
    for round in 0..rounds {
        for nth in 0..KINDS.len() {
            let nth = (nth + round) % KINDS.len();
            let email = format!("{}@example.org", KINDS[nth]);
            let started = Instant::now();
            let answer = db.login(&email, "wrong", SessionRequest::default()).await;
            times[nth].push(started.elapsed());
            if !matches!(answer, Err(Error::Credentials)) {
                return Err(format!("{email} was not refused").into());
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }))
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let rounds = std::env::args().nth(1).unwrap_or_else(|| "1000".to_owned());
    let rounds = rounds.parse()?;
    let mut alike = true;
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let test = TestDb::migrated(backend).await;
        let db = Database::connect(test.config()).await?;
        accounts(&db).await?;
        let medians = medians(&db, rounds).await?;
        let quickest = medians.iter().min().copied().unwrap_or_default();
        let slowest = medians.iter().max().copied().unwrap_or_default();
        let ratio = slowest.as_secs_f64() / quickest.as_secs_f64();
        println!("{backend:?}: the slowest kind takes {ratio:.3} times as long as the quickest");
        for (kind, median) in KINDS.iter().zip(medians) {
            println!("  {kind:8} {:.1} ms", median.as_secs_f64() * 1e3);
        }
        alike &= ratio < MOST;
        db.close().await;
    }
    Ok(if alike {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
