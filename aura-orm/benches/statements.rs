//! What the engine costs beside rusqlite by hand: `just micro`.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use aura_orm::sqlite::{DatabaseFile, Error, Options, Readers, Writer};
use aura_orm::{Decoding, Statement, StatementKind};
use criterion::{Criterion, criterion_group, criterion_main};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sea_orm::Value;
use sea_orm::sea_query::ArrayType;

const ROWS: i64 = 10_000;
const FIND: &str = "SELECT id, name FROM things WHERE id = ?";
const ADD: &str = "INSERT INTO things (name) VALUES (?)";

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn filled(path: &Path) -> Done<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")?;
    connection.execute_batch("BEGIN")?;
    for row in 0..ROWS {
        let mut add = connection.prepare_cached(ADD)?;
        add.execute([format!("thing {row}")])?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

fn by_hand(connection: &Connection, id: i64) -> rusqlite::Result<(i64, String)> {
    let mut find = connection.prepare_cached(FIND)?;
    find.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
}

async fn by_engine(readers: &Readers, id: i64) -> Done<Vec<(i64, String)>> {
    let statement = Statement::new(StatementKind::Read, FIND, vec![id.into()]);
    let decoding = Decoding::of::<(i64, String)>(usize::MAX);
    let read = readers.query(statement, decoding).await??;
    Ok(read.into_rows::<(i64, String)>()?.rows)
}

async fn add(writer: &Writer) -> Result<u64, Error> {
    let mut write = writer.begin(false).await?;
    let statement = Statement::new(StatementKind::Write, ADD, vec!["another".into()]);
    let added = write.execute(statement).await?;
    write.commit().await?;
    Ok(added)
}

fn statements(criterion: &mut Criterion) -> Done {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("things.db");
    let connection = filled(&path)?;
    let options = Options {
        file: DatabaseFile::new(&path),
        durable: false,
        busy_timeout: Duration::from_secs(5),
        statement_timeout: None,
        max_readers: 10,
        min_readers: 0,
        idle_timeout: None,
        blocking_reads: 2,
        acquire_timeout: Duration::from_secs(5),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut ids = (1..=ROWS).cycle();
    let mut id = move || ids.next().unwrap_or(1);

    let mut group = criterion.benchmark_group("a row by its key");
    group.bench_function("rusqlite", |bencher| {
        bencher.iter(|| black_box(by_hand(&connection, id())).is_ok());
    });
    let readers = Readers::new(options.clone());
    group.bench_function("engine", |bencher| {
        bencher.iter(|| runtime.block_on(by_engine(&readers, id())).is_ok());
    });
    group.finish();

    let mut group = criterion.benchmark_group("an insert and its commit, NORMAL");
    group.bench_function("rusqlite", |bencher| {
        let add = || connection.prepare_cached(ADD)?.execute(["another"]);
        bencher.iter(|| add().is_ok());
    });
    let writer = Writer::new(options);
    group.bench_function("engine", |bencher| {
        bencher.iter(|| runtime.block_on(add(&writer)).is_ok());
    });
    group.finish();
    runtime.block_on(writer.close());
    readers.close();
    Ok(())
}

/// A time in the form that is written here, and in one that only others write.
fn times(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a time");
    for (name, text) in [
        ("in our form", "2026-01-31T12:34:56.123456+00:00"),
        ("in another", "2026-01-31T12:34:56.123456Z"),
    ] {
        group.bench_function(name, |bencher| {
            let cell = ValueRef::Text(text.as_bytes());
            let read = || aura_orm::sqlite::value(black_box(cell), &ArrayType::ChronoDateTimeUtc);
            assert!(matches!(
                read(),
                Ok(Some(Value::ChronoDateTimeUtc(Some(_))))
            ));
            bencher.iter(read);
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    statements(criterion).expect("a folder for temporary files");
    times(criterion);
}

criterion_group!(benches, all);
criterion_main!(benches);
