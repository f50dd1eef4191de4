//! What loops have rows of taps.

use kiln_ir::kernel::{Body, Instr, Loop, Value};
use kiln_ir::{Bound, DType, Index, PointOp, ReduceOp};

use super::join::Fold;
use super::lines::Lines;
use super::phase::{Space, steps};
use super::source::{Form, source};
use super::{Finish, Folded};
use crate::order::reordered;
use crate::panel::Panel;

/// Rows of more elements than these are not worth a list.
pub(crate) const MOST: usize = 64;

/// Rows of fewer without bounds are read well as they are, as columns or in pairs.
const LEAST: usize = 5;

/// Points of a line: enough for a vector, and few enough that lines are well shared out among threads.
pub(super) const LINE: std::ops::RangeInclusive<usize> = 8..=4096;

pub(super) fn taps(kernel: &Loop) -> Option<Folded> {
    let n_taps: usize = kernel.row.iter().product();
    let numel: usize = kernel.outer.iter().product();
    if kernel.row.is_empty() || !(2..=MOST).contains(&n_taps) || numel == 0 {
        return None;
    }
    // The line is the last axis of some length.
    let line = kernel.outer.iter().rposition(|dim| dim >= LINE.start()).filter(|&a| LINE.contains(&kernel.outer[a]))?;
    let last = kernel.outer.len() - 1;
    let order: Vec<usize> = (0..=last).filter(|&a| a != line).chain([line]).collect();
    let all: Vec<usize> = order.iter().copied().chain(last + 1..last + 1 + kernel.row.len()).collect();
    let body = reordered(&kernel.body, &all);
    let outer: Vec<usize> = order.iter().map(|&a| kernel.outer[a]).collect();

    let mut reductions = body.instrs.iter().enumerate().filter(|(_, i)| matches!(i, Instr::Reduce(..)));
    let (at, &Instr::Reduce(op, value)) = reductions.next()? else { return None };
    if reductions.next().is_some() || body.reduces_columns() {
        return None;
    }
    let float = |arg: usize| kernel.args[arg].dtype == DType::F32;
    let source = source(&body, value, last, &|arg| kernel.args[arg].dtype)?;
    let fold = match (source.form, op) {
        (Form::Element(arg), ReduceOp::Sum) if float(arg) => Fold::Sum,
        _ if source.factor.is_some() => return None,
        (Form::Element(arg), ReduceOp::Max) if float(arg) => Fold::Max,
        (Form::Element(arg), ReduceOp::ArgMax) if float(arg) => Fold::Position,
        (Form::Product(..), ReduceOp::Sum) if source.skips => Fold::SumOfSeen,
        (Form::Product(..), ReduceOp::Sum) => Fold::SumOfProducts,
        (Form::Chosen { .. }, ReduceOp::Sum) => Fold::SumOfChosen,
        _ => return None,
    };
    let bounded = source.accesses.iter().any(|a| !a.1.is_empty());
    if !bounded && n_taps < LEAST {
        return None;
    }
    let steps = steps(&body, &outer)?;
    let space = Space { outer: &outer, row: &kernel.row, steps: &steps };
    let extreme = matches!(fold, Fold::Max | Fold::Position);
    if source.absent != 0.0 && !extreme {
        return None;
    }
    let neutral = source.absent != 0.0 || matches!(fold, Fold::Sum | Fold::SumOfSeen | Fold::SumOfChosen);
    let phases = (0..steps.iter().product()).map(|n| space.phase(n, &source, neutral)).collect::<Option<Vec<_>>>()?;

    if !bounded && !phases.iter().all(|phase| phase.meets(outer[last])) {
        return None;
    }
    let step = space.step(&phases)?;
    let result = if fold == Fold::Position { DType::I32 } else { DType::F32 };
    let row_major = |a: usize| outer[a + 1..].iter().product::<usize>() as i64;
    let mut to: Vec<i64> = (0..last).map(row_major).collect();
    let finish = match &body.stores[..] {
        [store]
            if store.value as usize == at
                && source.factor.is_none()
                && kernel.args[store.arg as usize].dtype == result
                && let Some((head, strides)) = along_lines(&store.index, &outer) =>
        {
            to = strides;
            Finish::Stored { arg: store.arg as usize, head }
        }
        _ if fold != Fold::Position => {
            let (lines, line) = outer.split_at(last);
            let epilogue = epilogue(&body, (at, source.factor), last + 1)?;
            let panel = Panel::new(&epilogue, &kernel.args, [&[], lines, line], false);
            // It has to take blocks line by line.
            (!panel.swapped).then_some(Finish::Epilogue(Box::new(panel)))?
        }
        _ => return None,
    };
    let (len, n) = (outer[last], outer[..last].iter().product());
    let lines = Lines::new(&outer[..last], len, &steps, &phases, &to)?;
    Some(Folded { form: source.form, fold, absent: source.absent, n, len, step, lines, finish })
}

/// The address where lines begin and how far apart they are, if each lies as it is computed.
fn along_lines(index: &Index, dims: &[usize]) -> Option<(i64, Vec<i64>)> {
    let mut strides = index.affine(dims.len())?;
    (strides.pop() == Some(1)).then_some((index.constant, strides))
}

/// What becomes of the result of the reduction, step `at`; `None` if that depends on the row's elements.
pub(super) fn epilogue(body: &Body, (at, factor): (usize, Option<(PointOp, f64)>), outer: usize) -> Option<Body> {
    let mut body = body.clone();
    body.instrs[at] = Instr::Acc;
    let live = body.live(false);
    let in_row = |axis: usize| axis >= outer;
    let bounded = |bounds: &[Bound]| bounds.iter().any(|b| b.index.uses(&in_row));
    let mut out = Body::default();
    let mut now: Vec<Value> = vec![0; body.instrs.len()];
    for (v, instr) in body.instrs.iter().enumerate().filter(|(v, _)| live[*v]) {
        match instr {
            // A gathered coordinate has the number of the row's first axis here.
            Instr::Load { gather: Some(_), .. } => return None,
            Instr::Load { index, valid, .. } if index.uses(&in_row) || bounded(valid) => return None,
            Instr::Coord(index) if index.uses(&in_row) => return None,
            Instr::Inside(bounds) if bounded(bounds) => return None,
            _ => {}
        }
        let mut instr = instr.clone();
        instr.map_operands(&|v| now[v as usize]);
        now[v] = out.push(instr, body.types[v]);
        if let Some((op, by)) = factor.filter(|_| v == at) {
            let by = out.push(Instr::Const(body.types[v], by), body.types[v]);
            now[v] = out.push(Instr::Op(op, [now[v], by, by]), body.types[v]);
        }
    }
    out.stores = body.stores;
    out.stores.iter_mut().for_each(|s| s.value = now[s.value as usize]);
    (!out.stores.iter().any(|s| s.index.uses(&in_row))).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_ir::kernel::{Access, Arg, Store};

    /// A sum over `row` of elements at an address over `[20, 33]` and the row, which exist within bounds.
    fn sum(row: &[usize], index: Index, valid: Vec<Bound>) -> Loop {
        let outer = vec![20, 33];
        let mut body = Body::default();
        let x = body.push(Instr::Load { arg: 0, index, valid, gather: None }, DType::F32);
        let value = body.push(Instr::Reduce(ReduceOp::Sum, x), DType::F32);
        let index = Index::var(0).scale(33).add(&Index::var(1), &outer);
        body.stores.push(Store { arg: 1, index, value });
        let arg = |access| Arg { dtype: DType::F32, numel: 660, access };
        Loop { outer, row: row.to_vec(), args: vec![arg(Access::Read), arg(Access::Write)], body }
    }

    /// Sums over windows of 3 that go on by `step`, of which there are `n`.
    fn spread(step: i64, n: i64) -> Loop {
        let dims = [20, 33, 3];
        let x = Index::var(1).add(&Index::var(2).scale(-1), &dims);
        let bound = |index, hi| Bound { index, lo: 0, hi };
        let valid = vec![bound(x.clone(), step * (n - 1) + 1), bound(x.modulo(step, &dims), 1)];
        sum(&[3], Index::var(0).scale(n).add(&x.div(step, &dims), &dims), valid)
    }

    #[test]
    fn each_remainder_has_the_taps_that_meet_it() {
        let taps = taps(&spread(2, 16)).unwrap();
        assert_eq!((taps.n, taps.len, taps.lines.along, taps.step), (20, 33, 2, 1));
        let mut counts = Vec::new();
        for part in taps.lines.runs(7..8).flat_map(|(_, parts)| parts) {
            let kind = &taps.lines.kinds[part.kind];
            counts.push((kind.n, kind.taps.len()));
        }
        assert_eq!(counts, [(17, 2), (16, 1)]);
    }

    #[test]
    fn only_short_rows_whose_lines_meet_are_taps() {
        let dims = [20, 33, 65];
        let plain =
            |n: usize| Index::var(0).scale(33).add(&Index::var(1), &dims).add(&Index::var(2).scale(n as i64), &dims);
        assert!(taps(&sum(&[65], plain(660), vec![])).is_none());
        assert!(taps(&sum(&[4], plain(660), vec![])).is_none());
        assert!(taps(&sum(&[5], plain(660), vec![])).is_none());
        assert!(taps(&sum(&[5], plain(1), vec![])).is_some());
    }
}
