//! Anchors that a device has no kernel for, as the compositions that they mean, or of the kernels that it has. Graph to
//! graph, before anything fuses.

use kiln_ir::attention::{self, Attend};
use kiln_ir::scan::{self, Scan};
use kiln_ir::scatter;
use kiln_ir::sort::{self, Part, Sort};
use kiln_ir::{Caps, DType, Graph, Kernel, Node, NodeId, Op, Reject, Shape};

use rustc_hash::FxHashMap as HashMap;

use super::cluster::{Cluster, Scope};
use super::roots::roots;

/// The graph without anchors that the device refuses; `None` if there are no anchors at all.
pub(crate) fn decompose(
    graph: &Graph,
    caps: &Caps,
    supports: &dyn Fn(&Kernel) -> Result<(), Reject>,
    fuse: bool,
) -> Option<Graph> {
    if !graph.nodes.iter().any(|node| anchor(node).is_some()) {
        return None;
    }
    let scope = Scope { graph, roots: &roots(graph, caps, fuse), caps, supports };
    let runs = |id: NodeId| Cluster::of(graph, id).lower(&scope, &|_| true).is_ok();
    let device = Kernels { caps, supports };
    // Values and indices of one sort are one composition.
    let mut sorted: HashMap<(NodeId, Sort), [NodeId; 2]> = HashMap::default();
    Some(graph.rewritten(|out, node, id, inputs| {
        Some(match anchor(node).filter(|_| !runs(id))? {
            Anchor::Attention(attend) => attention::compose(out, attend, inputs),
            Anchor::Scan(scan) => match device.runs(Op::Scan(scan), node.shape, node.dtype.compute()) {
                true => scan::of_words(out, scan, inputs[0]),
                false => scan::compose(out, scan, inputs[0]),
            },
            Anchor::Scatter { axis, size } => {
                let sort = |graph: &mut Graph, sort, x| device.sort(graph, sort, x);
                scatter::compose(out, axis, size, [inputs[0], inputs[1]], &sort)
            }
            Anchor::Sort(sort) => {
                let key = (inputs[0], Sort { part: Part::Values, ..sort });
                let parts = sorted.entry(key).or_insert_with(|| device.sort(out, sort, inputs[0]));
                parts[usize::from(sort.part == Part::Indices)]
            }
        })
    }))
}

/// The kernels that a device has.
struct Kernels<'a> {
    caps: &'a Caps,
    supports: &'a dyn Fn(&Kernel) -> Result<(), Reject>,
}

impl Kernels<'_> {
    /// True iff there is one for this op of one operand.
    fn runs(&self, op: Op, shape: Shape, dtype: DType) -> bool {
        let mut graph = Graph::default();
        let x = graph.source(Op::Leaf(0), shape, dtype);
        let y = graph.apply(op, &[x]);
        let scope = Scope { graph: &graph, roots: &[false, true], caps: self.caps, supports: self.supports };
        Cluster::of(&graph, y).lower(&scope, &|_| true).is_ok()
    }

    /// A sort in the longest tiles that there is a kernel for, or without any.
    fn sort(&self, graph: &mut Graph, sort: Sort, x: NodeId) -> [NodeId; 2] {
        const TILES: [usize; 2] = [64, 4096];
        let (shape, key) = (graph.nodes[x as usize].shape, sort::key(graph.nodes[x as usize].dtype));
        let [outer, len, inner] = sort.extents(&shape);
        let least = len.next_power_of_two().clamp(TILES[0], TILES[1]);
        let sizes = std::iter::successors(Some(least), |tile| Some(tile / 2)).take_while(|&tile| tile >= TILES[0]);
        let runs = |&tile: &usize| {
            let rows = Shape::new(&[outer * inner * len.div_ceil(tile), tile]);
            self.runs(Op::Sort(Sort { axis: 1, keep: tile, ..sort }), rows, key)
        };
        match sizes.into_iter().find(runs) {
            Some(tile) => sort::in_tiles(graph, sort, x, tile),
            None => sort::compose(graph, sort, x),
        }
    }
}

/// What a device may have no kernel for.
enum Anchor {
    Attention(Attend),
    Scatter { axis: usize, size: usize },
    Scan(Scan),
    Sort(Sort),
}

/// What a node computes, if it is such.
fn anchor(node: &Node) -> Option<Anchor> {
    match node.op {
        Op::Attention(attend) => Some(Anchor::Attention(attend)),
        Op::Scatter { axis, size } => Some(Anchor::Scatter { axis, size }),
        Op::Scan(scan) => Some(Anchor::Scan(scan)),
        Op::Sort(sort) => Some(Anchor::Sort(sort)),
        Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_) | Op::View(_) => None,
        // Every device has these.
        Op::Map(_) | Op::Reduce(..) | Op::Gather(_) | Op::Dot(_) | Op::Linear => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::caps;
    use super::*;
    use kiln_ir::ReduceOp;

    #[test]
    fn what_a_kernel_was_made_into_stays_in_its_stage() {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[4, 100]), DType::F32);
        let scan = Scan { op: ReduceOp::Sum, axis: 1, reverse: false };
        let sums = g.apply(Op::Scan(scan), &[x]);
        g.outputs = vec![sums];
        g.nodes[sums as usize].stage = 3;
        let refuses = |kernel: &Kernel| match kernel {
            Kernel::Scan(_) => Err(Reject::Unsupported("scans")),
            _ => Ok(()),
        };
        let made = decompose(&g, &caps(), &refuses, true).unwrap();
        assert!(made.nodes.len() > 2 && made.nodes[1..].iter().all(|n| n.stage == 3), "{made}");
    }
}
