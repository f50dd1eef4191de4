//! What windows read: each element of it several times.

use kiln_ir::{Expr, ExprNode, Graph, Movement, NodeId, Op, PointOp};
use rustc_hash::FxHashSet as HashSet;

/// Places of a window, at most: what is spread over more of them is a row's, and loops compute it once a row.
const PLACES_MAX: usize = 64;

/// Formulas that would be computed for each window that sees them, or each place of one: their values are computed
/// first. What shifts or scales one of them by a number, or by what a place alone tells, is no reason to.
pub(super) fn seen_often(graph: &Graph, live: &[bool]) -> Vec<NodeId> {
    let free = free(graph);
    let mut found = Vec::new();
    for (_, node) in graph.nodes.iter().enumerate().filter(|(id, _)| live[*id]) {
        let dims = |id: NodeId| graph.nodes[id as usize].shape;
        let often = match node.op {
            Op::View(Movement::Window { size, stride, .. }) => size > stride,
            Op::View(Movement::Unwindow { axis, .. }) if dims(node.inputs[0])[axis + 1] > 1 => false,
            _ => continue,
        };
        let mut todo = vec![(node.inputs[0], often)];
        let mut met = HashSet::default();
        while let Some((id, often)) = todo.pop() {
            if !met.insert((id, often)) {
                continue;
            }
            let node = &graph.nodes[id as usize];
            let inputs: Vec<NodeId> = node.inputs.iter().copied().filter(|&i| !free[i as usize]).collect();
            let spreads = |i: NodeId| {
                let numel = graph.nodes[i as usize].shape.numel();
                2 * numel <= node.shape.numel() && node.shape.numel() <= PLACES_MAX * numel
            };
            match &node.op {
                Op::Map(formula) if often && !inputs.is_empty() => {
                    let slight = inputs.len() == 1 && (node.inputs.len() > 1 || is_affine(formula));
                    if slight { todo.push((inputs[0], true)) } else { found.push(id) }
                }
                Op::Map(_) | Op::View(Movement::Expand(_)) => {
                    todo.extend(inputs.iter().map(|&i| (i, often || spreads(i))));
                }
                Op::View(_) => todo.push((node.inputs[0], often)),
                _ => {}
            }
        }
    }
    found
}

/// For each node, whether nothing has to be read for it.
fn free(graph: &Graph) -> Vec<bool> {
    let mut free = vec![false; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        free[id] = match node.op {
            Op::Const(_) | Op::Scalar(_) | Op::Iota(_) => true,
            Op::View(_) | Op::Map(_) => node.inputs.iter().all(|&i| free[i as usize]),
            _ => false,
        };
    }
    free
}

/// True for a sum or product of the operand and a number.
fn is_affine(formula: &Expr) -> bool {
    let ops = formula.nodes.iter().filter(|n| !matches!(n, ExprNode::Input(_) | ExprNode::Const(_)));
    ops.clone().count() <= 1
        && ops
            .into_iter()
            .all(|n| matches!(n, ExprNode::Op(PointOp::Add | PointOp::Sub | PointOp::Mul | PointOp::Div, _)))
}

#[cfg(test)]
mod tests {
    use super::super::roots::live;
    use super::*;
    use kiln_ir::{Axes, DType, ReduceOp, Shape};
    use std::sync::Arc;

    fn op(op: PointOp, graph: &mut Graph, x: &[NodeId]) -> NodeId {
        graph.apply(Op::Map(Arc::new(Expr::of(op))), x)
    }

    fn view(movement: Movement, graph: &mut Graph, x: NodeId) -> NodeId {
        graph.apply(Op::View(movement), &[x])
    }

    /// A graph with tensors of 3 images of 8, of each image, and of nothing but a number.
    fn leaves() -> (Graph, [NodeId; 2], NodeId) {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[3, 8]), DType::F32);
        let scale = g.source(Op::Leaf(1), Shape::new(&[3, 1]), DType::F32);
        let number = g.source(Op::Scalar(0), Shape::new(&[]), DType::F32);
        (g, [x, scale], number)
    }

    /// What windows of 3 that begin 2 apart see in the end, summed.
    fn seen(g: &mut Graph, x: NodeId, size: usize) -> Vec<NodeId> {
        let padded = view(Movement::Pad { axis: 1, lo: 1, hi: 1, interior: 0 }, g, x);
        let windows = view(Movement::Window { axis: 1, size, stride: 2, dilation: 1 }, g, padded);
        let sum = g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[2])), &[windows]);
        g.outputs = vec![sum];
        seen_often(g, &live(g))
    }

    #[test]
    fn formulas_that_windows_see_twice_are_computed_first() {
        let (mut g, [x, scale], number) = leaves();
        let scaled = op(PointOp::Mul, &mut g, &[x, scale]);
        assert_eq!(seen(&mut g, scaled, 3), [scaled]);
        assert_eq!(seen(&mut g, scaled, 2), [], "windows side by side");
        let relu = op(PointOp::Relu, &mut g, &[scaled]);
        let half = op(PointOp::Mul, &mut g, &[relu, number]);
        assert_eq!(seen(&mut g, half, 3), [relu], "not what is half of it");
        assert_eq!(seen(&mut g, x, 3), []);
    }

    #[test]
    fn what_is_spread_over_places_is_computed_before() {
        let (mut g, [x, scale], _) = leaves();
        let row = op(PointOp::Exp, &mut g, &[scale]);
        let sum = op(PointOp::Add, &mut g, &[x, row]);
        let column = view(Movement::Reshape(Shape::new(&[3, 8, 1])), &mut g, sum);
        let place = g.source(Op::Iota(2), Shape::new(&[3, 8, 4]), DType::F32);
        let spread = op(PointOp::Mul, &mut g, &[place, column]);
        let windows = view(Movement::Unwindow { axis: 1, len: 18, stride: 2, dilation: 1 }, &mut g, spread);
        g.outputs = vec![g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[2])), &[windows])];
        assert_eq!(seen_often(&g, &live(&g)), [sum]);
    }
}
