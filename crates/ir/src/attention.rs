//! Attention: an anchor, since its scores must never be in memory, and what it means as a composition.
//!
//! An op has one value, and attention and its gradients have five that share their work. Each is a [`Part`];
//! those with equal inputs become one kernel. [`compose`] says what a part is in terms of other ops: the
//! reference evaluates that, a device without the kernel runs it, and gradients of gradients follow from it.

use std::sync::Arc;

use crate::expr::E;
use crate::{Axes, Contraction, DType, Expr, ExprNode, Graph, Movement, NodeId, Op, PointOp, ReduceOp, Shape};

/// One value of an attention `softmax(q·kᵀ / √d + bias) · v`, over `q [b.., t, d]`, `k [b.., s, d]`,
/// `v [b.., s, e]` and `bias [b.., t, s]`, with the cotangent `g [b.., t, e]` of its output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The output `[b.., t, e]`; a row with no score above -∞ is 0, one that sees a NaN is NaN.
    Out,
    /// `log Σ e^score` of each row, `[b.., t, 1]`, in the compute dtype; the greatest float where the sum is 0, NaN
    /// where the row sees one.
    LogSum,
    /// The cotangent of `q`.
    GradQ,
    /// The cotangent of `k`.
    GradK,
    /// The cotangent of `v`.
    GradV,
}

/// What an attention node computes.
///
/// Inputs: `q, k, v, bias`; for the gradients also `logsum [b.., t, 1]`, `delta [b.., t, 1]`, which is
/// `Σ g · out` of each row, and `g`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attend {
    /// Which value.
    pub part: Part,
    /// True iff row `i` sees columns up to `i` only.
    pub causal: bool,
}

impl Part {
    /// True for the gradients.
    pub fn is_backward(self) -> bool {
        matches!(self, Part::GradQ | Part::GradK | Part::GradV)
    }

    /// The name in messages and dumps.
    pub fn name(self) -> &'static str {
        match self {
            Part::Out => "attention",
            Part::LogSum => "attention_logsum",
            Part::GradQ => "attention_grad_q",
            Part::GradK => "attention_grad_k",
            Part::GradV => "attention_grad_v",
        }
    }
}

/// The extents of an attention.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extents {
    /// Dims in front.
    pub batch: Vec<usize>,
    /// Rows of `q`.
    pub t: usize,
    /// Rows of `k` and `v`.
    pub s: usize,
    /// Columns of `q` and `k`.
    pub d: usize,
    /// Columns of `v`.
    pub e: usize,
}

impl Extents {
    /// From the shapes of `q, k, v`.
    pub fn of(q: &Shape, k: &Shape, v: &Shape) -> Extents {
        let n = q.rank() - 2;
        Extents { batch: q[..n].to_vec(), t: q[n], s: k[n], d: q[n + 1], e: v[n + 1] }
    }

    fn dims(&self, last: [usize; 2]) -> Shape {
        Shape::of(&[&self.batch, &last])
    }
}

/// The shape and dtype of a part, or the rule that the inputs break.
pub(crate) fn infer(attend: Attend, inputs: &[(&Shape, DType)]) -> Result<(Shape, DType), String> {
    let n = if attend.part.is_backward() { 7 } else { 4 };
    if inputs.len() != n {
        return Err(format!("takes {n} operands, got {}", inputs.len()));
    }
    let [(q, dtype), (k, _), (v, _)] = [inputs[0], inputs[1], inputs[2]];
    if q.rank() < 2 || q.rank() != k.rank() || q.rank() != v.rank() {
        return Err(format!("q, k and v have one rank of at least 2: {q}, {k}, {v}"));
    }
    let x = Extents::of(q, k, v);
    let wide = dtype.compute();
    let expected = [
        (x.dims([x.t, x.d]), dtype),
        (x.dims([x.s, x.d]), dtype),
        (x.dims([x.s, x.e]), dtype),
        (x.dims([x.t, x.s]), dtype),
        (x.dims([x.t, 1]), wide),
        (x.dims([x.t, 1]), wide),
        (x.dims([x.t, x.e]), dtype),
    ];
    if !dtype.is_float() {
        return Err(format!("takes floats, got {dtype}"));
    }
    let names = ["q", "k", "v", "mask", "logsum", "delta", "g"];
    for ((name, found), expected) in names.iter().zip(inputs).zip(&expected) {
        if (*found.0, found.1) != *expected {
            return Err(format!("{name} is {}{}, expected {}{}", found.1, found.0, expected.1, expected.0));
        }
    }
    Ok(match attend.part {
        Part::Out => (x.dims([x.t, x.e]), dtype),
        Part::LogSum => expected[4],
        Part::GradQ => expected[0],
        Part::GradK => expected[1],
        Part::GradV => expected[2],
    })
}

/// Appends what a part means to a graph that holds its inputs; gives the part's node.
///
/// # Panics
/// If the inputs break a rule of the op.
pub fn compose(graph: &mut Graph, attend: Attend, inputs: &[NodeId]) -> NodeId {
    let meta = |graph: &Graph, id: NodeId| (graph.nodes[id as usize].shape, graph.nodes[id as usize].dtype);
    let shapes: Vec<Shape> = inputs.iter().map(|&id| meta(graph, id).0).collect();
    let dtype = meta(graph, inputs[0]).1;
    let extents = Extents::of(&shapes[0], &shapes[1], &shapes[2]);
    let mut c = Composer { graph, rank: extents.batch.len() };
    let x: Vec<NodeId> = inputs.iter().map(|&id| c.cast(dtype.compute(), id)).collect();
    let scale = (extents.d.max(1) as f64).sqrt().recip();
    let scores = c.scores(&x, &extents, scale, attend.causal);
    let value = match attend.part {
        Part::Out | Part::LogSum => {
            let axis = c.rank + 1;
            let max = c.graph.apply(Op::Reduce(ReduceOp::Max, Axes::new(&[axis])), &[scores]);
            // Finite, so that a row without any score above -∞ has differences.
            let max = c.map(&E::op(PointOp::Max, &[&E::input(0), &E::lit(f64::from(f32::MIN))]), &[max]);
            let p = c.map(&(E::input(0) - E::input(1)).map(PointOp::Exp), &[scores, max]);
            let sum = c.graph.apply(Op::Reduce(ReduceOp::Sum, Axes::new(&[axis])), &[p]);
            // Nothing but a row that sees no score: a sum that is NaN is not 0, and stays.
            let none = E::op(PointOp::Eq, &[&E::input(0), &E::lit(0.0)]);
            // Never 0, so that such a row has gradients, which are 0.
            let sum_or_one = E::lit(1.0).when(&none, &E::input(0));
            if attend.part == Part::LogSum {
                let log = sum_or_one.map(PointOp::Log) + E::input(1);
                c.map(&E::lit(f64::from(f32::MAX)).when(&none, &log), &[sum, max])
            } else {
                let share = E::input(1) / sum_or_one;
                let p = c.map(&share, &[sum, p]);
                c.dot(p, x[2])
            }
        }
        Part::GradV => {
            let p = c.map(&(E::input(0) - E::input(1)).map(PointOp::Exp), &[scores, x[4]]);
            let p = c.transpose(p);
            c.dot(p, x[6])
        }
        Part::GradQ | Part::GradK => {
            let v = c.transpose(x[2]);
            let dp = c.dot(x[6], v);
            let ds = (E::input(0) - E::input(1)).map(PointOp::Exp) * (E::input(2) - E::input(3)) * scale;
            let ds = c.map(&ds, &[scores, x[4], dp, x[5]]);
            match attend.part {
                Part::GradQ => c.dot(ds, x[1]),
                _ => {
                    let ds = c.transpose(ds);
                    c.dot(ds, x[0])
                }
            }
        }
    };
    let narrow = if attend.part == Part::LogSum { dtype.compute() } else { dtype };
    c.cast(narrow, value)
}

struct Composer<'a> {
    graph: &'a mut Graph,
    /// Number of batch axes.
    rank: usize,
}

impl Composer<'_> {
    fn map(&mut self, formula: &E, inputs: &[NodeId]) -> NodeId {
        self.graph.apply(Op::Map(Arc::new(formula.build())), inputs)
    }

    fn cast(&mut self, to: DType, id: NodeId) -> NodeId {
        match self.graph.nodes[id as usize].dtype == to {
            true => id,
            false => {
                let nodes = vec![ExprNode::Input(0), ExprNode::Cast(to, 0)];
                self.graph.apply(Op::Map(Arc::new(Expr { nodes })), &[id])
            }
        }
    }

    fn transpose(&mut self, id: NodeId) -> NodeId {
        let perm = (0..self.rank).chain([self.rank + 1, self.rank]).collect();
        self.graph.apply(Op::View(Movement::Permute(perm)), &[id])
    }

    fn dot(&mut self, lhs: NodeId, rhs: NodeId) -> NodeId {
        self.graph.apply(Op::Dot(Contraction { batch: self.rank, m: 1, n: 1, k: 1 }), &[lhs, rhs])
    }

    /// `q·kᵀ / √d + bias`, -∞ where a column lies in a row's future.
    fn scores(&mut self, x: &[NodeId], extents: &Extents, scale: f64, causal: bool) -> NodeId {
        let k = self.transpose(x[1]);
        let product = self.dot(x[0], k);
        let sum = E::input(0) * scale + E::input(1);
        if !causal {
            return self.map(&sum, &[product, x[3]]);
        }
        let dims = Shape::new(&[extents.t, extents.s]);
        let [row, column] = [0, 1].map(|axis| self.graph.source(Op::Iota(axis), dims, DType::I32));
        let later = E::op(PointOp::Lt, &[&E::input(2), &E::input(3)]);
        self.map(&E::lit(f64::NEG_INFINITY).when(&later, &sum), &[product, x[3], row, column])
    }
}
