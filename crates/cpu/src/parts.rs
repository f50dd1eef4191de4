//! Loops whose space falls into parts: tensors side by side, sums of what lies in different places.
//!
//! Where bounds cut an axis in two, each side has fewer elements to read and nothing to choose. A loop for each then only
//! moves what all of it together would load twice and select.

use std::ops::Range;

use kiln_ir::kernel::{Body, Instr, Loop, Value};
use kiln_ir::{Bound, DType, Index, PointOp};

use crate::space::admitted;

/// Parts of a loop, at most.
const MOST: usize = 8;

/// Points of each part, and neighbours along the axis that is cut, from which on parts pay.
const LEAST: usize = 1 << 12;
const RUN: usize = 4;

/// The parts of a loop, if each has less to load than the whole.
pub(crate) fn parts(kernel: &Loop) -> Option<Vec<Loop>> {
    let gathers = |instr: &Instr| matches!(instr, Instr::Load { gather: Some(_), .. });
    if !kernel.row.is_empty() || kernel.body.instrs.iter().any(gathers) || n_loads(&kernel.body) < 2 {
        return None;
    }
    let mut boxes: Vec<Vec<Range<usize>>> = vec![Vec::new()];
    for (axis, &dim) in kernel.outer.iter().enumerate() {
        let mut cuts = cuts(&kernel.body, &kernel.outer, axis);
        cuts.extend([0, dim]);
        cuts.sort_unstable();
        cuts.dedup();
        if (cuts.len() - 1) * boxes.len() > MOST {
            return None;
        }
        let run: usize = kernel.outer[axis + 1..].iter().product();
        if cuts.len() > 2 && cuts.windows(2).any(|cut| (cut[1] - cut[0]) * run < RUN) {
            return None;
        }
        let ends = cuts.windows(2).map(|cut| cut[0]..cut[1]);
        let with =
            |end: Range<usize>| boxes.iter().map(move |part| part.iter().cloned().chain([end.clone()]).collect());
        boxes = ends.flat_map(with).collect();
    }
    let parts: Vec<Loop> = boxes.iter().map(|part| within(kernel, part)).collect();
    let pays =
        |part: &Loop| part.outer.iter().product::<usize>() >= LEAST && n_loads(&part.body) < n_loads(&kernel.body);
    (parts.len() > 1 && parts.iter().all(pays)).then_some(parts)
}

fn n_loads(body: &Body) -> usize {
    body.instrs.iter().filter(|instr| matches!(instr, Instr::Load { .. })).count()
}

/// Where conditions that are on an axis alone begin or end to hold.
fn cuts(body: &Body, dims: &[usize], axis: usize) -> Vec<usize> {
    let on_axis = |bound: &Bound| -> Option<Range<usize>> {
        let strides = bound.index.affine(dims.len())?;
        let alone = strides.iter().enumerate().all(|(a, &stride)| (a == axis) == (stride != 0));
        alone.then(|| admitted(bound.index.constant, strides[axis], bound.lo, bound.hi, dims[axis]))
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
    let coords: Vec<Index> = part.iter().enumerate().map(coord).collect();
    let mut moved = kernel.body.clone();
    moved.map_indices(&|index| index.substitute(&coords, &outer));
    Loop { outer: outer.clone(), row: Vec::new(), args: kernel.args.clone(), body: decided(&moved, &outer) }
}

/// A body without conditions that its space decides, and without what nothing needs then.
fn decided(body: &Body, dims: &[usize]) -> Body {
    let truth = |holds: bool| Instr::Const(DType::Bool, f64::from(u8::from(holds)));
    let never = |bounds: &[Bound]| bounds.iter().any(|bound| bound.decided(dims) == Some(false));
    let mut out = Body::default();
    let mut now: Vec<Value> = Vec::with_capacity(body.instrs.len());
    for (instr, &dtype) in body.instrs.iter().zip(&body.types) {
        let mut instr = instr.clone();
        match &mut instr {
            Instr::Load { valid: bounds, .. } | Instr::Inside(bounds) => {
                bounds.retain(|bound| bound.decided(dims) != Some(true));
            }
            Instr::Op(_, args) => args.iter_mut().for_each(|arg| *arg = now[*arg as usize]),
            Instr::Cast(_, arg) => *arg = now[*arg as usize],
            _ => {}
        }
        if let Instr::Op(PointOp::Select, [condition, yes, no]) = instr
            && let Instr::Const(_, truth) = out.instrs[condition as usize]
        {
            now.push(if truth != 0.0 { yes } else { no });
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
    needed(&out)
}

/// The steps that stores need.
fn needed(body: &Body) -> Body {
    let live = body.live(false);
    let mut out = Body::default();
    let mut now: Vec<Value> = vec![0; body.instrs.len()];
    for v in (0..body.instrs.len()).filter(|&v| live[v]) {
        let mut instr = body.instrs[v].clone();
        match &mut instr {
            Instr::Op(_, args) => args.iter_mut().for_each(|arg| *arg = now[*arg as usize]),
            Instr::Cast(_, arg) => *arg = now[*arg as usize],
            _ => {}
        }
        now[v] = out.push(instr, body.types[v]);
    }
    out.stores = body.stores.clone();
    out.stores.iter_mut().for_each(|store| store.value = now[store.value as usize]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::kernel::{Access, Arg, Store};

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
}
