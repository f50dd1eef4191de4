//! Long sums in parts: a reduction or a contraction with few results and much to sum becomes many partial ones,
//! side by side, and a short reduction over them.
//!
//! Graph to graph, before anything fuses. The parts are views, and what followed the sum now follows the short one,
//! so the rest of the planner needs to know nothing of it. A device that a few results keep busy has no use for it.

use kiln_ir::scan::Scan;
use kiln_ir::{Axes, Caps, Contraction, DType, Graph, Movement, NodeId, Op, ReduceOp, Shape};

use super::chunks::in_chunks;

/// Parts below this number are not worth a second kernel. Columns are sums side by side, and keep more of a device busy.
const PARTS_MIN: usize = 4;
const COLUMN_PARTS_MIN: usize = 8;

/// Elements that a part of a reduction keeps at least: of a row, and of a column.
const ROW_MIN: usize = 1024;
const COLUMN_MIN: usize = 64;

/// Terms that a part of a contraction keeps at least.
const TERMS_MIN: usize = 128;

/// Invocations that share a row; those that share a column, of which each has several beside it; and those of a tile of
/// a contraction, of this many rows and columns.
const ROW_LANES: usize = 256;
const COLUMN_LANES: usize = 8;
const TILE_LANES: usize = 160;
const TILE: usize = 64;

/// The graph with its long sums in parts.
pub(crate) fn split(graph: &Graph, caps: &Caps) -> Graph {
    graph.rewritten(|graph, node, _, inputs| {
        let mut parts = Parts { graph };
        match &node.op {
            Op::Reduce(op, axes) => parts.reduction(*op, axes, inputs[0], caps),
            Op::Dot(c) => parts.contraction(*c, [inputs[0], inputs[1]], node.shape, caps),
            Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Map(_) => None,
            Op::Offset(_) | Op::View(_) | Op::Gather(_) | Op::Scatter { .. } => None,
            Op::Scan(scan) => parts.running(*scan, inputs[0], caps),
            Op::Linear | Op::Attention(_) | Op::Sort(_) => None,
        }
    })
}

struct Parts<'a> {
    graph: &'a mut Graph,
}

impl Parts<'_> {
    fn apply(&mut self, op: Op, inputs: &[NodeId]) -> NodeId {
        self.graph.apply(op, inputs)
    }

    fn running(&mut self, scan: Scan, x: NodeId, caps: &Caps) -> Option<NodeId> {
        in_chunks(self.graph, scan, x, caps)
    }

    fn shape(&self, id: NodeId) -> Shape {
        self.graph.nodes[id as usize].shape
    }

    fn reduction(&mut self, op: ReduceOp, axes: &[usize], x: NodeId, caps: &Caps) -> Option<NodeId> {
        let (shape, dtype) = (self.shape(x), self.graph.nodes[x as usize].dtype);
        // Partial results are stored, and must lose nothing by it.
        let keeps = matches!(dtype, DType::F32 | DType::I32 | DType::U32) && op != ReduceOp::ArgMax;
        let row: usize = axes.iter().map(|&a| shape[a]).product();
        if !keeps || row == 0 || shape.rank() == Shape::MAX_RANK {
            return None;
        }
        let along = shape.iter().rposition(|&d| d > 1).is_some_and(|last| axes.contains(&last));
        let (lanes, least, parts_min) = match along {
            true => (ROW_LANES, ROW_MIN, PARTS_MIN),
            false => (COLUMN_LANES, COLUMN_MIN, COLUMN_PARTS_MIN),
        };
        let busy = (shape.numel() / row).max(1) * lanes;
        let (axis, n) = part(&shape, axes, (caps.lanes / busy).min(row / least), parts_min)?;
        let front = self.in_front(x, axis, n);
        let axes = axes.iter().map(|a| a + 1).collect();
        let partial = self.apply(Op::Reduce(op, axes), &[front]);
        let whole = self.apply(Op::Reduce(op, Axes::new(&[0])), &[partial]);
        let dims = Shape::new(&self.shape(whole)[1..]);
        Some(self.apply(Op::View(Movement::Reshape(dims)), &[whole]))
    }

    fn contraction(&mut self, c: Contraction, x: [NodeId; 2], shape: Shape, caps: &Caps) -> Option<NodeId> {
        let [lhs, rhs] = x.map(|id| self.shape(id));
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let (batch, m, n) =
            (numel(&shape[..c.batch]), numel(&lhs[c.batch..c.batch + c.m]), numel(&shape[c.batch + c.m..]));
        let terms = numel(&lhs[c.batch + c.m..]);
        let full = [lhs, rhs, shape].iter().any(|s| s.rank() == Shape::MAX_RANK);
        if self.graph.nodes[x[0] as usize].dtype != DType::F32 || full || m.min(n) < 4 || batch * terms == 0 {
            return None;
        }
        let busy = batch * m.div_ceil(TILE) * n.div_ceil(TILE) * TILE_LANES;
        let axes: Vec<usize> = (c.batch + c.m..lhs.rank()).collect();
        let (axis, n_parts) = part(&lhs, &axes, (caps.lanes / busy).min(terms / TERMS_MIN), PARTS_MIN)?;
        let left = self.in_front(x[0], axis, n_parts);
        let right = self.in_front(x[1], axis - c.m, n_parts);
        let partial = self.apply(Op::Dot(Contraction { batch: c.batch + 1, ..c }), &[left, right]);
        let whole = self.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[0])), &[partial]);
        Some(self.apply(Op::View(Movement::Reshape(shape)), &[whole]))
    }

    /// The view `[n, .., axis / n, ..]` of `[.., axis, ..]`.
    fn in_front(&mut self, x: NodeId, axis: usize, n: usize) -> NodeId {
        let shape = self.shape(x);
        let dims = [&shape[..axis], &[n, shape[axis] / n], &shape[axis + 1..]].concat();
        let apart = self.apply(Op::View(Movement::Reshape(Shape::new(&dims))), &[x]);
        let rest = (0..dims.len()).filter(|&a| a != axis);
        self.apply(Op::View(Movement::Permute(std::iter::once(axis).chain(rest).collect())), &[apart])
    }
}

/// The axis that divides into the most parts up to `wanted`, and how many, if at least `least`; the first of equals.
fn part(shape: &Shape, axes: &[usize], wanted: usize, least: usize) -> Option<(usize, usize)> {
    let most = |dim: usize| (1..=wanted.min(dim)).rev().find(|n| dim.is_multiple_of(*n)).unwrap_or(1);
    let parts = axes.iter().map(|&axis| (axis, most(shape[axis])));
    let best = parts.rev().max_by_key(|p| p.1)?;
    (best.1 >= least).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::caps;
    use super::*;
    use kiln_ir::reference;

    fn values(n: usize) -> Vec<f64> {
        (0..n).map(|i| (i * 7919 % 17) as f64 - 8.0).collect()
    }

    #[test]
    fn parts_sum_to_the_whole() {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[64, 6, 20, 10]), DType::F32);
        let w = g.source(Op::Leaf(1), Shape::new(&[64, 20, 10, 9]), DType::F32);
        let sum = g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[0, 2, 3])), &[x]);
        let max = g.apply(Op::Reduce(ReduceOp::Max, Axes::new(&[0])), &[x]);
        let turned = g.apply(Op::View(Movement::Permute(Axes::new(&[1, 0, 2, 3]))), &[x]);
        let dot = g.apply(Op::Dot(Contraction { batch: 0, m: 1, n: 1, k: 3 }), &[turned, w]);
        g.outputs = vec![sum, dot, max];
        let leaves = [values(64 * 6 * 200), values(64 * 200 * 9)];
        let expected = reference::eval(&g, &leaves, &[]);
        let parted = split(&g, &Caps { lanes: 1 << 17, ..caps() });
        kiln_ir::verify(&parted).unwrap();
        let n = |g: &Graph, name: &str| g.nodes.iter().filter(|n| n.op.name() == name).count();
        assert_eq!((n(&parted, "sum"), n(&parted, "dot"), n(&parted, "amax")), (3, 1, 1), "{parted}");
        assert_eq!(reference::eval(&parted, &leaves, &[]), expected);
        for (&a, &b) in g.outputs.iter().zip(&parted.outputs) {
            assert_eq!(g.nodes[a as usize].shape, parted.nodes[b as usize].shape);
        }
    }

    #[test]
    fn columns_are_split_until_a_large_device_is_busy() {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[8192, 1024]), DType::F32);
        let sum = g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[0])), &[x]);
        g.outputs = vec![sum];
        let parted = split(&g, &Caps { lanes: 1 << 17, ..caps() });
        assert!(parted.nodes.iter().any(|n| n.shape == Shape::new(&[16, 1, 1024])), "{parted}");
        g.nodes[0].shape = Shape::new(&[256, 1024]);
        assert_eq!(split(&g, &Caps { lanes: 1 << 17, ..caps() }).nodes.len(), 2, "short columns are one kernel");
    }

    #[test]
    fn a_small_device_splits_nothing() {
        let mut g = Graph::default();
        let x = g.source(Op::Leaf(0), Shape::new(&[2, 100_000]), DType::F32);
        let sum = g.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[1])), &[x]);
        g.outputs = vec![sum];
        g.nodes[sum as usize].stage = 3;
        assert_eq!(split(&g, &caps()).nodes.len(), 2);
        let parted = split(&g, &Caps { lanes: 1 << 17, ..caps() });
        assert_eq!(parted.nodes.len(), 6);
        assert!(parted.nodes[1..].iter().all(|n| n.stage == 3), "parts belong to the stage of the whole");
    }
}
