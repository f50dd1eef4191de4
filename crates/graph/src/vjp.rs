//! The rule of each op: from the cotangent of its value to those of its operands.

mod products;
mod views;

use std::ops::Range;
use std::sync::Arc;

use kiln_ir::attention::{Attend, Part, compose};
use kiln_ir::scan::Scan;
use kiln_ir::sort::{self, Sort};
use kiln_ir::{DType, Expr, ExprNode, Graph, Movement, Op, ReduceOp};

pub(crate) use self::products::left;
use self::products::{linear, right};
use self::views::view;
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
    let found = values.last().expect("a composition has nodes").vjp_in_turn(g, &wrt);
    x[wanted].iter().zip(found).filter_map(|(t, d)| Some((t.node().id, d?))).collect()
}
