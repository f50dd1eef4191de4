//! What happens to a tile of scores between the products, in vectors of queries.
//!
//! A tile holds a row for each key and a column for each query, so that every maximum and sum is
//! one of whole vectors. In causal attention, the rows that no query of a vector sees are left out, and
//! nothing reads them later.

use std::ops::Range;

use super::TILE;
use super::product::LANES;
use crate::math::{exp_share, log};
use crate::simd::multiversion;

/// The running softmax of each query of a tile.
#[derive(Clone)]
pub(super) struct State {
    /// The greatest score, or the least float.
    max: [f32; TILE],
    /// `Σ e^(score - max)`.
    sum: [f32; TILE],
    /// What the last tile made of earlier sums: `e^(old max - max)`.
    factor: [f32; TILE],
}

/// A tile's part of the scores: how many keys and queries it has, and which of them see each other.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub(super) keys: usize,
    pub(super) queries: usize,
    /// How many places the first key is ahead of the first query, in causal attention: query `j` sees key `i`
    /// iff `i + ahead ≤ j`.
    pub(super) ahead: Option<isize>,
}

impl Scope {
    /// The tile's visible part as ranges of keys, each with the first vector of queries that sees some of them.
    pub(super) fn strips(self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let ahead = self.ahead.unwrap_or(isize::MIN / 2);
        let free = (LANES as isize - ahead).clamp(0, self.keys as isize) as usize;
        let step = move |from: usize| from..self.keys.min(from + LANES);
        let first = move |key: usize| (key as isize + ahead).max(0) as usize / LANES * LANES;
        let strips = std::iter::once(0..free).chain((free..self.keys).step_by(LANES).map(step));
        strips.map(move |keys| (keys.clone(), first(keys.start))).filter(move |s| !s.0.is_empty() && s.1 < self.queries)
    }

    /// How many keys all of the queries `from..from + LANES` see, and how many any of them does.
    #[inline(always)]
    fn seen(self, from: usize) -> (usize, usize) {
        let up_to = |query: usize| match self.ahead {
            None => self.keys,
            Some(ahead) => (query as isize - ahead + 1).clamp(0, self.keys as isize) as usize,
        };
        (up_to(from), up_to(from + LANES - 1))
    }

    /// The first of the queries `from..from + LANES` that sees a key, counted from `from`.
    #[inline(always)]
    fn first(self, key: usize, from: usize) -> usize {
        (key as isize + self.ahead.unwrap_or(isize::MIN / 2) - from as isize).max(0) as usize
    }
}

type Vector = [f32; LANES];

#[inline(always)]
fn vector(data: &[f32], at: usize) -> &Vector {
    data[at..at + LANES].try_into().expect("as long as the slice")
}

#[inline(always)]
fn vector_mut(data: &mut [f32], at: usize) -> &mut Vector {
    (&mut data[at..at + LANES]).try_into().expect("as long as the slice")
}

/// Puts a value in the first lanes.
#[inline(always)]
fn fill(vector: &mut Vector, n: usize, value: f32) {
    for (l, x) in vector.iter_mut().enumerate() {
        *x = if l < n { value } else { *x };
    }
}

impl State {
    pub(super) fn new() -> State {
        // Finite, so that a query without any score above -∞ has differences.
        State { max: [f32::MIN; TILE], sum: [0.0; TILE], factor: [1.0; TILE] }
    }
}

multiversion! {
    /// Makes scores `e^(score - max)` and takes them into the state.
    pub(super) fn soften(state: &mut State, scores: &mut [f32], scope: Scope) {
        for from in (0..scope.queries).step_by(LANES) {
            let (all, some) = scope.seen(from);
            for key in all..some {
                fill(vector_mut(scores, key * TILE + from), scope.first(key, from), f32::NEG_INFINITY);
            }
            let old = *vector(&state.max, from);
            let mut max = old;
            for key in 0..some {
                let scores = vector(scores, key * TILE + from);
                for l in 0..LANES {
                    max[l] = if scores[l] > max[l] { scores[l] } else { max[l] };
                }
            }
            let mut sum = [0.0; LANES];
            for key in 0..some {
                let scores = vector_mut(scores, key * TILE + from);
                for l in 0..LANES {
                    scores[l] = exp_share::<FMA>(scores[l] - max[l]);
                    sum[l] += scores[l];
                }
            }
            let factor = vector_mut(&mut state.factor, from);
            for l in 0..LANES {
                factor[l] = exp_share::<FMA>(old[l] - max[l]);
                sum[l] += state.sum[from + l] * factor[l];
            }
            *vector_mut(&mut state.max, from) = max;
            *vector_mut(&mut state.sum, from) = sum;
        }
    }
}

multiversion! {
    /// Adds a tile to another.
    pub(super) fn add(scores: &mut [f32], bias: &[f32]) {
        scores.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
}

multiversion! {
    /// Brings earlier sums to the new maximum.
    pub(super) fn rescale(state: &State, sums: &mut [f32]) {
        for sums in sums.chunks_exact_mut(TILE) {
            sums.iter_mut().zip(&state.factor).for_each(|(x, f)| *x *= f);
        }
    }
}

multiversion! {
    /// Divides the sums by those of the softmax, and leaves the logarithm of these in `logs`.
    pub(super) fn finish(state: &State, sums: &mut [f32], logs: &mut [f32; TILE]) {
        let share = state.sum.map(|sum| if sum == 0.0 { 0.0 } else { 1.0 / sum });
        for sums in sums.chunks_exact_mut(TILE) {
            sums.iter_mut().zip(&share).for_each(|(x, s)| *x *= s);
        }
        for ((out, &sum), &max) in logs.iter_mut().zip(&state.sum).zip(&state.max) {
            *out = if sum == 0.0 { f32::MAX } else { log::<FMA>(sum) + max };
        }
    }
}

multiversion! {
    /// Makes scores `p = e^(score - logsum)`.
    pub(super) fn weigh(scores: &mut [f32], logsum: &[f32], scope: Scope) {
        let n = scope.queries.next_multiple_of(LANES);
        for (key, scores) in scores.chunks_exact_mut(TILE).enumerate().take(scope.keys) {
            let (hidden, seen) = scores[..n].split_at_mut(scope.first(key, 0).min(n));
            hidden.fill(0.0);
            for (x, logsum) in seen.iter_mut().zip(&logsum[hidden.len()..n]) {
                *x = exp_share::<FMA>(*x - logsum);
            }
        }
    }
}

multiversion! {
    /// Makes cotangents of `p` those of the products under the scores: `p·(dp - delta)·scale`.
    pub(super) fn differentiate(dp: &mut [f32], p: &[f32], delta: &[f32], scale: f32, scope: Scope) {
        let n = scope.queries.next_multiple_of(LANES);
        let tiles = dp.chunks_exact_mut(TILE).zip(p.chunks_exact(TILE));
        for (key, (dp, p)) in tiles.enumerate().take(scope.keys) {
            let (hidden, seen) = dp[..n].split_at_mut(scope.first(key, 0).min(n));
            hidden.fill(0.0);
            let of_queries = p[hidden.len()..n].iter().zip(&delta[hidden.len()..n]);
            for (x, (p, delta)) in seen.iter_mut().zip(of_queries) {
                *x = p * (*x - delta) * scale;
            }
        }
    }
}
