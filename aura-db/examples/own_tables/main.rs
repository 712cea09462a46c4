//! Tables of an application: credentials, API keys, and deliveries of webhooks.
//!
//! ```sh
//! cargo run -p aura-db --example own_tables              # migrates ./data/aura.db
//! cargo run -p aura-db --example own_tables -- status    # the migrations' command line
//! ./scripts/test -p aura-db --example own_tables         # on SQLite and PostgreSQL
//! ```

mod tables;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use aura_db::migration::cli;
use aura_db::{Config, Database, NewUser, NewWorkflow};

use self::tables::{api_keys, credentials, deliveries, runner};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if std::env::args().len() > 1 {
        return Ok(cli::main(runner()));
    }
    tokio::runtime::Runtime::new()?.block_on(show())?;
    Ok(ExitCode::SUCCESS)
}

async fn show() -> Result<(), aura_db::Error> {
    let config = Config::from_env()?;
    runner().up(&config).await?;
    let db = Database::connect(config).await?;
    let new = NewUser::new("Ada", "ada@example.org", "a long secret");
    let ada = match db.users().find_by_email(&new.email).await? {
        Some(ada) => ada,
        None => db.users().create(new).await?,
    };
    let mine = db.restricted_to(&ada).repository::<credentials::Entity>();
    let name = format!("GitHub {}", mine.count(()).await? + 1);
    let github = mine.insert(credentials::new(&name, "ghp_16C7e42F")).await?;
    println!("{}: {:?}", github.name, github.payload);

    let db = db.acting_as(ada.id);
    let (shown_once, _) = api_keys::issue(&db).await?;
    let key = api_keys::authenticate(&db, &shown_once).await?;
    println!("key of user {}", key.map_or(0, |key| key.owner_id.0));

    let flow = db.workflows().create(NewWorkflow::new("Greet")).await?;
    let hook = deliveries::new(flow.id, "https://example.org");
    let hook = db.repository::<deliveries::Entity>().insert(hook).await?;
    let tried = deliveries::failed(&db, hook.id).await?;
    println!("attempt {}: {:?}", tried.attempts, tried.status);
    db.close().await;
    Ok(())
}
