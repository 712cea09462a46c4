use proptest::prelude::*;
use serde_json::{Value, json};

use super::{GraphProblem, MAX_PROBLEMS, WorkflowGraph};

/// The edges as words, and the problems as people read them.
fn read(nodes: &Value, connections: &Value) -> (Vec<String>, Vec<String>) {
    let graph = WorkflowGraph::parse(Some(nodes), Some(connections));
    let name = |node: usize| &graph.nodes[node].name;
    let edges = graph
        .edges
        .iter()
        .map(|e| format!("{} {}{} {}", name(e.from), e.output, e.index, name(e.to)));
    let edges = edges.collect();
    let problems = graph.problems.iter().map(ToString::to_string).collect();
    (edges, problems)
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn nodes_by_name_with_lists_of_targets() {
    let nodes = json!({"Start": {"type": "trigger"}, "Mail": {}, "End": {"id": 7}});
    let connections = json!({"Start": ["Mail", {"node": "End"}], "Mail": "7", "End": []});
    let edges = ["Start main0 Mail", "Start main0 End", "Mail main0 End"].map(str::to_owned);
    assert_eq!(read(&nodes, &connections), (edges.to_vec(), none()));
    let graph = WorkflowGraph::parse(Some(&nodes), None);
    assert_eq!(graph.nodes[0].kind.as_deref(), Some("trigger"));
    assert!(graph.is_sound());
}

#[test]
fn arrays_of_nodes_and_connections() {
    let nodes = json!([{"id": "a"}, {"id": "b", "name": "B"}, {"name": "C"}]);
    let connections = json!([
        {"source": "a", "target": "b", "sourceHandle": "yes"},
        {"from": "B", "to": {"node": "C"}},
    ]);
    let edges = ["a yes0 B", "B main0 C"].map(str::to_owned);
    assert_eq!(read(&nodes, &connections), (edges.to_vec(), none()));
}

#[test]
fn n8n_by_name_or_id_with_kinds_and_nulls() {
    let nodes = json!([
        {"id": "1", "name": "Start", "type": "t"}, {"id": "2", "name": "If"}, {"id": "3", "name": "Tool"},
    ]);
    let connections = json!({
        "Start": {"main": [[{"node": "If", "type": "main", "index": 0}]]},
        "2": {"main": [null, [null, {"node": "1"}], []], "error": null},
        "Tool": {"ai_tool": [[{"node": "2", "type": "ai_tool", "index": 0}]]},
    });
    let edges = ["Start main0 If", "If main1 Start", "Tool ai_tool0 If"].map(str::to_owned);
    let (found, problems) = read(&nodes, &connections);
    assert_eq!(found, edges);
    assert_eq!(problems, ["a loop through Start, If"]);
}

#[test]
fn a_draft_has_no_problems() {
    for document in [None, Some(&Value::Null), Some(&json!([])), Some(&json!({}))] {
        assert_eq!(
            WorkflowGraph::parse(document, document),
            WorkflowGraph::default()
        );
    }
}

#[test]
fn every_problem_says_where() {
    let nodes = json!([{"name": "A"}, {"name": "A"}, {"type": "x"}, 1]);
    let connections = json!({
        "A": {"main": [["Gone", true, {"x": 1}]]}, "a/b~": ["A"], "1": false,
    });
    let (edges, problems) = read(&nodes, &connections);
    assert_eq!(edges, none());
    assert_eq!(
        problems,
        [
            "the node at /nodes/2 has neither name nor id",
            "/nodes/3 is not an object that describes a node",
            "2 nodes are called `A`: give each a name of its own",
            "/connections/A/main/0/0 names the node `Gone`, which doesn't exist",
            "/connections/A/main/0/1 is not the name or id of a node, or an object with a `node` or `target`",
            "/connections/A/main/0/2 is not the name or id of a node, or an object with a `node` or `target`",
            "/connections/a~1b~0 names the node `a/b~`, which doesn't exist",
            "/connections/1 names the node `1`, which doesn't exist",
            "/connections/1 is not the name or id of a node, or an object with a `node` or `target`",
        ]
    );
    let (_, problems) = read(&json!(1), &json!("x"));
    assert_eq!(
        problems,
        [
            "/nodes is not an object or an array of nodes",
            "/connections is not an object or an array of connections",
        ]
    );
    let (_, problems) = read(&json!([]), &json!([{"source": "a"}, 3]));
    assert_eq!(problems.len(), 2);
}

#[test]
fn loops_are_marked_once_and_are_sound() {
    let nodes = json!({"a": {}, "b": {}, "c": {}, "d": {}, "e": {}});
    let connections = json!({"a": ["b"], "b": ["c", "d"], "c": ["a"], "d": ["d", "e"]});
    let graph = WorkflowGraph::parse(Some(&nodes), Some(&connections));
    let cycle = |nodes: &[&str]| GraphProblem::Cycle {
        nodes: nodes.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(graph.problems, [cycle(&["a", "b", "c"]), cycle(&["d"])]);
    assert!(graph.is_sound());
}

#[test]
fn problems_are_bounded() {
    let targets: Vec<_> = (0..MAX_PROBLEMS + 5).map(|n| format!("gone {n}")).collect();
    let graph = WorkflowGraph::parse(Some(&json!({"a": {}})), Some(&json!({"a": targets})));
    assert_eq!(graph.problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(
        graph.problems.last(),
        Some(&GraphProblem::More { count: 5 })
    );
    assert!(!graph.is_sound());
}

#[test]
fn loops_that_are_only_counted_are_sound_and_errors_are_not() {
    let count = MAX_PROBLEMS + 1;
    let nodes: Vec<_> = (0..count).map(|n| json!({"id": n})).collect();
    let mut links: Vec<_> = (0..count)
        .map(|n| json!({"source": n, "target": n}))
        .collect();
    let graph = WorkflowGraph::parse(Some(&json!(nodes)), Some(&json!(links)));
    assert_eq!(
        graph.problems.last(),
        Some(&GraphProblem::More { count: 1 })
    );
    assert!(graph.is_sound());
    links.push(json!({"source": 0, "target": "gone"}));
    assert!(!WorkflowGraph::parse(Some(&json!(nodes)), Some(&json!(links))).is_sound());
}

/// Each would need gigabytes if edges or problems repeated a long name.
#[test]
fn long_names_are_not_multiplied() {
    let (long, many) = ("x".repeat(1024 * 1024), vec![1; 100_000]);
    let graph = WorkflowGraph::parse(None, Some(&json!({ &long: many })));
    assert!(matches!(
        graph.problems[..],
        [
            GraphProblem::MissingNode { .. },
            GraphProblem::More { count: 100_000 }
        ]
    ));
    let (nodes, kinds) = (
        json!({"1": {}}),
        json!({"1": { long: many, "k".repeat(100): [1] }}),
    );
    let graph = WorkflowGraph::parse(Some(&nodes), Some(&kinds));
    assert_eq!(graph.edges.len(), 1);
    assert!(matches!(graph.problems[0], GraphProblem::Unreadable { .. }));
}

#[test]
fn keyed_nodes_are_found_by_their_name_member() {
    let nodes = json!({"n1": {"name": "Start"}, "n2": {"name": "n1"}});
    let connections = json!({"Start": {"main": [[{"node": "n1"}, {"node": "n2"}]]}});
    let (edges, _) = read(&nodes, &connections);
    assert_eq!(edges, ["n1 main0 n1", "n1 main0 n2"]);
}

#[test]
fn ids_that_several_nodes_have_matter_when_they_are_used() {
    let nodes =
        json!([{"id": "1", "name": "A"}, {"id": "1", "name": "B"}, {"id": "2", "name": ""}]);
    assert!(WorkflowGraph::parse(Some(&nodes), Some(&json!({"A": ["B"]}))).is_sound());
    let (edges, problems) = read(&nodes, &json!([{"source": "2", "target": "1"}]));
    assert_eq!(edges, ["2 main0 A"]);
    assert_eq!(
        problems,
        ["/connections/0/target names the id `1`, which several nodes have"]
    );
}

/// The graph of so many nodes in a row, parsed on a small stack.
fn long(count: usize, links: impl Iterator<Item = Value>) -> WorkflowGraph {
    let nodes: Vec<_> = (0..count).map(|n| json!({"id": n})).collect();
    let (nodes, links) = (json!(nodes), links.collect::<Value>());
    let small = std::thread::Builder::new().stack_size(64 * 1024);
    small
        .spawn(move || WorkflowGraph::parse(Some(&nodes), Some(&links)))
        .expect("a thread")
        .join()
        .expect("no overflow")
}

#[test]
fn a_long_chain_or_ring_needs_no_stack() {
    let count = 100_000;
    let link = |n| json!({"source": n, "target": (n + 1) % count});
    let chain = long(count, (0..count - 1).map(link));
    assert_eq!((chain.edges.len(), chain.problems.len()), (count - 1, 0));
    let ring = long(count, (0..count).map(link));
    assert_eq!(ring.edges.len(), count);
    assert!(matches!(&ring.problems[..], [GraphProblem::Cycle { nodes }] if nodes.len() == count));
}

fn anything() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "a", "b", "c", "main", "node", "name", "id", "target", "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4_i64).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| {
                let members = members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(members.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_the_documents_are(nodes in anything(), connections in anything()) {
        let graph = WorkflowGraph::parse(Some(&nodes), Some(&connections));
        for edge in &graph.edges {
            prop_assert!(edge.from < graph.nodes.len() && edge.to < graph.nodes.len());
        }
    }

    /// On n8n's shape, the missing nodes are those that a naive reading misses.
    #[test]
    fn missing_nodes_are_counted(
        ids in prop::collection::vec(0..9_u8, 0..6),
        links in prop::collection::vec((0..9_u8, 0..9_u8), 0..12),
    ) {
        let nodes: Vec<_> = ids.iter().map(|id| json!({"id": id.to_string(), "name": format!("n{id}")})).collect();
        let mut sources = serde_json::Map::new();
        for (from, to) in &links {
            let source = sources.entry(from.to_string()).or_insert_with(|| json!({"main": [[]]}));
            if let Some(targets) = source.pointer_mut("/main/0").and_then(Value::as_array_mut) {
                targets.push(json!({"node": format!("n{to}")}));
            }
        }
        let missing_sources = sources.keys().filter(|from| !ids.iter().any(|id| id.to_string() == **from)).count();
        let missing_targets = links.iter().filter(|(_, to)| !ids.contains(to)).count();
        let edges = links.iter().filter(|(from, to)| ids.contains(from) && ids.contains(to)).count();
        let graph = WorkflowGraph::parse(Some(&json!(nodes)), Some(&Value::Object(sources)));
        let missing = graph.problems.iter().filter(|p| matches!(p, GraphProblem::MissingNode { .. })).count();
        prop_assert_eq!(missing, missing_sources + missing_targets);
        prop_assert_eq!(graph.edges.len(), edges);
    }

    /// A node is in a marked loop exactly when it can reach itself.
    #[test]
    fn loops_are_what_reaches_itself(links in prop::collection::vec((0..8_usize, 0..8_usize), 0..20)) {
        let nodes: Vec<_> = (0..8).map(|n| json!({"name": n.to_string()})).collect();
        let list: Vec<_> = links.iter().map(|(from, to)| json!({"source": from, "target": to})).collect();
        let graph = WorkflowGraph::parse(Some(&json!(nodes)), Some(&json!(list)));
        let mut reach = [[false; 8]; 8];
        for (from, to) in &links {
            reach[*from][*to] = true;
        }
        for via in 0..8 {
            for from in 0..8 {
                for to in 0..8 {
                    reach[from][to] |= reach[from][via] && reach[via][to];
                }
            }
        }
        let expected: Vec<_> = (0..8).filter(|n| reach[*n][*n]).map(|n| n.to_string()).collect();
        let mut marked: Vec<String> = graph.problems.into_iter().flat_map(|problem| match problem {
            GraphProblem::Cycle { nodes } => nodes,
            _ => Vec::new(),
        }).collect();
        marked.sort();
        prop_assert_eq!(marked, expected);
    }
}
