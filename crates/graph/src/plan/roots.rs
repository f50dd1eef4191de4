//! Which nodes get a buffer: the *roots*, from which fusion starts.
//!
//! Everything else is computed inside the kernels that need it, as often as they do. A root is a
//! result, a reduction or an anchor (contraction, attention, scatter, scan, sort); a node that one of those must find in
//! memory, that windows see often, or in which a product ends before several read it; and a node where a formula would
//! grow deeper or read more buffers than one kernel may.

use kiln_ir::{Caps, Graph, Movement, NodeId, Op, PointOp};

use super::finished::finished;
use super::windows::seen_often;

/// Deepest formula between two roots: bounds the recursion of the emitter and the length of shaders.
const DEPTH_MAX: usize = 200;

/// A formula of more buffers than this is computed once if several read it, rather than by each of them, where each
/// of its elements serves so many of theirs.
const SHARED_LOADS: usize = 4;
const SPREAD: usize = 8;

/// A formula of so many buffers about as large as its value, or more, is computed once if several read it. Without that,
/// each kernel that reads a residual stream adds up all blocks before it: GPT-2's step has 303 kernels then instead of
/// 281, and a peak of 4.97 GB instead of 3.59.
const LARGE_LOADS: usize = 3;

/// So many products that are added up, as the gradients of a weight that each step of a sequence uses, have their sums so
/// far in memory, each the epilogue of the next product: what is added to is still in a cache, and no product is kept.
const SUMMED_PRODUCTS: usize = 8;

/// For each node, whether it gets a buffer of its own when nothing fuses. Leaves have one already.
pub(crate) fn roots(graph: &Graph, caps: &Caps, fuse: bool) -> Vec<bool> {
    let live = live(graph);
    let mut roots = vec![false; graph.nodes.len()];
    for &o in &graph.outputs {
        roots[o as usize] = true;
    }
    for (id, node) in graph.nodes.iter().enumerate().filter(|(id, _)| live[*id]) {
        match &node.op {
            Op::Reduce(..) => roots[id] = true,
            Op::Dot(_) => {
                roots[id] = true;
                node.inputs.iter().for_each(|&i| require(graph, i, &mut roots));
            }
            Op::Attention(_) => {
                roots[id] = true;
                // A mask is a formula of few tensors, beside products of many numbers for each of its elements.
                let bias = 3;
                let read_often = node.inputs.iter().enumerate().filter(|(n, _)| *n != bias);
                read_often.for_each(|(_, &i)| require(graph, i, &mut roots));
            }
            Op::Scatter { .. } | Op::Scan(_) | Op::Sort(_) => {
                roots[id] = true;
                // They bind their operands as they are, so other views of them are computed too.
                node.inputs.iter().for_each(|&i| roots[unshaped(graph, i) as usize] = true);
            }
            Op::Gather(_) => {
                let table = base(graph, node.inputs[0]);
                // Not all of a leaf that begins somewhere exists, only what is viewed of it.
                let moves = matches!(graph.nodes[table as usize].op, Op::Offset(_));
                roots[if moves { node.inputs[0] } else { table } as usize] = true;
            }
            Op::Linear => unreachable!("taken apart before"),
            Op::Map(_) if !fuse => roots[id] = true,
            Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_) | Op::Map(_) | Op::View(_) => {}
        }
    }
    if fuse {
        let early = seen_often(graph, &live).into_iter().chain(long_sums(graph)).chain(finished(graph, &live));
        early.filter(|&id| live[id as usize]).for_each(|id| roots[id as usize] = true);
    }
    for (root, node) in roots.iter_mut().zip(&graph.nodes) {
        *root &= !matches!(node.op, Op::Leaf(_));
    }
    // A root more is a buffer more for those that read it, also for earlier ones.
    let count = |roots: &[bool]| roots.iter().filter(|r| **r).count();
    let mut before = usize::MAX;
    while count(&roots) != before {
        before = count(&roots);
        split_large(graph, &live, caps, &mut roots);
    }
    roots
}

/// True for what the outputs depend on.
pub(crate) fn live(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    graph.outputs.iter().for_each(|&o| live[o as usize] = true);
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        if live[id] {
            node.inputs.iter().for_each(|&i| live[i as usize] = true);
        }
    }
    live
}

/// The first node behind views.
pub(crate) fn base(graph: &Graph, mut id: NodeId) -> NodeId {
    while let Op::View(_) = graph.nodes[id as usize].op {
        id = graph.nodes[id as usize].inputs[0];
    }
    id
}

/// The first node behind reshapes: in memory it is the same.
pub(crate) fn unshaped(graph: &Graph, mut id: NodeId) -> NodeId {
    while let Op::View(Movement::Reshape(_)) = graph.nodes[id as usize].op {
        id = graph.nodes[id as usize].inputs[0];
    }
    id
}

/// An operand that is read many times: a view of something in memory, or of something free.
fn require(graph: &Graph, id: NodeId, roots: &mut [bool]) {
    let base = base(graph, id);
    let free = matches!(graph.nodes[base as usize].op, Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_));
    roots[base as usize] |= !free;
}

/// Sums of many products, from where they are many.
pub(crate) fn long_sums(graph: &Graph) -> Vec<NodeId> {
    let mut n_products = vec![0; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        n_products[id] = match (&node.op, &node.inputs[..]) {
            (Op::Dot(_), _) => 1,
            (Op::View(_), &[of]) if graph.nodes[of as usize].shape.numel() == node.shape.numel() => {
                n_products[of as usize]
            }
            (Op::Map(formula), &[a, b]) if formula.row() == Some(PointOp::Add) => {
                match (n_products[a as usize], n_products[b as usize]) {
                    (sum, 1) | (1, sum) if sum > 0 => sum + 1,
                    _ => 0,
                }
            }
            _ => 0,
        };
    }
    let maps = graph.nodes.iter().zip(0..).filter(|(node, _)| matches!(node.op, Op::Map(_)));
    maps.map(|(_, id)| id).filter(|&id| n_products[id as usize] >= SUMMED_PRODUCTS).collect()
}

/// Makes roots of nodes inside formulas that are too deep or read too many buffers, and of such that many share.
fn split_large(graph: &Graph, live: &[bool], caps: &Caps, roots: &mut [bool]) {
    let bindings = |ids: &[NodeId]| ids.iter().map(|&i| caps.bindings_of(&graph.nodes[i as usize])).sum::<usize>();
    let mut readers = vec![0u32; graph.nodes.len()];
    let live_nodes = || graph.nodes.iter().enumerate().filter(|(id, _)| live[*id]);
    let mut reach = vec![0usize; graph.nodes.len()];
    for (_, node) in live_nodes() {
        for &i in &node.inputs {
            readers[i as usize] += 1;
            reach[i as usize] = reach[i as usize].max(node.shape.numel());
        }
    }
    let mut depth = vec![0usize; graph.nodes.len()];
    let mut loads: Vec<Vec<NodeId>> = vec![Vec::new(); graph.nodes.len()];
    for (id, node) in live_nodes() {
        // Beside the value; one op reads three tensors.
        let room = caps.max_bindings.saturating_sub(caps.bindings_of(node)).max(3);
        let stored = |i: NodeId, roots: &[bool]| roots[i as usize] || matches!(graph.nodes[i as usize].op, Op::Leaf(_));
        loop {
            let mut union: Vec<NodeId> = Vec::new();
            for &i in &node.inputs {
                match stored(i, roots) {
                    true => union.push(i),
                    false => union.extend(&loads[i as usize]),
                }
            }
            union.sort_unstable();
            union.dedup();
            let inner = node.inputs.iter().filter(|i| !stored(**i, roots));
            let widest = inner.clone().max_by_key(|i| bindings(&loads[**i as usize])).copied();
            let deepest = inner.max_by_key(|i| depth[**i as usize]).copied();
            match (widest, deepest) {
                (Some(w), _) if bindings(&union) > room => roots[w as usize] = true,
                (_, Some(d)) if depth[d as usize] >= DEPTH_MAX => roots[d as usize] = true,
                _ => {
                    depth[id] = deepest.map_or(0, |d| depth[d as usize] + 1);
                    let spread = node.shape.numel() * SPREAD <= reach[id];
                    let numel = |i: NodeId| graph.nodes[i as usize].shape.numel();
                    let large = union.iter().filter(|&&i| 2 * numel(i) >= node.shape.numel()).count();
                    let costly = union.len() > SHARED_LOADS && spread || large >= LARGE_LOADS;
                    let shared = readers[id] > 1 && costly;
                    roots[id] |= shared && matches!(node.op, Op::Map(_));
                    loads[id] = union;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::{Contraction, DType, Expr, Shape};
    use std::sync::Arc;

    #[test]
    fn sums_of_many_products_grow_in_memory() {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[4, 4]), DType::F32);
        let product = |g: &mut Graph| g.apply(Op::Dot(Contraction { batch: 0, m: 1, n: 1, k: 1 }), &[x, x]);
        let mut sum = product(&mut g);
        let mut sums = Vec::new();
        for _ in 1..SUMMED_PRODUCTS + 2 {
            let next = product(&mut g);
            let next = g.apply(Op::View(Movement::Reshape(Shape::new(&[4, 4]))), &[next]);
            sum = g.apply(Op::Map(Arc::new(Expr::of(PointOp::Add))), &[sum, next]);
            sums.push(sum);
        }
        assert_eq!(long_sums(&g), sums[SUMMED_PRODUCTS - 2..]);
        // The sum of two such is not one more product.
        g.apply(Op::Map(Arc::new(Expr::of(PointOp::Add))), &[sum, sum]);
        assert_eq!(long_sums(&g).len(), 3);
    }
}
