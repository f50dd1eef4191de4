//! Affine maps as the products and sums that they mean. Graph to graph, before anything else.

use kiln_ir::linear::compose;
use kiln_ir::{Graph, Node, NodeId, Op};

/// The graph without affine maps; leaves, scalars and outputs keep their numbers and places. `None` if there is none at all.
pub(crate) fn apart(graph: &Graph) -> Option<Graph> {
    if !graph.nodes.iter().any(|node| matches!(node.op, Op::Linear)) {
        return None;
    }
    let mut out = Graph::default();
    let mut moved: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|&i| moved[i as usize]).collect();
        moved.push(match node.op {
            Op::Linear => {
                let first = out.nodes.len();
                let value = compose(&mut out, &inputs);
                out.made_of(first, node);
                value
            }
            _ => out.push(Node { inputs, ..node.clone() }),
        });
    }
    out.outputs = graph.outputs.iter().map(|&o| moved[o as usize]).collect();
    Some(out)
}
