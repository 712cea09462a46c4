//! What was told is seen by everybody at once: other connections, and other
//! processes' as they would connect.

use aura_db::{Database, LogLevel, NewLog, SessionRequest, WorkflowChange};
use testdb::TestDb;

use crate::{rounds, workflow};

testdb::both!(migrated: what_is_told_is_seen);

async fn what_is_told_is_seen(test: TestDb) {
    let flow = workflow(&test).await;
    let connect = async || {
        Database::connect(test.plain_config())
            .await
            .expect("it connects")
    };
    let (writer, reader) = (connect().await, connect().await);
    let mut seen = 0;
    for _ in rounds(1) {
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let (writer, reader) = (writer.clone(), reader.clone());
                tokio::spawn(async move {
                    let owner = writer.workflows().get(flow.into()).await.expect("there");
                    let own = aura_db::NewWorkflow::new(format!("{task}")).owner(owner.owner_id);
                    let mut own = writer.workflows().create(own).await.expect("created");
                    for number in 0..15 {
                        let entry = NewLog::new(own.id, LogLevel::Info, format!("{number}"));
                        let entry = writer.logs().append(entry).await.expect("appended");
                        let found = reader.logs().find(entry.id).await.expect("an answer");
                        assert_eq!(found.as_ref(), Some(&entry));

                        let change = WorkflowChange::new().name(format!("{task}-{number}"));
                        let changed = writer.workflows().update(own.id, own.version, change).await;
                        own = changed.expect("changed");
                        let found = reader.workflows().get(own.id).await.expect("there");
                        assert_eq!(found, own);

                        let sessions = writer.sessions();
                        let issued = sessions
                            .issue(own.owner_id, SessionRequest::default())
                            .await;
                        let issued = issued.expect("issued");
                        let who = reader.sessions().authenticate(&issued.token).await;
                        assert!(who.expect("an answer").is_some());
                        let revoked = sessions.revoke(issued.session.id).await;
                        assert!(revoked.expect("revoked"));
                        let who = reader.sessions().authenticate(&issued.token).await;
                        assert!(who.expect("an answer").is_none(), "it was revoked");
                    }
                    15 * 4
                })
            })
            .collect();
        for task in tasks {
            seen += task.await.expect("no panic");
        }
    }
    println!(
        "{:?}: {seen} writes, each seen by another connection at once",
        test.backend()
    );
    writer.close().await;
    reader.close().await;
}
