//! A server that is restarted without asking (`pg_ctl -m immediate`, which is a
//! crash) under load: soon everybody is served again, and nothing is lost.

use std::time::{Duration, Instant};

use aura_db::{Config, Database, Environment, LogFilter, NewUser, NewWorkflow, PageRequest};
use testdb::process::{Running, command, moment};

use crate::{WRITER, arguments, rounds, told, wrong};

/// A server of this test's own, because others would notice. Restarts whenever
/// there is a file of this name.
const SERVER: &str = r#"
    echo "server $PGPORT $PGUSER $PGPASSWORD"
    while [ ! -e "$0/end" ]; do
        if [ -e "$0/restart" ]; then
            rm "$0/restart"
            pg_ctlcluster -m immediate $(pg_lsclusters -h | awk '{ print $1, $2 }') restart
            echo restarted
        fi
        sleep 0.02
    done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/with-postgres");
    let mut server = command(scripts, folder.path(), &[]);
    let place = folder.path().display().to_string();
    let mut server = Running::start(server.args(["sh", "-c", SERVER, &place]));
    assert!(server.hears("server "), "{:?}", server.end());
    let line = server.heard().lines().last().unwrap_or_default();
    let told_by_it: Vec<String> = line.split(' ').skip(1).map(ToOwned::to_owned).collect();
    let [port, user, password] = &told_by_it[..] else {
        panic!("{line}");
    };
    let variables = [
        ("DB_TYPE", "postgres".to_owned()),
        ("DB_HOST", "127.0.0.1".to_owned()),
        ("DB_PORT", port.clone()),
        ("DB_USER", user.clone()),
        ("DB_PASS", password.clone()),
        ("DB_NAME", "postgres".to_owned()),
    ];
    let pairs = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    let config = Config::from_environment(&Environment::from_pairs(pairs)).expect("settings");
    aura_db::migration::up(&config).await.expect("migrated");
    let db = Database::connect(config).await.expect("it connects");
    let ada = NewUser::new("Ada", "ada@example.org", "correct horse battery");
    let ada = db.users().create(ada).await.expect("created").id;
    let flow = db
        .workflows()
        .create(NewWorkflow::new("w").owner(ada))
        .await;
    let flow = flow.expect("created").id;

    let (mut operations, mut slowest) = (0, Duration::ZERO);
    for run in rounds(2) {
        let mut writer = command(WRITER, folder.path(), &variables);
        let mut writer = Running::start(writer.args(arguments(flow.0, run, &[])));
        assert!(writer.hears("ready"));
        std::thread::sleep(Duration::from_millis(100).mul_f64(1.0 + moment(run)));
        std::fs::write(folder.path().join("restart"), "").expect("there is room");
        assert!(server.hears("restarted"));
        let back = Instant::now();
        while db.workflows().get(flow).await.is_err() {
            assert!(back.elapsed() < Duration::from_secs(5), "nobody is served");
        }
        slowest = slowest.max(back.elapsed());
        std::thread::sleep(Duration::from_millis(300));
        let ended = writer.kill();
        let (_, after) = ended.stdout.rsplit_once("failed").expect("some did fail");
        assert!(!told(after).is_empty(), "the writer was not served again");
        let told = told(&ended.stdout);
        let filter = LogFilter::workflow(flow).text(format!("{run}:"));
        let mut messages = Vec::new();
        let mut page = PageRequest::first(1_000);
        loop {
            let list = db.logs().list(filter.clone(), page).await.expect("a list");
            let items = list.items.into_iter().map(|log| log.message);
            messages.extend(items.filter(|message| message.starts_with(&format!("{run}:"))));
            let Some(next) = list.next else { break };
            page = PageRequest::after(next, 1_000);
        }
        let wrong = wrong(&told, &messages);
        assert!(wrong.is_empty(), "{wrong:?}");
        operations += told.len();
    }
    db.close().await;
    std::fs::write(folder.path().join("end"), "").expect("there is room");
    assert!(server.end().status.success());
    println!(
        "{operations} operations told around crashes, none lost, none twice; served again after {} ms",
        slowest.as_millis()
    );
}
