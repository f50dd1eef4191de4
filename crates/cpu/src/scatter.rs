//! Scatter-add: slices added into a zeroed result at computed places, in the order of the slices.
//!
//! Tasks share the result's rows, not the slices: each looks at the whole index and adds what falls
//! into its rows. So no two tasks write one element, and every sum has a fixed order. What no slice falls into is set to
//! zero at the end, so that memory is written once.

use std::ops::Range;

use kiln_ir::DType;
use kiln_ir::kernel::Scatter;

use crate::cast::Stored;
use crate::exec::Env;
use crate::memory::View;
use crate::simd::{LINE, fence, prefetch_now, zero};
use crate::task::{GRAIN, for_each};
use crate::threads;

/// Tasks into which the rows of a large result are divided.
const PARTS: usize = 16;

/// Elements of a slice that are worth it: with fewer, looking at the index takes longer than adding what is found there,
/// and each thread has one task only. The gradient of a running maximum over 4 million numbers takes 14 ms so, and 31
/// with all parts.
const WIDE: usize = 16;

/// Bytes of a task's rows that its caches would not keep.
const FAR: usize = 1 << 20;

/// Slices that are looked up before those among them are added that fall into a task's rows. Adding each as it is found
/// would begin anew with each guess whether the next one falls there too, and wait for its elements.
const AHEAD: usize = 1 << 10;

/// How many slices ahead elements are asked for, and how many of a slice: those behind follow by themselves.
const SOON: usize = 4;
const MOST_SOON: usize = 256;

/// Working memory of a task.
struct Spare<T> {
    sums: Vec<T>,
    /// For each row, whether a slice has fallen into it.
    met: Vec<bool>,
}

/// A scatter: dims merged, dtypes checked.
pub(crate) struct ScatterExe {
    outer: usize,
    index: usize,
    inner: usize,
    size: usize,
    index_dtype: DType,
    dtype: DType,
}

impl ScatterExe {
    pub(crate) fn new(kernel: &Scatter) -> ScatterExe {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        ScatterExe {
            outer: numel(&kernel.outer),
            index: numel(&kernel.index),
            inner: numel(&kernel.inner),
            size: kernel.size,
            index_dtype: kernel.args[0].dtype,
            dtype: kernel.args[1].dtype,
        }
    }

    /// A measure of the work: elements read and written.
    pub(crate) fn work(&self) -> usize {
        self.outer * self.inner * (self.index * 2 + self.size)
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self.dtype {
            DType::F32 => self.run_as::<u32, f32>(env, parallel, |a, b| a + b),
            DType::F64 => self.run_as::<u64, f64>(env, parallel, |a, b| a + b),
            DType::F16 => self.run_as::<half::f16, f32>(env, parallel, |a, b| a + b),
            DType::BF16 => self.run_as::<half::bf16, f32>(env, parallel, |a, b| a + b),
            DType::I32 | DType::U32 => self.run_as::<u32, u32>(env, parallel, u32::wrapping_add),
            DType::U8 => self.run_as::<u8, u32>(env, parallel, u32::wrapping_add),
            DType::Bool => self.run_as::<u8, u32>(env, parallel, |a, b| a | b),
        }
    }

    /// Over elements stored as `S` and added as `T`, which has the bits of `S`'s lane.
    fn run_as<S: Stored, T: bytemuck::Pod>(&self, env: Env, parallel: bool, add: impl Fn(T, T) -> T + Sync + Send) {
        let parts = match () {
            _ if self.work() < GRAIN => 1,
            _ if self.inner < WIDE => threads::count().div_ceil(self.outer.max(1)),
            _ => PARTS,
        };
        let parts = parts.clamp(1, self.size.max(1));
        let rows = self.size.div_ceil(parts).max(1);
        let n = self.size.div_ceil(rows);
        let work = self.work() / (self.outer * n).max(1) + self.index;
        let init = || Spare { sums: Vec::new(), met: Vec::new() };
        for_each(parallel, self.outer * n, work, init, |spare, i| {
            let (outer, from) = (i / n, i % n * rows);
            self.add_rows::<S, T>(env, outer, from..self.size.min(from + rows), spare, &add);
        });
    }

    /// One task: the sums of some rows of the result.
    fn add_rows<S: Stored, T: bytemuck::Pod>(
        &self,
        env: Env,
        outer: usize,
        rows: Range<usize>,
        spare: &mut Spare<T>,
        add: &impl Fn(T, T) -> T,
    ) {
        let n = rows.len() * self.inner;
        // SAFETY: these rows of the result are this task's.
        let out = unsafe { env.args[2].slice_mut::<S>((outer * self.size + rows.start) * self.inner, n) };
        // What is stored as it is added is added up where it belongs.
        if size_of::<S>() == size_of::<T>() {
            return self.add_into::<S, T>(env, outer, rows, bytemuck::cast_slice_mut(out), &mut spare.met, add);
        }
        let Spare { sums, met } = spare;
        sums.resize(sums.len().max(n), T::zeroed());
        self.add_into::<S, T>(env, outer, rows, &mut sums[..n], met, add);
        S::narrow_run(bytemuck::cast_slice(&sums[..n]), out);
    }

    fn add_into<S: Stored, T: bytemuck::Pod>(
        &self,
        env: Env,
        outer: usize,
        rows: Range<usize>,
        sums: &mut [T],
        met: &mut Vec<bool>,
        add: &impl Fn(T, T) -> T,
    ) {
        let inner = self.inner;
        if inner == 1 {
            return self.add_numbers::<S, T>(env, outer, rows.start, sums, add);
        }
        met.clear();
        met.resize(rows.len(), false);
        let mut list = [[0; 2]; AHEAD];
        for first in (0..self.index).step_by(AHEAD) {
            let slices = first..self.index.min(first + AHEAD);
            let found = self.find(env.args[0], slices, &rows, &mut list);
            let values = |slice: u32, n: usize| {
                env.args[1].slice::<S>((outer * self.index + first + slice as usize) * inner, n.min(inner))
            };
            for (n, &[slice, row]) in found.iter().enumerate() {
                if let Some(&[next, _]) = found.get(n + SOON) {
                    let lines = values(next, MOST_SOON).chunks(LINE / size_of::<S>());
                    lines.for_each(|line| prefetch_now(line.as_ptr()));
                }
                let (row, values) = (row as usize, values(slice, inner));
                let to = sums[row * inner..][..inner].iter_mut().zip(values);
                match std::mem::replace(&mut met[row], true) {
                    true => to.for_each(|(sum, &x)| *sum = add(*sum, bytemuck::cast(x.widen()))),
                    false => to.for_each(|(sum, &x)| *sum = add(T::zeroed(), bytemuck::cast(x.widen()))),
                }
            }
        }
        // Sums that are yet to be narrowed are read at once.
        let far = size_of::<S>() == size_of::<T>() && size_of_val(sums) >= FAR;
        for (row, _) in met.iter().enumerate().filter(|(_, met)| !**met) {
            let row = &mut sums[row * inner..][..inner];
            if far { zero(bytemuck::cast_slice_mut(row)) } else { row.fill(T::zeroed()) }
        }
        if far {
            fence();
        }
    }

    /// Slices that are single numbers.
    fn add_numbers<S: Stored, T: bytemuck::Pod>(
        &self,
        env: Env,
        outer: usize,
        first: usize,
        sums: &mut [T],
        add: &impl Fn(T, T) -> T,
    ) {
        sums.fill(T::zeroed());
        let last = self.size.saturating_sub(1);
        let values = env.args[1].slice::<S>(outer * self.index, self.index);
        let mut to = |row: usize, x: S| {
            if let Some(sum) = sums.get_mut(row.min(last).wrapping_sub(first)) {
                *sum = add(*sum, bytemuck::cast(x.widen()));
            }
        };
        let rows = env.args[0];
        match self.index_dtype {
            DType::I32 => {
                let rows = rows.slice::<i32>(0, self.index);
                rows.iter().zip(values).for_each(|(&row, &x)| to(row.max(0) as usize, x));
            }
            _ => rows.slice::<u32>(0, self.index).iter().zip(values).for_each(|(&row, &x)| to(row as usize, x)),
        }
    }

    /// Which of some slices, at most [`AHEAD`], fall into these rows, and into which of them.
    fn find<'a>(
        &self,
        index: View,
        slices: Range<usize>,
        rows: &Range<usize>,
        list: &'a mut [[u32; 2]; AHEAD],
    ) -> &'a [[u32; 2]] {
        let last = self.size.saturating_sub(1);
        let mut n = 0;
        let mut look = |slice: u32, row: usize| {
            let row = row.min(last).wrapping_sub(rows.start);
            list[n] = [slice, row as u32];
            n += usize::from(row < rows.len());
        };
        match self.index_dtype {
            DType::I32 => {
                let places = index.slice::<i32>(slices.start, slices.len());
                (0..).zip(places).for_each(|(slice, &row)| look(slice, row.max(0) as usize));
            }
            _ => {
                let places = index.slice::<u32>(slices.start, slices.len());
                (0..).zip(places).for_each(|(slice, &row)| look(slice, row as usize));
            }
        }
        &list[..n]
    }
}
