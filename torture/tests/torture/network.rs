//! A network that cuts, delays and swallows, and a server that ends connections
//! in the middle of whatever they do: nobody waits for longer than was
//! allowed, what was told is there, once, and as soon as the network is back so
//! is the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aura_db::{Database, Error, Target};
use testdb::TestDb;
use testdb::process::moment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use torture::Operation;

use crate::{messages, rounds, workflow, wrong};

testdb::postgres!(migrated:
    nothing_is_lost_on_a_bad_network, connections_that_are_lost_cost_one_call,
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fine,
    /// Every byte takes longer.
    Slow,
    /// Connections end in the middle of whatever they say.
    Cut,
    /// What is said is heard by nobody, and nobody is told.
    Silent,
    /// The server ends every connection by itself.
    Ended,
    /// So it is for the connections that are open; those that are opened later are fine.
    Lost,
}

/// A way to the server, with weather.
struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
}

impl Proxy {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (weather, seen) = watch::channel(Weather::Fine);
        let own = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, seen.clone()));
                tokio::spawn(carry(from_server, to_client, seen.clone()));
            }
        });
        Self { port: own, weather }
    }
}

/// Carries one direction of one connection.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut seen: watch::Receiver<Weather>,
) {
    let mut bytes = vec![0; 16 << 10];
    let opened = *seen.borrow();
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = seen.wait_for(|weather| *weather == Weather::Cut) => return,
        };
        let Ok(read @ 1..) = read else { return };
        let weather = *seen.borrow();
        match weather {
            Weather::Fine | Weather::Ended => {}
            Weather::Lost if opened == Weather::Lost => {}
            Weather::Slow => tokio::time::sleep(Duration::from_millis(5)).await,
            Weather::Cut => return,
            // For good: this connection has lost bytes.
            Weather::Silent | Weather::Lost => std::future::pending().await,
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

const END_ALL: &str = "SELECT pg_terminate_backend(pid)::text AS line FROM pg_stat_activity \
     WHERE datname = current_database() AND pid <> pg_backend_pid()";
const LIMIT: Duration = Duration::from_secs(1);
/// For all that one caller does.
const PATIENCE: Duration = Duration::from_mins(1);

/// Connects by way of a proxy.
async fn connect(test: &TestDb, limit: Duration) -> (Database, Proxy) {
    let mut config = test.plain_config();
    let Target::Postgres(server) = &mut config.target else {
        panic!("it is a server");
    };
    let proxy = Proxy::to(server.port).await;
    "127.0.0.1".clone_into(&mut server.host);
    server.port = proxy.port;
    config.statement_timeout = Some(limit);
    config.pool.connection_timeout = LIMIT;
    config.pool.max = 8;
    let db = Database::connect(config).await.expect("it connects");
    (db, proxy)
}

/// The first call waits for an answer until its limit; those after it ask before they use
/// another connection that has seen no answer since.
async fn connections_that_are_lost_cost_one_call(test: TestDb) {
    let flow = workflow(&test).await;
    // Less than a connection may be idle before it is asked anyway.
    let (db, proxy) = connect(&test, Duration::from_millis(200)).await;
    let mut open = Vec::new();
    for _ in 0..6 {
        let tx = db.begin().await.expect("begun");
        tx.workflows().get(flow.into()).await.expect("there");
        open.push(tx);
    }
    for tx in open {
        tx.commit().await.expect("committed");
    }
    proxy.weather.send_replace(Weather::Lost);
    let started = Instant::now();
    let first = db.workflows().get(flow.into()).await;
    assert!(first.is_err(), "{first:?}");
    for _ in 0..8 {
        let found = db.workflows().get(flow.into()).await;
        assert_eq!(found.expect("on a new connection").id.0, flow);
    }
    let took = started.elapsed();
    assert!(took < 5 * LIMIT, "{took:?}");
    db.close().await;
}

async fn nothing_is_lost_on_a_bad_network(test: TestDb) {
    let flow = workflow(&test).await;
    let (db, proxy) = connect(&test, LIMIT).await;
    let next = Arc::new(AtomicU32::new(0));
    let (mut told, mut failed) = (Vec::new(), 0);
    let mut slowest = Duration::ZERO;
    for round in rounds(8) {
        let weather = [Weather::Cut, Weather::Silent, Weather::Slow, Weather::Ended];
        let weather = weather[round as usize % weather.len()];
        let callers: Vec<_> = (0..24)
            .map(|task| {
                let (db, next) = (db.clone(), next.clone());
                tokio::spawn(async move { call(&db, flow, task, &next).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20).mul_f64(moment(round))).await;
        proxy.weather.send_replace(weather);
        if weather == Weather::Ended {
            test.lines(END_ALL).await;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        proxy.weather.send_replace(Weather::Fine);
        for caller in callers {
            let ended = tokio::time::timeout(PATIENCE, caller).await;
            let ended = ended.expect("somebody waits for ever");
            for (operation, done, took) in ended.expect("no panic") {
                slowest = slowest.max(took);
                match done {
                    Ok(()) => told.push(operation),
                    Err(error) => {
                        let expected = matches!(
                            error,
                            Error::Unavailable { .. }
                                | Error::OutcomeUnknown { .. }
                                | Error::Busy { .. }
                                | Error::Timeout { .. }
                        );
                        assert!(expected, "{weather:?}: {error:?}");
                        failed += 1;
                    }
                }
            }
        }
        if weather == Weather::Ended {
            // Who comes first learns that the connection has ended, and that the
            // others may have.
            let first = torture::write(&db, flow.into(), 1, Operation { task: 0, number: 0 });
            let _ = first.await;
        }
        // The network is back, and so is everybody.
        let again = call(&db, flow, 1_000 + round, &next).await;
        for (operation, done, _) in again {
            done.expect("the network is back");
            told.push(operation);
        }
    }
    db.close().await;
    assert!(failed > 0, "the weather was no matter");
    // An operation is at most a few statements, and the transaction's end.
    let longest = 4 * LIMIT + Duration::from_secs(1);
    assert!(slowest < longest, "somebody waited for {slowest:?}");
    let wrong = wrong(&told, &messages(&test, 0).await);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{} operations told, none lost, none twice; {failed} failed, the slowest after {} ms",
        told.len(),
        slowest.as_millis()
    );
}

/// A few operations, how they ended, and how long they took.
async fn call(
    db: &Database,
    flow: i64,
    task: u32,
    next: &AtomicU32,
) -> Vec<(Operation, Result<(), Error>, Duration)> {
    let mut ended = Vec::new();
    for _ in 0..6 {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let operation = Operation { task, number };
        let started = Instant::now();
        let done = torture::write(db, flow.into(), 0, operation).await;
        ended.push((operation, done, started.elapsed()));
    }
    ended
}
