//! Running reductions: rows that lie along the axis one by one, rows that lie side by side as bands of columns.
//!
//! A long row is cut into chunks of a fixed length. Each is reduced from its own beginning, and what came before it
//! joins each element as it is stored: a chunk's sums do not depend on when it is its turn, so threads may share a row
//! and change no bit.

use half::{bf16, f16};
use kiln_ir::kernel::Scan;
use kiln_ir::{DType, ReduceOp};
use pulp::{Arch, Simd, WithSimd};

use crate::exec::Env;
use crate::task::for_each;

/// Columns of a band: their sums stay in the nearest cache.
const WIDTH: usize = 64;

/// Elements of a chunk along the axis: as many as are well worth a task.
const CHUNK: usize = 1 << 14;

/// Elements of a row whose sums are made at once.
const BLOCK: usize = 8;

/// Rows and bands that keep all threads busy without sharing any.
const TASKS: usize = 32;

/// A lowered scan.
pub(crate) struct ScanExe {
    op: ReduceOp,
    reverse: bool,
    dtype: DType,
    outer: usize,
    len: usize,
    inner: usize,
    /// Columns of a band.
    width: usize,
    /// Elements of a chunk.
    chunk: usize,
}

/// What sums are kept in.
trait Number: bytemuck::Pod + Send + Sync {
    const ZERO: Self;
    const ONE: Self;
    const LEAST: Self;
    const GREATEST: Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn greater(self, other: Self) -> Self;
    fn lesser(self, other: Self) -> Self;
}

macro_rules! whole {
    ($($t:ty)*) => { $(
        impl Number for $t {
            const ZERO: $t = 0;
            const ONE: $t = 1;
            const LEAST: $t = <$t>::MIN;
            const GREATEST: $t = <$t>::MAX;
            #[inline(always)]
            fn plus(self, other: $t) -> $t { self.wrapping_add(other) }
            #[inline(always)]
            fn times(self, other: $t) -> $t { self.wrapping_mul(other) }
            #[inline(always)]
            fn greater(self, other: $t) -> $t { self.max(other) }
            #[inline(always)]
            fn lesser(self, other: $t) -> $t { self.min(other) }
        }
    )* };
}

whole! { i32 u32 }

macro_rules! float {
    ($($t:ident)*) => { $(
        impl Number for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            const LEAST: $t = $t::NEG_INFINITY;
            const GREATEST: $t = $t::INFINITY;
            #[inline(always)]
            fn plus(self, other: $t) -> $t { self + other }
            #[inline(always)]
            fn times(self, other: $t) -> $t { self * other }
            // A NaN wins, whichever side it is on.
            #[inline(always)]
            fn greater(self, other: $t) -> $t { if self > other || self.is_nan() { self } else { other } }
            #[inline(always)]
            fn lesser(self, other: $t) -> $t { if self < other || self.is_nan() { self } else { other } }
        }
    )* };
}

float! { f32 f64 }

/// A number of which no sums are made.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
struct Exact(f32);

/// An element in memory.
trait Element: bytemuck::Pod + Send + Sync {
    type Sum: Number;
    fn widen(self) -> Self::Sum;
    fn narrow(sum: Self::Sum) -> Self;
}

macro_rules! elements {
    ($($t:ty, $sum:ty, $widen:expr, $narrow:expr;)*) => { $(
        impl Element for $t {
            type Sum = $sum;
            #[inline(always)]
            fn widen(self) -> $sum { $widen(self) }
            #[inline(always)]
            fn narrow(sum: $sum) -> $t { $narrow(sum) }
        }
    )* };
}

elements! {
    f32, f64, |x| x as f64, |sum| sum as f32;
    Exact, f32, |x: Exact| x.0, Exact;
    f64, f64, |x| x, |sum| sum;
    f16, f64, |x: f16| x.to_f64(), |sum| f16::from_f32(sum as f32);
    bf16, f64, |x: bf16| x.to_f64(), |sum| bf16::from_f32(sum as f32);
    i32, i32, |x| x, |sum| sum;
    u32, u32, |x| x, |sum| sum;
}

impl ScanExe {
    pub(crate) fn new(kernel: &Scan) -> ScanExe {
        let &Scan { op, reverse, outer, len, inner, .. } = kernel;
        let dtype = kernel.args[0].dtype;
        // A product that leaves the range of its dtype is another one if it begins in the middle.
        let whole = op == ReduceOp::Prod && dtype.is_float();
        let chunk = if whole { len.max(1) } else { CHUNK };
        ScanExe { op, reverse, dtype, outer, len, inner, width: inner.clamp(1, WIDTH), chunk }
    }

    /// A measure of the work: elements read, reduced and written.
    pub(crate) fn work(&self) -> usize {
        self.outer * self.len * self.inner * 3
    }

    /// Rows, or bands of them.
    fn bands(&self) -> usize {
        self.outer * self.inner.div_ceil(self.width)
    }

    fn chunks(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// True iff there are too few rows for all threads, and they are long enough to be shared.
    fn shares_rows(&self) -> bool {
        self.chunks() > 1 && self.bands() < TASKS
    }

    /// Bytes of memory that its tasks share while it runs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        if self.shares_rows() { self.bands() * self.chunks() * self.width * size_of::<f64>() } else { 0 }
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self.dtype {
            // The greatest of numbers is one of them.
            DType::F32 if matches!(self.op, ReduceOp::Max | ReduceOp::Min) => self.run_of::<Exact>(env, parallel),
            DType::F32 => self.run_of::<f32>(env, parallel),
            DType::F64 => self.run_of::<f64>(env, parallel),
            DType::F16 => self.run_of::<f16>(env, parallel),
            DType::BF16 => self.run_of::<bf16>(env, parallel),
            DType::I32 => self.run_of::<i32>(env, parallel),
            DType::U32 => self.run_of::<u32>(env, parallel),
            DType::U8 | DType::Bool => unreachable!("no scan of {} is recorded", self.dtype),
        }
    }

    fn run_of<T: Element>(&self, env: Env, parallel: bool) {
        match self.op {
            ReduceOp::Sum => self.run_as::<T>(env, parallel, Number::ZERO, Number::plus),
            ReduceOp::Prod => self.run_as::<T>(env, parallel, Number::ONE, Number::times),
            ReduceOp::Max => self.run_as::<T>(env, parallel, Number::LEAST, Number::greater),
            ReduceOp::Min => self.run_as::<T>(env, parallel, Number::GREATEST, Number::lesser),
            ReduceOp::ArgMax => unreachable!("no scan has positions"),
        }
    }

    fn run_as<T: Element>(
        &self,
        env: Env,
        parallel: bool,
        start: T::Sum,
        join: impl Fn(T::Sum, T::Sum) -> T::Sum + Copy + Send + Sync,
    ) {
        let (bands, chunks) = (self.bands(), self.chunks());
        let of_chunk = self.work() / (bands * chunks).max(1);
        if !parallel || !self.shares_rows() {
            return for_each(
                parallel,
                bands,
                of_chunk * chunks,
                || (),
                |(), band| {
                    let mut before = [start; WIDTH];
                    for chunk in 0..chunks {
                        let sums = self.chunk::<T>(env, (band, chunk), Some(&before), start, join);
                        for (before, sum) in before.iter_mut().zip(sums).take(self.width) {
                            *before = join(*before, sum);
                        }
                    }
                },
            );
        }
        let width = self.width;
        // SAFETY: each chunk's sums are its own task's, and nobody reads them until all are there.
        let place = |band, chunk| unsafe { env.scratch.slice_mut::<T::Sum>((band * chunks + chunk) * width, width) };
        for_each(
            parallel,
            bands * chunks,
            of_chunk,
            || (),
            |(), i| {
                let (band, chunk) = (i / chunks, i % chunks);
                let sums = self.chunk::<T>(env, (band, chunk), None, start, join);
                place(band, chunk).copy_from_slice(&sums[..width]);
            },
        );
        for band in 0..bands {
            let mut before = [start; WIDTH];
            for chunk in 0..chunks {
                for (before, place) in before.iter_mut().zip(place(band, chunk)) {
                    let sum = std::mem::replace(place, *before);
                    *before = join(*before, sum);
                }
            }
        }
        for_each(
            parallel,
            bands * chunks,
            of_chunk,
            || (),
            |(), i| {
                let (band, chunk) = (i / chunks, i % chunks);
                self.chunk::<T>(env, (band, chunk), Some(place(band, chunk)), start, join);
            },
        );
    }

    /// The sums of a chunk of a band; with what came before it, also stores each on the way.
    fn chunk<T: Element>(
        &self,
        env: Env,
        (band, chunk): (usize, usize),
        before: Option<&[T::Sum]>,
        start: T::Sum,
        join: impl Fn(T::Sum, T::Sum) -> T::Sum,
    ) -> [T::Sum; WIDTH] {
        let mut sums = [start; WIDTH];
        let from = chunk * self.chunk;
        let steps = from..self.len.min(from + self.chunk);
        let bands = self.inner.div_ceil(self.width);
        let (outer, column) = (band / bands, band % bands * self.width);
        let width = self.width.min(self.inner - column);
        // SAFETY: what a chunk stores is its task's alone.
        let out = |at, n| unsafe { env.args[1].slice_mut::<T>(at, n) };
        if self.inner == 1 {
            let from = if self.reverse { self.len - steps.end } else { from };
            let at = outer * self.len + from;
            let x = env.args[0].slice::<T>(at, steps.len());
            let to = before.map(|before| (out(at, steps.len()), before[0]));
            let blocks = self.op != ReduceOp::Prod || !self.dtype.is_float();
            let arch = Arch::new();
            sums[0] = match self.reverse {
                false => arch.dispatch(Piece::<T, _, false> { x, to, start, blocks, join }),
                true => arch.dispatch(Piece::<T, _, true> { x, to, start, blocks, join }),
            };
            return sums;
        }
        for step in steps {
            let step = if self.reverse { self.len - 1 - step } else { step };
            let at = (outer * self.len + step) * self.inner + column;
            let x = env.args[0].slice::<T>(at, width);
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = join(*sum, x.widen()));
            if let Some(before) = before {
                for (out, (before, sum)) in out(at, width).iter_mut().zip(before.iter().zip(&sums)) {
                    *out = T::narrow(join(*before, *sum));
                }
            }
        }
        sums
    }
}

/// A piece of a row, whose sum is wanted, and each sum on the way with what came before.
///
/// In blocks, only their sums wait for each other, while those within one are made in three steps.
struct Piece<'a, T: Element, J, const REVERSE: bool> {
    x: &'a [T],
    to: Option<(&'a mut [T], T::Sum)>,
    start: T::Sum,
    blocks: bool,
    join: J,
}

impl<T: Element, J: Fn(T::Sum, T::Sum) -> T::Sum, const REVERSE: bool> WithSimd for Piece<'_, T, J, REVERSE> {
    type Output = T::Sum;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T::Sum {
        let Piece { x, mut to, start, blocks, join } = self;
        let (n, mut sum) = (x.len(), start);
        let whole = if blocks { n / BLOCK * BLOCK } else { 0 };
        let place = |i: usize| if REVERSE { BLOCK - 1 - i } else { i };
        for first in (0..whole).step_by(BLOCK) {
            let at = if REVERSE { n - first - BLOCK } else { first };
            let x = &x[at..at + BLOCK];
            let mut sums = [start; BLOCK];
            (0..BLOCK).for_each(|i| sums[i] = x[place(i)].widen());
            for step in [1, 2, 4] {
                let before = sums;
                (step..BLOCK).for_each(|i| sums[i] = join(before[i - step], before[i]));
            }
            if let Some((out, before)) = &mut to {
                let (out, before) = (&mut out[at..at + BLOCK], join(*before, sum));
                (0..BLOCK).for_each(|i| out[place(i)] = T::narrow(join(before, sums[i])));
            }
            sum = join(sum, sums[BLOCK - 1]);
        }
        for i in whole..n {
            let i = if REVERSE { n - 1 - i } else { i };
            sum = join(sum, x[i].widen());
            if let Some((out, before)) = &mut to {
                out[i] = T::narrow(join(*before, sum));
            }
        }
        sum
    }
}
