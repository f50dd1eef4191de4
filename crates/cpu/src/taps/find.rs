//! What loops have rows of taps.

use kiln_ir::kernel::{Body, Instr, Loop, Value};
use kiln_ir::{Atom, Bound, DType, Index, PointOp, ReduceOp};

use super::fold::Fold;
use super::lines::Lines;
use super::phase::{Element, Limit, Phase, Reach, Share};
use super::{Finish, Folded};
use crate::order::reordered;
use crate::panel::Panel;

/// Rows of more elements than these are not worth a list.
pub(super) const MOST: usize = 64;

/// Rows of fewer without bounds are read well as they are, as columns or in pairs.
const LEAST: usize = 5;

/// Points of a line: enough for a vector, and few enough that lines are well shared out among threads.
pub(super) const LINE: std::ops::RangeInclusive<usize> = 8..=4096;

/// How far apart neighbours in a line may be for vectors.
const STEP: i64 = 2;

/// Remainders that are told apart, in all.
const PHASES: usize = 16;

/// What a tap is.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// An element of this argument.
    Element(usize),
    /// An element of the first, times one of the second that exists everywhere and is the same along a line.
    Product(usize, usize),
    /// An element where the other one is a certain number, else 0.
    Chosen { from: usize, at: usize },
}

/// An address and where it exists.
pub(super) type Access<'a> = (&'a Index, &'a [Bound]);

/// What a value of a body is as a tap.
pub(super) struct Source<'a> {
    pub(super) form: Form,
    /// As [`Element::places`].
    pub(super) accesses: Vec<Access<'a>>,
    pub(super) coordinate: Option<&'a Index>,
    /// True iff what does not exist is no product.
    pub(super) skips: bool,
    /// What each element is divided by or multiplied with before it is summed, and the sum after that just as well.
    pub(super) factor: Option<(PointOp, f64)>,
}

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
    let sums_elements = matches!(fold, Fold::Sum | Fold::SumOfSeen | Fold::SumOfChosen);
    let phases =
        (0..steps.iter().product()).map(|n| space.phase(n, &source, sums_elements)).collect::<Option<Vec<_>>>()?;

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
    Some(Folded { form: source.form, fold, n, len, step, lines, finish })
}

/// The address where lines begin and how far apart they are, if each lies as it is computed.
fn along_lines(index: &Index, dims: &[usize]) -> Option<(i64, Vec<i64>)> {
    let mut strides = index.affine(dims.len())?;
    (strides.pop() == Some(1)).then_some((index.constant, strides))
}

/// What a value is, if it is a tap.
fn source<'a>(body: &'a Body, value: Value, line: usize, dtype: &dyn Fn(usize) -> DType) -> Option<Source<'a>> {
    let instr = |v: Value| &body.instrs[v as usize];
    let load = |v: Value| match instr(v) {
        Instr::Load { arg, index, valid, gather: None } => Some((*arg as usize, (index, &valid[..]))),
        _ => None,
    };
    let constant = |v: Value| if let Instr::Const(_, c) = instr(v) { Some(*c) } else { None };
    let is_zero = |v: Value| constant(v) == Some(0.0);
    match instr(value) {
        Instr::Load { .. } => {
            let (arg, access) = load(value)?;
            Some(Source {
                form: Form::Element(arg),
                accesses: vec![access],
                coordinate: None,
                skips: false,
                factor: None,
            })
        }
        Instr::Op(op @ (PointOp::Mul | PointOp::Div), [x, by, _]) if constant(*by).is_some_and(f64::is_normal) => {
            let source = source(body, *x, line, dtype)?;
            let plain = matches!(source.form, Form::Element(_)) && source.factor.is_none();
            plain.then_some(Source { factor: constant(*by).map(|by| (*op, by)), ..source })
        }
        Instr::Op(PointOp::Mul, [a, b, _]) => {
            let (a, b) = (load(*a)?, load(*b)?);
            let even = |access: Access| !access.0.uses(&|axis| axis == line);
            let ((arg, access), (by, other)) = if even(b.1) { (a, b) } else { (b, a) };
            // Where neither exists there is no product.
            let skips = !other.1.is_empty();
            let bounded = !skips || (within(other.1, access.1) && within(access.1, other.1));
            let fit = even(other) && bounded && dtype(arg) == DType::F32 && dtype(by) == DType::F32;
            fit.then(|| Source {
                form: Form::Product(arg, by),
                accesses: vec![access, other],
                coordinate: None,
                skips,
                factor: None,
            })
        }
        Instr::Op(PointOp::Select, [here, then, zero]) if is_zero(*zero) => match instr(*here) {
            // Where the value is 0 beyond these bounds already.
            Instr::Inside(bounds) => {
                let source = source(body, *then, line, dtype)?;
                if let Form::Product(..) = source.form {
                    let seen = source.accesses[0].1;
                    let skips = source.skips || within(seen, bounds);
                    return (skips && within(bounds, seen)).then_some(Source { skips, ..source });
                }
                source.accesses.iter().all(|access| within(bounds, access.1)).then_some(source)
            }
            Instr::Op(PointOp::Eq, [a, b, _]) => {
                let (Instr::Coord(coordinate), found) = (instr(*a), load(*b)?) else { return None };
                let (from, at) = (load(*then)?, found);
                let fit = dtype(from.0) == DType::F32 && dtype(at.0) == DType::I32 && from.1.1 == at.1.1;
                fit.then(|| Source {
                    form: Form::Chosen { from: from.0, at: at.0 },
                    accesses: vec![from.1, at.1],
                    coordinate: Some(coordinate),
                    skips: false,
                    factor: None,
                })
            }
            _ => None,
        },
        _ => None,
    }
}

/// True iff all of some bounds are among others.
fn within(some: &[Bound], all: &[Bound]) -> bool {
    some.iter().all(|bound| all.contains(bound))
}

/// For each axis, how many remainders have taps of their own: as many as quotients and remainders tell apart.
pub(super) fn steps(body: &Body, outer: &[usize]) -> Option<Vec<usize>> {
    fn visit(index: &Index, n_outer: usize, steps: &mut [usize]) {
        for (_, atom) in &index.terms {
            let (Atom::Div(e, n) | Atom::Mod(e, n)) = atom else { continue };
            visit(e, n_outer, steps);
            for (c, atom) in &e.terms {
                if let Atom::Var(axis) = atom
                    && *axis < n_outer
                    && c % n != 0
                {
                    // The least common multiple of what is asked for.
                    let step = &mut steps[*axis];
                    let n = *n as usize;
                    *step = (1..=n).map(|k| *step * k).find(|m| m % n == 0).unwrap_or(*step);
                }
            }
        }
    }
    let mut steps = vec![1; outer.len()];
    for instr in &body.instrs {
        match instr {
            Instr::Load { index, valid, .. } => {
                visit(index, outer.len(), &mut steps);
                valid.iter().for_each(|b| visit(&b.index, outer.len(), &mut steps));
            }
            Instr::Coord(index) => visit(index, outer.len(), &mut steps),
            _ => {}
        }
    }
    let few = steps.iter().try_fold(1usize, |n, &step| n.checked_mul(step)).is_some_and(|n| n <= PHASES);
    (few && steps.iter().zip(outer).all(|(step, dim)| step <= dim)).then_some(steps)
}

/// The space of a loop, its coordinates taken apart.
pub(super) struct Space<'a> {
    pub(super) outer: &'a [usize],
    pub(super) row: &'a [usize],
    pub(super) steps: &'a [usize],
}

impl Space<'_> {
    /// The taps of one remainder of each coordinate; `None` if some address is no sum even then.
    pub(super) fn phase(&self, mut number: usize, source: &Source, sums_elements: bool) -> Option<Phase> {
        let rank = self.outer.len();
        let mut quotients = vec![0; rank];
        let mut coords = vec![Index::constant(0); rank];
        for axis in (0..rank).rev() {
            let (step, remainder) = (self.steps[axis], number % self.steps[axis]);
            number /= step;
            quotients[axis] = (self.outer[axis] - remainder).div_ceil(step);
            let q = if quotients[axis] == 1 { Index::constant(0) } else { Index::var(axis).scale(step as i64) };
            coords[axis] = q.offset(remainder as i64);
        }
        let mut phase = Phase { taps: Vec::new(), shares: Vec::new(), sums_elements };
        for number in 0..self.row.iter().product() {
            let mut coords = coords.clone();
            let mut rest = number;
            let mut within: Vec<Index> = Vec::new();
            for &dim in self.row.iter().rev() {
                within.insert(0, Index::constant((rest % dim) as i64));
                rest /= dim;
            }
            coords.extend(within);
            let put = |index: &Index| index.substitute(&coords, &quotients);
            let Phase { taps, shares, .. } = &mut phase;
            let mut reach = |index: &Index| -> Option<Reach> {
                let mut strides = index.affine(rank)?;
                let step = strides.pop().expect("a line is an axis");
                let share = Share(strides);
                let found = shares.iter().position(|s| *s == share).unwrap_or_else(|| {
                    shares.push(share);
                    shares.len() - 1
                });
                Some(Reach { share: found, constant: index.constant, step })
            };
            let mut limits = Vec::new();
            let mut exists = true;
            for bound in source.accesses[0].1 {
                let index = put(&bound.index);
                let (least, most) = index.range(&quotients);
                exists &= most >= bound.lo && least < bound.hi;
                if least < bound.lo || most >= bound.hi {
                    limits.push(Limit { of: reach(&index)?, lo: bound.lo, hi: bound.hi });
                }
            }
            // What is never there adds nothing to a sum of elements; else it counts as 0.
            if !exists && sums_elements {
                continue;
            }
            let mut places = Vec::new();
            for (n, access) in source.accesses.iter().enumerate() {
                let index = if exists || n > 0 { put(access.0) } else { Index::constant(0) };
                places.push(reach(&index).filter(|r| (0..=STEP).contains(&r.step))?);
            }
            let coordinate = match source.coordinate {
                Some(index) => Some(reach(&put(index)).filter(|r| r.step == 0)?),
                None => None,
            };
            taps.push(Element { number: number as i32, places, coordinate, exists, limits });
        }
        Some(phase)
    }

    /// How far apart neighbours in a line are, if that is the same for all taps.
    pub(super) fn step(&self, phases: &[Phase]) -> Option<usize> {
        let (along, len) = (*self.steps.last()?, *self.outer.last()?);
        // A line of one point has no neighbours.
        let phases = phases.iter().enumerate().filter(|(i, _)| len > i % along + along);
        let taps = phases.flat_map(|(_, phase)| &phase.taps).filter(|tap| tap.exists);
        let mut steps = taps.flat_map(|tap| {
            let compared = tap.coordinate.and_then(|_| tap.places.get(1));
            [Some(&tap.places[0]), compared].into_iter().flatten().map(|place| place.step)
        });
        let step = steps.next().unwrap_or(1);
        (step > 0 && steps.all(|s| s == step)).then_some(step as usize)
    }
}

/// What becomes of the result of the reduction, step `at`; `None` if that depends on the row's elements.
fn epilogue(body: &Body, (at, factor): (usize, Option<(PointOp, f64)>), outer: usize) -> Option<Body> {
    let mut wanted = vec![false; body.instrs.len()];
    body.stores.iter().for_each(|s| wanted[s.value as usize] = true);
    for v in (0..body.instrs.len()).rev().filter(|&v| v != at) {
        if wanted[v] {
            body.instrs[v].operands().into_iter().for_each(|o| wanted[o as usize] = true);
        }
    }
    let in_row = |axis: usize| axis >= outer;
    let bounded = |bounds: &[Bound]| bounds.iter().any(|b| b.index.uses(&in_row));
    let mut out = Body::default();
    let mut now: Vec<Value> = vec![0; body.instrs.len()];
    for (v, instr) in body.instrs.iter().enumerate().filter(|(v, _)| wanted[*v]) {
        let mut instr = if v == at { Instr::Acc } else { instr.clone() };
        match &mut instr {
            // A gathered coordinate has the number of the row's first axis here.
            Instr::Load { gather: Some(_), .. } => return None,
            Instr::Load { index, valid, .. } if index.uses(&in_row) || bounded(valid) => return None,
            Instr::Coord(index) if index.uses(&in_row) => return None,
            Instr::Inside(bounds) if bounded(bounds) => return None,
            Instr::Op(_, args) => args.iter_mut().for_each(|a| *a = now[*a as usize]),
            Instr::Cast(_, a) => *a = now[*a as usize],
            _ => {}
        }
        now[v] = out.push(instr, body.types[v]);
        if let Some((op, by)) = factor.filter(|_| v == at) {
            let by = out.push(Instr::Const(body.types[v], by), body.types[v]);
            now[v] = out.push(Instr::Op(op, [now[v], by, by]), body.types[v]);
        }
    }
    out.stores = body.stores.clone();
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
        taps.lines.each(7..8, |_, kind, _| counts.push((kind.n, kind.taps.len())));
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
