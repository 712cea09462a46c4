//! Several processes work through a queue, are killed, stall, and have clocks that are wrong.
//! Each execution ends once, and none is written to by who had lost it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aura_db::{Clock, SystemClock};
use testdb::process::{Running, asked, command, moment};
use testdb::{Backend, TestDb};

use crate::{pick, workflow};

testdb::both!(migrated: each_execution_ends_once);

const WORKER: &str = env!("CARGO_BIN_EXE_torture-worker");

/// Whose executions run one at a time.
const LIMITED: i64 = 1;

/// How often each may be begun.
const ATTEMPTS: i64 = 4;

/// What the witness has of an execution.
#[derive(Debug, Default)]
struct Seen {
    claims: Vec<i64>,
    done: Vec<i64>,
    failed: Vec<i64>,
    waits: Vec<i64>,
    lost: u32,
}

/// What the database has of it.
#[derive(Debug)]
struct Row {
    id: i64,
    status: String,
    attempts: i64,
    claim_no: i64,
    /// The claim that wrote the result.
    result: i64,
    /// Attempts that are kept: the claims of those that failed, and of those that lost their
    /// worker.
    failed: Vec<i64>,
    lost: Vec<i64>,
}

async fn each_execution_ends_once(test: TestDb) {
    // For hours of it: more of both.
    let is_long = asked("AURA_TORTURE").is_some();
    let (processes, count) = if is_long { (16, 100_000) } else { (4, 3_000) };
    let flow = workflow(&test).await;
    enqueue(&test, flow, count).await;
    let witness = test.folder().join("witness");
    let started = Instant::now();
    let kills = run(&test, &witness, processes).await;
    let took = started.elapsed();
    let seen = read(&witness);
    let rows = rows(&test).await;
    assert_eq!(rows.len(), usize::try_from(count).expect("a number"));
    let wrong = wrong(&rows, &seen, kills);
    assert!(
        wrong.is_empty(),
        "{} of {kills} kills: {wrong:#?}",
        wrong.len()
    );
    assert_eq!(times_that_are_wrong(&test).await, 0);
    let is = |status: &str| rows.iter().filter(|row| row.status == status).count();
    let (dead, lost) = (is("dead"), seen.values().map(|seen| seen.lost).sum::<u32>());
    assert!(kills > 0 && dead > 0 && lost > 0, "{kills} {dead} {lost}");
    println!(
        "{:?}: {processes} processes, {kills} kills, {} executions ended in {took:?}: {dead} \
         dead, {lost} writes of who had lost them refused",
        test.backend(),
        rows.len()
    );
}

async fn enqueue(test: &TestDb, flow: i64, count: i64) {
    let numbers = match test.backend() {
        Backend::Sqlite => format!(
            "(WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {count}) \
             SELECT n FROM t)"
        ),
        Backend::Postgres => format!("generate_series(1, {count}) AS n"),
    };
    test.execute(&format!(
        "INSERT INTO executions (workflow_id, owner_id, workflow_version, mode, status, \
         max_attempts) SELECT {flow}, n % 3, 1, 'cron', 'queued', {ATTEMPTS} FROM {numbers}"
    ))
    .await;
    test.execute(&format!(
        "INSERT INTO execution_limits (owner_id, max_running) VALUES ({LIMITED}, 1)"
    ))
    .await;
}

/// Runs workers until all is done, and kills some. Returns how many were ended.
async fn run(test: &TestDb, witness: &Path, processes: u32) -> u32 {
    let back_at = SystemClock.now() + Duration::from_secs(2);
    let start = |number: u32| {
        Running::start(&mut worker(
            test,
            witness,
            number,
            back_at.timestamp_micros(),
        ))
    };
    let mut running: Vec<_> = (0..processes).map(start).collect();
    let (mut kills, mut round, mut seen) = (0, 0, 0);
    loop {
        tokio::time::sleep(Duration::from_millis(200).mul_f64(0.5 + moment(round))).await;
        let victim = pick(round, running.len());
        round += 1;
        let number = u32::try_from(victim).expect("a number");
        let limited = running_of(test, LIMITED).await;
        assert!(limited <= 1, "{limited} run at once");
        seen += limited;
        // In the end none is killed, so that it comes.
        let is_over = left(test).await == 0;
        if !is_over {
            let killed = std::mem::replace(&mut running[victim], start(number));
            let ended = killed.kill();
            assert!(
                ended.status.code().is_none_or(|code| code == 0),
                "{ended:?}"
            );
            kills += 1;
        }
        for (number, worker) in (0..).zip(&mut running) {
            if worker.has_ended() {
                let ended = std::mem::replace(worker, start(number)).end();
                if !ended.status.success() {
                    assert!(ended.stderr.is_empty(), "{ended:?}");
                    kills += 1;
                }
            }
        }
        if is_over {
            break;
        }
    }
    for worker in running {
        let ended = worker.end();
        assert!(ended.status.success(), "{ended:?}");
    }
    assert!(seen > 0, "none was seen to run");
    kills
}

/// On PostgreSQL the clocks of two are ten minutes apart; on SQLite, where all have the clock
/// of their machine, it is set back.
fn worker(test: &TestDb, witness: &Path, number: u32, back_at: i64) -> Command {
    let mut worker = command(WORKER, &test.work(), &test.variables());
    worker.arg(format!("--witness={}", witness.display()));
    match test.backend() {
        Backend::Postgres => worker.arg(format!("--ahead={}", [0, 600, -600][number as usize % 3])),
        Backend::Sqlite => worker.arg(format!("--back-at={back_at}")),
    };
    worker
}

async fn left(test: &TestDb) -> u64 {
    let sql = "SELECT CAST(count(*) AS text) AS line FROM executions \
         WHERE status IN ('queued', 'running', 'waiting')";
    test.lines(sql).await[0].parse().expect("a number")
}

async fn running_of(test: &TestDb, owner: i64) -> u64 {
    let sql = format!(
        "SELECT CAST(count(*) AS text) AS line FROM executions \
         WHERE status = 'running' AND owner_id = {owner}"
    );
    test.lines(&sql).await[0].parse().expect("a number")
}

/// How many executions end before they begin, and, where all see the server's time, how many
/// rows have another.
async fn times_that_are_wrong(test: &TestDb) -> u64 {
    let server = match test.backend() {
        Backend::Sqlite => "",
        Backend::Postgres => {
            "OR e.started_at < e.created_at OR e.finished_at > statement_timestamp() \
             OR EXISTS (SELECT 1 FROM execution_attempts AS a WHERE a.execution_id = e.id \
                 AND (a.ended_at < e.created_at OR a.ended_at > statement_timestamp()))"
        }
    };
    let sql = format!(
        "SELECT CAST(count(*) AS text) AS line FROM executions AS e \
         WHERE e.finished_at < e.started_at {server}"
    );
    test.lines(&sql).await[0].parse().expect("a number")
}

fn read(witness: &Path) -> BTreeMap<i64, Seen> {
    let text = std::fs::read_to_string(witness).expect("a witness");
    let mut seen = BTreeMap::<i64, Seen>::new();
    for line in text.lines() {
        let parts: Vec<_> = line.split(' ').collect();
        let [what, id, claim] = parts[..] else {
            panic!("{line:?}")
        };
        let [id, claim] = [id, claim].map(|number| number.parse().expect("a number"));
        let seen = seen.entry(id).or_default();
        match what {
            "claim" => seen.claims.push(claim),
            "done" => seen.done.push(claim),
            "failed" => seen.failed.push(claim),
            "waits" => seen.waits.push(claim),
            "lost" => seen.lost += 1,
            other => panic!("{other:?}"),
        }
    }
    seen
}

async fn rows(test: &TestDb) -> Vec<Row> {
    let result = match test.backend() {
        Backend::Sqlite => "json_extract(e.data, '$.claim')",
        Backend::Postgres => "CAST(e.data AS json) ->> 'claim'",
    };
    let listed = |condition: &str| {
        let list = match test.backend() {
            Backend::Sqlite => "group_concat(a.claim_no, ',')",
            Backend::Postgres => "string_agg(CAST(a.claim_no AS text), ',')",
        };
        format!(
            "coalesce((SELECT {list} FROM execution_attempts AS a \
             WHERE a.execution_id = e.id AND a.reason {condition} '{{\"code\"%'), '')"
        )
    };
    let sql = format!(
        "SELECT e.id || ' ' || e.status || ' ' || e.attempts || ' ' || e.claim_no || ' ' \
         || coalesce({result}, '0') || ' ' || {} || ' ' || {} AS line FROM executions AS e \
         ORDER BY e.id",
        listed("NOT LIKE"),
        listed("LIKE"),
    );
    let lines = test.lines(&sql).await;
    let rows = lines.iter().map(|line| {
        let parts: Vec<_> = line.split(' ').collect();
        let [id, status, attempts, claim_no, result, failed, lost] = parts[..] else {
            panic!("{line:?}")
        };
        let number = |text: &str| text.parse::<i64>().expect("a number");
        let numbers = |text: &str| {
            let numbers = text.split(',').filter(|text| !text.is_empty());
            numbers.map(number).collect()
        };
        Row {
            id: number(id),
            status: status.to_owned(),
            attempts: number(attempts),
            claim_no: number(claim_no),
            result: number(result),
            failed: numbers(failed),
            lost: numbers(lost),
        }
    });
    rows.collect()
}

/// What is wrong, with `kills` workers ended. Who is killed between a commit and its line in the
/// witness leaves one line out.
fn wrong(rows: &[Row], seen: &BTreeMap<i64, Seen>, kills: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut unknown = 0;
    let none = Seen::default();
    for row in rows {
        let seen = seen.get(&row.id).unwrap_or(&none);
        let mut check = |is_right: bool, what: &str| {
            if !is_right {
                wrong.push(format!("{what}: {row:?} {seen:?}"));
            }
        };
        let is_done = row.status == "success";
        check(is_done || row.status == "dead", "it has not ended");
        // Each claim has a number of its own, and goes to one worker.
        let mut claims = seen.claims.clone();
        claims.sort_unstable();
        claims.dedup();
        check(claims.len() == seen.claims.len(), "two had one claim");
        check(
            claims
                .iter()
                .all(|claim| (1..=row.claim_no).contains(claim)),
            "a claim that the database doesn't know",
        );
        unknown += row.claim_no - i64::try_from(claims.len()).unwrap_or(0);
        // It ended once, by the last claim.
        let by_last = [row.claim_no];
        check(
            seen.done.is_empty() || is_done && seen.done == by_last,
            "a claim that was over has ended it",
        );
        check(!is_done || row.result == row.claim_no, "another's result");
        unknown += i64::from(is_done && seen.done.is_empty());
        // What failed is kept under the claim that failed, and a lost one writes nothing.
        check(
            seen.failed.iter().all(|claim| row.failed.contains(claim)),
            "a failure that isn't kept",
        );
        let accepted = [&seen.failed, &seen.waits, &seen.done];
        let is_accepted = |claim: &i64| accepted.iter().any(|list| list.contains(claim));
        check(
            !row.lost.iter().any(is_accepted),
            "who had lost it has written",
        );
        // The attempts add up: each failed, lost its worker, or was the last and succeeded.
        let kept = i64::try_from(row.failed.len() + row.lost.len()).unwrap_or(0);
        check(
            row.attempts == kept + i64::from(is_done),
            "attempts don't add up",
        );
        check(row.attempts <= ATTEMPTS, "more attempts than it may have");
        check(
            is_done || row.attempts == ATTEMPTS,
            "dead before its last attempt",
        );
        // What was given back doesn't count.
        let given_back = row.claim_no - row.attempts;
        let waits = i64::try_from(seen.waits.len()).unwrap_or(0);
        check(waits <= given_back, "what was given back counted");
        unknown += given_back - waits;
        let failed = row.failed.len().saturating_sub(seen.failed.len());
        unknown += i64::try_from(failed).unwrap_or(0);
    }
    if unknown > i64::from(kills) {
        wrong.push(format!(
            "{unknown} claims and ends that the witness doesn't know"
        ));
    }
    wrong
}

#[test]
fn what_workers_do_wrong_is_seen() {
    let row = || Row {
        id: 1,
        status: "success".to_owned(),
        attempts: 2,
        claim_no: 3,
        result: 3,
        failed: vec![1],
        lost: vec![],
    };
    let seen = || Seen {
        claims: vec![1, 2, 3],
        done: vec![3],
        failed: vec![1],
        waits: vec![2],
        lost: 0,
    };
    let wrong = |row: Row, seen: Seen| wrong(&[row], &[(1, seen)].into(), 0).len();
    assert_eq!(wrong(row(), seen()), 0);
    for (row, seen) in [
        (
            row(),
            Seen {
                done: vec![2],
                ..seen()
            },
        ),
        (
            row(),
            Seen {
                done: vec![2, 3],
                ..seen()
            },
        ),
        (
            row(),
            Seen {
                claims: vec![1, 2, 3, 3],
                ..seen()
            },
        ),
        (
            row(),
            Seen {
                claims: vec![1, 2],
                ..seen()
            },
        ),
        (
            row(),
            Seen {
                failed: vec![1, 2],
                ..seen()
            },
        ),
        (
            Row {
                status: "running".to_owned(),
                ..row()
            },
            seen(),
        ),
        (
            Row {
                attempts: 3,
                ..row()
            },
            seen(),
        ),
        (
            Row {
                lost: vec![2],
                attempts: 3,
                ..row()
            },
            seen(),
        ),
        (Row { result: 1, ..row() }, seen()),
        (
            Row {
                claim_no: 4,
                ..row()
            },
            seen(),
        ),
    ] {
        let shown = format!("{row:?} {seen:?}");
        assert!(wrong(row, seen) > 0, "{shown}");
    }
}
