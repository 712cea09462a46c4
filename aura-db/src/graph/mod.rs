//! The graph of a workflow, read from its documents, and what is wrong in it.
//!
//! Documents are people's work and come from elsewhere: half-finished, edited
//! by hand, imported. [`WorkflowGraph::parse`] reads what it can, changes
//! nothing, and reports the rest. It knows three shapes, in any mixture:
//!
//! * an object of nodes by name, with lists of targets;
//! * arrays of nodes and of connections with `source` and `target`;
//! * n8n's: an array of nodes, and connections by node, output kind and output.
//!
//! ```
//! use aura_db::{GraphProblem, WorkflowGraph};
//! use serde_json::json;
//!
//! let nodes = json!([{"id": "1", "name": "Start"}, {"id": "2", "name": "Mail"}]);
//! let connections = json!({"Start": {"main": [[{"node": "2"}, {"node": "Gone"}], null]}});
//! let graph = WorkflowGraph::parse(Some(&nodes), Some(&connections));
//! assert_eq!(graph.nodes[graph.edges[0].to].name, "Mail");
//! assert!(matches!(&graph.problems[..], [GraphProblem::MissingNode { name, .. }] if name == "Gone"));
//! assert!(!graph.is_sound());
//! ```

mod cycles;
mod problems;
mod shapes;
#[cfg(test)]
mod tests;

use std::fmt;

use entity::{Document, DocumentError};
use serde::Serialize;
use serde_json::Value;

/// The nodes and connections of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct WorkflowGraph {
    /// The nodes, as they stand in the document.
    pub nodes: Vec<GraphNode>,
    /// The connections between nodes that exist.
    pub edges: Vec<GraphEdge>,
    /// What is wrong, errors first; at most [`MAX_PROBLEMS`], fewer if they
    /// are long, and a count of the others.
    pub problems: Vec<GraphProblem>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GraphNode {
    /// What connections call it; its id when it has no name.
    pub name: String,
    /// What connections may call it too.
    pub id: Option<String>,
    /// Its `type`.
    pub kind: Option<String>,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GraphEdge {
    /// Where it comes from: an index into the nodes.
    pub from: usize,
    /// Where it leads.
    pub to: usize,
    /// The kind of output: `main`, unless the document says otherwise.
    pub output: String,
    /// Which output of this kind, from 0.
    pub index: usize,
}

/// More problems of a graph are only counted.
pub const MAX_PROBLEMS: usize = 1_000;

/// Something wrong in a graph. Places are JSON pointers (RFC 6901) that begin
/// with `/nodes` or `/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
#[non_exhaustive]
pub enum GraphProblem {
    /// Several nodes have this name; connections by name go to the first.
    DuplicateName {
        /// The name.
        name: String,
        /// How many nodes have it.
        count: usize,
    },
    /// A connection from or to a node that doesn't exist.
    MissingNode {
        /// Where it is named.
        place: String,
        /// What it is called there.
        name: String,
    },
    /// A node with neither name nor id, which nothing can be connected to.
    Nameless {
        /// Where it stands.
        place: String,
    },
    /// A connection from or to an id that several nodes have: the first is meant.
    AmbiguousTarget {
        /// Where it stands.
        place: String,
        /// The id.
        id: String,
    },
    /// A part that is of no shape that is known.
    Unreadable {
        /// Where it stands.
        place: String,
        /// What could stand there.
        expected: String,
    },
    /// These nodes lead back to themselves. Loops are allowed: a mark, no
    /// error.
    Cycle {
        /// Their names, in the order of the document.
        nodes: Vec<String>,
    },
    /// So many further problems.
    More {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for GraphProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateName { name, count } => {
                write!(
                    f,
                    "{count} nodes are called `{name}`: give each a name of its own"
                )
            }
            Self::MissingNode { place, name } => {
                write!(f, "{place} names the node `{name}`, which doesn't exist")
            }
            Self::Nameless { place } => write!(f, "the node at {place} has neither name nor id"),
            Self::AmbiguousTarget { place, id } => {
                write!(f, "{place} names the id `{id}`, which several nodes have")
            }
            Self::Unreadable { place, expected } => write!(f, "{place} is not {expected}"),
            Self::Cycle { nodes } => write!(f, "a loop through {}", nodes.join(", ")),
            Self::More { count } => write!(f, "and {count} further problems"),
        }
    }
}

impl WorkflowGraph {
    /// Reads the documents. Never fails: what can't be read is a problem. A
    /// missing document is a draft's, and no problem.
    #[must_use]
    pub fn parse(nodes: Option<&Value>, connections: Option<&Value>) -> Self {
        Self::of(Ok(nodes), Ok(connections))
    }

    /// Parses the documents and reads them like [`WorkflowGraph::parse`]. One
    /// that holds what Rust has no type for, such as the number 1e400, is a
    /// problem too.
    #[must_use]
    pub fn read(nodes: Option<&Document>, connections: Option<&Document>) -> Self {
        let parsed = |document: Option<&Document>| document.map(Document::json).transpose();
        let (nodes, connections) = (parsed(nodes), parsed(connections));
        Self::of(
            nodes.as_ref().map(Option::as_ref),
            connections.as_ref().map(Option::as_ref),
        )
    }

    fn of(
        nodes: Result<Option<&Value>, &DocumentError>,
        connections: Result<Option<&Value>, &DocumentError>,
    ) -> Self {
        let mut reader = shapes::Reader::default();
        match nodes {
            Ok(nodes) => reader.nodes(nodes),
            Err(error) => reader.unparsed("nodes", error),
        }
        match connections {
            Ok(connections) => reader.connections(connections),
            Err(error) => reader.unparsed("connections", error),
        }
        let (nodes, edges, mut problems) = reader.finish();
        for cycle in cycles::find(nodes.len(), &edges) {
            problems.report(|| GraphProblem::Cycle {
                nodes: cycle.iter().map(|node| nodes[*node].name.clone()).collect(),
            });
        }
        Self {
            nodes,
            edges,
            problems: problems.finish(),
        }
    }

    /// Whether nothing is wrong. Loops are not wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        // Errors come first, so those that are only counted follow another.
        self.problems.iter().all(|problem| {
            matches!(
                problem,
                GraphProblem::Cycle { .. } | GraphProblem::More { .. }
            )
        })
    }
}
