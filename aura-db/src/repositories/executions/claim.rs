//! What a worker holds.

use entity::{ExecutionId, executions};
use serde::{Deserialize, Serialize};

/// What a worker holds: an execution, by this claim of it and by no other. A worker that has
/// lost it, and has been given it again, can't write with the earlier claim. It can be sent to
/// another process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The execution.
    pub execution: ExecutionId,
    /// The worker.
    pub worker: String,
    /// How often the execution had been claimed then.
    pub number: i64,
    /// Which attempt it is; the first is 1.
    pub attempt: i64,
}

/// The claim that has returned this execution.
impl From<&executions::Model> for Claim {
    fn from(execution: &executions::Model) -> Self {
        Self {
            execution: execution.id,
            worker: execution.worker_id.clone().unwrap_or_default(),
            number: execution.claim_no,
            attempt: execution.attempts,
        }
    }
}

impl From<&Claim> for Claim {
    fn from(claim: &Claim) -> Self {
        claim.clone()
    }
}
