//! Affine maps `x · Wᵀ + b`: one recorded op for what most layers are made of.
//!
//! [`compose`] says what it is in terms of others. No device has a kernel for it, and none needs one: recording a third of
//! the ops is what it is for.

use std::sync::{Arc, LazyLock};

use crate::{Axes, Contraction, DType, Expr, Graph, Movement, NodeId, Op, PointOp, Shape};

/// The shape and dtype of an affine map of `x [.., k]` by `weight [n, k]` and, if there is one, `bias [n]`; or the rule
/// that they break.
pub(crate) fn infer(inputs: &[(&Shape, DType)]) -> Result<(Shape, DType), String> {
    let (&[(x, dtype), (weight, of_weight)] | &[(x, dtype), (weight, of_weight), _]) = inputs else {
        return Err(format!("takes 2 or 3 operands, got {}", inputs.len()));
    };
    let bias = inputs.get(2);
    if !dtype.is_float() || of_weight != dtype || bias.is_some_and(|bias| bias.1 != dtype) {
        return Err("takes floats of one dtype".into());
    }
    if x.rank() == 0 || weight.rank() != 2 {
        return Err(format!("takes x [.., k] and weight [n, k], got ranks {} and {}", x.rank(), weight.rank()));
    }
    let last = x.rank() - 1;
    if x[last] != weight[1] {
        return Err(format!("inner dims differ: {} ≠ {}", x[last], weight[1]));
    }
    if let Some((bias, _)) = bias
        && bias[..] != weight[..1]
    {
        return Err(format!("the bias has dims {bias}, not [{}]", weight[0]));
    }
    Ok((x.with(last, weight[0]), dtype))
}

/// Appends what an affine map means to a graph that holds its operands; gives its node.
pub fn compose(graph: &mut Graph, operands: &[NodeId]) -> NodeId {
    static ADD: LazyLock<Arc<Expr>> = LazyLock::new(|| Arc::new(Expr::of(PointOp::Add)));
    let rows = graph.nodes[operands[0] as usize].shape.rank() - 1;
    let turned = graph.apply(Op::View(Movement::Permute(Axes::new(&[1, 0]))), &operands[1..2]);
    let product = graph.apply(Op::Dot(Contraction { batch: 0, m: rows, n: 1, k: 1 }), &[operands[0], turned]);
    match operands.get(2) {
        Some(&bias) => graph.apply(Op::Map(ADD.clone()), &[product, bias]),
        None => product,
    }
}
