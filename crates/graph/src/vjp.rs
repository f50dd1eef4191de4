//! The rule of each op: from the cotangent of its value to those of its operands.

use std::ops::Range;
use std::sync::Arc;

use kiln_ir::attention::{Attend, Part, compose};
use kiln_ir::scan::Scan;
use kiln_ir::sort::{self, Sort};
use kiln_ir::{Axes, Contraction, DType, Expr, ExprNode, Graph, Movement, Op, ReduceOp};

use crate::node::Source;
use crate::record::{record, source};
use crate::{Tensor, formulas};

/// Whether anything asks for a node's cotangent.
pub(crate) type Wanted<'a> = &'a dyn Fn(&Tensor) -> bool;

/// The cotangents of the operands that have one and are wanted, each with the id of the node it belongs to.
#[track_caller]
pub(crate) fn vjp(op: &Op, x: &[Tensor], y: &Tensor, g: &Tensor, wanted: Wanted) -> Vec<(u64, Tensor)> {
    let id = |t: &Tensor| t.node().id;
    match op {
        Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_) => Vec::new(),
        Op::Map(expr) => map(expr, x, y, g, wanted),
        Op::Reduce(reduce, axes) => reduction(*reduce, axes, &x[0], y, g).map(|d| (id(&x[0]), d)).into_iter().collect(),
        Op::View(movement) => vec![(id(&x[0]), view(movement, &x[0], g))],
        Op::Gather(axis) => vec![(id(&x[0]), x[1].scatter_add(*axis, x[0].dims()[*axis], g))],
        Op::Scatter { axis, .. } => vec![(id(&x[1]), g.index_select(*axis as isize, &x[0]))],
        Op::Dot(c) => {
            let left = wanted(&x[0]).then(|| left(*c, &x[0], &x[1], g));
            left.into_iter().chain(wanted(&x[1]).then(|| right(*c, &x[0], &x[1], g))).collect()
        }
        Op::Linear => linear(x, g, wanted),
        Op::Attention(attend) => attention(*attend, x, y, g, wanted),
        Op::Scan(scan) => vec![(id(&x[0]), running(*scan, &x[0], y, g))],
        Op::Sort(sort) => vec![(id(&x[0]), unsorted(*sort, &x[0], g))],
    }
}

/// True iff a cotangent of an op's result goes on to this float operand, as far as the op alone tells.
pub(crate) fn goes_on(op: &Op, operand: usize) -> bool {
    match op {
        Op::Map(expr) => match expr.nodes.last() {
            Some(ExprNode::Input(_)) => false,
            Some(ExprNode::Cast(..)) => true,
            _ => formulas::of(expr).of_input.get(operand).is_some_and(Option::is_some),
        },
        Op::Reduce(..)
        | Op::View(_)
        | Op::Gather(_)
        | Op::Scatter { .. }
        | Op::Dot(_)
        | Op::Linear
        | Op::Attention(_)
        | Op::Scan(_)
        | Op::Sort(_) => true,
        Op::Leaf(_) | Op::Const(_) | Op::Scalar(_) | Op::Iota(_) | Op::Offset(_) => false,
    }
}

#[track_caller]
fn map(expr: &Arc<Expr>, x: &[Tensor], y: &Tensor, g: &Tensor, wanted: Wanted) -> Vec<(u64, Tensor)> {
    match expr.nodes.last() {
        // A formula that is its input stops gradients: see `Tensor::detach`.
        Some(ExprNode::Input(_)) => return Vec::new(),
        Some(ExprNode::Cast(..)) if x[0].dtype().is_float() => return vec![(x[0].node().id, g.cast(x[0].dtype()))],
        _ => {}
    }
    let rules = formulas::of(expr);
    let value = |n: u8| match n as usize {
        0 => g,
        n if n <= x.len() => &x[n - 1],
        _ => y,
    };
    let mut found = Vec::with_capacity(x.len());
    for (t, rule) in x.iter().zip(&rules.of_input) {
        let Some(rule) = rule.as_ref().filter(|_| t.dtype().is_float() && wanted(t)) else { continue };
        let (mut few, mut many) = ([g; 4], Vec::new());
        let inputs = match few.get_mut(..rule.named.len()) {
            Some(few) => {
                few.iter_mut().zip(&rule.named).for_each(|(to, &n)| *to = value(n));
                &*few
            }
            None => {
                many.extend(rule.named.iter().map(|&n| value(n)));
                &many
            }
        };
        let formula = |expr: &Arc<Expr>| match expr.nodes.as_slice() {
            [ExprNode::Input(0)] => inputs[0].clone(),
            _ => record(Op::Map(expr.clone()), inputs),
        };
        let d = match &rule.positive {
            Some(positive) if t.shape() != y.shape() => -formula(positive).sum_to(t.shape()),
            _ => formula(&rule.expr).sum_to(t.shape()),
        };
        found.push((t.node().id, d));
    }
    found
}

#[track_caller]
fn reduction(op: ReduceOp, axes: &[usize], x: &Tensor, y: &Tensor, g: &Tensor) -> Option<Tensor> {
    match op {
        ReduceOp::Sum => Some(g.expand(x.dims())),
        ReduceOp::Prod => {
            // The product of the others, without dividing by a zero.
            let zero = x.eq(0.0);
            let one = Tensor::full(&[], 1.0, x.dtype(), x.device());
            let nothing = Tensor::full(&[], 0.0, x.dtype(), x.device());
            let axes: Vec<isize> = axes.iter().map(|&a| a as isize).collect();
            let n_zeros = zero.cast(x.dtype()).sum_keepdim(&axes);
            let rest = zero.select(&one, x).reduce(ReduceOp::Prod, &axes);
            let at_zero = n_zeros.eq(1.0).select(&rest, &nothing);
            let elsewhere = n_zeros.eq(0.0).select(&(y / zero.select(&one, x)), &nothing);
            Some(zero.select(&at_zero, &elsewhere) * g)
        }
        ReduceOp::Max => Some(to_first(axes, x, g)),
        ReduceOp::Min => Some(to_first(axes, &-x, g)),
        ReduceOp::ArgMax => None,
    }
}

/// The cotangent of a scan's input.
///
/// A sum's is the sum from the other end. A product's is that of `g · y`, over `x`; the first zero has a product of its
/// own, without itself, and what follows has none: the rule of PyTorch's `cumprod_backward`. An extreme's goes to the
/// last element so far that is it.
#[track_caller]
fn running(scan: Scan, x: &Tensor, y: &Tensor, g: &Tensor) -> Tensor {
    let back = |t: &Tensor| record(Op::Scan(Scan { op: ReduceOp::Sum, reverse: !scan.reverse, ..scan }), &[t]);
    match scan.op {
        ReduceOp::Sum => back(g),
        ReduceOp::Prod => {
            let number = |v| Tensor::full(&[], v, x.dtype(), x.device());
            let (one, nothing, zero) = (number(1.0), number(0.0), x.eq(0.0));
            let n_zeros = record(Op::Scan(Scan { op: ReduceOp::Sum, ..scan }), &[&zero.cast(DType::I32)]);
            let first = zero.logical_and(n_zeros.eq(1.0));
            let before = back(&(g * y)) / zero.select(&one, x);
            let of_others = record(Op::Scan(scan), &[&first.select(&one, x)]);
            let at_first = first.select(&back(&(g * of_others)), &nothing);
            n_zeros.eq(0.0).select(&before, &at_first)
        }
        ReduceOp::Max | ReduceOp::Min => x.reached(y, scan).add_along(scan.axis, x.dims(), g),
        ReduceOp::ArgMax => unreachable!("no scan has positions"),
    }
}

/// The cotangent of what was sorted: each element's is looked up where it went, or looked for among few.
#[track_caller]
fn unsorted(sort: Sort, x: &Tensor, g: &Tensor) -> Tensor {
    const FEW: usize = 32;
    let (axis, len) = (sort.axis, x.dims()[sort.axis]);
    let from = |keep: usize| record(Op::Sort(Sort { part: sort::Part::Indices, keep, ..sort }), &[x]);
    if sort.keep > FEW || sort.keep == len {
        // Where each went is found by sorting where all came from.
        let whole = g.pad(axis as isize, 0, len - sort.keep);
        return whole.gather(axis as isize, &from(len).argsort(axis as isize, false));
    }
    let numel = |dims: &[usize]| dims.iter().product::<usize>();
    let split = |t: &Tensor| t.reshape(&[numel(&x.dims()[..axis]), sort.keep, 1, numel(&x.dims()[axis + 1..])]);
    let at = Tensor::iota(&[len, 1], 0, x.device());
    let nothing = Tensor::full(&[], 0.0, g.dtype(), g.device());
    at.eq(split(&from(sort.keep))).select(&split(g), &nothing).sum(&[1]).reshape(x.dims())
}

/// The cotangent of the first greatest element, all of the result's; of the others, 0.
#[track_caller]
fn to_first(axes: &[usize], x: &Tensor, g: &Tensor) -> Tensor {
    if let [axis] = *axes {
        return to_first_along(axis, x, g);
    }
    // Several are laid out as one.
    let kept = (0..x.rank()).filter(|a| !axes.contains(a));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let permuted = x.permute(&perm);
    let n_kept = x.rank() - axes.len();
    let rows = permuted.reshape(&[&permuted.dims()[..n_kept], &[axes.iter().map(|&a| x.dims()[a]).product()]].concat());
    to_first_along(n_kept, &rows, &g.permute(&perm)).reshape(permuted.dims()).permute(&Movement::inverse(&perm))
}

/// As [`to_first`], of one axis.
#[track_caller]
fn to_first_along(axis: usize, x: &Tensor, g: &Tensor) -> Tensor {
    let first = x.reduce(ReduceOp::ArgMax, &[axis as isize]);
    let hit = Tensor::iota(x.dims(), axis, x.device()).eq(&first);
    let zero = Tensor::full(&[], 0.0, g.dtype(), g.device());
    hit.select(&g.reshape(first.dims()), &zero)
}

#[track_caller]
fn view(movement: &Movement, x: &Tensor, g: &Tensor) -> Tensor {
    match movement {
        Movement::Reshape(_) => g.reshape(x.dims()),
        Movement::Permute(perm) => g.permute(&Movement::inverse(perm)),
        Movement::Expand(_) => g.sum_to(x.shape()),
        &Movement::Slice { axis, len: 0, .. } => {
            debug_assert!(axis < x.rank());
            Tensor::full(x.dims(), 0.0, x.dtype(), x.device())
        }
        &Movement::Slice { axis, start, len, step } => {
            let hi = x.dims()[axis] - (start + (len - 1) * step + 1);
            g.view(Movement::Pad { axis, lo: start, hi, interior: step - 1 })
        }
        &Movement::Flip(axis) => g.view(Movement::Flip(axis)),
        &Movement::Pad { axis, lo, interior, .. } => {
            let cut = |axis, len| Movement::Slice { axis, start: lo, len, step: interior + 1 };
            let len = x.dims()[axis];
            // What windows saw of the padding is not summed.
            match behind_sum(g) {
                Some(of) => of.sum_of(&of.spread.view(cut(of.place(axis), len)), &[]),
                None => g.view(cut(axis, len)),
            }
        }
        &Movement::Window { axis, stride, dilation, .. } => {
            let len = x.dims()[axis];
            let spread = |g: &Tensor, axis| g.view(Movement::Unwindow { axis, len, stride, dilation });
            // Windows of windows, as of an image, are summed over at once.
            match behind_sum(g).filter(|of| of.place(axis + 1) == of.place(axis) + 1) {
                Some(of) => of.sum_of(&spread(&of.spread, of.place(axis)), &[of.place(axis + 1)]),
                None => spread(g, axis).sum(&[axis as isize + 1]),
            }
        }
        &Movement::Unwindow { axis, stride, dilation, .. } => {
            g.view(Movement::Rewindow { axis, count: x.dims()[axis], stride, dilation })
        }
        &Movement::Rewindow { axis, stride, dilation, .. } => {
            g.view(Movement::Unwindow { axis, len: x.dims()[axis], stride, dilation })
        }
    }
}

/// A sum over windows that were spread.
struct WindowSum {
    /// What is summed.
    spread: Tensor,
    /// In order.
    axes: Vec<usize>,
}

impl WindowSum {
    /// The axis of what is summed that an axis of the sum is.
    fn place(&self, axis: usize) -> usize {
        self.axes.iter().fold(axis, |axis, &summed| axis + usize::from(summed <= axis))
    }

    /// The same sum of something else, over more axes.
    #[track_caller]
    fn sum_of(&self, spread: &Tensor, more: &[usize]) -> Tensor {
        let axes: Vec<isize> = self.axes.iter().chain(more).map(|&axis| axis as isize).collect();
        spread.sum(&axes)
    }
}

/// The sum that a cotangent is, if it is one over windows that were spread.
fn behind_sum(g: &Tensor) -> Option<WindowSum> {
    let Source::Op(Op::View(Movement::Reshape(_))) = &g.node().source else { return None };
    let sum = g.node().books().inputs.first().cloned()?;
    let Source::Op(Op::Reduce(ReduceOp::Sum, axes)) = &sum.source else { return None };
    let kept: Vec<usize> = (0..sum.shape.rank()).filter(|a| !axes.contains(a)).map(|a| sum.shape[a]).collect();
    let spread = sum.books().inputs.first().cloned().filter(|_| kept == g.dims())?;
    let mut axes = axes.to_vec();
    axes.sort_unstable();
    let mut base = spread.clone();
    while let Source::Op(Op::View(view)) = &base.source {
        match view {
            Movement::Unwindow { .. } => return Some(WindowSum { spread: Tensor::from_node(spread), axes }),
            Movement::Slice { .. } => {}
            _ => return None,
        }
        let next = base.books().inputs.first().cloned()?;
        base = next;
    }
    None
}

/// `∂lhs [b, m, k] = g [b, m, n] · rhsᵀ [b, n, k]`.
///
/// Batch axes along which the operand was only repeated are summed over right here, so that a weight
/// shared by a batch gets its gradient from one contraction.
#[track_caller]
pub(crate) fn left(c: Contraction, lhs: &Tensor, rhs: &Tensor, g: &Tensor) -> (u64, Tensor) {
    let (target, repeated) = behind_repeats(lhs, c.batch);
    let own = others(c.batch, &repeated);
    let (m, n) = (axes(c.batch, c.m), axes(c.batch + c.m, c.n));
    let (k_rhs, n_rhs) = (axes(c.batch, c.k), axes(c.batch + c.k, c.n));
    let g_perm = Axes::of(&[&own, &m, &repeated, &n]);
    let rhs_perm = Axes::of(&[&own, &repeated, &n_rhs, &k_rhs]);
    let axes = Contraction { batch: own.len(), m: c.m, n: c.k, k: repeated.len() + c.n };
    let d = multiplied(&g.permute(&g_perm), &rhs.permute(&rhs_perm), axes);
    (target.node().id, d.reshape(target.dims()))
}

/// `∂rhs [b, k, n] = lhsᵀ [b, k, m] · g [b, m, n]`.
#[track_caller]
fn right(c: Contraction, lhs: &Tensor, rhs: &Tensor, g: &Tensor) -> (u64, Tensor) {
    let (target, repeated) = behind_repeats(rhs, c.batch);
    let own = others(c.batch, &repeated);
    let (m, n, k_lhs) = (axes(c.batch, c.m), axes(c.batch + c.m, c.n), axes(c.batch + c.m, c.k));
    let lhs_perm = Axes::of(&[&own, &k_lhs, &repeated, &m]);
    let g_perm = Axes::of(&[&own, &repeated, &m, &n]);
    let axes = Contraction { batch: own.len(), m: c.k, n: c.n, k: repeated.len() + c.m };
    let d = multiplied(&lhs.permute(&lhs_perm), &g.permute(&g_perm), axes);
    (target.node().id, d.reshape(target.dims()))
}

/// `∂x [.., k] = g [.., n] · W [n, k]`, `∂W [n, k] = gᵀ [n, ..] · x [.., k]` and `∂b [n] = Σ g [.., n]`.
#[track_caller]
fn linear(x: &[Tensor], g: &Tensor, wanted: Wanted) -> Vec<(u64, Tensor)> {
    let rows = g.rank() - 1;
    let of_x = || multiplied(g, &x[1], Contraction { batch: 0, m: rows, n: 1, k: 1 });
    let of_weight = || {
        let turned = g.permute(&Axes::of(&[&[rows], &axes(0, rows)]));
        multiplied(&turned, &x[0], Contraction { batch: 0, m: 1, n: 1, k: rows })
    };
    let mut found = Vec::with_capacity(x.len());
    for (n, t) in x.iter().enumerate().filter(|(_, t)| wanted(t)) {
        let d = match n {
            0 => of_x(),
            1 => of_weight(),
            _ => g.sum_to(t.shape()),
        };
        found.push((t.node().id, d));
    }
    found
}

/// A contraction; where nothing is summed, products, which fuse with what reads them.
#[track_caller]
fn multiplied(lhs: &Tensor, rhs: &Tensor, axes: Contraction) -> Tensor {
    let Contraction { batch, m, n, k } = axes;
    let (lines, columns) = (&lhs.dims()[..batch + m], &rhs.dims()[batch + k..]);
    if lhs.dims()[batch + m..].iter().any(|&dim| dim != 1) {
        return lhs.contract(rhs, axes);
    }
    let apart = |dims: &[usize], n: usize| [dims, &vec![1; n]].concat();
    let rows = lhs.reshape(&apart(lines, n));
    let columns = rhs.reshape(&[&apart(&lines[..batch], m), columns].concat());
    &rows * &columns
}

/// The gradients of an attention's output are anchors too; those of its other parts, and of the bias, are those
/// of what they mean.
#[track_caller]
fn attention(attend: Attend, x: &[Tensor], y: &Tensor, g: &Tensor, wanted: Wanted) -> Vec<(u64, Tensor)> {
    let id = |t: &Tensor| t.node().id;
    if attend.part != Part::Out {
        return meaning(attend, x, g, 0..x.len());
    }
    let part = |part: Part, inputs: &[&Tensor]| record(Op::Attention(Attend { part, ..attend }), inputs);
    let wide = y.dtype().compute();
    let logsum = part(Part::LogSum, &[&x[0], &x[1], &x[2], &x[3]]);
    let delta = (g.cast(wide) * y.cast(wide)).sum_keepdim(&[-1]);
    let inputs = [&x[0], &x[1], &x[2], &x[3], &logsum, &delta, g];
    let parts = [Part::GradQ, Part::GradK, Part::GradV];
    let asked = parts.iter().zip(x).filter(|(_, t)| wanted(t));
    let mut found: Vec<(u64, Tensor)> = asked.map(|(&p, t)| (id(t), part(p, &inputs))).collect();
    if wanted(&x[3]) {
        found.extend(meaning(attend, x, g, 3..4));
    }
    found
}

/// The cotangents of some of an attention's inputs, by way of its composition.
#[track_caller]
fn meaning(attend: Attend, x: &[Tensor], g: &Tensor, wanted: Range<usize>) -> Vec<(u64, Tensor)> {
    let mut graph = Graph::default();
    let leaves: Vec<u32> = x.iter().zip(0..).map(|(t, n)| graph.source(Op::Leaf(n), *t.shape(), t.dtype())).collect();
    compose(&mut graph, attend, &leaves);
    // Views of their own, so that one input's cotangent does not go on to another that it is computed from.
    let mut values: Vec<Tensor> = x.iter().map(|t| t.view(Movement::Reshape(*t.shape()))).collect();
    for node in &graph.nodes[x.len()..] {
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&i| &values[i as usize]).collect();
        values.push(match inputs.is_empty() {
            true => source(g.device(), Source::Op(node.op.clone()), node.shape, node.dtype),
            false => record(node.op.clone(), &inputs),
        });
    }
    let wrt: Vec<&Tensor> = values[wanted.clone()].iter().collect();
    let found = values.last().expect("a composition has nodes").vjp(g, &wrt);
    x[wanted].iter().zip(found).filter_map(|(t, d)| Some((t.node().id, d?))).collect()
}

/// So many axes from one on.
fn axes(first: usize, n: usize) -> Axes {
    (first..first + n).collect()
}

/// The batch axes that are not repeated.
fn others(n_batch: usize, repeated: &[usize]) -> Axes {
    (0..n_batch).filter(|a| !repeated.contains(a)).collect()
}

/// What an operand repeats along batch axes, and along which; itself and none if it is no such view.
fn behind_repeats(x: &Tensor, n_batch: usize) -> (Tensor, Vec<usize>) {
    let none = || (x.clone(), Vec::new());
    let Source::Op(Op::View(Movement::Expand(_))) = &x.node().source else { return none() };
    let Some(inner) = x.node().books().inputs.first().cloned() else { return none() };
    let new = x.rank() - inner.shape.rank();
    let repeated: Vec<usize> =
        (0..x.rank()).filter(|&a| x.dims()[a] != 1 && (a < new || inner.shape[a - new] == 1)).collect();
    // New axes of dim 1 are no repeats, but must not be in the way of the final reshape either.
    match repeated.iter().all(|&a| a < n_batch) {
        true => (Tensor::from_node(inner), repeated),
        false => none(),
    }
}
