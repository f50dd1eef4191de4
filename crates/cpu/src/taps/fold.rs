//! Lines of taps, folded: some points at a time, whose result stays in registers from tap to tap.
//!
//! Where all taps exist there are vectors, of which the last goes back over points that are there already. Towards the
//! ends of a line, where some taps do not exist, points go one by one.

use std::ops::Range;

use crate::simd::multiversion;

/// How taps become a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    Sum,
    Max,
    /// The number of the first greatest tap.
    Position,
    SumOfProducts,
    SumOfChosen,
}

/// A tap along one line.
pub(super) struct Here<'a> {
    /// Its elements, from the first point on where it exists, and how far apart they are.
    pub(super) first: (&'a [f32], usize),
    /// What is compared where it exists, of which only bits matter.
    pub(super) second: (&'a [f32], usize),
    /// What its elements are multiplied by.
    pub(super) factor: f32,
    /// Where it exists.
    pub(super) range: Range<usize>,
    /// Which tap it is, or what is compared with.
    pub(super) number: i32,
}

/// Fewer points where all taps exist are not worth vectors.
const NARROW: usize = 8;

multiversion! {
    /// The results of a line; positions as the bits of a float.
    pub(super) fn fold(how: Fold, taps: &[Here<'_>], out: &mut [f32]) {
        match how {
            Fold::Sum => line::<Sum>(taps, out),
            Fold::Max => line::<Max>(taps, out),
            Fold::Position => line::<Position>(taps, out),
            Fold::SumOfProducts => line::<Products<FMA>>(taps, out),
            Fold::SumOfChosen => line::<Chosen>(taps, out),
        }
    }
}

/// How a tap joins the result of some points.
trait Join {
    /// What a point has so far.
    type Sum<const N: usize>: Copy;
    fn start<const N: usize>() -> Self::Sum<N>;
    /// Takes the elements of `N` points, and those that belong to them.
    fn join<const N: usize>(sum: &mut Self::Sum<N>, first: &[f32; N], second: &[f32; N], tap: &Here);
    fn end<const N: usize>(sum: Self::Sum<N>) -> [f32; N];
    /// True iff there are second elements.
    const COMPARES: bool = false;
}

struct Sum;
struct Max;
struct Position;
struct Products<const FMA: bool>;
struct Chosen;

impl Join for Sum {
    type Sum<const N: usize> = [f32; N];

    #[inline(always)]
    fn start<const N: usize>() -> [f32; N] {
        [0.0; N]
    }

    #[inline(always)]
    fn join<const N: usize>(sum: &mut [f32; N], first: &[f32; N], _: &[f32; N], _: &Here) {
        for i in 0..N {
            sum[i] += first[i];
        }
    }

    #[inline(always)]
    fn end<const N: usize>(sum: [f32; N]) -> [f32; N] {
        sum
    }
}

/// Whether a tap takes the place of an earlier one as the greatest.
#[inline(always)]
fn above(x: f32, best: f32) -> bool {
    (x > best) | x.is_nan()
}

impl Join for Max {
    type Sum<const N: usize> = [f32; N];

    #[inline(always)]
    fn start<const N: usize>() -> [f32; N] {
        [f32::NEG_INFINITY; N]
    }

    #[inline(always)]
    fn join<const N: usize>(sum: &mut [f32; N], first: &[f32; N], _: &[f32; N], _: &Here) {
        for i in 0..N {
            sum[i] = if above(first[i], sum[i]) { first[i] } else { sum[i] };
        }
    }

    #[inline(always)]
    fn end<const N: usize>(sum: [f32; N]) -> [f32; N] {
        sum
    }
}

impl Join for Position {
    type Sum<const N: usize> = ([f32; N], [i32; N]);

    #[inline(always)]
    fn start<const N: usize>() -> Self::Sum<N> {
        ([f32::NEG_INFINITY; N], [0; N])
    }

    #[inline(always)]
    fn join<const N: usize>((best, at): &mut Self::Sum<N>, first: &[f32; N], _: &[f32; N], tap: &Here) {
        let number = tap.number;
        for i in 0..N {
            let better = (first[i] > best[i]) | (first[i].is_nan() & !best[i].is_nan());
            best[i] = if better { first[i] } else { best[i] };
            at[i] = if better { number } else { at[i] };
        }
    }

    #[inline(always)]
    fn end<const N: usize>((_, at): Self::Sum<N>) -> [f32; N] {
        let mut bits = [0.0; N];
        for i in 0..N {
            bits[i] = f32::from_bits(at[i] as u32);
        }
        bits
    }
}

impl<const FMA: bool> Join for Products<FMA> {
    type Sum<const N: usize> = [f32; N];

    #[inline(always)]
    fn start<const N: usize>() -> [f32; N] {
        [0.0; N]
    }

    #[inline(always)]
    fn join<const N: usize>(sum: &mut [f32; N], first: &[f32; N], _: &[f32; N], tap: &Here) {
        let factor = tap.factor;
        for i in 0..N {
            sum[i] = if FMA { first[i].mul_add(factor, sum[i]) } else { sum[i] + first[i] * factor };
        }
    }

    #[inline(always)]
    fn end<const N: usize>(sum: [f32; N]) -> [f32; N] {
        sum
    }
}

impl Join for Chosen {
    type Sum<const N: usize> = [f32; N];
    const COMPARES: bool = true;

    #[inline(always)]
    fn start<const N: usize>() -> [f32; N] {
        [0.0; N]
    }

    #[inline(always)]
    fn join<const N: usize>(sum: &mut [f32; N], first: &[f32; N], second: &[f32; N], tap: &Here) {
        let number = tap.number as u32;
        for i in 0..N {
            sum[i] += if second[i].to_bits() == number { first[i] } else { 0.0 };
        }
    }

    #[inline(always)]
    fn end<const N: usize>(sum: [f32; N]) -> [f32; N] {
        sum
    }
}

#[inline(always)]
fn line<J: Join>(taps: &[Here], out: &mut [f32]) {
    let n = out.len();
    // What never exists is 0 at every point, so it ends nothing.
    let live = |tap: &&Here| !tap.range.is_empty();
    let from = taps.iter().filter(live).map(|tap| tap.range.start).max().unwrap_or(0);
    let to = taps.iter().filter(live).map(|tap| tap.range.end).min().unwrap_or(n);
    let (from, to) = if to < from + NARROW { (n, n) } else { (from, to) };
    for at in (0..from).chain(to..n) {
        out[at] = single::<J>(taps, at);
    }
    let at = sweep::<J, 64>(taps, from..to, out);
    let at = sweep::<J, 32>(taps, at..to, out);
    let at = sweep::<J, 16>(taps, at..to, out);
    if at < to {
        match to - from {
            16.. => out[to - 16..to].copy_from_slice(&points::<J, 16>(taps, to - 16)),
            _ => {
                sweep::<J, NARROW>(taps, from..to, out);
                out[to - NARROW..to].copy_from_slice(&points::<J, NARROW>(taps, to - NARROW));
            }
        }
    }
}

/// Whole vectors of some points; returns where they end.
#[inline(always)]
fn sweep<J: Join, const N: usize>(taps: &[Here], range: Range<usize>, out: &mut [f32]) -> usize {
    let mut at = range.start;
    while at + N <= range.end {
        out[at..at + N].copy_from_slice(&points::<J, N>(taps, at));
        at += N;
    }
    at
}

/// Some points at which every tap exists that ever does.
#[inline(always)]
fn points<J: Join, const N: usize>(taps: &[Here], at: usize) -> [f32; N] {
    let mut sum = J::start::<N>();
    let (mut firsts, mut seconds) = (Held([0.0; N]), Held([0.0; N]));
    for tap in taps {
        let first = lanes(tap.first, at - tap.range.start, &mut firsts);
        let second = if J::COMPARES { lanes(tap.second, at - tap.range.start, &mut seconds) } else { &seconds.0 };
        J::join(&mut sum, first, second, tap);
    }
    J::end(sum)
}

/// One point.
#[inline(always)]
fn single<J: Join>(taps: &[Here], at: usize) -> f32 {
    let mut sum = J::start::<1>();
    for tap in taps {
        let exists = tap.range.contains(&at);
        let element = |(values, step): (&[f32], usize), from: usize| values[step * (at - from)];
        let first = if exists { element(tap.first, tap.range.start) } else { 0.0 };
        let second = if J::COMPARES && exists { element(tap.second, tap.range.start) } else { 0.0 };
        J::join(&mut sum, &[first], &[second], tap);
    }
    J::end(sum)[0]
}

/// Elements that do not lie side by side.
#[repr(align(64))]
struct Held<const N: usize>([f32; N]);

/// The elements of `N` points from a point on, where they lie or in `held`.
#[inline(always)]
fn lanes<'a, const N: usize>((values, step): (&'a [f32], usize), at: usize, held: &'a mut Held<N>) -> &'a [f32; N] {
    match step {
        1 => return values[at..].first_chunk().expect("each point has an element"),
        0 => held.0 = [values[0]; N],
        2 => {
            // Of the last pair only the first may be there.
            let pairs = &values[2 * at..][..2 * N - 1];
            for i in 0..N {
                held.0[i] = pairs[2 * i];
            }
        }
        _ => {
            let line = &values[step * at..][..step * (N - 1) + 1];
            for i in 0..N {
                held.0[i] = line[step * i];
            }
        }
    }
    &held.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, with_isa};

    /// What a tap has at a point: an element and what is compared, 0 where it does not exist.
    fn seen(tap: &Here, at: usize) -> (f32, f32) {
        if !tap.range.contains(&at) {
            return (0.0, 0.0);
        }
        let element = |(values, step): (&[f32], usize)| values[step * (at - tap.range.start)];
        (element(tap.first), element(tap.second))
    }

    fn expected(how: Fold, taps: &[Here], at: usize) -> f32 {
        let all = taps.iter().map(|tap| (seen(tap, at), tap));
        match how {
            Fold::Sum => all.map(|((x, _), _)| x).sum(),
            Fold::SumOfProducts => all.map(|((x, _), tap)| x * tap.factor).sum(),
            Fold::SumOfChosen => {
                all.filter(|((_, y), tap)| y.to_bits() == tap.number as u32).map(|((x, _), _)| x).sum()
            }
            Fold::Max => all.map(|((x, _), _)| x).fold(f32::NEG_INFINITY, f32::max),
            Fold::Position => {
                let best = all.fold(
                    (f32::NEG_INFINITY, 0),
                    |best, ((x, _), tap)| {
                        if x > best.0 { (x, tap.number) } else { best }
                    },
                );
                f32::from_bits(best.1 as u32)
            }
        }
    }

    #[test]
    fn every_length_of_line_is_what_its_points_are() {
        // Whole numbers, so that sums are exact; some of them as the bits that are compared.
        let values: Vec<f32> = (0..1000).map(|i| ((i * 37 + i / 7) % 19) as f32 - 9.0).collect();
        let numbers: Vec<f32> = (0..1000).map(|i| f32::from_bits(i * 5 % 3)).collect();
        for isa in Isa::available() {
            for n in (1..90usize).chain([130, 200]) {
                // One that is everywhere, some that miss an end or both, and one that is nowhere.
                let ranges =
                    [0..n, 1.min(n)..n, 0..n.saturating_sub(2), 3.min(n)..n.saturating_sub(1).max(3.min(n)), 0..0];
                for step in 0..4 {
                    let taps: Vec<Here> = ranges
                        .iter()
                        .enumerate()
                        .map(|(i, range)| Here {
                            first: (&values[11 * i..], if range.is_empty() { 0 } else { step }),
                            second: (&numbers[7 * i..], if range.is_empty() { 0 } else { step }),
                            factor: i as f32 - 2.0,
                            range: range.clone(),
                            number: i as i32 % 3,
                        })
                        .map(|tap| match tap.range.is_empty() {
                            true => Here { first: (&[0.0], 0), second: (&[0.0], 0), ..tap },
                            false => tap,
                        })
                        .collect();
                    for how in [Fold::Sum, Fold::Max, Fold::Position, Fold::SumOfProducts, Fold::SumOfChosen] {
                        let mut out = vec![f32::NAN; n];
                        with_isa(isa, || fold(how, &taps, &mut out));
                        let want: Vec<f32> = (0..n).map(|at| expected(how, &taps, at)).collect();
                        let bits = |x: &[f32]| x.iter().map(|x| (x + 0.0).to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&out), bits(&want), "{isa:?}, {n} points, step {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn nan_wins_and_the_first_of_them_is_the_position() {
        let values = [1.0, f32::NAN, f32::NAN, 4.0].map(|x| [x; 20]);
        let mut taps = Vec::new();
        for (first, number) in values.iter().zip(0..) {
            taps.push(Here { first: (first, 1), second: (&[0.0], 0), factor: 1.0, range: 0..20, number });
        }
        let mut out = [0.0; 20];
        fold(Fold::Max, &taps, &mut out);
        assert!(out.iter().all(|x| x.is_nan()));
        fold(Fold::Position, &taps, &mut out);
        assert!(out.iter().all(|x| x.to_bits() == 1));
    }
}
