//! Sums of a tile's rows: of their points, of products, and of squared differences.
//!
//! What a row's last vector lacks is masked, where compilers add up such a rest one by one. Sums of rows of 32 take two
//! thirds of the time so.

use pulp::{Arch, Simd, WithSimd};

use crate::ahead::Ahead;
use crate::taps::vector::{exists, lanes, vector};
use crate::walks::PIECE;

/// What is summed of two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Term {
    /// The first one.
    Itself,
    Product,
    /// The square of their difference.
    Square,
}

/// The sums of rows that lie one after the other, each at least as long as any vector.
pub(super) fn sums(term: Term, args: [&[f32]; 2], points: usize, out: &mut [f32], ahead: &mut Ahead) {
    Arch::new().dispatch(Sums { term, args, points, out, ahead });
}

struct Sums<'a> {
    term: Term,
    args: [&'a [f32]; 2],
    points: usize,
    out: &'a mut [f32],
    ahead: &'a mut Ahead,
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.term {
            Term::Itself => self.rows::<S, ITSELF>(simd),
            Term::Product => self.rows::<S, PRODUCT>(simd),
            Term::Square => self.rows::<S, SQUARE>(simd),
        }
    }
}

const ITSELF: u8 = Term::Itself as u8;
const PRODUCT: u8 = Term::Product as u8;
const SQUARE: u8 = Term::Square as u8;

/// What is summed of the vectors that two slices begin with.
#[inline(always)]
fn term<S: Simd, const TERM: u8>(simd: S, x: &[f32], y: &[f32]) -> S::f32s {
    let x = vector(x);
    match TERM {
        ITSELF => x,
        PRODUCT => simd.mul_f32s(x, vector(y)),
        _ => {
            let d = simd.sub_f32s(x, vector(y));
            simd.mul_f32s(d, d)
        }
    }
}

impl Sums<'_> {
    #[inline(always)]
    fn rows<S: Simd, const TERM: u8>(self, simd: S) {
        let Sums { args: [x, y], points, out, ahead, .. } = self;
        let rows = x.chunks_exact(points).zip(y.chunks_exact(points));
        for ((x, y), out) in rows.zip(out) {
            if ahead.asks() {
                (0..points.div_ceil(PIECE)).for_each(|_| ahead.ask());
            }
            *out = row::<S, TERM>(simd, x, y);
        }
    }
}

/// Four vectors at a time, so that no addition waits for the one before.
#[inline(always)]
fn row<S: Simd, const TERM: u8>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let (n, zero) = (lanes::<S>(), simd.splat_f32s(0.0));
    let y = &y[..x.len()];
    let mut sums = [zero; 4];
    let mut at = 0;
    while at + 4 * n <= x.len() {
        for (j, sum) in sums.iter_mut().enumerate() {
            let from = at + j * n..at + (j + 1) * n;
            *sum = simd.add_f32s(*sum, term::<S, TERM>(simd, &x[from.clone()], &y[from]));
        }
        at += 4 * n;
    }
    while at + n <= x.len() {
        sums[0] = simd.add_f32s(sums[0], term::<S, TERM>(simd, &x[at..at + n], &y[at..at + n]));
        at += n;
    }
    if at < x.len() {
        // The last points, of which some are summed already.
        let from = x.len() - n;
        let last = term::<S, TERM>(simd, &x[from..], &y[from..]);
        sums[1] = simd.add_f32s(sums[1], simd.select_f32s(exists(simd, from, at..x.len()), last, zero));
    }
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_summed_once() {
        for points in (16..80).chain([100, 197, 512]) {
            // Whole numbers, so that sums are exact.
            let x: Vec<f32> = (0..5 * points).map(|i| ((i * 37) % 23) as f32).collect();
            let y: Vec<f32> = (0..5 * points).map(|i| ((i * 11) % 7) as f32).collect();
            for kind in [Term::Itself, Term::Product, Term::Square] {
                let of = |(x, y): (&f32, &f32)| match kind {
                    Term::Itself => *x,
                    Term::Product => x * y,
                    Term::Square => (x - y) * (x - y),
                };
                let rows = x.chunks(points).zip(y.chunks(points));
                let want: Vec<f32> = rows.map(|(x, y)| x.iter().zip(y).map(of).sum()).collect();
                let check = |name: &str, sum: &dyn Fn(Sums)| {
                    let mut out = vec![f32::NAN; 5];
                    sum(Sums { term: kind, args: [&x, &y], points, out: &mut out, ahead: &mut Ahead::none() });
                    assert_eq!(out, want, "rows of {points}, {kind:?}, {name}");
                };
                check("one by one", &|sums| sums.with_simd(pulp::Scalar));
                #[cfg(target_arch = "x86_64")]
                if let Some(simd) = pulp::x86::V3::try_new() {
                    check("in eights", &|sums| Simd::vectorize(simd, sums));
                }
                check("as wide as here", &|sums| Arch::new().dispatch(sums));
            }
        }
    }
}
