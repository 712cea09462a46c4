//! A user, a login, a workflow and a transaction.

use aura_db::{
    Config, Database, LogLevel, NewLog, NewUser, NewWorkflow, PageRequest, SessionRequest,
    WorkflowChange, WorkflowFilter,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The DB_* variables or `.env`; with none of them the SQLite file
    // ./data/aura.db. With DB_PATH=:memory: all is gone at the end.
    let mut config = Config::from_env()?;
    config.synchronize = true; // as DB_SYNCHRONIZE=true: creates and migrates the tables
    let db = Database::connect(config).await?; // or, as configured: Database::from_env()

    let (email, password) = ("ada@example.org", "correct horse battery staple");
    if !db.users().email_exists(email).await? {
        let ada = NewUser::new("Ada", email, password);
        db.users().create(ada).await?;
    }
    let login = db.login(email, password, SessionRequest::default()).await?;
    let who = db.sessions().authenticate(&login.token).await?;
    let ada = who.ok_or("the session has ended")?.user;

    let db = db.acting_as(ada.id); // who is noted in created_by and updated_by
    let flow = db.workflows().create(NewWorkflow::new("Greet")).await?;

    // Both or neither. `tx` has all that `db` has.
    db.transaction(|tx| async move {
        let change = WorkflowChange::new().name("Greet politely");
        let flow = tx.workflows().update(flow.id, flow.version, change).await?;
        let entry = NewLog::new(flow.id, LogLevel::Info, "renamed");
        tx.logs().append(entry).await
    })
    .await?;

    let mine = WorkflowFilter::owner(ada.id);
    for flow in db
        .workflows()
        .list(mine, PageRequest::first(50))
        .await?
        .items
    {
        println!("{}: {}, version {}", flow.id, flow.name, flow.version);
    }
    db.close().await;
    Ok(())
}
