//! What is said to the process of a peer and back, a line of JSON each. The
//! peers in other languages speak it too.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::peer::Setup;
use crate::workload::Operation;

/// To the peer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Open this database. The first of all.
    Open(Setup),
    /// Whose token is it? The second of a cold start.
    First { session: i64 },
    /// Make ready what can be made ready before any row is written.
    Prepare {},
    /// Do every operation once and tell the answers.
    Check {},
    /// Do this for so long.
    Run(Run),
}

/// How an operation is run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Run {
    pub operation: Operation,
    pub tasks: u32,
    pub seconds: f64,
    pub seed: u64,
}

/// From the peer, one for each request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    /// It is open.
    Opened {},
    /// The id of the user.
    User(i64),
    /// It is ready.
    Prepared {},
    /// The answers, by operation.
    Answers(Value),
    /// What the run came to.
    Measured(Measured),
    /// What went wrong.
    Failed(String),
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Calls that were finished.
    pub calls: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Half of the calls took at most so long.
    pub p50_us: f64,
    /// 99 of 100 calls took at most so long.
    pub p99_us: f64,
}
