//! Affine maps as the products and sums that they mean. Graph to graph, before anything else.

use kiln_ir::linear::compose;
use kiln_ir::{Graph, Op};

/// The graph without affine maps; `None` if there is none at all.
pub(crate) fn apart(graph: &Graph) -> Option<Graph> {
    let is_linear = |op: &Op| matches!(op, Op::Linear);
    let has_some = graph.nodes.iter().any(|node| is_linear(&node.op));
    has_some.then(|| graph.rewritten(|out, node, _, inputs| is_linear(&node.op).then(|| compose(out, inputs))))
}
