//! The built example, as a process that is told to end.

#![cfg(unix)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aura_db::{Database, NewUser, Role};
use testdb::TestDb;
use testdb::process::{Running, command};

use crate::executions::start;
use crate::support::{Client, PASSWORD};

testdb::both!(migrated: a_signal_ends_the_process_in_order);

async fn a_signal_ends_the_process_in_order(test: TestDb) {
    let db = Database::connect(test.config()).await.expect("it connects");
    let ada = NewUser::new("Ada", "ada@example.org", PASSWORD).role(Role::Admin);
    db.users().create(ada).await.expect("created");
    db.close().await;

    // `scripts/test` builds it; so does `cargo test`, unless it is told what.
    let this = std::env::current_exe().expect("a path");
    let folder = this.parent().and_then(Path::parent).expect("two folders");
    let api = folder.join("examples/api");
    assert!(api.exists(), "first: cargo build -p aura-db --examples");
    let mut under_way = None;
    for (round, signal) in [(1, "-TERM"), (2, "-INT")] {
        let mut variables = test.variables();
        variables.push(("LISTEN", "127.0.0.1:0".to_owned()));
        let mut process = Running::start(&mut command(&api, &test.work(), &variables));
        assert!(process.hears("listening on http://"), "{}", process.heard());
        let (_, address) = process.heard().rsplit_once("http://").expect("it does");
        let client = Client::new(address.trim().parse().expect("an address"));

        let token = client.login("ada@example.org").await;
        // Longer than anybody waits. The second process takes it up again.
        let id = match under_way {
            Some(id) => id,
            None => *under_way.insert(start(&client, &token, 10_000).await),
        };
        let mut events = client.follow(id, &token, None).await;
        let mut begun = 0;
        while begun < round {
            let event = events.next().await.expect("a log entry");
            begun += usize::from(event.data["message"] == "10000 nodes");
        }

        let id = process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("a command").success());
        let told = std::time::Instant::now();
        let ended = tokio::task::spawn_blocking(|| process.end()).await;
        let ended = ended.expect("an end");
        assert!(
            told.elapsed() < Duration::from_secs(5),
            "{:?}",
            told.elapsed()
        );
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.trim_end().ends_with("stopped"), "{ended:?}");
        for secret in [PASSWORD, &token, "\x1b", "$argon2"] {
            assert!(!ended.stdout.contains(secret), "{ended:?}");
        }
        assert!(events.rest().await.iter().all(|event| event.name == "log"));
    }
}
