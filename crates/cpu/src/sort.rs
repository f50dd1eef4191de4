//! Stable sorts of rows: keys whose bits are in order, each with its place, so that no two are equal.
//!
//! Rows are shared out among tasks; one that lies across memory is gathered on the way. Where only the first few are
//! kept, the others are told apart and never sorted.

use half::{bf16, f16};
use kiln_ir::DType;
use kiln_ir::kernel::Sort;
use kiln_ir::sort::Part;

use crate::exec::Env;
use crate::task::for_each;

/// Rows from this length on are sorted digit by digit, shorter ones by comparisons.
const DIGITS_PAY: usize = 256;

/// A lowered sort.
pub(crate) struct SortExe {
    descending: bool,
    dtype: DType,
    outer: usize,
    len: usize,
    inner: usize,
    /// How many of each row are kept.
    keep: usize,
    /// The arguments that each part is stored in: equal nodes are one kernel, and each has a buffer.
    values: Vec<usize>,
    indices: Vec<usize>,
}

/// A key and its place in one number.
trait Pair: Copy + Ord + Send + Sync {
    fn place(self) -> u32;
    /// Sorts what is in order of places; the second list is working memory.
    fn sort(pairs: &mut Vec<Self>, spare: &mut Vec<Self>);
}

/// An element in memory.
trait Element: bytemuck::Pod + Send + Sync {
    type Pair: Pair;
    fn pair(self, place: usize, descending: bool) -> Self::Pair;
}

impl Pair for u64 {
    fn place(self) -> u32 {
        self as u32
    }

    fn sort(pairs: &mut Vec<u64>, spare: &mut Vec<u64>) {
        if pairs.len() < DIGITS_PAY { pairs.sort_unstable() } else { sort_by_digits(pairs, spare) }
    }
}

impl Pair for u128 {
    fn place(self) -> u32 {
        self as u32
    }

    fn sort(pairs: &mut Vec<u128>, _: &mut Vec<u128>) {
        pairs.sort_unstable();
    }
}

/// Sorts by the upper 32 bits, of which the lower ones are in order already: from the last digit to the first.
fn sort_by_digits(pairs: &mut Vec<u64>, spare: &mut Vec<u64>) {
    const DIGITS: usize = 4;
    let digit = |pair: u64, n: usize| (pair >> (32 + 8 * n)) as u8 as usize;
    let mut counts = [[0u32; 256]; DIGITS];
    for &pair in pairs.iter() {
        (0..DIGITS).for_each(|n| counts[n][digit(pair, n)] += 1);
    }
    spare.resize(pairs.len(), 0);
    for (n, counts) in counts.iter_mut().enumerate() {
        // All alike: bytes, halves and small numbers have few digits.
        if counts.iter().any(|&count| count as usize == pairs.len()) {
            continue;
        }
        let mut next = 0;
        counts.iter_mut().for_each(|count| next += std::mem::replace(count, next));
        for &pair in pairs.iter() {
            let at = &mut counts[digit(pair, n)];
            spare[*at as usize] = pair;
            *at += 1;
        }
        std::mem::swap(pairs, spare);
    }
}

fn pair32(key: u32, place: usize, descending: bool) -> u64 {
    let key = if descending { !key } else { key };
    u64::from(key) << 32 | place as u64
}

/// The bits of a float, in order as an unsigned integer: both zeros are one, and NaN is the greatest.
macro_rules! ordered {
    ($x:expr, $bits:ty) => {{
        let x = $x;
        let bits = (x + 0.0).to_bits();
        let sign: $bits = 1 << (<$bits>::BITS - 1);
        match bits & sign {
            _ if x.is_nan() => <$bits>::MAX,
            0 => bits | sign,
            _ => !bits,
        }
    }};
}

macro_rules! elements {
    ($($t:ty, $key:expr;)*) => { $(
        impl Element for $t {
            type Pair = u64;
            #[inline(always)]
            fn pair(self, place: usize, descending: bool) -> u64 { pair32($key(self), place, descending) }
        }
    )* };
}

elements! {
    f32, |x: f32| ordered!(x, u32);
    f16, |x: f16| ordered!(x.to_f32(), u32);
    bf16, |x: bf16| ordered!(x.to_f32(), u32);
    i32, |x: i32| x as u32 ^ 1 << 31;
    u32, |x: u32| x;
    u8, |x: u8| u32::from(x);
}

impl Element for f64 {
    type Pair = u128;

    fn pair(self, place: usize, descending: bool) -> u128 {
        let key = ordered!(self, u64);
        u128::from(if descending { !key } else { key }) << 32 | place as u128
    }
}

impl SortExe {
    pub(crate) fn new(kernel: &Sort) -> SortExe {
        let &Sort { descending, outer, len, inner, keep, .. } = kernel;
        let stores = |part| kernel.stores.iter().filter(|s| s.0 == part).map(|s| s.1 as usize).collect();
        let (values, indices) = (stores(Part::Values), stores(Part::Indices));
        SortExe { descending, dtype: kernel.args[0].dtype, outer, len, inner, keep, values, indices }
    }

    /// A measure of the work: some twenty steps an element.
    pub(crate) fn work(&self) -> usize {
        self.outer * self.len * self.inner * 20
    }

    pub(crate) fn run(&self, env: Env, parallel: bool) {
        match self.dtype {
            DType::F32 => self.run_as::<f32>(env, parallel),
            DType::F64 => self.run_as::<f64>(env, parallel),
            DType::F16 => self.run_as::<f16>(env, parallel),
            DType::BF16 => self.run_as::<bf16>(env, parallel),
            DType::I32 => self.run_as::<i32>(env, parallel),
            DType::U32 => self.run_as::<u32>(env, parallel),
            DType::U8 | DType::Bool => self.run_as::<u8>(env, parallel),
        }
    }

    fn run_as<T: Element>(&self, env: Env, parallel: bool) {
        let rows = if self.keep == 0 { 0 } else { self.outer * self.inner };
        let init = || (Vec::with_capacity(self.len), Vec::new());
        for_each(parallel, rows, self.work() / rows.max(1), init, |(pairs, spare), row| {
            self.row::<T>(env, row, pairs, spare);
        });
    }

    fn row<T: Element>(&self, env: Env, row: usize, pairs: &mut Vec<T::Pair>, spare: &mut Vec<T::Pair>) {
        let (first, step) = (row / self.inner * self.len * self.inner + row % self.inner, self.inner);
        let elements = env.args[0].stepped::<T>(first as i64, step as i64, self.len);
        pairs.clear();
        pairs.extend(elements.enumerate().map(|(place, x)| x.pair(place, self.descending)));
        if self.keep < self.len {
            pairs.select_nth_unstable(self.keep);
            pairs.truncate(self.keep);
            pairs.sort_unstable();
        } else {
            T::Pair::sort(pairs, spare);
        }
        let kept = row / self.inner * self.keep * self.inner + row % self.inner;
        for &arg in &self.indices {
            for (n, pair) in pairs.iter().enumerate() {
                // SAFETY: the elements of this row are this task's, and it holds one at a time.
                let place = unsafe { env.args[arg].slice_mut::<i32>(kept + n * step, 1) };
                place[0] = pair.place() as i32;
            }
        }
        for &arg in &self.values {
            for (n, pair) in pairs.iter().enumerate() {
                // SAFETY: as above.
                let place = unsafe { env.args[arg].slice_mut::<T>(kept + n * step, 1) };
                place[0] = env.args[0].get::<T>(first + pair.place() as usize * step);
            }
        }
    }
}
