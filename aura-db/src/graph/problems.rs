//! Collects problems, within bounds.

use super::{GraphProblem, MAX_PROBLEMS};

/// No further problems are told once their texts have so many bytes. A place
/// repeats the names that lead to it, so a document of 16 MiB with one long
/// name would make gigabytes of them.
const MAX_TEXT: usize = 1024 * 1024;

/// The problems so far.
#[derive(Default)]
pub(super) struct Problems {
    told: Vec<GraphProblem>,
    text: usize,
    more: usize,
}

impl Problems {
    /// Adds a problem while there is room. It is only made then.
    pub(super) fn report(&mut self, problem: impl FnOnce() -> GraphProblem) {
        // `more` too: what was told stays a prefix, however short the next is.
        if self.more > 0 || self.told.len() >= MAX_PROBLEMS || self.text >= MAX_TEXT {
            self.more += 1;
            return;
        }
        let problem = problem();
        self.text += text(&problem);
        self.told.push(problem);
    }

    /// All that were told, and how many were not.
    pub(super) fn finish(mut self) -> Vec<GraphProblem> {
        if self.more > 0 {
            self.told.push(GraphProblem::More { count: self.more });
        }
        self.told
    }
}

/// How long the texts of a problem are.
fn text(problem: &GraphProblem) -> usize {
    match problem {
        GraphProblem::DuplicateName { name, .. } => name.len(),
        GraphProblem::MissingNode { place, name } => place.len() + name.len(),
        GraphProblem::AmbiguousTarget { place, id } => place.len() + id.len(),
        GraphProblem::Nameless { place } => place.len(),
        GraphProblem::Unreadable { place, expected } => place.len() + expected.len(),
        GraphProblem::Cycle { nodes } => nodes.iter().map(String::len).sum(),
        GraphProblem::More { .. } => 0,
    }
}
