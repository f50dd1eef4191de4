//! Pairs: every second element of a line, and every element of a line twice, as pools and their gradients read them.
//!
//! Lines are short, so the hard idea is how one ends: with a vector that goes back over lanes that are there already,
//! rather than with single lanes.

use kiln_ir::{Atom, Index};

use crate::memory::View;
use crate::simd::{Reg, multiversion};
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

    /// Loads the words of a span's points; `heads` is working memory.
    pub(crate) fn load(&self, arg: View, span: Span, out: &mut [u32], heads: &mut Reg) {
        if span.points() == 0 {
            return;
        }
        let even = (span.start / span.pitch).is_multiple_of(2) && span.count.is_multiple_of(2);
        let both = self.seconds == Some(span.pitch) && even && span.start % span.pitch + span.len <= span.pitch;
        let at_once = if both { 2 } else { 1 };
        for (range, out) in span.ranges().step_by(at_once).zip(out.chunks_exact_mut(at_once * span.len)) {
            let (line, skip) = (range.start / self.len, range.start % self.len);
            let n = (skip + range.len()).div_ceil(self.len);
            let known = if self.len <= SHORT { (2 * n).min(self.count - line) } else { n };
            self.heads.write(0, Span::range(line, known), heads);
            let (heads, next) = heads.lanes()[..known].split_at(n);
            self.fetch_ahead(arg, next);
            match out.split_at_mut_checked(span.len) {
                Some((firsts, seconds)) if both => load_both(self.len, arg, heads, skip, firsts, seconds),
                _ => load(self, arg, heads, skip, out),
            }
        }
    }

    /// Asks for the lines that the next tile reads: where a few of them lie in a row, processors do not see them coming.
    fn fetch_ahead(&self, arg: View, heads: &[i32]) {
        let bytes = match self.pairs {
            Pairs::First => 8 * self.len,
            Pairs::Twice => 2 * self.len,
        };
        for &head in heads {
            arg.prefetch(4 * head as usize..4 * head as usize + bytes);
        }
    }
}

multiversion! {
    /// Loads lines one after another, without the first `skip` points.
    fn load(lines: &Lines, arg: View, heads: &[i32], skip: usize, out: &mut [u32]) {
        let (mut out, mut skip) = (out, skip);
        for &head in heads {
            let head = head as usize;
            let (part, rest) = out.split_at_mut(out.len().min(lines.len - skip));
            match lines.pairs {
                Pairs::First => firsts(arg.slice(head + 2 * skip, 2 * part.len() - 1), part),
                Pairs::Twice => twice(arg.slice(head + skip / 2, (skip % 2 + part.len()).div_ceil(2)), skip % 2, part),
            }
            (out, skip) = (rest, 0);
        }
    }
}

multiversion! {
    /// Loads the firsts and the seconds of lines of `len` pairs, without the first `skip`.
    fn load_both(len: usize, arg: View, heads: &[i32], skip: usize, firsts: &mut [u32], seconds: &mut [u32]) {
        let (mut from, mut skip) = (0, skip);
        for &head in heads {
            let to = firsts.len().min(from + len - skip);
            let pairs = arg.slice(head as usize + 2 * skip, 2 * (to - from));
            apart(pairs, &mut firsts[from..to], &mut seconds[from..to]);
            (from, skip) = (to, 0);
        }
    }
}

/// Takes pairs apart.
#[inline(always)]
fn apart(src: &[u32], firsts: &mut [u32], seconds: &mut [u32]) {
    match firsts.len() {
        16.. => apart_by::<16, 32>(src, firsts, seconds),
        8.. => apart_by::<8, 16>(src, firsts, seconds),
        4.. => apart_by::<4, 8>(src, firsts, seconds),
        _ => firsts.iter_mut().zip(seconds).zip(src.as_chunks().0).for_each(|((x, y), pair)| [*x, *y] = *pair),
    }
}

/// As [`apart`], `N` pairs at once from `M = 2·N` elements; there are as many.
#[inline(always)]
fn apart_by<const N: usize, const M: usize>(src: &[u32], firsts: &mut [u32], seconds: &mut [u32]) {
    let last = firsts.len() - N;
    let mut i = 0;
    loop {
        let pairs: &[u32; M] = src[2 * i..].first_chunk().expect("so many follow");
        firsts[i..][..N].copy_from_slice(&std::array::from_fn::<u32, N, _>(|k| pairs[2 * k]));
        seconds[i..][..N].copy_from_slice(&std::array::from_fn::<u32, N, _>(|k| pairs[2 * k + 1]));
        if i == last {
            return;
        }
        i = last.min(i + N);
    }
}

/// The first element of each pair; the last one is alone.
#[inline(always)]
fn firsts(src: &[u32], out: &mut [u32]) {
    match out.len() {
        17.. => firsts_by::<16, 32>(src, out),
        9.. => firsts_by::<8, 16>(src, out),
        5.. => firsts_by::<4, 8>(src, out),
        _ => out.iter_mut().zip(src.iter().step_by(2)).for_each(|(o, &x)| *o = x),
    }
}

/// As [`firsts`], `N` at once from `M = 2·N` elements; there are more than `N`.
#[inline(always)]
fn firsts_by<const N: usize, const M: usize>(src: &[u32], out: &mut [u32]) {
    let n = out.len();
    for i in (0..n - N).step_by(N) {
        let pairs: &[u32; M] = src[2 * i..].first_chunk().expect("another pair follows");
        out[i..][..N].copy_from_slice(&std::array::from_fn::<u32, N, _>(|k| pairs[2 * k]));
    }
    // Nothing may lie behind the last: pairs that end with it have their firsts second.
    let pairs: &[u32; M] = src[..2 * n - 1].last_chunk().expect("more than so many");
    out[n - N..].copy_from_slice(&std::array::from_fn::<u32, N, _>(|k| pairs[2 * k + 1]));
}

/// Each element twice, without the first `skip` lanes.
#[inline(always)]
fn twice(mut src: &[u32], skip: usize, mut out: &mut [u32]) {
    if skip == 1 {
        out[0] = src[0];
        (src, out) = (&src[1..], &mut out[1..]);
    }
    let (even, odd) = out.split_at_mut(out.len() / 2 * 2);
    if let Some(odd) = odd.first_mut() {
        *odd = src[src.len() - 1];
    }
    match even.len() / 2 {
        n @ 8.. => twice_by::<8, 16>(&src[..n], even),
        n @ 4.. => twice_by::<4, 8>(&src[..n], even),
        _ => even.as_chunks_mut().0.iter_mut().zip(src).for_each(|(o, &x)| *o = [x, x]),
    }
}

/// As [`twice`], `N` elements to `M = 2·N` lanes at once; there are as many.
#[inline(always)]
fn twice_by<const N: usize, const M: usize>(src: &[u32], out: &mut [u32]) {
    let last = src.len() - N;
    let mut i = 0;
    loop {
        let line: &[u32; N] = src[i..].first_chunk().expect("so many follow");
        out[2 * i..][..M].copy_from_slice(&std::array::from_fn::<u32, M, _>(|k| line[k / 2]));
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

    fn lines(dims: &[usize], strides: &[i64]) -> Lines {
        let terms = strides.iter().enumerate().map(|(axis, &s)| (s, Atom::Var(axis))).collect();
        let index = Index { constant: 3, terms };
        let runs = Runs::new(dims, &[&index], |_| true);
        Lines::new(dims, &runs, &index, |axis| Some(strides[axis])).unwrap()
    }

    /// Checks what some points of each row of a matrix are, where those have to be that.
    fn check(lines: &Lines, want: &[Vec<u32>]) {
        let (pairs, pitch) = (lines.pairs, want[0].len());
        let most = want.iter().flatten().max().unwrap();
        // Nothing lies behind the last element that is read.
        let mut data: Vec<u32> = (0..=*most).collect();
        let (arg, mut heads) = (View::of(&mut data), Reg::default());
        for (from, to) in
            [(0, pitch), (pitch / 3, pitch), (1, pitch - 1), (pitch / 5, pitch - pitch / 4), (2, 5), (3, 4)]
        {
            for (first, count) in [(0, want.len()), (0, 1), (1, want.len() - 1)].into_iter().filter(|c| c.1 > 0) {
                let span = Span { start: first * pitch + from, len: to - from, count, pitch };
                for isa in Isa::available() {
                    let mut out = vec![u32::MAX; span.points() + 1];
                    let (loaded, behind) = out.split_at_mut(span.points());
                    with_isa(isa, || lines.load(arg, span, loaded, &mut heads));
                    let want = want[first..first + count].iter().flat_map(|row| &row[from..to]);
                    assert!(loaded.iter().eq(want), "{pairs:?} in lines of {}, {span:?}, {isa:?}", lines.len);
                    assert_eq!(behind, [u32::MAX], "one lane too many");
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
