//! Anchors that a device has no kernel for, as the compositions that they mean. Graph to graph, before anything fuses.

use kiln_ir::attention::compose;
use kiln_ir::{Caps, Graph, Kernel, Node, NodeId, Op, Reject};

use super::cluster::{Cluster, Scope};
use super::roots::roots;

/// The graph without attention that the device refuses; leaves, scalars and outputs keep their numbers and places.
/// `None` if there is no attention at all.
pub(crate) fn decompose(
    graph: &Graph,
    caps: &Caps,
    supports: &dyn Fn(&Kernel) -> Result<(), Reject>,
    fuse: bool,
) -> Option<Graph> {
    let is_anchor = |node: &Node| matches!(node.op, Op::Attention(_));
    if !graph.nodes.iter().any(is_anchor) {
        return None;
    }
    let scope = Scope { graph, roots: &roots(graph, caps.max_bindings, fuse), caps, supports };
    let runs = |id: NodeId| Cluster::of(graph, id).lower(&scope, &|_| true).is_ok();
    let mut out = Graph::default();
    let mut moved: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for (node, id) in graph.nodes.iter().zip(0..) {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|&i| moved[i as usize]).collect();
        let place = match node.op {
            Op::Attention(attend) if !runs(id) => {
                let first = out.nodes.len();
                let value = compose(&mut out, attend, &inputs);
                out.nodes[first..].iter_mut().for_each(|n| n.location = node.location);
                value
            }
            _ => out.push(Node { inputs, ..node.clone() }),
        };
        moved.push(place);
    }
    out.outputs = graph.outputs.iter().map(|&o| moved[o as usize]).collect();
    Some(out)
}
