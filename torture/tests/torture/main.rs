//! Each promise of docs/reliability.md that takes force to test: a short form
//! that each change must pass, and `AURA_TORTURE=600` for so many seconds of
//! each.

mod bank;
mod disk;
mod documents;
mod field;
mod kills;
mod logins;
mod memory;
mod network;
mod power;
mod restart;
mod visible;
mod wal;
mod workers;
mod zones;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aura_db::{Database, NewUser, NewWorkflow};
use testdb::process::{asked, command};
use testdb::{Backend, TestDb};
use torture::Operation;

const WRITER: &str = env!("CARGO_BIN_EXE_torture");

/// So many rounds, or as many as fit into the time that was asked for.
fn rounds(short: u32) -> impl Iterator<Item = u32> {
    let seconds = asked("AURA_TORTURE").map(|seconds| seconds.parse().expect("seconds"));
    let started = Instant::now();
    let asked = Duration::from_secs(seconds.unwrap_or(0));
    (0..).take_while(move |round| *round < short || started.elapsed() < asked)
}

/// A number below `of`: the `index`th of a sequence that looks random and is the
/// same every time, like [`testdb::process::moment`].
fn pick(index: u32, of: usize) -> usize {
    let part = u64::from(index.wrapping_mul(0x9E37_79B9));
    let of = u64::try_from(of).expect("a number");
    usize::try_from((part * of) >> 32).expect("it is below")
}

/// A workflow to write entries of.
async fn workflow(test: &TestDb) -> i64 {
    let db = Database::connect(test.config()).await.expect("it connects");
    let ada = NewUser::new("Ada", "ada@example.org", "correct horse battery");
    let ada = db.users().create(ada).await.expect("created");
    let flow = NewWorkflow::new("w").owner(ada.id);
    let flow = db.workflows().create(flow).await.expect("created");
    db.close().await;
    flow.id.0
}

/// The writer's arguments.
fn arguments(workflow: i64, run: u32, more: &[&str]) -> Vec<String> {
    let own = [format!("--workflow={workflow}"), format!("--run={run}")];
    let more = more.iter().map(|argument| (*argument).to_owned());
    own.into_iter().chain(more).collect()
}

fn writer(test: &TestDb, workflow: i64, run: u32, more: &[&str]) -> Command {
    let mut writer = command(WRITER, &test.work(), &test.variables());
    writer.args(arguments(workflow, run, more));
    writer
}

/// The writer under strace, with these options of strace.
fn traced(test: &TestDb, options: &[&str], writer: &[String]) -> Command {
    let mut strace = command("strace", &test.work(), &test.variables());
    strace.args(["-f", "-qq"]).args(options);
    strace.arg(WRITER).args(writer);
    strace
}

/// What the writer was told has succeeded.
fn told(log: &str) -> Vec<Operation> {
    let whole = log
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    whole.filter_map(|line| line.parse().ok()).collect()
}

/// What is wrong with what was found of a run: what was told and is not there,
/// and what is there by half or more than once.
fn wrong(told: &[Operation], messages: &[String]) -> Vec<String> {
    let mut found: BTreeMap<Operation, Vec<u32>> = BTreeMap::new();
    for message in messages {
        let parts = message
            .split_once(':')
            .and_then(|(_, rest)| rest.rsplit_once(':'));
        let (operation, index) = parts.expect("a message of the writer's");
        let operation = operation.parse().expect("an operation");
        let index = index.parse().expect("an index");
        found.entry(operation).or_default().push(index);
    }
    let lost = told
        .iter()
        .filter(|operation| !found.contains_key(operation))
        .map(|operation| format!("{operation} was told, and is not there"));
    let broken = found.iter().filter_map(|(operation, indexes)| {
        let mut indexes = indexes.clone();
        indexes.sort_unstable();
        let whole = indexes.iter().copied().eq(0..operation.entries());
        (!whole).then(|| format!("of {operation} there are {indexes:?}"))
    });
    lost.chain(broken).collect()
}

/// The messages of a run; on SQLite through a connection of its own, the first
/// after whatever happened, and after a look at the whole file.
async fn messages(test: &TestDb, run: u32) -> Vec<String> {
    let sql = format!("SELECT message AS line FROM logs WHERE message LIKE '{run}:%'");
    match test.backend() {
        Backend::Sqlite => messages_of(&test.folder().join("aura.db"), &sql),
        Backend::Postgres => test.lines(&sql).await,
    }
}

/// What is in the file, which is whole.
fn messages_of(file: &Path, sql: &str) -> Vec<String> {
    let file = rusqlite::Connection::open(file).expect("it opens");
    let lines = |sql: &str| -> Vec<String> {
        let mut statement = file.prepare(sql).expect("a query");
        let rows = statement.query_map([], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("text")
    };
    assert_eq!(lines("PRAGMA integrity_check"), ["ok"]);
    let broken = lines("SELECT \"table\" FROM pragma_foreign_key_check");
    assert!(broken.is_empty(), "{broken:?}");
    lines(sql)
}

#[test]
fn what_is_wrong_is_seen() {
    let operation = |number| Operation { task: 2, number };
    let [alone, many] = [operation(0), operation(3)];
    let all = |operation: Operation| {
        (0..operation.entries()).map(move |index| format!("7:{operation}:{index}"))
    };
    let whole: Vec<String> = all(alone).chain(all(many)).collect();
    let wrong = |messages: &[String]| wrong(&[alone, many], messages);
    assert_eq!(wrong(&whole), Vec::<String>::new());
    assert_eq!(wrong(&whole[1..]), ["2:0 was told, and is not there"]);
    assert_eq!(wrong(&whole[..4]), ["of 2:3 there are [0, 1, 2]"]);
    let twice: Vec<String> = all(alone).chain(whole.clone()).collect();
    assert_eq!(wrong(&twice), ["of 2:0 there are [0, 0]"]);
    assert_eq!(told("ready\n2:0\n2:3\nfailed 2:4 x\n2:"), [alone, many]);
}
