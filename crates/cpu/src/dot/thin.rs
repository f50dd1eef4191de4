//! A few rows times a matrix whose lines are neighbours in memory: the matrix is read once, where it lies.
//!
//! Each of its elements is worth one multiplication a row, and packing would cost as much. So a few steps along `k` are
//! multiplied at a time, of a block of lines whose sums stay in the nearest cache, and meanwhile the memory of the next
//! steps is asked for: processors do not see where it goes on.

use std::ops::Range;

use kiln_ir::DType;
use kiln_ir::kernel::Dot;
use pulp::{Arch, Simd, WithSimd};

use super::cut::TASKS;
use super::element::{Element, lanes};
use super::operand::{Axes, Operand};
use super::pack::Strips;
use super::task::{Room, Task};
use crate::exec::{Env, Loan};
use crate::memory::View;
use crate::panel::{Block, Panel};
use crate::simd::prefetch;
use crate::task::for_each;

/// A contraction of a few rows.
pub(crate) struct Thin {
    dtype: DType,
    batch: usize,
    rows: usize,
    columns: usize,
    k: usize,
    /// Columns of a task.
    wide: usize,
    /// From a step of the matrix to the next.
    pitch: usize,
    left: Operand,
    matrix: Operand,
    epilogue: Panel,
}

/// Rows, at most: with more, packing pays.
const MOST: usize = 24;

/// Columns and elements of the matrix, at least: a smaller one is soon packed.
const LEAST: [usize; 2] = [512, 1 << 20];

/// The same for a single row, which is a loop otherwise; elements are those of all matrices.
const ALONE: [usize; 2] = [64, 1 << 14];

/// Sums of a task: half of the nearest cache.
const SUMS: usize = 1 << 12;

/// Columns of a task are whole cache lines, and a few of them.
const LINES: usize = 64;

/// Rows whose numbers of a step are packed side by side.
const STRIP: usize = 4;

/// Steps that are multiplied at a time.
const STEPS: usize = 8;

/// Steps that are packed at a time.
const CHUNK: usize = 256;

impl Thin {
    /// The contraction, if it is one.
    pub(super) fn new(kernel: &Dot) -> Option<Thin> {
        let axes: Axes = [&kernel.batch, &kernel.m, &kernel.n, &kernel.k];
        let [batch, rows, columns, k] = axes.map(|dims| dims.iter().product::<usize>());
        let pays = match rows {
            1 => columns >= ALONE[0] && batch * columns * k >= ALONE[1],
            _ => columns >= LEAST[0] && columns * k >= LEAST[1],
        };
        (rows <= MOST && pays).then_some(())?;
        let matrix = Operand::new(&kernel.rhs, &kernel.args, axes, false);
        let pitch = matrix.window()?.pitch()?;
        let left = Operand::new(&kernel.lhs, &kernel.args, axes, true);
        let epilogue = Panel::new(&kernel.epilogue, &kernel.args, [axes[0], axes[1], axes[2]], false);
        // Nothing that is copied before it is packed, and results that lie as the sums do.
        (left.scratch() == 0 && !epilogue.swapped).then_some(())?;
        let most = SUMS / rows.next_multiple_of(STRIP);
        let wide = columns.div_ceil(TASKS.div_ceil(batch)).next_multiple_of(LINES).min(most / LINES * LINES);
        let dtype = kernel.lhs.types.last()?.compute();
        Some(Thin { dtype, batch, rows, columns, k, wide, pitch, left, matrix, epilogue })
    }

    /// A measure of the work: a multiply-add costs a fraction of a step of a loop.
    pub(crate) fn work(&self) -> usize {
        self.batch * self.rows * self.columns * (self.k / 4 + self.epilogue.weight())
    }

    /// Bytes of memory that tasks share while it runs: the rows, packed.
    pub(crate) fn scratch_bytes(&self) -> usize {
        self.batch * self.packed() * self.dtype.size_bytes()
    }

    /// Elements of the packed rows of one matrix.
    fn packed(&self) -> usize {
        self.rows.next_multiple_of(STRIP) * self.k
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self.dtype {
            DType::F64 => self.run_as::<f64>(env, parallel),
            _ => self.run_as::<f32>(env, parallel),
        }
    }

    fn run_as<T: Element>(&self, env: Env, parallel: bool) {
        self.pack::<T>(env, parallel);
        let parts = self.columns.div_ceil(self.wide);
        let n = self.batch * parts;
        let init = || {
            let mut task = Task::bare();
            self.epilogue.prepare(&mut task.workers[0], env);
            task
        };
        for_each(parallel, n, self.work() / n, init, |task, i| {
            let from = i % parts * self.wide;
            self.multiply::<T>(task, env, i / parts, from..self.columns.min(from + self.wide));
        });
    }

    /// Packs the rows, some steps at a time.
    fn pack<T: Element>(&self, env: Env, parallel: bool) {
        let chunks = self.k.div_ceil(CHUNK);
        let source = self.left.begin::<T>(env, env.scratch, parallel);
        let init = || {
            let mut loan = Loan::bare();
            self.left.prepare(&mut loan, env);
            loan
        };
        for_each(parallel, self.batch * chunks, self.rows * CHUNK * self.left.weight(), init, |loan, i| {
            let (batch, from) = (i / chunks, i % chunks * CHUNK);
            let steps = from..self.k.min(from + CHUNK);
            let high = self.rows.next_multiple_of(STRIP);
            // SAFETY: each task packs steps of its own.
            let out = unsafe { env.scratch.slice_mut::<T>(batch * self.packed() + from * high, steps.len() * high) };
            self.left.pack(loan, (source, env), batch, &(0..self.rows), &steps, (STRIP, out));
        });
    }

    /// Some columns of one matrix.
    fn multiply<T: Element>(&self, task: &mut Task, env: Env, batch: usize, columns: Range<usize>) {
        let Room { workers: [finish, ..], panels: [sums, ..] } = &mut **task;
        let high = self.rows.next_multiple_of(STRIP);
        sums.reserve_bytes(high * columns.len() * size_of::<T>());
        let sums = &mut sums.lanes_mut::<T>()[..high * columns.len()];
        let window = self.matrix.window().expect("else it would be another kernel");
        let start = window.start(env, batch) as usize + columns.start;
        let matrix = window.source(env, env.scratch).slice::<T>(start, (self.k - 1) * self.pitch + columns.len());
        let packed = env.scratch.slice::<T>(batch * self.packed(), self.packed());
        Arch::new().dispatch(Products { packed, matrix, pitch: self.pitch, high, sums });
        let sums = &mut sums[..self.rows * columns.len()];
        self.epilogue.finish(finish, env, &Block { batch, rows: 0..self.rows, columns }, View::of(sums));
    }
}

/// The products of packed rows with the columns of a matrix.
struct Products<'a, T> {
    /// Chunks of [`Strips`].
    packed: &'a [T],
    matrix: &'a [T],
    pitch: usize,
    high: usize,
    /// Row by row.
    sums: &'a mut [T],
}

impl<T: Element> WithSimd for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Products { packed, matrix, pitch, high, sums } = self;
        sums.fill(T::zeroed());
        for (c, chunk) in packed.chunks(CHUNK * high).enumerate() {
            let depth = chunk.len() / high;
            let whole = depth / STEPS * STEPS;
            let wide = sums.len() / high;
            let step = |p: usize| &matrix[(c * CHUNK + p) * pitch..][..wide];
            for first in (0..whole).step_by(STEPS) {
                let mut steps: [&[T]; STEPS] = [&[]; STEPS];
                for (i, to) in steps.iter_mut().enumerate() {
                    *to = step(first + i);
                }
                Part { steps, pitch, chunk, depth, first }.add(simd, sums);
            }
            for first in whole..depth {
                Part { steps: [step(first)], pitch, chunk, depth, first }.add(simd, sums);
            }
        }
    }
}

/// Some steps of some columns, and the rows' numbers for them.
struct Part<'a, T, const N: usize> {
    /// What the columns have for each of `N` steps.
    steps: [&'a [T]; N],
    /// From a step to the next in memory.
    pitch: usize,
    /// A chunk of the packed rows, how deep it is, and where the steps begin in it.
    chunk: &'a [T],
    depth: usize,
    first: usize,
}

impl<T: Element, const N: usize> Part<'_, T, N> {
    /// Adds the products, summed first, to the sums.
    #[inline(always)]
    fn add<S: Simd>(&self, simd: S, sums: &mut [T]) {
        let wide = self.steps[0].len();
        let mut from = 0;
        // As many vectors at a time as there are registers for.
        if lanes::<T, S>() == 16 {
            while wide - from >= 2 * lanes::<T, S>() {
                self.add_vectors::<S, 2>(simd, from, sums);
                from += 2 * lanes::<T, S>();
            }
        }
        while wide - from >= lanes::<T, S>() {
            self.add_vectors::<S, 1>(simd, from, sums);
            from += lanes::<T, S>();
        }
        let strips = Strips { width: STRIP, depth: self.depth };
        for column in from..wide {
            for (row, sums) in sums.chunks_exact_mut(wide).enumerate() {
                let mut sum = T::zeroed();
                for i in 0..N {
                    sum += self.chunk[strips.at(row, self.first + i)] * self.steps[i][column];
                }
                sums[column] += sum;
            }
        }
    }

    /// The same for `V` vectors of columns.
    #[inline(always)]
    fn add_vectors<S: Simd, const V: usize>(&self, simd: S, from: usize, sums: &mut [T]) {
        let (wide, len) = (self.steps[0].len(), V * lanes::<T, S>());
        let zeros = [T::splat(simd, T::zeroed()); V];
        let mut x = [zeros; N];
        for (x, step) in x.iter_mut().zip(&self.steps) {
            let step = &step[from..from + len];
            *x = *bytemuck::cast_slice(step).first_chunk().expect("as long as the slice");
            for v in 0..V {
                prefetch(step.as_ptr().wrapping_add(N * self.pitch + v * lanes::<T, S>()));
            }
        }
        let strips = self.chunk.chunks_exact(STRIP * self.depth).zip(sums.chunks_exact_mut(STRIP * wide));
        for (by, sums) in strips {
            let by: &[[T; STRIP]] = by[self.first * STRIP..][..N * STRIP].as_chunks().0;
            for j in 0..STRIP {
                let mut sum = zeros;
                for i in 0..N {
                    let by = T::splat(simd, by[i][j]);
                    for v in 0..V {
                        sum[v] = T::mul_add(simd, by, x[i][v], sum[v]);
                    }
                }
                let out: &mut [T::Vector<S>] = bytemuck::cast_slice_mut(&mut sums[j * wide + from..][..len]);
                for v in 0..V {
                    out[v] = T::sum(simd, out[v], sum[v]);
                }
            }
        }
    }
}
