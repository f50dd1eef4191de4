//! Scans: running reductions along an axis, which need a kernel of their own to read each element once.
//!
//! [`compose`] says what a scan is in terms of windows: a device without the kernel runs that.

use std::sync::Arc;

use crate::expr::E;
use crate::{Axes, DType, Expr, ExprNode, Graph, Movement, NodeId, Op, PointOp, ReduceOp, Shape};

/// A running reduction along an axis: `out[i]` is that of `x[0..=i]`, or of `x[i..]` in reverse.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scan {
    /// Sum, product or an extreme.
    pub op: ReduceOp,
    /// Along which axis.
    pub axis: usize,
    /// True iff it runs from the end.
    pub reverse: bool,
}

impl Scan {
    /// The name in messages and dumps.
    pub fn name(self) -> &'static str {
        match self.op {
            ReduceOp::Sum => "cumsum",
            ReduceOp::Prod => "cumprod",
            ReduceOp::Max => "cummax",
            ReduceOp::Min => "cummin",
            ReduceOp::ArgMax => "cumargmax",
        }
    }

    /// Dims before the axis, along it and after it, each multiplied.
    pub fn extents(self, x: &Shape) -> [usize; 3] {
        extents(x, self.axis)
    }
}

/// Dims before an axis, along it and after it, each multiplied.
pub(crate) fn extents(x: &Shape, axis: usize) -> [usize; 3] {
    let numel = |dims: &[usize]| dims.iter().product();
    [numel(&x[..axis]), x[axis], numel(&x[axis + 1..])]
}

/// The shape and dtype of a scan, or the rule that the input breaks.
pub(crate) fn infer(scan: Scan, (x, dtype): (&Shape, DType)) -> Result<(Shape, DType), String> {
    if scan.axis >= x.rank() {
        return Err(format!("axis {} out of range for rank {}", scan.axis, x.rank()));
    }
    match (scan.op, dtype) {
        (ReduceOp::ArgMax, _) => Err("positions are no running reduction".into()),
        (_, DType::Bool) => Err("takes numbers, got bool".into()),
        _ => Ok((*x, dtype)),
    }
}

/// Elements that one step of the composition reduces: fewer steps are fewer kernels, each of which reads more.
const REACH: usize = 8;

/// Appends what a scan means to a graph that holds its input; gives its node.
///
/// After each step, an element has the reduction of `REACH` times as many before it: Hillis and Steele 1986,
/// <https://doi.org/10.1145/7902.7903>, there with 2.
///
/// # Panics
/// If the input breaks a rule of the op.
pub fn compose(graph: &mut Graph, scan: Scan, x: NodeId) -> NodeId {
    let (shape, dtype) = (graph.nodes[x as usize].shape, graph.nodes[x as usize].dtype);
    let [outer, len, inner] = scan.extents(&shape);
    let rows = Shape::new(&[outer, len, inner]);
    let turn = |graph: &mut Graph, x: NodeId| match scan.reverse {
        true => graph.apply(Op::View(Movement::Flip(1)), &[x]),
        false => x,
    };
    let mut value = cast(graph, dtype.compute(), x);
    value = graph.apply(Op::View(Movement::Reshape(rows)), &[value]);
    value = turn(graph, value);
    let mut reach = 1;
    while reach < len && rows.numel() > 0 {
        let size = REACH.min(len.div_ceil(reach));
        let before = (size - 1) * reach;
        let padded = graph.apply(Op::View(Movement::Pad { axis: 1, lo: before, hi: 0, interior: 0 }), &[value]);
        let padded = fill(graph, padded, before, scan.op.identity(dtype));
        let window = Movement::Window { axis: 1, size, stride: 1, dilation: reach };
        let windows = graph.apply(Op::View(window), &[padded]);
        let reduced = graph.apply(Op::Reduce(scan.op, Axes::new(&[2])), &[windows]);
        value = graph.apply(Op::View(Movement::Reshape(rows)), &[reduced]);
        reach *= size;
    }
    value = turn(graph, value);
    value = graph.apply(Op::View(Movement::Reshape(shape)), &[value]);
    cast(graph, dtype, value)
}

/// Appends a scan to a graph that holds its input, as one of words for a device whose kernel knows no narrower ones.
///
/// # Panics
/// If the input breaks a rule of the op.
pub fn of_words(graph: &mut Graph, scan: Scan, x: NodeId) -> NodeId {
    let dtype = graph.nodes[x as usize].dtype;
    let wide = cast(graph, dtype.compute(), x);
    let value = graph.apply(Op::Scan(scan), &[wide]);
    cast(graph, dtype, value)
}

/// The first elements along axis 1, which are 0, replaced.
fn fill(graph: &mut Graph, x: NodeId, n: usize, by: f64) -> NodeId {
    if by == 0.0 {
        return x;
    }
    let dims = Shape::new(&[graph.nodes[x as usize].shape[1], 1]);
    let at = graph.source(Op::Iota(0), dims, DType::I32);
    let before = E::op(PointOp::Lt, &[&E::input(1), &E::lit(n as f64)]);
    let filled = E::lit(by).when(&before, &E::input(0));
    graph.apply(Op::Map(Arc::new(filled.build())), &[x, at])
}

/// Conversion; a copy where there is nothing to convert, so that the value is no leaf's.
pub(crate) fn cast(graph: &mut Graph, to: DType, x: NodeId) -> NodeId {
    let formula = match graph.nodes[x as usize].dtype == to {
        true => Expr { nodes: vec![ExprNode::Input(0)] },
        false => Expr::cast(to),
    };
    graph.apply(Op::Map(Arc::new(formula)), &[x])
}
