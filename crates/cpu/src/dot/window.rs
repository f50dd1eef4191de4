//! Operands whose address is a sum over axes: matrices, whatever order their axes lie in, and windows of images.
//!
//! An address is a share of the line plus a share of the step. So a block's lines and steps are listed once, in *runs*
//! along which addresses grow evenly, and packing copies run by run. Bounds would have to be minded at each run: what
//! has some is first copied to where nothing lies beyond them (see `padded`).

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::Pod;
use kiln_ir::DType;
use kiln_ir::kernel::{Arg, Body, Instr};

use super::pack::{Lines, Strips};
use super::padded::Padded;
use super::tile::{COLUMNS, Lie};
use crate::exec::Env;
use crate::memory::View;
use crate::panel::{Begin, begin, begins};
use crate::simd::{firsts, multiversion};
use crate::turn::{SQUARE, turn};

/// A dim, and what going on along it adds to an address.
pub(super) type Axis = (usize, i64);

/// The operand of a contraction that is an affine view of an argument.
pub(super) struct Window {
    arg: usize,
    /// The address where all coordinates are 0.
    base: i64,
    begin: Begin,
    /// Of the batch, the lines and the steps.
    pub(super) axes: [Vec<Axis>; 3],
    /// What the argument is copied into first.
    pub(super) padded: Option<Padded>,
    /// True iff neighbouring lines, rather than steps, are neighbours in memory, or every second one is.
    across: bool,
}

/// Some lines or steps along which addresses grow evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    len: usize,
    head: i64,
    by: i64,
}

/// Lines of a matrix whose steps are neighbours in memory.
pub(super) struct AlongK<'a> {
    arg: View,
    start: i64,
    axes: &'a [Axis],
}

impl<'a> AlongK<'a> {
    /// The first steps of a line.
    #[inline(always)]
    pub(super) fn line<T: Pod>(&self, line: usize, steps: usize) -> &'a [T] {
        self.arg.slice((self.start + address(self.axes, line)) as usize, steps)
    }
}

impl Window {
    /// The operand that a body over `axes` is, if it only loads at such an address; `rows` iff its lines come first.
    pub(super) fn new(body: &Body, args: &[Arg], axes: [&[usize]; 3], rows: bool) -> Option<Window> {
        let Some(Instr::Load { arg, index, valid, gather }) = body.instrs.last() else { return None };
        if !matches!(args[*arg as usize].dtype, DType::F32 | DType::F64) {
            return None;
        }
        let rank = axes.iter().map(|dims| dims.len()).sum();
        let (index, begin) = begins(body, index, *gather, rank)?;
        let (base, strides, padded) = if valid.is_empty() {
            (index.constant, index.affine(rank)?, None)
        } else {
            let (padded, strides) = Padded::new(&index, valid, &axes.concat()).filter(|_| begin.is_none())?;
            (0, strides, Some(padded))
        };
        Some(Window { arg: *arg as usize, begin, padded, ..Window::over(axes, base, &strides, rows) })
    }

    fn over(axes: [&[usize]; 3], base: i64, strides: &[i64], rows: bool) -> Window {
        let mut strides = strides.iter();
        let mut listed = axes.map(|dims| -> Vec<Axis> {
            let axes = dims.iter().zip(&mut strides).map(|(&dim, &stride)| (dim, stride));
            axes.filter(|a| a.0 != 1).collect()
        });
        if !rows {
            listed.swap(1, 2);
        }
        let lines = (1..=APART).map(|apart| neighbours(&listed[1], apart)).max().unwrap_or(1);
        let across = lines >= neighbours(&listed[2], 1).min(LONG);
        Window { arg: 0, base, begin: None, axes: listed, padded: None, across }
    }

    /// What it looks at, with other lines and steps.
    pub(super) fn with_axes(&self, [lines, steps]: [Vec<Axis>; 2]) -> Window {
        let axes = [self.axes[0].clone(), lines, steps];
        Window { arg: self.arg, base: self.base, begin: self.begin, axes, padded: None, across: false }
    }

    /// True iff a line's steps are neighbours in memory, as they are in the argument.
    pub(super) fn lies_along_k(&self) -> bool {
        let n: usize = self.axes[2].iter().map(|axis| axis.0).product();
        self.padded.is_none() && neighbours(&self.axes[2], 1) == n
    }

    /// How its lines lie if they, or their steps, are neighbours in memory, and all equally far apart.
    pub(super) fn lie(&self) -> Option<Lie> {
        let apart = match self.axes[1][..] {
            [(_, apart)] if self.lies_along_k() => apart.try_into().ok(),
            _ => None,
        };
        apart.map(Lie::Along).or_else(|| self.pitch().map(Lie::Across))
    }

    /// How far apart steps are whose lines are neighbours in memory, as they are in the argument.
    pub(super) fn pitch(&self) -> Option<usize> {
        let n: usize = self.axes[1].iter().map(|axis| axis.0).product();
        let [(_, apart)] = self.axes[2][..] else { return None };
        (self.padded.is_none() && neighbours(&self.axes[1], 1) == n).then(|| apart.try_into().ok()).flatten()
    }

    /// The lines of one matrix, whose steps lie so.
    pub(super) fn lines<'a>(&'a self, env: Env<'a>, batch: usize) -> AlongK<'a> {
        AlongK { arg: env.args[self.arg], start: self.start(env, batch), axes: &self.axes[1] }
    }

    /// The address of the first line and step of one matrix.
    pub(super) fn start(&self, env: Env, batch: usize) -> i64 {
        self.base + begin(self.begin, env) as i64 + address(&self.axes[0], batch)
    }

    /// What is packed from: the argument, or the copy of it that `scratch` holds.
    pub(super) fn source(&self, env: Env, scratch: View) -> View {
        if self.padded.is_some() { scratch } else { env.args[self.arg] }
    }

    /// Copies the argument into `scratch` if that is needed.
    pub(super) fn pad<T: Pod + Send + Sync>(&self, env: Env, scratch: View, parallel: bool) {
        if let Some(padded) = &self.padded {
            padded.fill::<T>(env.args[self.arg], scratch, parallel);
        }
    }

    /// Packs lines and steps of one matrix into strips that begin with the first of them.
    pub(super) fn pack<T: Pod>(
        &self,
        (src, env): (View, Env),
        batch: usize,
        [lines, steps]: [&Range<usize>; 2],
        strips: Strips,
        out: &mut [T],
    ) {
        let start = self.start(env, batch);
        LISTS.with_borrow_mut(|[of_lines, of_steps]| {
            list(&self.axes[1], lines.clone(), start, usize::MAX, of_lines);
            list(&self.axes[2], steps.clone(), 0, usize::MAX, of_steps);
            if let ([line], [step]) = (&of_lines[..], &of_steps[..])
                && line.by >= 0
                && step.by >= 0
            {
                let (by_line, by_step) = (line.by as usize, step.by as usize);
                let len = (line.len - 1) * by_line + (step.len - 1) * by_step + 1;
                let data = src.slice((line.head + step.head) as usize, len);
                return strips.put(Lines { data, line: by_line, step: by_step }, [0, 0], [line.len, step.len], out);
            }
            if self.across {
                list(&self.axes[1], lines.clone(), start, strips.width, of_lines);
            }
            let listed = [&of_lines[..], &of_steps[..]];
            // Both only move bits.
            match size_of::<T>() {
                4 => pack_words(src, listed, self.across, strips, bytemuck::cast_slice_mut(out)),
                _ => pack_pairs(src, listed, self.across, strips, bytemuck::cast_slice_mut(out)),
            }
        });
    }
}

multiversion! {
    fn pack_words(src: View, listed: [&[Run]; 2], is_across: bool, strips: Strips, out: &mut [u32]) {
        if is_across { across(src, listed, strips, out) } else { along(src, listed, strips, out) }
    }
}

multiversion! {
    fn pack_pairs(src: View, listed: [&[Run]; 2], is_across: bool, strips: Strips, out: &mut [u64]) {
        if is_across { across(src, listed, strips, out) } else { along(src, listed, strips, out) }
    }
}

/// Strip by strip, runs of lines, none of which goes beyond a strip: what is written is one after the other.
#[inline(always)]
fn across<T: Pod>(src: View, [mut lines, steps]: [&[Run]; 2], strips: Strips, out: &mut [T]) {
    let ends = |runs: &[Run]| runs.iter().map(|run| run.head + run.by * (run.len as i64 - 1)).max().unwrap_or(0);
    let even = |by: i64| lines.iter().all(|run| run.by == by && run.head >= 0);
    let forwards = steps.iter().all(|run| run.head.min(ends(&[*run])) >= 0);
    let room = |by: usize| (ends(lines) + ends(steps)) as usize + by * MOST < src.len::<T>();
    let quick = (1..=APART).find(|&by| forwards && strips.width <= MOST && even(by as i64) && room(by));
    let (mut at, end) = (0, out.len());
    while at < end {
        let mut n = 0;
        let here = lines.iter().take_while(|run| {
            n += run.len;
            n <= strips.width
        });
        let runs;
        (runs, lines) = lines.split_at(here.count());
        for step in steps {
            for i in 0..step.len {
                let share = step.head + step.by * i as i64;
                match quick.filter(|_| at + strips.width + MOST <= end) {
                    // SAFETY: both are as far from the end of their memory as was just seen.
                    Some(1) => unsafe { move_step::<T, 1>(src, runs, share as usize, &mut out[at..]) },
                    // SAFETY: as above.
                    Some(_) => unsafe { move_step::<T, APART>(src, runs, share as usize, &mut out[at..]) },
                    None => pack_step(src, runs, share, &mut out[at..at + strips.width]),
                }
                at += strips.width;
            }
        }
    }
}

/// Elements that are moved at once.
const MOVED: usize = 16;

/// Elements of a run that is moved so: lines of the widest strip.
const MOST: usize = COLUMNS.next_multiple_of(MOVED);

/// How far apart neighbours may be for that: windows that go on by 2 have what vectors still take apart quickly.
const APART: usize = 2;

/// As [`pack_step`], in moves of a fixed size, which do without branches: what is too much is overwritten by the next.
///
/// # Safety
/// Runs go on by `BY` and are at most `MOST` long; `BY · MOST` elements follow on their last ones in `src`, and `MOST` on
/// the last that is wanted in `out`.
#[inline(always)]
unsafe fn move_step<T: Pod, const BY: usize>(src: View, runs: &[Run], share: usize, out: &mut [T]) {
    let mut to = out.as_mut_ptr();
    for run in runs {
        // SAFETY: by the caller's promise.
        unsafe {
            let from = src.start_at::<T>(share + run.head as usize);
            move_some::<T, BY>(from, to);
            for n in 1..MOST / MOVED {
                if run.len > n * MOVED {
                    move_some::<T, BY>(from.add(BY * n * MOVED), to.add(n * MOVED));
                }
            }
            to = to.add(run.len);
        }
    }
}

/// One move, of the first of each `BY` elements.
///
/// # Safety
/// There are `BY · MOVED` elements, and room for `MOVED`.
#[inline(always)]
unsafe fn move_some<T: Pod, const BY: usize>(from: *const T, to: *mut T) {
    // SAFETY: by the caller's promise.
    unsafe {
        if BY == 2 && size_of::<T>() == 4 {
            let pairs = from.cast::<[u64; MOVED]>().read_unaligned();
            return to.cast::<[u32; MOVED]>().write_unaligned(firsts(pairs));
        }
        let elements = from.cast::<[[T; BY]; MOVED]>().read_unaligned();
        to.cast::<[T; MOVED]>().write_unaligned(std::array::from_fn(|i| elements[i][0]));
    }
}

/// What some lines have for a step.
#[inline(always)]
fn pack_step<T: Pod>(src: View, runs: &[Run], share: i64, mut out: &mut [T]) {
    for run in runs {
        let to;
        (to, out) = out.split_at_mut(run.len);
        if run.by == 1 {
            to.copy_from_slice(src.slice((share + run.head) as usize, run.len));
        } else {
            let values = src.stepped(share + run.head, run.by, run.len);
            to.iter_mut().zip(values).for_each(|(o, x)| *o = x);
        }
    }
}

/// Four lines at a time, runs of steps: squares are turned, and what is left over goes one by one.
#[inline(always)]
fn along<T: Pod>(src: View, [lines, steps]: [&[Run]; 2], strips: Strips, out: &mut [T]) {
    let each = |run: &Run| {
        let Run { len, head, by } = *run;
        (0..len as i64).map(move |i| head + by * i)
    };
    let mut lines = lines.iter().flat_map(each);
    let mut first = 0;
    loop {
        let mut group = [0; SQUARE];
        let mut n = 0;
        for (to, line) in group.iter_mut().zip(&mut lines) {
            (*to, n) = (line, n + 1);
        }
        if n == 0 {
            return;
        }
        let mut p = 0;
        for run in steps {
            let out = &mut out[strips.at(first, p)..];
            p += run.len;
            let whole = if n == SQUARE && run.by == 1 { run.len / SQUARE * SQUARE } else { 0 };
            if whole > 0 {
                let mut rows: [&[T]; SQUARE] = [&[]; SQUARE];
                for (row, line) in rows.iter_mut().zip(group) {
                    *row = src.slice((line + run.head) as usize, whole);
                }
                turn(rows, out, strips.width);
            }
            for (i, line) in group.iter().enumerate().take(n) {
                for p in whole..run.len {
                    out[p * strips.width + i] = src.get((line + run.head + run.by * p as i64) as usize);
                }
            }
        }
        first += n;
    }
}

/// Runs of lines this long are better copied than any runs of steps are turned.
const LONG: usize = 8;

/// How many elements lie so far apart from one to the next.
fn neighbours(axes: &[Axis], apart: usize) -> usize {
    axes.iter()
        .rev()
        .scan(1, |next, &(dim, stride)| (stride == (apart * *next) as i64).then(|| *next *= dim).map(|()| *next))
        .last()
        .unwrap_or(1)
}

/// The share that the element with this number has of an address.
pub(super) fn address(axes: &[Axis], mut number: usize) -> i64 {
    if let [(_, stride)] = axes {
        return stride * number as i64;
    }
    let mut sum = 0;
    for (dim, stride) in axes.iter().rev() {
        sum += stride * (number % dim) as i64;
        number /= dim;
    }
    sum
}

/// Lists elements with these numbers, row-major, as runs that cross no multiple of `most`, counted from the first.
fn list(axes: &[Axis], range: Range<usize>, start: i64, most: usize, out: &mut Vec<Run>) {
    out.clear();
    let (dim, by) = axes.last().copied().unwrap_or((1, 0));
    let mut number = range.start;
    while number < range.end {
        let listed = number - range.start;
        let len = (dim - number % dim).min(range.end - number).min(most - listed % most);
        let head = start + address(axes, number);
        number += len;
        match out.last_mut() {
            Some(last) if !listed.is_multiple_of(most) && head == last.head + by * last.len as i64 => last.len += len,
            _ => out.push(Run { len, head, by }),
        }
    }
}

thread_local! {
    static LISTS: RefCell<[Vec<Run>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, with_isa};

    #[test]
    fn runs_list_every_element_once() {
        let axes = [(3, 100), (4, 10), (5, 2)];
        for (range, most) in [(0..60, usize::MAX), (3..47, 8), (11..12, 1), (5..60, 32)] {
            let mut runs = Vec::new();
            list(&axes, range.clone(), 7, most, &mut runs);
            let all: Vec<i64> = runs.iter().flat_map(|r| (0..r.len).map(|i| r.head + r.by * i as i64)).collect();
            let want: Vec<i64> = range.clone().map(|n| 7 + address(&axes, n)).collect();
            assert_eq!(all, want);
            let mut at = 0;
            for run in runs {
                assert!(at / most == (at + run.len - 1) / most, "a run crosses {most}");
                at += run.len;
            }
        }
    }

    #[test]
    fn what_merges_is_one_run() {
        let mut runs = Vec::new();
        list(&[(4, 10), (5, 2)], 0..20, 0, usize::MAX, &mut runs);
        assert_eq!(runs.len(), 1);
    }

    #[test]
    fn windows_that_go_on_by_one_or_two_are_packed_as_they_lie() {
        let images: Vec<u32> = (0..6000).collect();
        // Lines are places of windows in rows of some length, steps are those in a window.
        for (by, row, lines) in
            [(1, 17, 3..200), (2, 17, 3..200), (2, 28, 0..196), (2, 40, 5..64), (2, 3, 0..99), (3, 20, 0..90)]
        {
            let axes = [vec![], vec![(9, 120), (row, by)], vec![(2, 1500), (3, 60), (3, 1)]];
            let window = Window { arg: 0, base: 7, begin: None, axes, padded: None, across: true };
            let mut data = images.clone();
            for room in [data.len(), 7 + 1500 + 120 + 2 + 8 * 120 + (row - 1) * by as usize + 1] {
                let src = View::of(&mut data[..room]);
                let lines = lines.start..lines.end.min(9 * row);
                for isa in Isa::available() {
                    let strips = Strips { width: COLUMNS, depth: 18 };
                    let mut out = vec![0; strips.len(lines.len())];
                    let mut listed = [Vec::new(), Vec::new()];
                    list(&window.axes[1], lines.clone(), window.base, strips.width, &mut listed[0]);
                    list(&window.axes[2], 0..18, 0, usize::MAX, &mut listed[1]);
                    with_isa(isa, || pack_words(src, [&listed[0], &listed[1]], true, strips, &mut out));
                    for (at, p) in (0..lines.len()).flat_map(|at| (0..18).map(move |p| (at, p))) {
                        let want =
                            window.base + address(&window.axes[1], lines.start + at) + address(&window.axes[2], p);
                        assert_eq!(
                            out[strips.at(at, p)] as i64,
                            want,
                            "line {at}, step {p} of rows of {row} by {by}, {isa:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn lines_apart_by_two_are_worth_more_than_short_runs_of_steps() {
        let strides = |by| [1500, 120, by, 60, 1];
        for (by, across) in [(1, true), (2, true), (3, false)] {
            let window = Window::over([&[], &[4, 9, 28], &[3, 3]], 0, &strides(by), true);
            assert_eq!(window.across, across, "by {by}");
        }
    }
}
