//! Pairs: every second element of a line, and every element of a line twice, as pools and their gradients read them.
//!
//! Lines are short, so the hard idea is how one ends: with a vector that goes back over lanes that are there already,
//! rather than with single lanes.

use bytemuck::{Zeroable, cast_slice_mut};
use kiln_ir::{Atom, DType, Index};

use crate::cast::{Stored, with_stored};
use crate::memory::View;
use crate::simd::{Out, Reg, multiversion};
use crate::space::{Runs, Span};
use crate::table::Table;

/// How the elements of a line lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pairs {
    /// The first of each pair.
    First,
    /// Neighbours, each for two points.
    Twice,
}

/// Elements of a line that are worth vectors.
const LEAST: usize = 5;

/// Points of a line that is short: what comes after it may lie elsewhere.
const SHORT: usize = 64;

impl Pairs {
    /// How the elements lie whose runs are these, and whose address is a sum over axes with these strides.
    pub(crate) fn of(dims: &[usize], runs: &Runs, stride: impl Fn(usize) -> Option<i64>) -> Option<Pairs> {
        let line = runs.lead.checked_sub(1);
        match (runs.steps[0], runs.len) {
            (2, LEAST..) => Some(Pairs::First),
            (0, 2) if line.is_some_and(|axis| stride(axis) == Some(1) && dims[axis] >= LEAST) => Some(Pairs::Twice),
            _ => None,
        }
    }
}

/// An address of elements in pairs, all of which exist.
pub(crate) struct Lines {
    pairs: Pairs,
    /// Points in a line.
    len: usize,
    /// How many there are, and where they begin.
    count: usize,
    heads: Table,
    /// How many points later the second elements of the pairs are read, if the firsts are.
    seconds: Option<usize>,
}

impl Lines {
    /// For an address whose runs are these, and which is a sum over axes with these strides.
    pub(crate) fn new(
        dims: &[usize],
        runs: &Runs,
        index: &Index,
        stride: impl Fn(usize) -> Option<i64>,
    ) -> Option<Lines> {
        let pairs = Pairs::of(dims, runs, &stride)?;
        let (lead, len) = match pairs {
            Pairs::First => (runs.lead, runs.len),
            Pairs::Twice => (runs.lead - 1, runs.len * dims[runs.lead - 1]),
        };
        let mut head = index.clone();
        head.terms.retain(|(_, atom)| matches!(atom, Atom::Var(axis) if *axis < lead));
        let heads = Table::new(&dims[..lead], &[head])?;
        let axis = (0..lead).find(|&axis| dims[axis] == 2 && stride(axis) == Some(1));
        let seconds = axis.filter(|_| pairs == Pairs::First).map(|axis| dims[axis + 1..].iter().product());
        Some(Lines { pairs, len, count: dims[..lead].iter().product(), heads, seconds })
    }

    /// Loads a span's points as lanes; `heads` is working memory.
    pub(crate) fn load(&self, dtype: DType, arg: View, span: Span, out: &mut Out, heads: &mut Reg) {
        if span.points() == 0 {
            return;
        }
        let even = (span.start / span.pitch).is_multiple_of(2) && span.count.is_multiple_of(2);
        let both = self.seconds == Some(span.pitch) && even && span.start % span.pitch + span.len <= span.pitch;
        let at_once = if both { 2 } else { 1 };
        let bytes = span.len * if dtype == DType::F64 { 8 } else { 4 };
        let chunks = out.lanes_mut().chunks_exact_mut(at_once * bytes);
        for (range, out) in span.ranges().step_by(at_once).zip(chunks) {
            let (line, skip) = (range.start / self.len, range.start % self.len);
            let n = (skip + range.len()).div_ceil(self.len);
            let known = if self.len <= SHORT { (2 * n).min(self.count - line) } else { n };
            self.heads.write(0, Span::range(line, known), heads);
            let (heads, next) = heads.lanes()[..known].split_at(n);
            self.fetch_ahead(dtype, arg, next);
            match out.split_at_mut_checked(bytes) {
                Some((firsts, seconds)) if both => load_both(self.len, dtype, arg, heads, skip, firsts, seconds),
                _ => load(self, dtype, arg, heads, skip, out),
            }
        }
    }

    /// Asks for the lines that the next tile reads: where a few of them lie in a row, processors do not see them coming.
    fn fetch_ahead(&self, dtype: DType, arg: View, heads: &[i32]) {
        let elements = match self.pairs {
            Pairs::First => 2 * self.len,
            Pairs::Twice => self.len / 2,
        };
        let size = dtype.size_bytes();
        for &head in heads {
            let at = size * head as usize;
            arg.prefetch(at..at + size * elements);
        }
    }
}

multiversion! {
    /// Loads lines one after another, without the first `skip` points.
    fn load(lines: &Lines, dtype: DType, arg: View, heads: &[i32], skip: usize, out: &mut [u8]) {
        with_stored!(dtype, load_lines::<_>(lines, arg, heads, skip, out));
    }
}

multiversion! {
    /// Loads the firsts and the seconds of lines of `len` pairs, without the first `skip`.
    fn load_both(len: usize, dtype: DType, arg: View, heads: &[i32], skip: usize, firsts: &mut [u8], seconds: &mut [u8]) {
        with_stored!(dtype, load_apart::<_>(len, arg, heads, skip, firsts, seconds));
    }
}

#[inline(always)]
fn load_lines<T: Stored>(lines: &Lines, arg: View, heads: &[i32], mut skip: usize, out: &mut [u8]) {
    let mut out: &mut [T::Lane] = cast_slice_mut(out);
    for &head in heads {
        let head = head as usize;
        let (part, rest) = out.split_at_mut(out.len().min(lines.len - skip));
        match lines.pairs {
            Pairs::First => firsts::<T>(arg.slice(head + 2 * skip, 2 * part.len() - 1), part),
            Pairs::Twice => twice::<T>(arg.slice(head + skip / 2, (skip % 2 + part.len()).div_ceil(2)), skip % 2, part),
        }
        (out, skip) = (rest, 0);
    }
}

#[inline(always)]
fn load_apart<T: Stored>(len: usize, arg: View, heads: &[i32], mut skip: usize, firsts: &mut [u8], seconds: &mut [u8]) {
    let [firsts, seconds]: [&mut [T::Lane]; 2] = [firsts, seconds].map(cast_slice_mut);
    let mut from = 0;
    for &head in heads {
        let to = firsts.len().min(from + len - skip);
        let pairs = arg.slice(head as usize + 2 * skip, 2 * (to - from));
        apart::<T>(pairs, &mut firsts[from..to], &mut seconds[from..to]);
        (from, skip) = (to, 0);
    }
}

/// Takes pairs apart.
#[inline(always)]
fn apart<T: Stored>(src: &[T], firsts: &mut [T::Lane], seconds: &mut [T::Lane]) {
    match firsts.len() {
        16.. => apart_by::<T, 16, 32>(src, firsts, seconds),
        8.. => apart_by::<T, 8, 16>(src, firsts, seconds),
        4.. => apart_by::<T, 4, 8>(src, firsts, seconds),
        _ => {
            let pairs = src.as_chunks().0.iter().map(|pair: &[T; 2]| pair.map(T::widen));
            firsts.iter_mut().zip(seconds).zip(pairs).for_each(|((x, y), pair)| [*x, *y] = pair);
        }
    }
}

/// As [`apart`], `N` pairs at once from `M = 2·N` elements; there are as many.
#[inline(always)]
fn apart_by<T: Stored, const N: usize, const M: usize>(src: &[T], firsts: &mut [T::Lane], seconds: &mut [T::Lane]) {
    let last = firsts.len() - N;
    let mut i = 0;
    loop {
        let pairs: &[T; M] = src[2 * i..].first_chunk().expect("so many follow");
        firsts[i..][..N].copy_from_slice(&widened::<T, N>(std::array::from_fn(|k| pairs[2 * k])));
        seconds[i..][..N].copy_from_slice(&widened::<T, N>(std::array::from_fn(|k| pairs[2 * k + 1])));
        if i == last {
            return;
        }
        i = last.min(i + N);
    }
}

/// Elements widened, in a loop of its own: compilers make vectors of that, but not of it among other moves.
#[inline(always)]
fn widened<T: Stored, const N: usize>(elements: [T; N]) -> [T::Lane; N] {
    let mut lanes = [T::Lane::zeroed(); N];
    lanes.iter_mut().zip(elements).for_each(|(lane, x)| *lane = x.widen());
    lanes
}

/// The first element of each pair; the last one is alone.
#[inline(always)]
fn firsts<T: Stored>(src: &[T], out: &mut [T::Lane]) {
    match out.len() {
        17.. => firsts_by::<T, 16, 32>(src, out),
        9.. => firsts_by::<T, 8, 16>(src, out),
        5.. => firsts_by::<T, 4, 8>(src, out),
        _ => out.iter_mut().zip(src.iter().step_by(2)).for_each(|(o, x)| *o = x.widen()),
    }
}

/// As [`firsts`], `N` at once from `M = 2·N` elements; there are more than `N`.
#[inline(always)]
fn firsts_by<T: Stored, const N: usize, const M: usize>(src: &[T], out: &mut [T::Lane]) {
    let n = out.len();
    for i in (0..n - N).step_by(N) {
        let pairs: &[T; M] = src[2 * i..].first_chunk().expect("another pair follows");
        out[i..][..N].copy_from_slice(&widened::<T, N>(std::array::from_fn(|k| pairs[2 * k])));
    }
    // Nothing may lie behind the last: pairs that end with it have their firsts second.
    let pairs: &[T; M] = src[..2 * n - 1].last_chunk().expect("more than so many");
    out[n - N..].copy_from_slice(&widened::<T, N>(std::array::from_fn(|k| pairs[2 * k + 1])));
}

/// Each element twice, without the first `skip` lanes.
#[inline(always)]
fn twice<T: Stored>(mut src: &[T], skip: usize, mut out: &mut [T::Lane]) {
    if skip == 1 {
        out[0] = src[0].widen();
        (src, out) = (&src[1..], &mut out[1..]);
    }
    let (even, odd) = out.split_at_mut(out.len() / 2 * 2);
    if let Some(odd) = odd.first_mut() {
        *odd = src[src.len() - 1].widen();
    }
    match even.len() / 2 {
        n @ 8.. => twice_by::<T, 8, 16>(&src[..n], even),
        n @ 4.. => twice_by::<T, 4, 8>(&src[..n], even),
        _ => even.as_chunks_mut().0.iter_mut().zip(src).for_each(|(o, x)| *o = [x.widen(); 2]),
    }
}

/// As [`twice`], `N` elements to `M = 2·N` lanes at once; there are as many.
#[inline(always)]
fn twice_by<T: Stored, const N: usize, const M: usize>(src: &[T], out: &mut [T::Lane]) {
    let last = src.len() - N;
    let mut i = 0;
    loop {
        let line = widened::<T, N>(*src[i..].first_chunk().expect("so many follow"));
        out[2 * i..][..M].copy_from_slice(&std::array::from_fn::<T::Lane, M, _>(|k| line[k / 2]));
        if i == last {
            return;
        }
        i = last.min(i + N);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, with_isa};
    use half::{bf16, f16};

    fn lines(dims: &[usize], strides: &[i64]) -> Lines {
        let terms = strides.iter().enumerate().map(|(axis, &s)| (s, Atom::Var(axis))).collect();
        let index = Index { constant: 3, terms };
        let runs = Runs::new(dims, &[&index], |_| true);
        Lines::new(dims, &runs, &index, |axis| Some(strides[axis])).unwrap()
    }

    /// Checks what some points of each row of a matrix are, where those have to be that.
    fn check(lines: &Lines, want: &[Vec<u32>]) {
        let n = *want.iter().flatten().max().expect("there are some") as usize + 1;
        // Nothing lies behind the last element that is read.
        check_as::<u32>(lines, DType::U32, (0..n as u32).collect(), want);
        check_as::<u64>(lines, DType::F64, (0..n as u64).collect(), want);
        check_as::<u8>(lines, DType::U8, (0..n).map(|x| x as u8).collect(), want);
        check_as::<f16>(lines, DType::F16, (0..n as u32).map(|x| f16::from_f32(x as f32)).collect(), want);
        check_as::<bf16>(lines, DType::BF16, (0..n as u32).map(|x| bf16::from_f32(x as f32)).collect(), want);
    }

    fn check_as<T: Stored>(lines: &Lines, dtype: DType, mut data: Vec<T>, want: &[Vec<u32>])
    where
        T::Lane: PartialEq + std::fmt::Debug,
    {
        let (pairs, pitch) = (lines.pairs, want[0].len());
        let lanes: Vec<T::Lane> = data.iter().map(|x| x.widen()).collect();
        let (arg, mut heads, mut out) = (View::of(&mut data), Reg::default(), Reg::default());
        for (from, to) in
            [(0, pitch), (pitch / 3, pitch), (1, pitch - 1), (pitch / 5, pitch - pitch / 4), (2, 5), (3, 4)]
        {
            for (first, count) in [(0, want.len()), (0, 1), (1, want.len() - 1)].into_iter().filter(|c| c.1 > 0) {
                let span = Span { start: first * pitch + from, len: to - from, count, pitch };
                out.reserve_bytes(8 * span.points() + 8);
                for isa in Isa::available() {
                    out.lanes_mut().fill(u8::MAX);
                    with_isa(isa, || lines.load(dtype, arg, span, &mut out.out(), &mut heads));
                    let (loaded, behind) = out.lanes::<T::Lane>().split_at(span.points());
                    let want = want[first..first + count].iter().flat_map(|row| &row[from..to]);
                    let same = loaded.iter().eq(want.map(|&at| &lanes[at as usize]));
                    assert!(same, "{pairs:?} of {dtype} in lines of {}, {span:?}, {isa:?}", lines.len);
                    let behind: &[u8] = bytemuck::cast_slice(&behind[..1]);
                    assert!(behind.iter().all(|&x| x == u8::MAX), "one lane too many");
                }
            }
        }
    }

    #[test]
    fn lines_begin_and_end_anywhere() {
        for n in (LEAST..20).chain([28, 33, 64]) {
            let n = n as u32;
            let row = |len: u32, of: &dyn Fn(u32) -> u32| -> Vec<u32> { (0..len).map(|i| 3 + of(i)).collect() };
            // Lines of pairs, of which one element between them and another is in none.
            let pitch = 2 * n + 1;
            let first = |i: u32| i / n * pitch + i % n * 2;
            check(&lines(&[3, n as usize], &[pitch as i64, 2]), &[row(3 * n, &first)]);
            let all = [0, 1, 0, 1].map(|more| row(3 * n, &|i| first(i) + more));
            check(&lines(&[2, 2, 3, n as usize], &[0, 1, pitch as i64, 2]), &all);
            check(&lines(&[n as usize], &[2]), &[row(n, &|i| 2 * i)]);
            // Elements of lines, four times each.
            let both = |i: u32| i / (4 * n) * n + i % (2 * n) / 2;
            check(&lines(&[3, 2, n as usize, 2], &[n as i64, 0, 1, 0]), &[row(12 * n, &both)]);
        }
    }
}
