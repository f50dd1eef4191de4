//! What lines of results have in common: few *kinds* of taps, which differ from line to line in where they begin.
//!
//! Where a tap exists depends on few axes, the rows of an image, say, and not on its number or its channel. For each line
//! of those it is found out once, when the kernel is compiled; a line is then a kind and two addresses.

use std::collections::HashMap;
use std::ops::Range;

use super::phase::{Phase, Reach, Share};

/// Lines whose kinds are found, at most.
const MOST: usize = 1 << 12;

/// All lines.
pub(super) struct Lines {
    /// Dims of the axes that only move addresses, and by how much: that of the result, too.
    outer: Vec<(usize, [i64; 3])>,
    /// For each line of the other axes, and each remainder along it.
    parts: Vec<Part>,
    /// How many remainders there are.
    pub(super) along: usize,
    pub(super) kinds: Vec<Kind>,
}

/// The points of a line that have one remainder.
pub(super) struct Part {
    pub(super) kind: usize,
    /// The two addresses at its first point from which those of its taps are counted, and the line's in the result.
    at: [i64; 3],
}

impl Part {
    /// Its addresses in a run.
    #[inline(always)]
    pub(super) fn within(&self, run: [i64; 3]) -> [i64; 3] {
        [run[0] + self.at[0], run[1] + self.at[1], run[2] + self.at[2]]
    }
}

/// Points along a line, and their taps.
#[derive(PartialEq, Eq, Hash, Clone)]
pub(super) struct Kind {
    pub(super) taps: Vec<Tap>,
    /// The points at which all of them exist.
    pub(super) whole: Range<usize>,
    pub(super) n: usize,
}

/// An element of a row, at a line's points.
#[derive(PartialEq, Eq, Hash, Clone)]
pub(super) struct Tap {
    /// Where its value is at the first point, and what that is compared with or multiplied by.
    pub(super) at: [i64; 2],
    /// Which one it is, or what is compared with.
    pub(super) number: i32,
    /// The points at which it exists.
    pub(super) range: Range<usize>,
}

impl Lines {
    /// Lines of `len` points over some axes, each of whose coordinates has so many remainders and moves a line of the
    /// result so far; `None` if they have not enough in common.
    pub(super) fn new(dims: &[usize], len: usize, steps: &[usize], phases: &[Phase], to: &[i64]) -> Option<Lines> {
        let (&along, steps) = steps.split_last().expect("a line is an axis");
        let limited = |axis: usize| {
            let by = |phase: &Phase, of: &Reach| phase.shares[of.share].0[axis] != 0;
            phases.iter().any(|phase| {
                phase.taps.iter().any(|tap| {
                    tap.limits.iter().any(|limit| by(phase, &limit.of)) || tap.coordinate.is_some_and(|c| by(phase, &c))
                })
            })
        };
        let split = (0..dims.len()).find(|&axis| steps[axis] > 1 || limited(axis)).unwrap_or(dims.len());
        let n: usize = dims[split..].iter().product();
        let strides = |which: usize| {
            let mut all = phases.iter().flat_map(|phase| {
                let places = phase.taps.iter().filter(|tap| tap.exists).filter_map(move |tap| tap.places.get(which));
                places.map(|place| &phase.shares[place.share].0[..split])
            });
            let first = all.next().map_or_else(|| vec![0; split], <[i64]>::to_vec);
            all.all(|strides| strides == first).then_some(first)
        };
        let (first, second) = (strides(0)?, strides(1)?);
        let outer = (0..split).map(|axis| (dims[axis], [first[axis], second[axis], to[axis]])).collect();
        let mut lines = Lines { outer, parts: Vec::new(), along, kinds: Vec::new() };
        if n > MOST {
            return None;
        }
        let mut known = HashMap::new();
        for number in 0..n {
            let (mut at, mut phase, mut rest) = (vec![0; dims.len()], 0, number);
            for axis in (split..dims.len()).rev() {
                at[axis] = rest % dims[axis];
                rest /= dims[axis];
            }
            let line: i64 = at.iter().zip(to).map(|(&at, by)| at as i64 * by).sum();
            for (at, step) in at.iter_mut().zip(steps) {
                phase = phase * step + *at % step;
                *at /= step;
            }
            let at: Vec<i64> = at.into_iter().map(|at| at as i64).collect();
            for r in 0..along {
                let (kind, [first, second]) = Kind::new(&phases[phase * along + r], &at, (len - r).div_ceil(along));
                let kind = *known.entry(kind).or_insert_with_key(|kind| {
                    lines.kinds.push(kind.clone());
                    lines.kinds.len() - 1
                });
                lines.parts.push(Part { kind, at: [first, second, line] });
            }
        }
        Some(lines)
    }

    /// Taps that a point has, about.
    pub(super) fn weight(&self) -> usize {
        self.parts.iter().map(|part| self.kinds[part.kind].taps.len()).sum::<usize>() / self.parts.len().max(1)
    }

    /// The remainders of some lines: runs of them, and what is added to the addresses of a run.
    pub(super) fn runs(&self, lines: Range<usize>) -> impl Iterator<Item = ([i64; 3], &[Part])> {
        let n = self.parts.len() / self.along;
        (lines.start / n..lines.end.div_ceil(n)).map(move |outer| {
            let within = |line: usize| line.clamp(outer * n, (outer + 1) * n) - outer * n;
            let parts = within(lines.start) * self.along..within(lines.end) * self.along;
            (self.start(outer), &self.parts[parts])
        })
    }

    /// What coordinates along the outer axes add to addresses.
    fn start(&self, mut number: usize) -> [i64; 3] {
        let mut start = [0; 3];
        for (dim, strides) in self.outer.iter().rev() {
            let at = (number % dim) as i64;
            number /= dim;
            start = [0, 1, 2].map(|i| start[i] + at * strides[i]);
        }
        start
    }
}

impl Kind {
    /// The taps of some points of a line, counted from two addresses.
    fn new(phase: &Phase, line: &[i64], n: usize) -> (Kind, [i64; 2]) {
        let shares: Vec<i64> =
            phase.shares.iter().map(|Share(by)| by.iter().zip(line).map(|(b, l)| b * l).sum()).collect();
        let mut taps = Vec::new();
        for tap in &phase.taps {
            let mut range = if tap.exists { 0..n } else { 0..0 };
            for limit in &tap.limits {
                let live = limit.admitted(&shares, n);
                range = range.start.max(live.start)..range.end.min(live.end);
            }
            let range = if range.is_empty() { 0..0 } else { range };
            if range.is_empty() && phase.neutral {
                continue;
            }
            let head = |which: usize| tap.places.get(which).map_or(0, |place| place.head(&shares));
            let number = tap.coordinate.map_or(tap.number, |place| place.head(&shares) as i32);
            taps.push(Tap { at: [head(0), head(1)], number, range });
        }
        let live = taps.iter().find(|tap| !tap.range.is_empty()).or(taps.first());
        let at = live.map_or([0; 2], |tap| tap.at);
        let mut whole = 0..n;
        for tap in &mut taps {
            // The value of one that is nowhere may be looked for anywhere.
            let first = if tap.range.is_empty() { 0 } else { tap.at[0] - at[0] };
            tap.at = [first, tap.at[1] - at[1]];
            whole = whole.start.max(tap.range.start)..whole.end.min(tap.range.end);
        }
        (Kind { taps, whole, n }, at)
    }
}
