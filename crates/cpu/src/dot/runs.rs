//! Lines and steps in runs along which addresses grow evenly, and packing run by run.

use std::ops::Range;

use bytemuck::Pod;

use super::lie::COLUMNS;
use super::pack::Strips;
use crate::memory::View;
use crate::simd::{firsts, multiversion};
use crate::turn::{SQUARE, turn};

/// A dim, and what going on along it adds to an address.
pub(super) type Axis = (usize, i64);

/// Some lines or steps along which addresses grow evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) len: usize,
    pub(super) head: i64,
    pub(super) by: i64,
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
pub(super) fn list(axes: &[Axis], range: Range<usize>, start: i64, most: usize, out: &mut Vec<Run>) {
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

/// Packs listed lines and steps: along lines if `is_across`, none of whose runs then goes beyond a strip, else along steps.
pub(super) fn pack<T: Pod>(src: View, listed: [&[Run]; 2], is_across: bool, strips: Strips, out: &mut [T]) {
    // Both only move bits.
    match size_of::<T>() {
        4 => pack_words(src, listed, is_across, strips, bytemuck::cast_slice_mut(out)),
        _ => pack_pairs(src, listed, is_across, strips, bytemuck::cast_slice_mut(out)),
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
pub(super) const APART: usize = 2;

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
            let (start, axes) = (7, [vec![(9, 120), (row, by)], vec![(2, 1500), (3, 60), (3, 1)]]);
            let mut data = images.clone();
            for room in [data.len(), 7 + 1500 + 120 + 2 + 8 * 120 + (row - 1) * by as usize + 1] {
                let src = View::of(&mut data[..room]);
                let lines = lines.start..lines.end.min(9 * row);
                for (isa, width) in Isa::available().into_iter().flat_map(|isa| [(isa, COLUMNS), (isa, COLUMNS / 2)]) {
                    let strips = Strips { width, depth: 18 };
                    let mut out = vec![0; strips.len(lines.len())];
                    let mut listed = [Vec::new(), Vec::new()];
                    list(&axes[0], lines.clone(), start, width, &mut listed[0]);
                    list(&axes[1], 0..18, 0, usize::MAX, &mut listed[1]);
                    with_isa(isa, || pack(src, [&listed[0], &listed[1]], true, strips, &mut out));
                    for (at, p) in (0..lines.len()).flat_map(|at| (0..18).map(move |p| (at, p))) {
                        let want = start + address(&axes[0], lines.start + at) + address(&axes[1], p);
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
}
