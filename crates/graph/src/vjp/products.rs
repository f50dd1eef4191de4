//! The rules of contractions, which are contractions again.

use kiln_ir::{Axes, Contraction, Movement, Op};

use super::Wanted;
use crate::Tensor;
use crate::node::Source;

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
pub(super) fn right(c: Contraction, lhs: &Tensor, rhs: &Tensor, g: &Tensor) -> (u64, Tensor) {
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
pub(super) fn linear(x: &[Tensor], g: &Tensor, wanted: Wanted) -> Vec<(u64, Tensor)> {
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
