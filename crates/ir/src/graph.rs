//! The graph: what was recorded, as plain data in topological order.
//!
//! A node's shape and dtype are decided once, by [`infer`], from its op and its inputs; [`verify`]
//! checks that they still agree. There are fourteen kinds of op. Softmax, norms, convolution, losses and
//! optimizers are compositions of them, so that fusion and gradients see through everything.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::attention::{self, Attend};
use crate::linear;
use crate::scan::{self, Scan};
use crate::sort::{self, Sort};
use crate::{Axes, DType, Expr, ExprNode, Movement, ReduceOp, Shape};

/// The position of a node in its graph.
pub type NodeId = u32;

/// What a node computes.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A value that exists already: the n-th argument of the program.
    Leaf(u32),
    /// A literal scalar; its value is part of the program.
    Const(f64),
    /// A scalar whose value is given at each run: the n-th slot.
    Scalar(u32),
    /// The coordinate along an axis.
    Iota(usize),
    /// A formula, element by element; inputs broadcast as NumPy's do.
    Map(Arc<Expr>),
    /// A reduction over these axes, which stay as dims of 1.
    Reduce(ReduceOp, Axes),
    /// A leaf from an element on that is given at each run, in the n-th slot: `out[i] = leaf[i + start]`, row-major,
    /// and 0 beyond the end. A window into data moves without a new plan.
    Offset(u32),
    /// Another look at the same elements.
    View(Movement),
    /// `out[.., i.., ..] = table[.., index[i..], ..]` along an axis; an index out of range is clamped.
    Gather(usize),
    /// Zeros of `size` along an axis, plus each slice of the values at its index:
    /// the adjoint of [`Op::Gather`]. Inputs: index, values.
    Scatter {
        /// The axis, in the result.
        axis: usize,
        /// The result's dim along it.
        size: usize,
    },
    /// A contraction.
    Dot(Contraction),
    /// An affine map: `x [.., k]`, `weight [n, k]` and perhaps `bias [n]` to `x · weightᵀ + bias`, `[.., n]`.
    Linear,
    /// A value of an attention.
    Attention(Attend),
    /// A running reduction along an axis.
    Scan(Scan),
    /// A value of a sort along an axis.
    Sort(Sort),
}

/// How many axes of each kind a contraction has: `lhs [batch.., m.., k..]`, `rhs [batch.., k.., n..]`,
/// result `[batch.., m.., n..]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Contraction {
    /// Axes that both operands and the result share.
    pub batch: usize,
    /// Axes of the left operand only.
    pub m: usize,
    /// Axes of the right operand only.
    pub n: usize,
    /// Axes that are summed over.
    pub k: usize,
}

/// One recorded operation.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// From which earlier nodes.
    pub inputs: Vec<NodeId>,
    /// The result's dims.
    pub shape: Shape,
    /// The result's dtype.
    pub dtype: DType,
    /// Where the user wrote it.
    pub location: Option<&'static Location<'static>>,
    /// 0, or the number of the checkpoint whose values it computes again: not to be computed beside other stages.
    pub stage: u32,
}

/// A program: nodes in topological order, and which of them are wanted.
#[derive(Clone, PartialEq, Default)]
pub struct Graph {
    /// Nodes; each names only earlier ones.
    pub nodes: Vec<Node>,
    /// The wanted nodes, in the order of the program's results.
    pub outputs: Vec<NodeId>,
}

impl Op {
    /// The name in messages and dumps.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Leaf(_) => "leaf",
            Op::Const(_) => "const",
            Op::Scalar(_) => "scalar",
            Op::Iota(_) => "iota",
            Op::Map(expr) => match expr.nodes.last() {
                Some(ExprNode::Op(op, _)) => op.row().name,
                Some(ExprNode::Cast(..)) => "cast",
                _ => "map",
            },
            Op::Offset(_) => "offset",
            Op::Reduce(op, _) => op.name(),
            Op::View(movement) => movement.name(),
            Op::Gather(_) => "gather",
            Op::Scatter { .. } => "scatter",
            Op::Dot(_) => "dot",
            Op::Linear => "linear",
            Op::Attention(attend) => attend.part.name(),
            Op::Scan(scan) => scan.name(),
            Op::Sort(sort) => sort.name(),
        }
    }
}

/// The shape and dtype of a derived node, from its inputs.
///
/// # Errors
/// The rule that the inputs break, without the op's name.
///
/// # Panics
/// For sources (leaf, const, scalar, iota): those state their own shape.
pub fn infer(op: &Op, inputs: &[(&Shape, DType)]) -> Result<(Shape, DType), String> {
    let arity = |n: usize| match inputs.len() == n {
        true => Ok(()),
        false => Err(format!("takes {n} operands, got {}", inputs.len())),
    };
    match op {
        Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) => panic!("infer: {} is a source", op.name()),
        Op::Map(expr) => {
            let row = expr.row();
            arity(row.map_or_else(|| expr.n_inputs(), |op| op.row().arity))?;
            let mut shapes = inputs.iter().map(|i| i.0).filter(|s| s.rank() > 0);
            let mut shape = shapes.next().copied().unwrap_or(Shape::scalar());
            for s in shapes {
                if *s != shape {
                    shape = shape.broadcast(s).ok_or("shapes do not broadcast")?;
                }
            }
            // A single row's dtype needs no list.
            if let Some(op) = row {
                let operand = |n: usize| inputs[n.min(inputs.len() - 1)].1;
                return Ok((shape, op.result(&[operand(0), operand(1), operand(2)][..inputs.len()])?));
            }
            // Few formulas have more inputs than this, and those pay for a list.
            let mut few = [DType::F32; 8];
            match few.get_mut(..inputs.len()) {
                Some(dtypes) => {
                    dtypes.iter_mut().zip(inputs).for_each(|(t, i)| *t = i.1);
                    Ok((shape, expr.dtype(dtypes)?))
                }
                None => Ok((shape, expr.dtype(&inputs.iter().map(|i| i.1).collect::<Vec<_>>())?)),
            }
        }
        Op::Reduce(reduce, axes) => {
            arity(1)?;
            let (mut shape, dtype) = (*inputs[0].0, inputs[0].1);
            if !axes.windows(2).all(|w| w[0] < w[1]) {
                return Err(format!("axes {axes:?} are not ascending"));
            }
            for &axis in axes.iter() {
                if axis >= shape.rank() {
                    return Err(format!("axis {axis} out of range for rank {}", shape.rank()));
                }
                shape = shape.with(axis, 1);
            }
            match reduce {
                ReduceOp::ArgMax if axes.len() != 1 => Err("argmax takes one axis".into()),
                ReduceOp::ArgMax => Ok((shape, DType::I32)),
                _ if dtype == DType::Bool => Err("takes numbers, got bool".into()),
                _ => Ok((shape, dtype)),
            }
        }
        Op::Offset(_) => {
            arity(1)?;
            Ok((*inputs[0].0, inputs[0].1))
        }
        Op::View(movement) => {
            arity(1)?;
            Ok((movement.shape(inputs[0].0)?, inputs[0].1))
        }
        &Op::Gather(axis) => {
            arity(2)?;
            let [(table, dtype), (index, index_dtype)] = [inputs[0], inputs[1]];
            check_index(index_dtype)?;
            if axis >= table.rank() {
                return Err(format!("axis {axis} out of range for rank {}", table.rank()));
            }
            if table[axis] == 0 {
                return Err(format!("axis {axis} of the table is empty"));
            }
            Ok((Shape::of(&[&table[..axis], index, &table[axis + 1..]]), dtype))
        }
        &Op::Scatter { axis, size } => {
            arity(2)?;
            let [(index, index_dtype), (values, dtype)] = [inputs[0], inputs[1]];
            check_index(index_dtype)?;
            let end = axis + index.rank();
            if values.rank() < end || values[axis..end] != index[..] {
                return Err(format!("values {values} do not have the index's dims {index} at axis {axis}"));
            }
            Ok((Shape::of(&[&values[..axis], &[size], &values[end..]]), dtype))
        }
        Op::Dot(c) => {
            arity(2)?;
            let [(lhs, a), (rhs, b)] = [inputs[0], inputs[1]];
            if a != b || !a.is_float() {
                return Err("takes floats of one dtype".into());
            }
            if lhs.rank() != c.batch + c.m + c.k || rhs.rank() != c.batch + c.k + c.n {
                return Err(format!("ranks do not match: {lhs} and {rhs}"));
            }
            let (batch, rest) = lhs.split_at(c.batch);
            let (m, k) = rest.split_at(c.m);
            if rhs[..c.batch] != *batch {
                return Err(format!("batch dims differ: {lhs} and {rhs}"));
            }
            if rhs[c.batch..c.batch + c.k] != *k {
                return Err(format!("inner dims differ: {lhs} and {rhs}"));
            }
            Ok((Shape::of(&[batch, m, &rhs[c.batch + c.k..]]), a))
        }
        Op::Linear => linear::infer(inputs),
        Op::Attention(attend) => attention::infer(*attend, inputs),
        Op::Scan(scan) => {
            arity(1)?;
            scan::infer(*scan, inputs[0])
        }
        Op::Sort(sort) => {
            arity(1)?;
            sort::infer(*sort, inputs[0])
        }
    }
}

fn check_index(dtype: DType) -> Result<(), String> {
    match dtype {
        DType::I32 | DType::U32 => Ok(()),
        other => Err(format!("an index is i32 or u32, got {other}")),
    }
}

/// Checks the invariants of a graph: topological order, and every shape and dtype as inferred.
///
/// # Errors
/// The first node that breaks one, and how.
pub fn verify(graph: &Graph) -> Result<(), String> {
    for (id, node) in graph.nodes.iter().enumerate() {
        let fail = |why: String| Err(format!("%{id} {}: {why}", node.op.name()));
        if let Some(i) = node.inputs.iter().find(|&&i| i as usize >= id) {
            return fail(format!("names %{i}, which is not earlier"));
        }
        let found = (node.shape, node.dtype);
        let expected = match &node.op {
            Op::Leaf(_) => found,
            Op::Const(_) | Op::Scalar(_) => (Shape::scalar(), node.dtype),
            Op::Iota(axis) if *axis >= node.shape.rank() => return fail(format!("axis {axis} out of range")),
            Op::Iota(_) => found,
            _ => {
                let inputs = node.inputs.iter().map(|&i| &graph.nodes[i as usize]);
                match infer(&node.op, &inputs.map(|n| (&n.shape, n.dtype)).collect::<Vec<_>>()) {
                    Ok(meta) => meta,
                    Err(why) => return fail(why),
                }
            }
        };
        if found != expected {
            return fail(format!("is {}{}, inferred {}{}", found.1, found.0, expected.1, expected.0));
        }
    }
    match graph.outputs.iter().find(|&&o| o as usize >= graph.nodes.len()) {
        Some(o) => Err(format!("output %{o} does not exist")),
        None => Ok(()),
    }
}

impl Node {
    /// ` at file:line`, the place where the user wrote it, for messages; nothing where that is unknown.
    pub fn place(&self) -> String {
        self.location.map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()))
    }
}

impl Graph {
    /// Appends a source node, which states its own shape and dtype.
    pub fn source(&mut self, op: Op, shape: Shape, dtype: DType) -> NodeId {
        self.push(Node { op, inputs: Vec::new(), shape, dtype, location: None, stage: 0 })
    }

    /// Appends a derived node.
    ///
    /// # Panics
    /// If [`infer`] refuses it.
    #[track_caller]
    pub fn apply(&mut self, op: Op, inputs: &[NodeId]) -> NodeId {
        let metas: Vec<_> = inputs.iter().map(|&i| &self.nodes[i as usize]).map(|n| (&n.shape, n.dtype)).collect();
        let (shape, dtype) = infer(&op, &metas).unwrap_or_else(|why| panic!("{}: {why}", op.name()));
        self.push(Node { op, inputs: inputs.to_vec(), shape, dtype, location: Some(Location::caller()), stage: 0 })
    }

    /// The graph with other nodes in place of some. For each node, `place` may append to the new graph what stands for it,
    /// and give the number of its value; else the node stays. It is given the node, its number, and where what it reads is
    /// now. What it appends stands for what the node's caller wrote, in its stage; leaves, scalars and outputs keep their
    /// places.
    pub fn rewritten(&self, mut place: impl FnMut(&mut Graph, &Node, NodeId, &[NodeId]) -> Option<NodeId>) -> Graph {
        let mut out = Graph::default();
        let mut moved: Vec<NodeId> = Vec::with_capacity(self.nodes.len());
        for (node, id) in self.nodes.iter().zip(0..) {
            let inputs: Vec<NodeId> = node.inputs.iter().map(|&i| moved[i as usize]).collect();
            let first = out.nodes.len();
            let value = place(&mut out, node, id, &inputs);
            for made in &mut out.nodes[first..] {
                (made.location, made.stage) = (node.location, node.stage);
            }
            moved.push(value.unwrap_or_else(|| out.push(Node { inputs, ..node.clone() })));
        }
        out.outputs = self.outputs.iter().map(|&o| moved[o as usize]).collect();
        out
    }

    /// Appends a node as it is.
    pub fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() as NodeId - 1
    }
}

/// Let-form with types: `%3 = add %1 %2 : f32[4, 3]`.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.nodes.iter().enumerate() {
            write!(f, "%{id} = {}", node.op.name())?;
            match &node.op {
                Op::Leaf(n) | Op::Scalar(n) | Op::Offset(n) => write!(f, " #{n}")?,
                Op::Const(v) => write!(f, " {v}")?,
                Op::Iota(axis) | Op::Gather(axis) => write!(f, " axis {axis}")?,
                Op::Reduce(_, axes) => write!(f, " {axes:?}")?,
                Op::Scatter { axis, size } => write!(f, " axis {axis} size {size}")?,
                Op::Attention(a) if a.causal => write!(f, " causal")?,
                Op::Scan(s) => write!(f, " axis {}{}", s.axis, if s.reverse { " in reverse" } else { "" })?,
                Op::Sort(s) => write!(f, " axis {}{}", s.axis, if s.descending { " descending" } else { "" })?,
                Op::Map(_) | Op::View(_) | Op::Dot(_) | Op::Linear | Op::Attention(_) => {}
            }
            for i in &node.inputs {
                write!(f, " %{i}")?;
            }
            writeln!(f, " : {}{}", node.dtype, node.shape)?;
        }
        write!(f, "return")?;
        for o in &self.outputs {
            write!(f, " %{o}")?;
        }
        writeln!(f)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
