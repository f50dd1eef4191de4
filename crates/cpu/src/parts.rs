//! Loops whose space falls into parts: tensors side by side, sums of what lies in different places.
//!
//! Where bounds cut an axis in two, each side has fewer elements to read and nothing to choose. A loop for each then only
//! moves what all of it together would load twice and select. A loop of several reductions may fall into these just as well.

use std::ops::Range;

use kiln_ir::kernel::{Access, Body, Instr, Loop, Store, Value};
use kiln_ir::{Bound, DType, Index, PointOp};

use crate::space::admitted;
use crate::taps::TAPS_MOST;

/// Parts of a loop, at most.
const MOST: usize = 256;

/// Points of each part, and neighbours along the axis that is cut, from which on parts pay.
const LEAST: usize = 1 << 12;
const RUN: usize = 4;

/// Parts with shorter runs are moved element by element, and pay only where all of them together load this many times as
/// much.
const SHORT: usize = 8;

/// The parts of a loop, if each has less to load than the whole.
pub(crate) fn parts(kernel: &Loop) -> Option<Vec<Loop>> {
    let body = &kernel.body;
    if body.reduces_columns() || n_loads(body) < 2 {
        return None;
    }
    let rank = kernel.outer.len() + kernel.row.len();
    let mut boxes: Vec<Vec<Range<usize>>> = vec![Vec::new()];
    let mut short = false;
    for (axis, &dim) in kernel.outer.iter().enumerate() {
        let mut cuts = cuts(body, (axis, dim), rank);
        cuts.extend([0, dim]);
        cuts.sort_unstable();
        cuts.dedup();
        if (cuts.len() - 1) * boxes.len() > MOST {
            return None;
        }
        let run: usize = kernel.outer[axis + 1..].iter().chain(&kernel.row).product();
        short |= cuts.len() > 2 && cuts.windows(2).any(|cut| (cut[1] - cut[0]) * run < RUN);
        let ends = cuts.windows(2).map(|cut| cut[0]..cut[1]);
        let with =
            |end: Range<usize>| boxes.iter().map(move |part| part.iter().cloned().chain([end.clone()]).collect());
        boxes = ends.flat_map(with).collect();
    }
    let parts: Vec<Loop> = boxes.iter().map(|part| within(kernel, part)).collect();
    let n_points = |part: &Loop| part.outer.iter().chain(&part.row).product::<usize>();
    let most = if short { n_loads(body) / SHORT } else { n_loads(body) - 1 };
    let pays = |part: &Loop| n_points(part) >= LEAST && n_loads(&part.body) <= most;
    (parts.len() > 1 && parts.iter().all(pays)).then_some(parts)
}

/// A loop for each reduction, if there are several along rows of a few elements, no store needs two of them, and none is
/// where another one reads.
pub(crate) fn by_reduction(kernel: &Loop) -> Option<Vec<Loop>> {
    let body = &kernel.body;
    let reductions: Vec<usize> =
        (0..body.instrs.len()).filter(|&v| matches!(body.instrs[v], Instr::Reduce(..))).collect();
    let in_place = kernel.args.iter().any(|arg| arg.access == Access::ReadWrite);
    let few = kernel.row.iter().product::<usize>() <= TAPS_MOST;
    if reductions.len() < 2 || !few || body.reduces_columns() || in_place {
        return None;
    }
    let mut left = body.stores.len();
    let of = |at: usize| {
        let alone = |store: &&Store| {
            let mut only = body.clone();
            only.stores = vec![(*store).clone()];
            let live = only.live(false);
            reductions.iter().all(|&r| live[r] == (r == at))
        };
        let stores: Vec<Store> = body.stores.iter().filter(alone).cloned().collect();
        left -= stores.len();
        Loop { body: Body { stores, ..body.clone() }.pruned(), ..kernel.clone() }
    };
    let loops: Vec<Loop> = reductions.iter().copied().map(of).collect();
    (left == 0).then_some(loops)
}

fn n_loads(body: &Body) -> usize {
    body.instrs.iter().filter(|instr| matches!(instr, Instr::Load { .. })).count()
}

/// Where conditions that are on an axis alone begin or end to hold.
fn cuts(body: &Body, (axis, dim): (usize, usize), rank: usize) -> Vec<usize> {
    let on_axis = |bound: &Bound| -> Option<Range<usize>> {
        let strides = bound.index.affine(rank)?;
        let alone = strides.iter().enumerate().all(|(a, &stride)| (a == axis) == (stride != 0));
        alone.then(|| admitted(bound.index.constant, strides[axis], bound.lo, bound.hi, dim))
    };
    let bounds = body.instrs.iter().flat_map(|instr| match instr {
        Instr::Load { valid: bounds, .. } | Instr::Inside(bounds) => &bounds[..],
        _ => &[],
    });
    let ranges = bounds.filter_map(on_axis);
    ranges.filter(|range| !range.is_empty()).flat_map(|range| [range.start, range.end]).collect()
}

/// The loop over a part of its space.
fn within(kernel: &Loop, part: &[Range<usize>]) -> Loop {
    let outer: Vec<usize> = part.iter().map(Range::len).collect();
    let coord = |(axis, range): (usize, &Range<usize>)| {
        let var = if range.len() == 1 { Index::constant(0) } else { Index::var(axis) };
        var.offset(range.start as i64)
    };
    let rank = outer.len() + kernel.row.len();
    // Those of a row stay, and behind them a gathered one, of any size.
    let coords: Vec<Index> = part.iter().enumerate().map(coord).chain((outer.len()..=rank).map(Index::var)).collect();
    let dims = [&outer[..], &kernel.row, &[u32::MAX as usize]].concat();
    let mut moved = kernel.body.clone();
    moved.map_indices(&|index| index.substitute(&coords, &dims));
    let body = decided(&moved, &dims);
    Loop { outer, row: kernel.row.clone(), args: kernel.args.clone(), body }
}

/// A body without conditions that its space decides, and without what nothing needs then.
fn decided(body: &Body, dims: &[usize]) -> Body {
    let truth = |holds: bool| Instr::Const(DType::Bool, f64::from(u8::from(holds)));
    let never = |bounds: &[Bound]| bounds.iter().any(|bound| bound.decided(dims) == Some(false));
    let mut out = Body::default();
    let mut now: Vec<Value> = Vec::with_capacity(body.instrs.len());
    for (instr, &dtype) in body.instrs.iter().zip(&body.types) {
        let mut instr = instr.clone();
        instr.map_operands(&|v| now[v as usize]);
        if let Instr::Load { valid: bounds, .. } | Instr::Inside(bounds) = &mut instr {
            bounds.retain(|bound| bound.decided(dims) != Some(true));
        }
        if let Instr::Op(PointOp::Select, [condition, yes, no]) = instr
            && let Instr::Const(_, truth) = out.instrs[condition as usize]
        {
            now.push(if truth != 0.0 { yes } else { no });
            continue;
        }
        // A sum of what lies in different places is what lies in one, where that is.
        let zero = |v: Value| matches!(out.instrs[v as usize], Instr::Const(_, 0.0));
        if let Instr::Op(PointOp::Add, [a, b, _]) = instr
            && (zero(a) || zero(b))
        {
            now.push(if zero(a) { b } else { a });
            continue;
        }
        let instr = match &instr {
            Instr::Load { valid, .. } if never(valid) => Instr::Const(dtype, 0.0),
            Instr::Inside(bounds) if never(bounds) => truth(false),
            Instr::Inside(bounds) if bounds.is_empty() => truth(true),
            _ => instr,
        };
        now.push(out.push(instr, dtype));
    }
    out.stores = body.stores.clone();
    out.stores.iter_mut().for_each(|store| store.value = now[store.value as usize]);
    out.pruned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::ReduceOp;
    use kiln_ir::kernel::Arg;

    /// Two tensors beside each other along an axis of `dims`, of which the first one ends at `at`.
    fn beside(dims: [usize; 2], axis: usize, at: usize) -> Loop {
        let mut body = Body::default();
        let bound = |index: Index, hi: usize| vec![Bound { index, lo: 0, hi: hi as i64 }];
        let flat = |coords: [Index; 2], width: usize| coords[0].clone().scale(width as i64).add(&coords[1], &dims);
        let inner = [0, 1].map(|second| {
            let along = Index::var(axis).offset(-((second * at) as i64));
            let size = if second == 0 { at } else { dims[axis] - at };
            let coords = [0, 1].map(|a| if a == axis { along.clone() } else { Index::var(a) });
            let index = flat(coords, if axis == 1 { size } else { dims[1] });
            let load = Instr::Load { arg: second as u32, index, valid: bound(along, size), gather: None };
            body.push(load, DType::F32)
        });
        let there = body.push(Instr::Inside(bound(Index::var(axis), at)), DType::Bool);
        let value = body.push(Instr::Op(PointOp::Select, [there, inner[0], inner[1]]), DType::F32);
        body.stores.push(Store { arg: 2, index: flat([Index::var(0), Index::var(1)], dims[1]), value });
        let numel = dims[0] * dims[1];
        let args = [Access::Read, Access::Read, Access::Write].map(|access| Arg { dtype: DType::F32, numel, access });
        Loop { outer: dims.to_vec(), row: vec![], args: args.to_vec(), body }
    }

    #[test]
    fn each_part_only_moves() {
        for (axis, at) in [(0, 40), (1, 100)] {
            let parts = parts(&beside([100, 300], axis, at)).unwrap();
            assert_eq!(parts.len(), 2);
            for (second, part) in parts.iter().enumerate() {
                let [Instr::Load { arg, valid, .. }] = &part.body.instrs[..] else { panic!("{:?}", part.body) };
                assert_eq!((*arg as usize, valid.len()), (second, 0));
            }
            let mut sum = beside([100, 300], axis, at);
            let chosen = sum.body.stores[0].value as usize;
            let Instr::Op(PointOp::Select, [_, a, b]) = sum.body.instrs[chosen] else { panic!("{:?}", sum.body) };
            sum.body.instrs[chosen] = Instr::Op(PointOp::Add, [a, b, 0]);
            sum.body = sum.body.pruned();
            let summed = super::parts(&sum).unwrap();
            assert!(summed.iter().zip(&parts).all(|(sum, part)| sum.body == part.body), "{summed:?}");
            let along: Vec<usize> = parts.iter().map(|part| part.outer[axis]).collect();
            assert_eq!(along, [at, [100, 300][axis] - at]);
        }
    }

    #[test]
    fn small_parts_and_short_runs_stay_together() {
        assert!(parts(&beside([100, 300], 0, 10)).is_none());
        assert!(parts(&beside([10_000, 9], 1, 3)).is_none());
        assert!(parts(&beside([10_000, 9], 1, 4)).is_some());
    }

    /// Tensors of `width` columns beside each other, looked up row by row.
    fn looked_up(n: usize, width: usize) -> Loop {
        let dims = [10_000, n * width];
        let mut body = Body::default();
        let row = Instr::Load { arg: 0, index: Index::var(0), valid: vec![], gather: None };
        let row = body.push(row, DType::I32);
        for i in 0..n {
            let column = Index::var(1).offset(-((i * width) as i64));
            let valid = vec![Bound { index: column.clone(), lo: 0, hi: width as i64 }];
            let index = Index::var(2).scale(width as i64).add(&column, &[10_000, n * width, 50]);
            let x = Instr::Load { arg: 1, index, valid: valid.clone(), gather: Some((row, 50)) };
            let [x, here] = [(x, DType::F32), (Instr::Inside(valid), DType::Bool)].map(|(i, t)| body.push(i, t));
            let before = if i == 0 { x } else { body.stores[0].value };
            let value = body.push(Instr::Op(PointOp::Select, [here, x, before]), DType::F32);
            let index = Index::var(0).scale(dims[1] as i64).add(&Index::var(1), &dims);
            body.stores = vec![Store { arg: 2, index, value }];
        }
        let arg = |dtype, numel, access| Arg { dtype, numel, access };
        let args = vec![
            arg(DType::I32, 10_000, Access::Read),
            arg(DType::F32, 50 * width, Access::Read),
            arg(DType::F32, dims[0] * dims[1], Access::Write),
        ];
        Loop { outer: dims.to_vec(), row: vec![], args, body }
    }

    #[test]
    fn many_parts_pay_though_their_runs_are_short() {
        for (n, width) in [(40, 4), (20, 3)] {
            let parts = parts(&looked_up(n, width)).unwrap();
            assert_eq!(parts.len(), n);
            assert!(parts.iter().all(|part| part.outer == [10_000, width] && n_loads(&part.body) == 2));
        }
        assert!(parts(&looked_up(10, 3)).is_none());
    }

    #[test]
    fn rows_are_reduced_part_by_part() {
        let moved = beside([300, 100], 0, 40);
        let mut kernel = Loop { outer: vec![300], row: vec![100], ..moved };
        let value = kernel.body.push(Instr::Reduce(ReduceOp::Sum, kernel.body.stores[0].value), DType::F32);
        kernel.body.stores = vec![Store { arg: 2, index: Index::var(0), value }];
        assert!(parts(&kernel).is_none(), "too little");
        let moved = beside([300, 200], 0, 40);
        kernel = Loop { row: vec![200], args: moved.args, ..kernel };
        let parts = parts(&kernel).unwrap();
        assert_eq!(parts.iter().map(|part| (part.outer[0], part.row[0])).collect::<Vec<_>>(), [(40, 200), (260, 200)]);
        assert!(parts.iter().all(|part| matches!(part.body.instrs[..], [Instr::Load { .. }, Instr::Reduce(..)])));
    }
}
