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

use super::lie::Lie;
use super::pack::{Lines, Strips};
use super::padded::Padded;
use super::runs::{APART, Axis, Run, address, list, pack};
use crate::exec::Env;
use crate::memory::View;
use crate::panel::{Begin, begin, begins};

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
            pack(src, listed, self.across, strips, out);
        });
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

thread_local! {
    static LISTS: RefCell<[Vec<Run>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_apart_by_two_are_worth_more_than_short_runs_of_steps() {
        let strides = |by| [1500, 120, by, 60, 1];
        for (by, across) in [(1, true), (2, true), (3, false)] {
            let window = Window::over([&[], &[4, 9, 28], &[3, 3]], 0, &strides(by), true);
            assert_eq!(window.across, across, "by {by}");
        }
    }
}
