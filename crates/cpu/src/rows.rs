//! Maps as loops over rows, along which some of what they read is the same, or in each of which it comes again.
//!
//! Point by point, such a value is spread over the lanes of each tile, and what is computed of it alone is computed as
//! often. A row has it once. The normalisation of an image's channels, of 32 × 32 images of 112 × 112, takes 4 ms so
//! instead of 7.6.

use kiln_ir::Index;
use kiln_ir::kernel::{Instr, Loop};

use crate::space::Runs;
use crate::tiling::{LINE, SHORT_ROW, fills_lines};

/// Points of a map that caches hold: it pays for rows too that something is read again in each of them, from where it
/// lies. From memory, tiles of many rows come faster.
const NEAR: usize = 1 << 22;

/// A map over rows of as many of its last axes as go on together wherever they are used, if that is worth it.
pub(crate) fn by_rows(kernel: Loop) -> Loop {
    let rank = kernel.outer.len();
    if !kernel.row.is_empty() {
        return kernel;
    }
    match (1..rank).find(|&first| pays(&kernel, first)) {
        Some(first) => {
            let (outer, row) = kernel.outer.split_at(first);
            Loop { outer: outer.to_vec(), row: row.to_vec(), ..kernel }
        }
        None => kernel,
    }
}

/// True iff rows of the axes from the `first` on are worth it.
fn pays(kernel: &Loop, first: usize) -> bool {
    let (outer, row) = kernel.outer.split_at(first);
    let [n_rows, len] = [outer, row].map(|dims| dims.iter().product::<usize>());
    if n_rows < LINE || len <= SHORT_ROW || !fills_lines(len) {
        return false;
    }
    let within = |axis: usize| axis >= first;
    let step = |index: &Index| {
        let run = Runs::new(&kernel.outer, &[index], within);
        (run.len == len).then_some(run.steps[0])
    };
    let near = n_rows * len < NEAR;
    let mut worth = false;
    let mut goes_on = |index: &Index| {
        let step = step(index);
        let again = Runs::new(&kernel.outer, &[index], |_| true).len < n_rows * len;
        worth |= again && (near || step == Some(0) && index.uses(&|axis| !within(axis)));
        matches!(step, Some(0 | 1))
    };
    let loads = kernel.body.instrs.iter().all(|instr| match instr {
        Instr::Load { index, valid, gather, .. } => {
            gather.is_none() && !valid.iter().any(|bound| bound.index.uses(&within)) && goes_on(index)
        }
        Instr::Inside(bounds) => !bounds.iter().any(|bound| bound.index.uses(&within)),
        _ => true,
    });
    loads && kernel.body.stores.iter().all(|store| goes_on(&store.index)) && worth
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::kernel::{Access, Arg, Body, Store};
    use kiln_ir::{DType, PointOp};

    /// `x + channel` over images `[n, c, h, w]`, of which `x` lies at `strides`.
    fn map(dims: [usize; 4], strides: [i64; 4]) -> Loop {
        let mut body = Body::default();
        let at = |strides: [i64; 4]| {
            let terms = strides.iter().enumerate().map(|(axis, &s)| Index::var(axis).scale(s));
            terms.fold(Index::constant(0), |sum, term| sum.add(&term, &dims))
        };
        let load = |arg, index| Instr::Load { arg, index, valid: vec![], gather: None };
        let x = body.push(load(0, at(strides)), DType::F32);
        let channel = body.push(load(1, Index::var(1)), DType::F32);
        let value = body.push(Instr::Op(PointOp::Add, [x, channel, channel]), DType::F32);
        let [_, c, h, w] = dims.map(|d| d as i64);
        body.stores.push(Store { arg: 2, index: at([c * h * w, h * w, w, 1]), value });
        let arg = |numel, access| Arg { dtype: DType::F32, numel, access };
        let numel = dims.iter().product();
        let args = vec![arg(numel, Access::Read), arg(dims[1], Access::Read), arg(numel, Access::Write)];
        Loop { outer: dims.to_vec(), row: vec![], args, body }
    }

    #[test]
    fn channels_have_rows() {
        let rows = by_rows(map([4, 8, 12, 10], [960, 120, 10, 1]));
        assert_eq!((&*rows.outer, &*rows.row), (&[4, 8][..], &[12, 10][..]));
    }

    #[test]
    fn what_comes_again_has_rows_where_caches_hold_it() {
        let again = |rows: usize| {
            let mut kernel = map([rows, 1, 16, 32], [512, 512, 32, 1]);
            let Instr::Load { index, .. } = &mut kernel.body.instrs[1] else { panic!("loads the channel") };
            *index = Index::var(2).scale(32).add(&Index::var(3), &[rows, 1, 16, 32]);
            by_rows(kernel).row
        };
        assert_eq!(again(64), [1, 16, 32]);
        assert_eq!(again(NEAR / 512), []);
    }

    #[test]
    fn rows_are_long_and_lie_as_they_are_stored() {
        let row = |dims, strides| by_rows(map(dims, strides)).row;
        assert_eq!(row([4, 8, 3, 3], [72, 9, 3, 1]), [], "few points");
        assert_eq!(row([1, 8, 12, 10], [960, 120, 10, 1]), [], "few rows");
        assert_eq!(row([4, 8, 1, 289], [2312, 289, 289, 1]), [], "no number of lines");
        assert_eq!(row([4, 8, 12, 12], [1152, 144, 1, 12]), [], "turned");
        assert_eq!(row([4, 8, 12, 10], [960, 1, 80, 8]), [], "channels last");
    }
}
