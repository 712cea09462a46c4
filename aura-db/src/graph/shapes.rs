//! Reads the three shapes.

use std::collections::HashMap;
use std::fmt::Display;

use entity::DocumentError;
use serde_json::{Map, Value};

use super::problems::Problems;
use super::{GraphEdge, GraphNode, GraphProblem};

/// What is read so far.
#[derive(Default)]
pub(super) struct Reader {
    nodes: Vec<GraphNode>,
    edges: Vec<GraphEdge>,
    problems: Problems,
    names: HashMap<String, usize>,
    ids: HashMap<String, Id>,
}

/// Which node an id means.
struct Id {
    first: usize,
    shared: bool,
}

/// Where a value stands. Only made text when it is told.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root(&'a str),
    Member(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(name) => write!(f, "/{name}"),
            Self::Member(within, name) => {
                write!(f, "{within}/{}", name.replace('~', "~0").replace('/', "~1"))
            }
            Self::Element(within, index) => write!(f, "{within}/{index}"),
        }
    }
}

/// One output that connections leave by.
#[derive(Clone, Copy)]
struct Output<'a> {
    from: Option<usize>,
    kind: &'a str,
    index: usize,
}

/// The longest kind of output, in bytes. Every edge repeats it, so one long
/// kind with many targets would need the square of the document's size.
const MAX_KIND: usize = 100;

const TARGET: &str = "the name or id of a node, or an object with a `node` or `target`";

impl Reader {
    pub(super) fn finish(self) -> (Vec<GraphNode>, Vec<GraphEdge>, Problems) {
        (self.nodes, self.edges, self.problems)
    }

    pub(super) fn unparsed(&mut self, document: &str, error: &DocumentError) {
        let expected = format!("a document that can be parsed ({error})");
        self.unreadable(Place::Root(document), &expected);
    }

    pub(super) fn nodes(&mut self, document: Option<&Value>) {
        let root = Place::Root("nodes");
        match document {
            None | Some(Value::Null) => {}
            Some(Value::Object(nodes)) => {
                for (name, node) in nodes {
                    self.node(Place::Member(&root, name), Some(name), node);
                }
            }
            Some(Value::Array(nodes)) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.node(Place::Element(&root, index), None, node);
                }
            }
            Some(_) => self.unreadable(root, "an object or an array of nodes"),
        }
        self.duplicates();
    }

    fn node(&mut self, place: Place<'_>, key: Option<&str>, node: &Value) {
        let empty = Map::new();
        let members = node.as_object().unwrap_or_else(|| {
            self.unreadable(place, "an object that describes a node");
            &empty
        });
        let member = |name: &str| members.get(name).and_then(word);
        let id = member("id");
        let title = member("name").filter(|name| !name.is_empty());
        // In an object the key is what connections speak of.
        let Some(name) = key.map(str::to_owned).or(title.clone()).or(id.clone()) else {
            if node.is_object() {
                self.problems.report(|| GraphProblem::Nameless {
                    place: place.to_string(),
                });
            }
            return;
        };
        let index = self.nodes.len();
        self.names.entry(name.clone()).or_insert(index);
        // Where keys are ids, connections in n8n's shape speak of the name.
        let title = title.filter(|_| key.is_some());
        for id in id.iter().chain(&title) {
            let new = Id {
                first: index,
                shared: false,
            };
            let id = self.ids.entry(id.clone()).or_insert(new);
            id.shared |= id.first != index;
        }
        self.nodes.push(GraphNode {
            name,
            id,
            kind: member("type"),
        });
    }

    fn duplicates(&mut self) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for node in &self.nodes {
            *counts.entry(&node.name).or_default() += 1;
        }
        for node in &self.nodes {
            // Taken out, so that a name is told once.
            let count = counts.remove(node.name.as_str()).unwrap_or_default();
            if count > 1 {
                self.problems.report(|| GraphProblem::DuplicateName {
                    name: node.name.clone(),
                    count,
                });
            }
        }
    }

    pub(super) fn connections(&mut self, document: Option<&Value>) {
        let root = Place::Root("connections");
        match document {
            None | Some(Value::Null) => {}
            Some(Value::Object(sources)) => {
                for (name, targets) in sources {
                    let place = Place::Member(&root, name);
                    let from = self.resolve(place, name);
                    self.outputs(place, from, targets);
                }
            }
            Some(Value::Array(connections)) => {
                for (index, connection) in connections.iter().enumerate() {
                    self.connection(Place::Element(&root, index), connection);
                }
            }
            Some(_) => self.unreadable(root, "an object or an array of connections"),
        }
    }

    /// All that leaves one node: lists of targets by kind of output, or a
    /// single list.
    fn outputs(&mut self, place: Place<'_>, from: Option<usize>, targets: &Value) {
        let output = |kind| Output {
            from,
            kind,
            index: 0,
        };
        match targets {
            // A single target, unless it lists outputs by their kinds.
            Value::Object(kinds) if reference(kinds).is_none() => {
                for (kind, targets) in kinds {
                    let place = Place::Member(&place, kind);
                    if kind.len() > MAX_KIND {
                        self.unreadable(place, "a kind of output: it is too long");
                        continue;
                    }
                    self.targets(place, output(kind), targets);
                }
            }
            targets => self.targets(place, output("main"), targets),
        }
    }

    /// A target, a list of them, or a list of lists, one for each output.
    fn targets(&mut self, place: Place<'_>, output: Output<'_>, targets: &Value) {
        let Value::Array(targets) = targets else {
            return self.target(place, output, targets);
        };
        for (index, target) in targets.iter().enumerate() {
            let place = Place::Element(&place, index);
            let Value::Array(of_output) = target else {
                self.target(place, output, target);
                continue;
            };
            let output = Output { index, ..output };
            for (index, target) in of_output.iter().enumerate() {
                self.target(Place::Element(&place, index), output, target);
            }
        }
    }

    fn target(&mut self, place: Place<'_>, output: Output<'_>, target: &Value) {
        let name = match target {
            // An output that leads nowhere.
            Value::Null => return,
            Value::Object(members) => reference(members),
            target => word(target),
        };
        let Some(name) = name else {
            return self.unreadable(place, TARGET);
        };
        if let (Some(to), Some(from)) = (self.resolve(place, &name), output.from) {
            self.edges.push(GraphEdge {
                from,
                to,
                output: output.kind.to_owned(),
                index: output.index,
            });
        }
    }

    /// One connection of a list: from `source` to `target`.
    fn connection(&mut self, place: Place<'_>, connection: &Value) {
        let end = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let end = connection.get(name)?;
                let word = word(end).or_else(|| reference(end.as_object()?))?;
                Some((name, word))
            })
        };
        let (Some((source, from)), Some((target, to))) =
            (end(["source", "from"]), end(["target", "to"]))
        else {
            return self.unreadable(place, "an object with a `source` and a `target`");
        };
        let from = self.resolve(Place::Member(&place, source), &from);
        let to = self.resolve(Place::Member(&place, target), &to);
        if let (Some(from), Some(to)) = (from, to) {
            let output = connection.get("sourceHandle").and_then(word);
            self.edges.push(GraphEdge {
                from,
                to,
                output: output.unwrap_or_else(|| "main".to_owned()),
                index: 0,
            });
        }
    }

    /// Which node this is. By name first: names are what n8n connects by, and
    /// an id that is another node's name is an accident.
    fn resolve(&mut self, place: Place<'_>, name: &str) -> Option<usize> {
        if let Some(node) = self.names.get(name) {
            return Some(*node);
        }
        let Some(id) = self.ids.get(name) else {
            self.problems.report(|| GraphProblem::MissingNode {
                place: place.to_string(),
                name: name.to_owned(),
            });
            return None;
        };
        if id.shared {
            self.problems.report(|| GraphProblem::AmbiguousTarget {
                place: place.to_string(),
                id: name.to_owned(),
            });
        }
        Some(id.first)
    }

    fn unreadable(&mut self, place: Place<'_>, expected: &str) {
        self.problems.report(|| GraphProblem::Unreadable {
            place: place.to_string(),
            expected: expected.to_owned(),
        });
    }
}

/// A name or an id; some tools number their nodes.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(word) => Some(word.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The node that an object refers to.
fn reference(members: &Map<String, Value>) -> Option<String> {
    ["node", "target", "to", "nodeId"]
        .into_iter()
        .find_map(|name| members.get(name).and_then(word))
}
