//! The order in which a loop's axes are walked, so that addresses make long runs.
//!
//! A kernel's space comes in the order of what it stores. Where that leaves the other accesses with runs of two or
//! three points, as around pools and windows, short axes are better walked last of all. Rows and points keep apart,
//! and the sizes of tiles do not change, so neither do their number and the order of their sums.

use kiln_ir::ReduceOp;
use kiln_ir::kernel::{Body, Instr};
use kiln_ir::{Bound, Index};

use crate::pairs::Pairs;
use crate::space::{Runs, stride};

/// What going on to another run costs, in copies of an element: by addition alone, or otherwise.
const RUN: [f64; 2] = [16.0, 60.0];

/// What an element costs that is not beside the last one, and one in another cache line.
const STRIDED: [f64; 2] = [3.0, 16.0];

/// What an element costs of which each is there twice, and a coordinate, which is in a table.
const TWICE: f64 = 1.5;
const LISTED: f64 = 2.0;

/// Axes shorter than one of these are tried in front.
const SHORT: [usize; 3] = [4, 8, 16];

/// The axes of `outer` and `row` in the order that costs least, as numbers of the axes they were; `inner` says
/// whether the points of a row are walked before the next row.
pub(crate) fn order(outer: &[usize], row: &[usize], inner: bool, body: &Body) -> Vec<usize> {
    let (n_outer, rank) = (outer.len(), outer.len() + row.len());
    let dims = [outer, row].concat();
    let as_is: Vec<usize> = (0..rank).collect();
    // Which of equal points comes first is part of the result.
    let ties = body.instrs.iter().any(|i| matches!(i, Instr::Reduce(ReduceOp::ArgMax, _)));
    let front = |axes: &[usize], short: usize| -> Vec<usize> {
        let (first, last): (Vec<usize>, Vec<usize>) = axes.iter().partition(|&&a| dims[a] < short);
        [first, last].concat()
    };
    let candidates = SHORT.iter().map(|&short| {
        let (rows, points) = as_is.split_at(n_outer);
        [front(rows, short), if ties { points.to_vec() } else { front(points, short) }].concat()
    });
    let mut best = (cost(&dims, n_outer, inner, body, &as_is), as_is.clone());
    for candidate in candidates {
        let found = cost(&dims, n_outer, inner, body, &candidate);
        // Only where it clearly pays.
        if found < 0.8 * best.0 {
            best = (found, candidate);
        }
    }
    best.1
}

/// The body over axes in another order.
pub(crate) fn reordered(body: &Body, order: &[usize]) -> Body {
    body.renamed(&|axis| order.iter().position(|&a| a == axis).unwrap_or(axis))
}

/// Copies of an element that all accesses of a point take, about.
fn cost(dims: &[usize], n_outer: usize, inner: bool, body: &Body, order: &[usize]) -> f64 {
    let (rows, points) = order.split_at(n_outer);
    let walked = if inner { [rows, points].concat() } else { [points, rows].concat() };
    let to = |axis: usize| walked.iter().position(|&a| a == axis).unwrap_or(axis);
    let dims: Vec<usize> = walked.iter().map(|&a| dims[a]).collect();
    let access = |index: &Index, bounds: &[Bound]| {
        let exprs: Vec<Index> =
            std::iter::once(index).chain(bounds.iter().map(|b| &b.index)).map(|e| e.rename(&to)).collect();
        let runs = Runs::new(&dims, &exprs.iter().collect::<Vec<_>>(), |_| true);
        let added = bounds.is_empty() && index.affine(dims.len() + 1).is_some();
        let pairs = added.then(|| Pairs::of(&dims, &runs, |axis| stride(&exprs[0], axis))).flatten();
        if pairs == Some(Pairs::Twice) {
            return RUN[0] / (runs.len * dims[runs.lead - 1]) as f64 + TWICE;
        }
        let step = match runs.steps[0].unsigned_abs() {
            0..=1 => 1.0,
            2..=8 => STRIDED[0],
            _ => STRIDED[1],
        };
        RUN[!added as usize] / runs.len as f64 + step
    };
    let instr = |i: &Instr| match i {
        Instr::Load { index, valid, .. } => access(index, valid),
        Instr::Coord(index) if index.affine(dims.len()).is_some() => access(index, &[]).min(LISTED),
        Instr::Coord(index) => access(index, &[]),
        Instr::Inside(bounds) => access(&Index::constant(0), bounds),
        Instr::Const(..)
        | Instr::Scalar(..)
        | Instr::Op(..)
        | Instr::Cast(..)
        | Instr::Reduce(..)
        | Instr::ColumnReduce(..)
        | Instr::Acc => 0.0,
    };
    body.instrs.iter().map(instr).sum::<f64>() + body.stores.iter().map(|s| access(&s.index, &[])).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::DType;
    use kiln_ir::kernel::Store;

    fn body(load: &[i64], store: &[i64]) -> Body {
        let index = |strides: &[i64]| {
            strides.iter().enumerate().fold(Index::constant(0), |sum, (axis, &s)| {
                sum.add(&Index::var(axis).scale(s), &vec![usize::MAX; strides.len()])
            })
        };
        let mut body = Body::default();
        let value = body.push(Instr::Load { arg: 0, index: index(load), valid: vec![], gather: None }, DType::F32);
        body.stores.push(Store { arg: 1, index: index(store), value });
        body
    }

    #[test]
    fn short_axes_go_first_where_runs_are_short() {
        // The spread of a pool: [64, 14, 3, 14, 3] from [64, 14, 14].
        let spread = body(&[196, 14, 0, 1, 0], &[1764, 126, 42, 3, 1]);
        let found = order(&[64, 14, 3, 14, 3], &[], true, &spread);
        assert_eq!(found, [2, 4, 0, 1, 3]);
        let moved = reordered(&spread, &found);
        assert_eq!(moved.stores[0].index.affine(5).unwrap(), [42, 1, 1764, 126, 3]);
    }

    #[test]
    fn what_is_read_twice_is_no_short_run() {
        let spread = body(&[196, 14, 0, 1, 0], &[784, 56, 28, 2, 1]);
        assert_eq!(order(&[64, 14, 2, 14, 2], &[], true, &spread), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_is_dense_stays() {
        let dense = body(&[784, 56, 28, 2, 1], &[784, 56, 28, 2, 1]);
        assert_eq!(order(&[64, 14, 2, 14, 2], &[], true, &dense), [0, 1, 2, 3, 4]);
    }
}
