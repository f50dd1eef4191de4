//! A matrix times a vector where the matrix' lines lie along `k`: nothing is packed, lines are read once.

use std::ops::Range;

use kiln_ir::DType;
use kiln_ir::kernel::Dot;
use pulp::{Arch, Simd, WithSimd};

use super::element::{Element, lanes};
use super::operand::{Axes, Operand};
use super::task::{Room, Task};
use super::window::AlongK;
use crate::exec::Env;
use crate::memory::View;
use crate::panel::{Block, Panel};
use crate::task::for_each;

/// A contraction with a single row or column.
pub(crate) struct Slim {
    dtype: DType,
    batch: usize,
    lines: usize,
    k: usize,
    /// Lines of a task.
    high: usize,
    matrix: Operand,
    vector: Operand,
    /// True iff the matrix is the right operand, so that lines are columns.
    right: bool,
    epilogue: Panel,
}

/// Elements of the matrix that a task reads, about.
const TASK: usize = 1 << 16;

/// Lines that are multiplied together.
const LINES: usize = 4;

impl Slim {
    /// The contraction, if it is one and its matrix lies so.
    pub(super) fn new(kernel: &Dot) -> Option<Slim> {
        let axes: Axes = [&kernel.batch, &kernel.m, &kernel.n, &kernel.k];
        let [batch, m, n, k] = axes.map(|dims| dims.iter().product());
        let right = m == 1;
        let (body, other) = if right { (&kernel.rhs, &kernel.lhs) } else { (&kernel.lhs, &kernel.rhs) };
        let matrix = Operand::new(body, &kernel.args, axes, !right);
        matrix.along_k()?;
        let vector = Operand::new(other, &kernel.args, axes, right);
        // Nothing that is copied before it is packed, and no single sum, which may be worth several threads.
        (vector.scratch() == 0 && m * n > 1).then_some(())?;
        let lines = m * n;
        Some(Slim {
            dtype: kernel.lhs.types.last()?.compute(),
            batch,
            lines,
            k,
            high: (TASK / k).max(LINES).next_multiple_of(LINES).min(lines),
            matrix,
            vector,
            right,
            epilogue: Panel::new(&kernel.epilogue, &kernel.args, [axes[0], axes[1], axes[2]], false),
        })
    }

    /// A measure of the work: a multiply-add costs a fraction of a step of a loop.
    pub(crate) fn work(&self) -> usize {
        self.batch * self.lines * (self.k / 4 + self.epilogue.weight())
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self.dtype {
            DType::F64 => self.run_as::<f64>(env, parallel),
            _ => self.run_as::<f32>(env, parallel),
        }
    }

    fn run_as<T: Element>(&self, env: Env, parallel: bool) {
        let parts = self.lines.div_ceil(self.high);
        let n = self.batch * parts;
        let init = || {
            let mut task = Task::bare();
            self.vector.prepare(&mut task.workers[0], env);
            self.epilogue.prepare(&mut task.workers[1], env);
            task
        };
        for_each(parallel, n, self.work() / n, init, |task, i| {
            let from = i % parts * self.high;
            self.multiply::<T>(task, env, i / parts, from..self.lines.min(from + self.high));
        });
    }

    /// Some lines of one matrix.
    fn multiply<T: Element>(&self, task: &mut Task, env: Env, batch: usize, lines: Range<usize>) {
        let Room { workers: [worker, finish, _], panels: [vector, sums, _] } = &mut **task;
        let vector = match self.vector.along_k() {
            Some(vector) => vector.lines(env, batch).line(0, self.k),
            None => {
                vector.reserve_bytes(self.k * size_of::<T>());
                let vector = &mut vector.lanes_mut::<T>()[..self.k];
                let source = self.vector.begin::<T>(env, env.scratch, false);
                self.vector.pack(worker, (source, env), batch, &(0..1), &(0..self.k), (1, &mut *vector));
                vector
            }
        };
        sums.reserve_bytes(lines.len() * size_of::<T>());
        let out = &mut sums.lanes_mut::<T>()[..lines.len()];
        let matrix = self.matrix.along_k().expect("else it would be another kernel").lines(env, batch);
        Arch::new().dispatch(Products { matrix, first: lines.start, vector, out });
        let (rows, columns) = if self.right { (0..1, lines) } else { (lines, 0..1) };
        self.epilogue.finish(finish, env, &Block { batch, rows, columns }, View::of(out));
    }
}

/// The scalar products of lines with a vector, from the first one on.
struct Products<'a, T> {
    matrix: AlongK<'a>,
    first: usize,
    vector: &'a [T],
    out: &'a mut [T],
}

impl<T: Element> WithSimd for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let whole = self.vector.len() / lanes::<T, S>() * lanes::<T, S>();
        let (vector, rest) = self.vector.split_at(whole);
        let vector: &[T::Vector<S>] = bytemuck::cast_slice(vector);
        for (i, out) in self.out.chunks_mut(LINES).enumerate() {
            // What is missing of a group repeats its first line.
            let first = self.first + i * LINES;
            let mut group: [&[T]; LINES] = [&[]; LINES];
            let mut lines: [&[T::Vector<S>]; LINES] = [&[]; LINES];
            // A plain loop: what closures call is not always compiled in place.
            for j in 0..LINES {
                group[j] = self.matrix.line(if j < out.len() { first + j } else { first }, self.vector.len());
                lines[j] = &bytemuck::cast_slice(&group[j][..whole])[..vector.len()];
            }
            let mut sums = [T::splat(simd, T::zeroed()); LINES];
            for (p, &x) in vector.iter().enumerate() {
                for j in 0..LINES {
                    sums[j] = T::mul_add(simd, lines[j][p], x, sums[j]);
                }
            }
            for ((out, sum), line) in out.iter_mut().zip(sums).zip(group) {
                *out = T::across(simd, sum);
                for (p, &x) in rest.iter().enumerate() {
                    *out += line[whole + p] * x;
                }
            }
        }
    }
}
