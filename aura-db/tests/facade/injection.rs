//! Whatever people type is stored as it was typed, and nothing of it is run.

use aura_db::entity::users;
use aura_db::sea_orm::EntityTrait;
use aura_db::{
    AgentChange, AgentFilter, Cursor, Database, Error, ExecutionFilter, ExecutionMode, LogFilter,
    LogLevel, NewAgent, NewExecution, NewLog, NewPlugin, NewUser, NewWorkflow, Outcome,
    PageRequest, PluginFilter, SessionRequest, Token, User, UserChange, UserFilter, WorkflowChange,
    WorkflowFilter,
};
use serde_json::{Value, json};
use testdb::TestDb;

use crate::support::{assert_error, claim_of, open, user};

testdb::both!(migrated:
    names_and_texts, emails, documents, searches, cursors, tokens_and_user_agents,
    plugins_and_agents, executions_and_logs,
);

/// What has broken SQL, patterns, JSON and terminals before.
pub(crate) const CORPUS: &[&str] = &[
    "'; DROP TABLE users; --",
    "' OR '1'='1",
    "\"; DROP TABLE \"users\"; --",
    "1); DELETE FROM users; --",
    "x' UNION SELECT hashed_password FROM users --",
    "$1 $2 ? ?1 :name @p1",
    "%",
    "_",
    "100%_\\%",
    "\\",
    "\\'",
    "''",
    "\"\"",
    "`id`",
    "[id]",
    "/* */ -- #",
    ";",
    "{\"$ne\": null}",
    "{{7*7}} ${7*7}",
    "NULL",
    "true",
    "\u{1}\u{7f}\u{80}",
    "\r\n\t",
    "\u{2028}\u{2029}",
    "\u{202e}right to left",
    "\u{feff}bom",
    "İıſK",
    "é e\u{301}",
    "😀👩‍👩‍👧",
    "\u{10ffff}",
    "E'\\x27'",
    "U&'\\0027'",
    "$$; DROP TABLE users; $$",
    "pg_sleep(10)",
    "load_extension('x')",
];

/// The tables are there, and so are the people.
async fn unharmed(db: &Database, people: usize) {
    let rows = db
        .fetch_all(users::Entity::find())
        .await
        .expect("the table is there");
    assert_eq!(rows.len(), people);
}

async fn names_and_texts(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    for text in CORPUS {
        // Some are blank, which a name must not be.
        let name = format!("n{text}");
        let change = UserChange::new().name(name.clone());
        let changed = db.users().update(ada.id, change).await.expect("changed");
        assert_eq!(changed.name, name);
        assert_eq!(db.users().get(ada.id).await.expect("there").name, name);

        let new = NewWorkflow::new(&name).description(*text).owner(ada.id);
        let flow = db.workflows().create(new).await.expect("created");
        assert_eq!(
            (flow.name.as_str(), flow.description.as_deref()),
            (&*name, Some(*text))
        );
        let filter = WorkflowFilter::new().name(&name);
        let found = db
            .workflows()
            .list(filter, PageRequest::first(10))
            .await
            .expect("a list");
        assert_eq!(found.items.len(), 1);
        assert_eq!(found.items[0].id, flow.id);
        let change = WorkflowChange::new().description(Some(format!("{text}{text}")));
        db.workflows()
            .update(flow.id, 1, change)
            .await
            .expect("changed");
        let before = db.workflows().version(flow.id, 1).await.expect("kept");
        assert_eq!(before.description.as_deref(), Some(*text));
        let copy = db
            .workflows()
            .duplicate(flow.id, Some(format!("c{name}")))
            .await;
        assert_eq!(copy.expect("copied").name, format!("c{name}"));
    }
    unharmed(&db, 1).await;
}

async fn emails(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let mut people = 1;
    for (index, text) in CORPUS.iter().enumerate() {
        let email = format!("{text}@{index}.example.org");
        assert!(!db.users().email_exists(&email).await.expect("an answer"));
        assert_eq!(
            db.users().find_by_email(&email).await.expect("an answer"),
            None
        );
        let login = db.login(&email, *text, SessionRequest::default()).await;
        assert_error!(login, Error::Credentials);
        let change = UserChange::new().email(email.clone());
        match db.users().update(ada.id, change).await {
            Ok(changed) => {
                assert_eq!(changed.email, email.trim().to_ascii_lowercase());
                let found = db.users().get_by_email(&email).await.expect("there");
                assert_eq!(found.id, ada.id);
            }
            Err(Error::Validation(errors)) => assert_eq!(errors[0].field, "email"),
            Err(error) => panic!("{email}: {error:?}"),
        }
        if index % 8 == 0 {
            // As a new user's, password and all.
            let created = db.users().create(NewUser::new(*text, &email, *text)).await;
            people += usize::from(created.is_ok());
        }
    }
    unharmed(&db, people).await;
}

async fn documents(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let members = CORPUS
        .iter()
        .map(|text| ((*text).to_owned(), Value::from(*text)));
    let written = Value::Object(members.collect());
    let list = json!(CORPUS);
    let new = NewWorkflow::new("x")
        .owner(ada.id)
        .nodes(written.clone())
        .connections(list.clone())
        .settings(json!({"schedule": written.clone()}))
        .metadata(json!([[written.clone()]]));
    let flow = db.workflows().create(new).await.expect("created");
    let read = db.workflows().get(flow.id).await.expect("there");
    assert_eq!(read.nodes, Some(written.clone().into()));
    assert_eq!(read.connections, Some(list.into()));
    assert_eq!(read.metadata, Some(json!([[written]]).into()));
    db.workflows().check(flow.id).await.expect("checked");
    db.workflows().activate(flow.id).await.expect("active");
    let scheduled = db
        .workflows()
        .list(WorkflowFilter::scheduled(), PageRequest::first(9))
        .await;
    assert_eq!(scheduled.expect("a list").items.len(), 1);
    unharmed(&db, 1).await;
}

/// A search finds what holds the text and nothing else.
async fn searches(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    for text in CORPUS {
        let new = NewWorkflow::new(format!("n{text}")).owner(ada.id);
        db.workflows().create(new).await.expect("created");
    }
    for text in CORPUS {
        let filter = WorkflowFilter::new().text(*text);
        let found = db
            .workflows()
            .list(filter, PageRequest::first(1000))
            .await
            .expect("a list");
        let found: Vec<_> = found.items.into_iter().map(|flow| flow.name).collect();
        let wanted = text.to_ascii_lowercase();
        let names = CORPUS.iter().map(|text| format!("n{text}"));
        let expected: Vec<_> = names
            .filter(|name| name.to_ascii_lowercase().contains(&wanted))
            .collect();
        assert_eq!(found, expected, "{text:?}");
        let filter = UserFilter::new().text(*text);
        let people = db
            .users()
            .list(filter, PageRequest::number(1, 10))
            .await
            .expect("a list");
        let expected = u64::from("ada@example.org".contains(&wanted));
        assert_eq!(people.total, Some(expected), "{text:?}");
    }
    unharmed(&db, 1).await;
}

async fn cursors(db: TestDb) {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let db = open(&db).await;
    let ada: User = user(&db, "ada").await;
    user(&db, "bob").await;
    let first = db
        .users()
        .list(UserFilter::new(), PageRequest::first(1))
        .await
        .expect("a page");
    let real = first.next.expect("there is more").to_string();
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(&real).expect("base64");
    let decoded = String::from_utf8(decoded).expect("text");
    for text in CORPUS {
        for forged in [
            (*text).to_owned(),
            BASE64_URL_SAFE_NO_PAD.encode(text),
            BASE64_URL_SAFE_NO_PAD.encode(json!([text, text, 1]).to_string()),
            BASE64_URL_SAFE_NO_PAD.encode(decoded.replace("users", text)),
            format!("{real}{text}"),
        ] {
            let page = PageRequest::after(Cursor::from(forged.clone()), 10);
            match db.users().list(UserFilter::new(), page).await {
                Err(Error::Validation(errors)) => assert_eq!(errors[0].field, "page.after"),
                other => panic!("{forged:?}: {other:?}"),
            }
        }
        // The right order with a strange place is only a strange place.
        let sort = aura_db::UserSort::Name;
        let page = db
            .users()
            .list(UserFilter::new().sort(sort), PageRequest::first(1))
            .await;
        let name = page
            .expect("a page")
            .next
            .expect("there is more")
            .to_string();
        let mark = BASE64_URL_SAFE_NO_PAD.decode(name).expect("base64");
        let mut mark: Value = serde_json::from_slice(&mark).expect("JSON");
        mark[1][0] = json!(text);
        let forged = Cursor::from(BASE64_URL_SAFE_NO_PAD.encode(mark.to_string()));
        let filter = UserFilter::new().sort(sort);
        let page = db
            .users()
            .list(filter, PageRequest::after(forged, 10))
            .await
            .expect("a page");
        assert!(page.items.len() <= 2);
    }
    assert_eq!(db.users().get(ada.id).await.expect("there").name, "ada");
    unharmed(&db, 2).await;
}

async fn tokens_and_user_agents(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    for text in CORPUS {
        let token = Token::new(*text);
        let who = db.sessions().authenticate(&token).await.expect("an answer");
        assert_eq!(who, None);
        assert!(
            db.sessions()
                .rotate(&token)
                .await
                .expect("an answer")
                .is_none()
        );
        let request = SessionRequest {
            user_agent: Some((*text).to_owned()),
            ip_address: Some(text.chars().take(64).collect()),
            ..SessionRequest::default()
        };
        let issued = db.sessions().issue(ada.id, request).await.expect("issued");
        let who = db
            .sessions()
            .authenticate(&issued.token)
            .await
            .expect("an answer");
        let session = who.expect("somebody").session;
        assert_eq!(session.user_agent.as_deref(), Some(*text));
        assert_eq!(session.ip_address.as_deref(), Some(*text));
    }
    assert_eq!(
        db.sessions().list(ada.id).await.expect("a list").len(),
        CORPUS.len()
    );
    assert!(
        !db.users()
            .verify_password(ada.id, CORPUS[0])
            .await
            .expect("an answer")
    );
    unharmed(&db, 1).await;
}

async fn plugins_and_agents(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    for text in CORPUS {
        let name = format!("n{text}");
        let version: String = format!("v{text}").chars().take(32).collect();
        let new = NewPlugin::new(&name, &version)
            .description(*text)
            .author(*text)
            .config_schema(json!({"title": text, "properties": {*text: {"const": text}}}));
        let plugin = db
            .plugins()
            .register(new.clone())
            .await
            .expect("registered");
        assert_eq!(
            (plugin.name.as_str(), plugin.description.as_str()),
            (&*name, *text)
        );
        assert_eq!(
            (plugin.version, plugin.author.as_deref()),
            (version, Some(*text))
        );
        assert_eq!(&plugin.config_schema, new.as_ref().config_schema.as_ref());
        assert_eq!(
            db.plugins().register(new).await.expect("again").id,
            plugin.id
        );
        assert_eq!(
            db.plugins().get_by_name(&name).await.expect("there").id,
            plugin.id
        );
        let config = json!({*text: text});
        let problems = db.plugins().validate_config(plugin.id, config).await;
        assert!(problems.expect("checked").is_empty());
        let filter = PluginFilter::new().author(*text).text(*text);
        let found = db
            .plugins()
            .list(filter, PageRequest::first(9))
            .await
            .expect("a list");
        assert_eq!(found.items.len(), 1);

        let new = NewAgent::new(&name, &name)
            .description(*text)
            .config(json!({*text: text}))
            .owner(ada.id);
        let agent = db.agents().create(new.clone()).await.expect("created");
        assert_eq!((&agent.name, &agent.model), (&name, &name));
        assert_eq!(agent.description.as_deref(), Some(*text));
        assert_eq!(&agent.config, new.as_ref().config.as_ref());
        assert_error!(db.agents().create(new).await, Error::Conflict { .. });
        let change = AgentChange::new().name(format!("{name}2"));
        let agent = db.agents().update(agent.id, change).await.expect("changed");
        assert_eq!(agent.name, format!("{name}2"));
        let filter = AgentFilter::owner(ada.id).text(format!("{name}2"));
        let found = db
            .agents()
            .list(filter, PageRequest::first(9))
            .await
            .expect("a list");
        assert!(found.items.iter().any(|found| found.id == agent.id));
    }
    unharmed(&db, 1).await;
}

async fn executions_and_logs(db: TestDb) {
    let db = open(&db).await;
    let ada = user(&db, "ada").await;
    let flow = NewWorkflow::new("x").owner(ada.id);
    let flow = db.workflows().create(flow).await.expect("created").id;
    let lease = std::time::Duration::from_mins(1);
    let filter = LogFilter::workflow(flow);
    let tail = db.logs().tail(filter, aura_db::logs::TailFrom::Now).await;
    let mut tail = tail.expect("it follows");
    for text in CORPUS {
        let document = json!({*text: [text]});
        let new = NewExecution::new(flow, ExecutionMode::Manual).data(document.clone());
        let execution = db.executions().enqueue(new).await.expect("queued");
        let worker = format!("w{}", text.chars().take(60).collect::<String>());
        let claimed = db
            .executions()
            .claim(&worker, lease)
            .await
            .expect("an answer");
        assert_eq!(claimed.expect("one").worker_id.as_ref(), Some(&worker));
        db.executions()
            .extend(claim_of(&db, execution.id, &worker).await, lease)
            .await
            .expect("held");
        let mine = ExecutionFilter::new().worker(&worker);
        let found = db
            .executions()
            .list(mine.clone(), PageRequest::first(9))
            .await
            .expect("a list");
        assert_eq!(found.items.len(), 1);
        assert_eq!(db.executions().stats(mine).await.expect("numbers").total, 1);
        let stranger = db
            .executions()
            .finish(
                claim_of(&db, execution.id, text).await,
                Outcome::success(None),
            )
            .await;
        assert!(stranger.is_err());
        let outcome = Outcome::error(document.clone()).data(document.clone());
        let done = db
            .executions()
            .finish(claim_of(&db, execution.id, &worker).await, outcome)
            .await
            .expect("held");
        assert_eq!(done.error, Some(document.clone().into()));
        assert_eq!(done.data, Some(document.clone().into()));

        let new = NewLog::new(flow, LogLevel::Info, *text)
            .execution(execution.id)
            .metadata(document.clone());
        let log = db.logs().append(new.clone()).await.expect("appended");
        assert_eq!(
            (
                log.message.as_str(),
                log.metadata.map(|json| json.json().expect("JSON"))
            ),
            (*text, Some(document))
        );
        db.logs().append_many(vec![new]).await.expect("appended");
        let filter = LogFilter::execution(execution.id).text(*text);
        let found = db
            .logs()
            .list(filter.clone(), PageRequest::first(9))
            .await
            .expect("a list");
        assert_eq!(found.items.len(), 2);
        assert_eq!(db.logs().stats(filter).await.expect("numbers").total, 2);
        let heard = tail.next().await.expect("entries");
        assert!(heard.iter().all(|log| log.message == *text));
    }
    unharmed(&db, 1).await;
}
