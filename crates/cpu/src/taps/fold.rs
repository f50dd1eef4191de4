//! Lines of taps, folded: some points at a time, whose result stays in registers from tap to tap.
//!
//! Towards the ends of a line some taps do not exist: what lies where they would be is read and not taken. Only at the
//! ends of an argument is nothing there to read, so that points go one by one. The last vector of a line goes back over
//! points that are there already.

use pulp::{Simd, WithSimd};

use super::join::{Chosen, Fold, Join, Max, Position, Products, Sum};
use super::lines::Kind;
use super::vector::{among, lanes, load, numbers, span};

/// What the taps of a line are taken from.
pub(super) struct Operands<'a> {
    pub(super) values: &'a [f32],
    /// What is compared, of which only bits matter.
    pub(super) others: &'a [f32],
    /// The addresses in both from which those of taps are counted.
    pub(super) at: [i64; 2],
    /// How far apart neighbours are.
    pub(super) step: usize,
    /// What elements are where they do not exist.
    pub(super) absent: f32,
    /// What elements are multiplied by, for each tap.
    pub(super) factors: &'a [f32],
}

/// A line whose taps become its result; positions as the bits of a float.
pub(super) struct Line<'a> {
    pub(super) how: Fold,
    pub(super) kind: &'a Kind,
    pub(super) from: &'a Operands<'a>,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.how {
            Fold::Sum => self.walk::<S, Sum>(simd),
            Fold::Max => self.walk::<S, Max>(simd),
            Fold::Position => self.walk::<S, Position>(simd),
            Fold::SumOfProducts => self.walk::<S, Products<false>>(simd),
            Fold::SumOfSeen => self.walk::<S, Products<true>>(simd),
            Fold::SumOfChosen => self.walk::<S, Chosen>(simd),
        }
    }
}

impl Line<'_> {
    #[inline(always)]
    fn walk<S: Simd, J: Join>(mut self, simd: S) {
        match self.from.step {
            1 => self.walk_by::<S, J, 1>(simd),
            _ => self.walk_by::<S, J, 2>(simd),
        }
    }

    /// As many vectors at a time as there are; `STEP` is how far apart elements of neighbours are.
    #[inline(always)]
    fn walk_by<S: Simd, J: Join, const STEP: usize>(&mut self, simd: S) {
        let (n, wide) = (self.out.len(), lanes::<S>());
        let whole = self.kind.whole.clone();
        let exist = |at: usize, n: usize| whole.start <= at && at + n <= whole.end;
        // Short lines are all of their vectors at once, or each would wait for its own sums; the last one may begin within
        // the one before.
        let done = match n.div_ceil(wide) {
            2 => self.vectors::<S, J, STEP, 2, true>(simd, 0, n - wide),
            3 if exist(wide, wide) => self.vectors::<S, J, STEP, 3, true>(simd, 0, n - wide),
            4 if exist(wide, 2 * wide) => self.vectors::<S, J, STEP, 4, true>(simd, 0, n - wide),
            _ => false,
        };
        let mut at = if done { n } else { 0 };
        while at < n {
            let (high, done) = if exist(at, 4 * wide) {
                (4, self.vectors::<S, J, STEP, 4, false>(simd, at, 3 * wide))
            } else if exist(at, 2 * wide) {
                (2, self.vectors::<S, J, STEP, 2, false>(simd, at, wide))
            } else {
                at = at.min(n.saturating_sub(wide));
                (1, self.vectors::<S, J, STEP, 1, true>(simd, at, 0))
            };
            let end = n.min(at + high * wide);
            if !done {
                for at in at..end {
                    self.out[at] = self.point::<S, J>(simd, at);
                }
            }
            at = end;
        }
    }

    /// The points of `N` vectors, the first of which begins `at` one and the last so many later; false if they see more than
    /// there is. With `SOME`, not all taps of the first and of the last one exist.
    #[inline(always)]
    fn vectors<S: Simd, J: Join, const STEP: usize, const N: usize, const SOME: bool>(
        &mut self,
        simd: S,
        at: usize,
        last: usize,
    ) -> bool {
        let (wide, from) = (lanes::<S>(), self.from);
        let start = |v: usize| if v + 1 < N { v * wide } else { last };
        let heads = from.at.map(|head| head + (STEP * at) as i64);
        let len = STEP * (last + wide);
        let ends = [numbers(simd, at), numbers(simd, at + last)];
        let (zero, absent) = (simd.splat_f32s(0.0), simd.splat_f32s(from.absent));
        let mut sums = [J::start(simd); N];
        for (i, tap) in self.kind.taps.iter().enumerate() {
            let Some(first) = span(from.values, heads[0] + tap.at[0], len) else { return false };
            let second = if J::COMPARES { span(from.others, heads[1] + tap.at[1], len) } else { Some(&[][..]) };
            let Some(second) = second else { return false };
            let factor = simd.splat_f32s(if J::SCALES { from.factors[i] } else { 0.0 });
            for (v, sum) in sums.iter_mut().enumerate() {
                let part = STEP * start(v)..STEP * (start(v) + wide);
                let mut x = load::<S, STEP>(&first[part.clone()]);
                let mut y = if J::COMPARES { load::<S, STEP>(&second[part]) } else { factor };
                if SOME && (v == 0 || v + 1 == N) {
                    let exists = among(simd, if v == 0 { ends[0] } else { ends[1] }, &tap.range);
                    x = simd.select_f32s(exists, x, absent);
                    y = if J::SKIPS { simd.select_f32s(exists, y, zero) } else { y };
                }
                J::join(simd, sum, x, y, tap.number);
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            let (at, points) = (at + start(v), [J::end(simd, sum)]);
            let points: &[f32] = bytemuck::cast_slice(&points);
            match self.out.get_mut(at..at + wide) {
                Some(out) => out.copy_from_slice(points),
                // The whole line is less than a vector.
                None => self.out[at..].iter_mut().zip(points).for_each(|(o, x)| *o = *x),
            }
        }
        true
    }

    /// One point.
    #[inline(always)]
    fn point<S: Simd, J: Join>(&self, simd: S, at: usize) -> f32 {
        let from = self.from;
        let mut sum = J::start(simd);
        for (i, tap) in self.kind.taps.iter().enumerate() {
            let exists = tap.range.contains(&at);
            let place = |which: usize| (from.at[which] + tap.at[which] + (from.step * at) as i64) as usize;
            let first = if exists { from.values[place(0)] } else { from.absent };
            let second = match (J::COMPARES, J::SCALES) {
                (true, _) if exists => from.others[place(1)],
                (_, true) if exists || !J::SKIPS => from.factors[i],
                _ => 0.0,
            };
            J::join(simd, &mut sum, simd.splat_f32s(first), simd.splat_f32s(second), tap.number);
        }
        bytemuck::cast_slice(&[J::end(simd, sum)])[0]
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::Tap;
    use super::*;
    use pulp::Arch;

    /// What each instruction set that this processor has makes of a line.
    fn folded(how: Fold, kind: &Kind, from: &Operands) -> Vec<(&'static str, Vec<f32>)> {
        let mut all = Vec::new();
        let mut add = |name, run: &dyn Fn(Line)| {
            let mut out = vec![f32::NAN; kind.n];
            run(Line { how, kind, from, out: &mut out });
            all.push((name, out));
        };
        add("one by one", &|line| line.with_simd(pulp::Scalar));
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            add("in eights", &|line| Simd::vectorize(simd, line));
        }
        add("as wide as here", &|line| Arch::new().dispatch(line));
        all
    }

    const ALL: [Fold; 6] =
        [Fold::Sum, Fold::Max, Fold::Position, Fold::SumOfProducts, Fold::SumOfSeen, Fold::SumOfChosen];

    /// Where what does not exist is less than anything that does.
    const EXTREMES: [(Fold, f32); 2] = [(Fold::Max, f32::NEG_INFINITY), (Fold::Position, f32::NEG_INFINITY)];

    /// A point's result by the definition.
    fn expected(how: Fold, kind: &Kind, from: &Operands, at: usize) -> f32 {
        let seen = kind.taps.iter().zip(from.factors).map(|(tap, factor)| {
            let place = |which: usize| (from.at[which] + tap.at[which]) as usize + from.step * at;
            match tap.range.contains(&at) {
                true => (from.values[place(0)], from.others[place(1)], *factor, tap.number),
                false => (from.absent, f32::NAN, *factor, tap.number),
            }
        });
        match how {
            Fold::Sum => seen.map(|x| x.0).sum(),
            Fold::SumOfProducts | Fold::SumOfSeen => seen.map(|x| x.0 * x.2).sum(),
            Fold::SumOfChosen => seen.filter(|x| x.1.to_bits() == x.3 as u32).map(|x| x.0).sum(),
            Fold::Max => seen.map(|x| x.0).fold(f32::NEG_INFINITY, f32::max),
            Fold::Position => {
                let best = seen.fold((f32::NEG_INFINITY, 0), |best, x| if x.0 > best.0 { (x.0, x.3) } else { best });
                f32::from_bits(best.1 as u32)
            }
        }
    }

    #[test]
    fn every_length_of_line_is_what_its_points_are() {
        // Whole numbers, so that sums are exact; some of them as the bits that are compared.
        let values: Vec<f32> = (0..1000).map(|i| ((i * 37 + i / 7) % 19) as f32 - 9.0).collect();
        let others: Vec<f32> = (0..1000).map(|i| f32::from_bits(i * 5 % 3)).collect();
        for n in (1..90usize).chain([130, 200]) {
            // One that is everywhere, some that miss an end or both, and one that is nowhere.
            let inner = 3.min(n)..n.saturating_sub(1).max(3.min(n));
            let ranges = [0..n, 1.min(n)..n, 0..n.saturating_sub(2), inner, 0..0];
            let taps: Vec<Tap> = (0..)
                .zip(&ranges)
                .map(|(i, range)| Tap { at: [11 * i, 7 * i], number: i as i32 % 3, range: range.clone() })
                .collect();
            for (taps, whole) in [(taps.clone(), 0..0), (taps[..3].to_vec(), 1.min(n)..n.saturating_sub(2))] {
                let kind = Kind { taps, whole, n };
                for step in [1, 2] {
                    // Whatever is before or behind, also nothing.
                    let end = |by: i64, at: i64| (at + by * (kind.taps.len() as i64 - 1)) as usize + step * (n - 1) + 1;
                    let room = (&values[..], &others[..], [100, 50]);
                    let tight = (&values[..end(11, 0)], &others[..end(7, 0)], [0, 0]);
                    for (values, others, at) in [room, tight] {
                        let factors = [-2.0, -1.0, 0.0, 1.0, 2.0];
                        let factors = &factors[..kind.taps.len()];
                        for (how, absent) in ALL.map(|how| (how, 0.0)).into_iter().chain(EXTREMES) {
                            let from = Operands { values, others, at, step, absent, factors };
                            let want: Vec<f32> = (0..n).map(|at| expected(how, &kind, &from, at)).collect();
                            let bits = |x: &[f32]| x.iter().map(|x| (x + 0.0).to_bits()).collect::<Vec<_>>();
                            for (name, out) in folded(how, &kind, &from) {
                                assert_eq!(bits(&out), bits(&want), "{name}, {n} points, step {step}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nan_wins_and_the_first_of_them_is_the_position() {
        let values = [1.0, f32::NAN, f32::NAN, 4.0].map(|x| [x; 20]);
        let taps = (0..4).map(|i| Tap { at: [20 * i, 0], number: i as i32, range: 0..20 }).collect();
        let kind = Kind { taps, whole: 0..20, n: 20 };
        let from =
            Operands { values: values.as_flattened(), others: &[], at: [0; 2], step: 1, absent: 0.0, factors: &[] };
        let mut out = [0.0; 20];
        Arch::new().dispatch(Line { how: Fold::Max, kind: &kind, from: &from, out: &mut out });
        assert!(out.iter().all(|x| x.is_nan()));
        Arch::new().dispatch(Line { how: Fold::Position, kind: &kind, from: &from, out: &mut out });
        assert!(out.iter().all(|x| x.to_bits() == 1));
    }

    #[test]
    fn only_what_exists_has_a_factor() {
        let values = [1.0; 200];
        for (n, range) in [(40, 0..38), (40, 1..40), (7, 0..5)] {
            let taps = vec![Tap { at: [0, 0], number: 0, range: range.clone() }];
            let kind = Kind { taps, whole: range.clone(), n };
            for room in [n, 200] {
                let (values, factors) = (&values[..room], &[f32::INFINITY][..]);
                let from = Operands { values, others: &[], at: [0; 2], step: 1, absent: 0.0, factors };
                for (name, out) in folded(Fold::SumOfSeen, &kind, &from) {
                    let want = |at| if range.contains(&at) { f32::INFINITY } else { 0.0 };
                    assert!(out.iter().enumerate().all(|(at, &x)| x == want(at)), "{name}: {out:?}");
                }
                let (_, out) = &folded(Fold::SumOfProducts, &kind, &from)[0];
                assert!(out.iter().enumerate().all(|(at, x)| x.is_nan() != range.contains(&at)), "{out:?}");
            }
        }
    }
}
