//! Behind PgBouncer in transaction mode, which gives each transaction another connection.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aura_db::entity::users;
use aura_db::sea_orm::{DbBackend, EntityTrait, Statement};
use aura_db::{
    Config, Database, Error, Isolation, LogLevel, NewLog, NewUser, NewWorkflow, PageRequest,
    Target, TypedQuery, UserFilter,
};
use futures_util::future::join_all;
use tempfile::TempDir;
use testdb::TestDb;

use crate::support::{PASSWORD, assert_error};

testdb::postgres!(migrated:
    everything_works, time_limits_hold, what_is_given_up_ends_on_the_server,
);

/// A pooler with three connections to the server.
struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pooler {
    async fn start() -> Self {
        let server = testdb::server();
        let of = |name| {
            let found = server.iter().find(|(found, _)| *found == name);
            found.map(|(_, value)| value.as_str()).expect(name)
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
             unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 3\n",
            of("DB_PORT"),
            of("DB_USER"),
            of("DB_PASS"),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("settings");
        // As root it runs as another user, which has to read them.
        let readable = |path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("readable");
        };
        readable(folder.path(), 0o755);
        readable(&file, 0o644);
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("--quiet").arg(&file);
        let start = |command: &mut Command| {
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command
                .spawn()
                .expect("PgBouncer (see scripts/with-postgres)")
        };
        let mut child = start(&mut command);
        let mut is_first = true;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            // It refuses to run as root.
            if let Some(status) = child.try_wait().expect("its state") {
                assert!(is_first, "PgBouncer ended: {status}");
                is_first = false;
                child = start(command.args(["-u", "postgres"]));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self {
            child,
            port,
            _folder: folder,
        }
    }

    fn config(&self, test: &TestDb, more: &[(&str, &str)]) -> Config {
        let mut config = test.config_with(more);
        let Target::Postgres(postgres) = &mut config.target else {
            panic!("a server");
        };
        postgres.host = Ipv4Addr::LOCALHOST.to_string();
        postgres.port = self.port;
        postgres.prepared_statements = false;
        postgres.tls = aura_db::Tls::default();
        postgres.tls.mode = aura_db::TlsMode::Disable;
        config
    }
}

async fn everything_works(test: TestDb) {
    let pooler = Pooler::start().await;
    let db = Database::connect(pooler.config(&test, &[])).await;
    let db = &db.expect("it connects");
    let tasks = (0..12).map(|task| async move {
        let name = format!("user{task}");
        let new = NewUser::new(&name, format!("{name}@example.org"), PASSWORD);
        let user = db.users().create(new).await.expect("created");
        let flow = db.workflows();
        let flow = flow.create(NewWorkflow::new("flow").owner(user.id)).await;
        let flow = flow.expect("created").id;
        for round in 0..5 {
            let new = NewLog::new(flow, LogLevel::Info, format!("{task}/{round}"));
            db.logs().append(new).await.expect("appended");
            let found = users::Entity::find_by_id(user.id);
            let inside = db.transaction_at(Isolation::Serializable, |tx| {
                let found = found.clone();
                async move {
                    let user = tx.fetch_one(found).await?;
                    tx.users().get(user.id).await
                }
            });
            assert_eq!(inside.await.expect("committed"), user);
            let restricted = db.restricted_to(&user).workflows().get(flow).await;
            assert_eq!(restricted.expect("its own").id, flow);
        }
    });
    join_all(tasks).await;
    let list = db.users();
    let list = list
        .list(UserFilter::new(), PageRequest::number(1, 50))
        .await;
    assert_eq!(list.expect("a list").total, Some(12));
    let logs = Statement::from_string(DbBackend::Postgres, "SELECT count(*) FROM logs");
    let logs = db.fetch_one(TypedQuery::<i64>::sql(logs)).await;
    assert_eq!(logs.expect("counted"), 60);
    // SeaORM's own connections prepare statements, which takes a newer pooler.
    db.clone().close().await;
}

async fn time_limits_hold(test: TestDb) {
    let pooler = Pooler::start().await;
    let config = pooler.config(&test, &[("DB_STATEMENT_TIMEOUT", "300")]);
    let db = Database::connect(config).await.expect("it connects");
    let long = || {
        let sql = Statement::from_string(DbBackend::Postgres, "SELECT pg_sleep(60)::text");
        TypedQuery::<String>::sql(sql)
    };
    assert_error!(db.fetch_one(long()).await, Error::Timeout { .. });
    let inside = db.transaction(|tx| async move {
        assert_error!(tx.fetch_one(long()).await, Error::Timeout { .. });
        Ok::<_, Error>(())
    });
    assert_error!(inside.await, Error::Aborted);
    // What the limits ended holds no connection.
    for _ in 0..5 {
        let found = db.fetch_optional(users::Entity::find()).await;
        assert_eq!(found.expect("read"), None);
    }
    db.close().await;
}

/// The pooler passes the request to cancel it on.
async fn what_is_given_up_ends_on_the_server(test: TestDb) {
    let pooler = Pooler::start().await;
    let config = pooler.config(&test, &[("DB_STATEMENT_TIMEOUT", "0")]);
    let db = Database::connect(config).await.expect("it connects");
    let sql = Statement::from_string(DbBackend::Postgres, "SELECT pg_sleep(60)::text");
    let caller = db.clone();
    let long = async move { caller.fetch_one(TypedQuery::<String>::sql(sql)).await };
    let mut long = Some(tokio::spawn(long));
    let mut looks = 0;
    loop {
        let running = test
            .lines(
                "SELECT query AS line FROM pg_stat_activity WHERE state = 'active' \
                 AND datname = current_database() AND query LIKE 'SELECT pg_sleep%'",
            )
            .await;
        match &long {
            Some(given_up) if !running.is_empty() => {
                given_up.abort();
                long = None;
            }
            None if running.is_empty() => break,
            _ => {}
        }
        looks += 1;
        assert!(looks < 200, "{long:?}, {running:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    db.close().await;
}
