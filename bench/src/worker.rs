//! The process of one peer: answers on standard output what it is asked on
//! standard input.

use std::io::{BufRead, Write};
use std::sync::Arc;

use ::sqlx::{Postgres, Sqlite};
use serde_json::{Value, json};

use crate::data::{self, Entry};
use crate::deliveries::NewDelivery;
use crate::peer::{Name, Peer, Setup, Target};
use crate::peers::{aura, diesel, diesel_async, postgres, seaorm, sqlite, sqlx};
use crate::protocol::{Request, Response};
use crate::workload::Operation;
use crate::{Result, run};

/// Serves until nobody asks any more.
pub(crate) async fn serve() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let Some(line) = lines.next() else {
        return Ok(());
    };
    let Request::Open(setup) = serde_json::from_str(&line?)? else {
        return Err("the first request must be to open a database".into());
    };
    match setup.peer {
        Name::AuraDb => serve_peer::<aura::Peer>(setup, lines).await,
        Name::SeaOrm => serve_peer::<seaorm::Peer>(setup, lines).await,
        Name::Rusqlite => serve_peer::<sqlite::Peer>(setup, lines).await,
        Name::TokioPostgres => serve_peer::<postgres::Peer>(setup, lines).await,
        Name::Sqlx => match setup.target {
            Target::Sqlite { .. } => serve_peer::<sqlx::Peer<Sqlite>>(setup, lines).await,
            Target::Postgres { .. } => serve_peer::<sqlx::Peer<Postgres>>(setup, lines).await,
        },
        Name::Diesel => serve_peer::<diesel::Peer>(setup, lines).await,
        Name::DieselAsync => serve_peer::<diesel_async::Peer>(setup, lines).await,
        Name::TypeOrm | Name::Drizzle | Name::GraphileWorker | Name::PgBoss => {
            Err("this peer runs on Node.js".into())
        }
    }
}

async fn serve_peer<P: Peer>(
    setup: Setup,
    lines: impl Iterator<Item = std::io::Result<String>>,
) -> Result<()> {
    let peer = match P::open(&setup).await {
        Ok(peer) => Arc::new(peer),
        Err(error) => return say(&Response::Failed(error.to_string())),
    };
    say(&Response::Opened {})?;
    for line in lines {
        let request = serde_json::from_str(&line?)?;
        let response = answer(&peer, &setup, request).await;
        say(&response.unwrap_or_else(|error| Response::Failed(error.to_string())))?;
    }
    Ok(())
}

fn say(response: &Response) -> Result<()> {
    let mut line = serde_json::to_string(response)?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

async fn answer<P: Peer>(peer: &Arc<P>, setup: &Setup, request: Request) -> Result<Response> {
    Ok(match request {
        Request::Open(_) => return Err("it is open already".into()),
        Request::First { session } => {
            let account = peer.authenticate(&data::token(session)).await?;
            let account = account.ok_or("nobody's token")?;
            Response::User(account.user.id)
        }
        Request::Prepare {} => {
            peer.prepare().await?;
            Response::Prepared {}
        }
        Request::Check {} => Response::Answers(answers(&**peer, setup).await?),
        Request::Run(run) => Response::Measured(run::run(peer, run, setup.shape).await?),
    })
}

/// Every operation once, on rows from all over.
async fn answers<P: Peer>(peer: &P, setup: &Setup) -> Result<Value> {
    let shape = setup.shape;
    peer.prepare().await?;
    let mut accounts = Vec::new();
    for session in [1, shape.sessions / 2, shape.sessions, shape.sessions + 1] {
        accounts.push(peer.authenticate(&data::token(session)).await?);
    }
    let mut details = Vec::new();
    for workflow in [1, shape.workflows / 2, shape.workflows, shape.workflows + 1] {
        details.push(peer.details(workflow).await?);
    }
    let (mut rows, mut cached) = (Vec::new(), Vec::new());
    for id in [1, 2, shape.deliveries, shape.deliveries + 1] {
        rows.push(peer.own_row(id).await?);
        cached.push(peer.own_row_cached(id).await?);
    }
    let mut inserted = Vec::new();
    for number in 0..3 {
        inserted.push(peer.own_insert(NewDelivery::new(number, 2)).await?);
    }
    let two = [3, 4].map(|number| NewDelivery::new(number, 1));
    let entries = (0..data::ENTRIES).map(|number| Entry::new(number, 2));
    let mut answers = json!({
        "durability": peer.durability().await?,
        "authenticate": accounts,
        "details": details,
        "summaries": peer.summaries(shape.users).await?,
        "documents": peer.documents(shape.users).await?,
        "logs": [peer.logs(0).await?, peer.logs(data::PLACES - 1).await?],
        "append": peer.append(Entry::new(7, 1)).await?,
        "append_many": peer.append_many(entries.collect()).await?,
        "update": [
            peer.update(1, "Renamed once".to_owned()).await?,
            peer.update(1, "Renamed twice".to_owned()).await?,
        ],
        "own_row": rows,
        "own_row_cached": cached,
        "own_page": [
            peer.own_page(1, 0).await?,
            peer.own_page(shape.hooks, shape.deliveries / 2).await?,
        ],
        "own_insert": inserted,
        "transaction": peer.transaction(1, two).await?,
        "repository_find": peer.repository_find(1).await?,
        "repository_insert": peer.repository_insert(NewDelivery::new(5, 2)).await?,
        "repository_list": peer.repository_list(1, 0).await?,
        "repository_query": peer.repository_query(1, 0).await?,
    });
    // What not every peer does is compared between those that do.
    if setup.peer.does(Operation::RepositoryRelated) {
        answers["repository_related"] = json!(peer.repository_related(1, 0).await?);
    }
    if setup.peer.does(Operation::RepositoryUpdate) {
        answers["repository_update"] = json!(peer.repository_update(2, 7).await?);
    }
    if setup.peer.does(Operation::Queue) {
        answers["queue"] = json!(peer.queue(1).await?);
    }
    if setup.peer.does(Operation::BuiltInFind) {
        let [one, other] = [false, true].map(|any| peer.built_in_find(1, any));
        answers["built_in_find"] = json!(one.await?);
        if answers["built_in_find"] != json!(other.await?) {
            return Err("the repositories of a plugin don't give the same".into());
        }
    }
    Ok(answers)
}
