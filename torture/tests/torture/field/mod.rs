//! What was reported from the field: one test a kind, done as a user did it, with services
//! and workers running, the tools that are shipped, and SQL by hand.
//!
//! To add a report, add to a `kinds!` its name, the backends where it can happen, what the
//! user did and what must hold; and an `async fn` of that name which does it. [`Field`] has
//! what users have. A kind that a test of one crate shows as well belongs there.

mod files;
mod rows;
mod schema;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aura_db::{
    Database, Document, Error, ExecutionId, ExecutionMode, NewExecution, NewUser, Outcome,
    WorkflowId,
};
use testdb::process::{Ended, Running, command};
use testdb::{Backend, TestDb};
use tokio::task::JoinHandle;

const TOOL: &str = env!("CARGO_BIN_EXE_torture-tool");

/// Registers kinds of faults; each is a module with a test for each of its backends.
macro_rules! kinds {
    ($($kind:ident on $($backend:ident)+: $did:literal, $holds:literal;)+) => {$(
        mod $kind {
            $($crate::field::kind!($kind $backend $did $holds);)+
        }
    )+};
}
pub(crate) use kinds;

macro_rules! kind {
    ($kind:ident sqlite $did:literal $holds:literal) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn sqlite() {
            $crate::field::run(testdb::Backend::Sqlite, $did, $holds, super::$kind).await;
        }
    };
    ($kind:ident postgres $did:literal $holds:literal) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn postgres() {
            $crate::field::run(testdb::Backend::Postgres, $did, $holds, super::$kind).await;
        }
    };
}
pub(crate) use kind;

/// Runs a kind on a migrated database, and says in words what doesn't hold.
pub(crate) async fn run<F: Future<Output = ()>>(
    backend: Backend,
    did: &'static str,
    holds: &'static str,
    kind: impl FnOnce(Field) -> F,
) {
    let _words = Words(did, holds);
    kind(Field {
        test: TestDb::migrated(backend).await,
    })
    .await;
}

struct Words(&'static str, &'static str);

impl Drop for Words {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}; and it doesn't hold that {}", self.0, self.1);
        }
    }
}

/// What a user has.
pub(crate) struct Field {
    pub(crate) test: TestDb,
}

impl Field {
    pub(crate) fn backend(&self) -> Backend {
        self.test.backend()
    }

    /// A service's handle, with few connections.
    pub(crate) async fn db(&self) -> Database {
        let mut config = self.test.plain_config();
        config.pool.max = 4;
        Database::connect(config).await.expect("it connects")
    }

    /// Runs SQL by hand, beside the services.
    pub(crate) async fn by_hand(&self, sql: &str) {
        let started = Instant::now();
        // A lock of SQLite's is waited for a second at a time.
        while let Err(error) = self.test.try_execute(sql).await {
            let error = error.to_string();
            let is_locked = error.contains("locked") && started.elapsed() < PATIENCE;
            assert!(is_locked, "{sql}: {error}");
        }
    }

    /// Runs the tool.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Ended {
        self.test.tool(TOOL, arguments, &[])
    }

    /// The tool finds the schema as it should be.
    pub(crate) fn is_as_expected(&self) {
        let check = self.tool(&["check"]);
        assert_eq!(check.status.code(), Some(0), "{check:?}");
    }

    /// A service that appends to a workflow's log in a process of its own, and says of each
    /// operation whether it succeeded.
    pub(crate) fn service(&self, workflow: i64) -> Running {
        let more = ["--tasks=1", "--pause=1", "--operations=2000"];
        let mut running = Running::start(&mut crate::writer(&self.test, workflow, 1, &more));
        assert!(running.hears("ready"));
        running
    }

    /// Runs a shell script with the database's settings.
    pub(crate) fn shell(&self, script: &str, more: &[(&'static str, String)]) -> Ended {
        let variables = self.test.variables().into_iter();
        let variables: Vec<_> = variables.chain(more.iter().cloned()).collect();
        let mut shell = command("sh", &self.test.work(), &variables);
        let ended = Running::start(shell.args(["-euc", script])).end();
        assert!(ended.status.success(), "{ended:?}");
        ended
    }

    /// The file of a SQLite database.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.test.folder().join("aura.db")
    }
}

/// The file with this after its name.
pub(crate) fn beside(file: &Path, suffix: &str) -> std::path::PathBuf {
    file.with_extension(format!("db{suffix}"))
}

/// A user with a workflow.
pub(crate) async fn workflow(db: &Database, name: &str) -> Result<WorkflowId, Error> {
    let user = NewUser::new(name, format!("{name}@example.org"), "correct horse battery");
    let user = db.users().create(user).await?;
    let flow = aura_db::NewWorkflow::new(name).owner(user.id);
    Ok(db.workflows().create(flow).await?.id)
}

const PATIENCE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_mins(5);

/// Queues an execution with this input.
pub(crate) async fn queue(
    db: &Database,
    flow: WorkflowId,
    input: &str,
) -> Result<ExecutionId, Error> {
    let input: Document = input.parse().expect("JSON");
    let new = NewExecution::new(flow, ExecutionMode::Manual).data(input);
    Ok(db.executions().enqueue(new).await?.id)
}

/// Workers that queue executions, take them and write their results.
pub(crate) struct Workers {
    done: Arc<AtomicBool>,
    /// How often they have tried to run one.
    tries: Arc<AtomicU32>,
    tasks: Vec<JoinHandle<(u32, Vec<String>)>>,
}

impl Workers {
    pub(crate) fn start(db: &Database, flow: WorkflowId) -> Self {
        let (done, tries) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let tasks = (0..8).map(|worker| {
            let (db, done, tries) = (db.clone(), done.clone(), tries.clone());
            tokio::spawn(async move {
                let (mut count, mut wrong) = (0, Vec::new());
                while !done.load(Ordering::Relaxed) {
                    match work(&db, flow, &format!("worker {worker}")).await {
                        Ok(()) => count += 1,
                        Err(error) => wrong.push(error),
                    }
                    tries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (count, wrong)
            })
        });
        Self {
            tasks: tasks.collect(),
            tries,
            done,
        }
    }

    /// Waits until each could have tried several times.
    pub(crate) async fn go_on(&self) {
        let tries = || self.tries.load(Ordering::Relaxed);
        let (before, started) = (tries(), Instant::now());
        while tries() < before + 64 {
            assert!(started.elapsed() < PATIENCE, "{} tries", tries());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends them, and returns how many executions they have run; nothing may have gone wrong.
    pub(crate) async fn end(self) -> u32 {
        self.done.store(true, Ordering::Relaxed);
        let mut count = 0;
        for task in self.tasks {
            let (done, wrong) = task.await.expect("no panic");
            assert!(wrong.is_empty(), "{} went wrong: {wrong:#?}", wrong.len());
            count += done;
        }
        count
    }
}

/// Queues an execution, and runs one.
async fn work(db: &Database, flow: WorkflowId, worker: &str) -> Result<(), String> {
    const INPUT: &str = r#"{"in": 1}"#;
    const RESULT: &str = r#"{"out": 2}"#;
    let said = |error: Error| format!("{worker}: {error}");
    queue(db, flow, INPUT).await.map_err(said)?;
    let executions = db.executions();
    let Some(taken) = executions.claim(worker, LEASE).await.map_err(said)? else {
        return Ok(());
    };
    let data = taken.data.as_ref().map(|data| data.as_str().to_owned());
    if data.as_deref() != Some(INPUT) || taken.error.is_some() {
        return Err(format!("{worker} was given {taken:?}"));
    }
    let outcome = Outcome::success(RESULT.parse().ok());
    let ended = executions.finish(&taken, outcome).await;
    let ended = ended.map_err(said)?;
    match ended.data {
        Some(data) if data.as_str() == RESULT => Ok(()),
        data => Err(format!("{worker} has written {data:?}")),
    }
}
