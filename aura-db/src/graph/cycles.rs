//! Finds the loops: strongly connected components, after Tarjan (1972).

use super::GraphEdge;

/// The components that lead back to themselves, each from its first node on, in
/// the order of their first nodes. Without recursion, because a workflow may
/// have more nodes than a stack has frames.
pub(super) fn find(nodes: usize, edges: &[GraphEdge]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let (targets, mut start) = adjacency(nodes, edges);
    start.push(targets.len());

    let mut index = vec![UNSEEN; nodes];
    let mut low = vec![UNSEEN; nodes];
    let mut on_stack = vec![false; nodes];
    let mut stack = Vec::new();
    // The nodes under visit, each with the next of its edges.
    let mut visits: Vec<(usize, usize)> = Vec::new();
    let mut seen = 0;
    let mut cycles = Vec::new();

    for root in 0..nodes {
        if index[root] != UNSEEN {
            continue;
        }
        visits.push((root, start[root]));
        while let Some((node, next)) = visits.last_mut() {
            let node = *node;
            if index[node] == UNSEEN {
                index[node] = seen;
                low[node] = seen;
                seen += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            if *next < start[node + 1] {
                let to = targets[*next];
                *next += 1;
                if index[to] == UNSEEN {
                    visits.push((to, start[to]));
                } else if on_stack[to] {
                    low[node] = low[node].min(index[to]);
                }
                continue;
            }
            visits.pop();
            if let Some((parent, _)) = visits.last() {
                low[*parent] = low[*parent].min(low[node]);
            }
            if low[node] == index[node] {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    component.push(member);
                    if member == node {
                        break;
                    }
                }
                let itself = &targets[start[node]..start[node + 1]];
                if component.len() > 1 || itself.contains(&node) {
                    component.sort_unstable();
                    cycles.push(component);
                }
            }
        }
    }
    cycles.sort_unstable();
    cycles
}

/// The targets of all nodes in one list, and where each node's begin.
fn adjacency(nodes: usize, edges: &[GraphEdge]) -> (Vec<usize>, Vec<usize>) {
    let mut start = vec![0; nodes];
    for edge in edges {
        start[edge.from] += 1;
    }
    let mut total = 0;
    for count in &mut start {
        let begin = total;
        total += *count;
        *count = begin;
    }
    let mut next = start.clone();
    let mut targets = vec![0; edges.len()];
    for edge in edges {
        targets[next[edge.from]] = edge.to;
        next[edge.from] += 1;
    }
    (targets, start)
}
