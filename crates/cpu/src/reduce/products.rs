//! Sums of products and of squared differences, whose terms are never stored.

use kiln_ir::DType;

use super::outer::{halve_points, pairs_in};
use super::sums::{Term, sums};
use super::{LONG, Lane, Partial, Rows, WIDTH, fold_by, fold_onto, halve};
use crate::ahead::Ahead;
use crate::program::Reduction;
use crate::simd::{Operand, WORDS, multiversion};
use crate::tiling::IN_TURN;

multiversion! {
    /// The sums of products, or of squares of differences, over a tile's rows; `more` iff they go on from those of earlier
    /// points.
    pub(crate) fn sum_products(
        r: &Reduction,
        factors: &[Operand; 2],
        shape: &Rows,
        more: bool,
        out: &mut Partial,
        ahead: &mut Ahead,
    ) {
        match r.dtype {
            DType::F64 => products::<f64, false>(*factors, *shape, more, out, ahead),
            _ if r.squares && factors[1].one => {
                let x = &factors[0].lanes()[..shape.points];
                squares_long(x, factors[1].lanes()[0], ahead, &mut out.best.lanes_mut()[0]);
            }
            _ if shape.inner && shape.rows > 1 && shape.points >= WORDS => {
                let term = if r.squares { Term::Square } else { Term::Product };
                let out = &mut out.best.lanes_mut()[..shape.rows];
                sums(term, factors.map(|x| &x.lanes()[..shape.rows * shape.points]), shape.points, out, ahead);
            }
            _ if r.squares => products::<f32, true>(*factors, *shape, more, out, ahead),
            _ if takes_one(shape) => {
                let [x, y] = factors.map(|x| &x.lanes()[..shape.points]);
                products_long(x, y, ahead, &mut out.best.lanes_mut()[0]);
            }
            _ => products::<f32, false>(*factors, *shape, more, out, ahead),
        }
    }
}

/// True iff a tile is a single long row: what is once a row may then be a single number.
pub(crate) fn takes_one(shape: &Rows) -> bool {
    shape.is_single() && shape.points > LONG
}

#[inline(always)]
fn products<T: Lane, const SQUARES: bool>(
    factors: [Operand; 2],
    shape: Rows,
    more: bool,
    out: &mut Partial,
    ahead: &mut Ahead,
) {
    let Rows { inner, rows, points, .. } = shape;
    let [x, y] = factors.map(|x| &x.lanes::<T>()[..rows * points]);
    let best = out.best.lanes_mut::<T>();
    if inner {
        for ((x, y), o) in x.chunks_exact(points).zip(y.chunks_exact(points)).zip(best) {
            *o = sum_of_products::<_, SQUARES>(x, y, ahead);
        }
        return;
    }
    if more {
        return add_products::<_, SQUARES>(&mut best[..rows], x, y, ahead);
    }
    // A few points are added in turn, and then all of those pairwise.
    let few = rows * IN_TURN;
    for (i, (x, y)) in x.chunks(few).zip(y.chunks(few)).enumerate() {
        let sums = &mut best[i * rows..][..rows];
        sums.fill(T::zeroed());
        add_products::<_, SQUARES>(sums, x, y, ahead);
    }
    halve_points(best, rows, points.div_ceil(IN_TURN), |low, high| pairs_in(low, high, T::sum));
}

/// What is summed of two numbers: their product, or the square of their difference.
#[inline(always)]
fn term<T: Lane, const SQUARES: bool>(x: T, y: T) -> T {
    let d = x.difference(y);
    if SQUARES { d.prod(d) } else { x.prod(y) }
}

/// Adds products to the sums of as many rows.
#[inline(always)]
fn add_products<T: Lane, const SQUARES: bool>(sums: &mut [T], x: &[T], y: &[T], ahead: &mut Ahead) {
    let rows = sums.len();
    for (x, y) in x.chunks_exact(rows).zip(y.chunks_exact(rows)) {
        fold_onto(sums, [x, y], ahead, |sum, [x, y]| sum.sum(term::<_, SQUARES>(x, y)));
    }
}

/// `Σ x·y` through [`WIDTH`] lanes and then pairwise.
#[inline(always)]
fn sum_of_products<T: Lane, const SQUARES: bool>(x: &[T], y: &[T], ahead: &mut Ahead) -> T {
    match ahead.asks() {
        true => products_from::<_, SQUARES, true>(x, y, ahead),
        false => products_from::<_, SQUARES, false>(x, y, ahead),
    }
}

/// A loop for each case, as [`fold_from`].
#[inline(always)]
fn products_from<T: Lane, const SQUARES: bool, const ASKS: bool>(x: &[T], y: &[T], ahead: &mut Ahead) -> T {
    let mut acc = [T::zeroed(); WIDTH];
    let (chunks, rest) = x.as_chunks::<WIDTH>();
    let (others, other_rest) = y.as_chunks::<WIDTH>();
    for (x, y) in chunks.iter().zip(others) {
        if ASKS {
            ahead.ask();
        }
        // Products on their own, or the sums go through memory (150 ns for a thousand instead of 40).
        let mut products = [T::zeroed(); WIDTH];
        for i in 0..WIDTH {
            products[i] = term::<_, SQUARES>(x[i], y[i]);
        }
        acc = std::array::from_fn(|i| acc[i].sum(products[i]));
    }
    if !rest.is_empty() {
        let product = |i| rest.get(i).zip(other_rest.get(i)).map(|(&x, &y): (&T, &T)| term::<_, SQUARES>(x, y));
        acc = std::array::from_fn(|i| product(i).map_or(acc[i], |x| acc[i].sum(x)));
    }
    halve(&mut acc, T::sum)
}

multiversion! {
    /// Sums the products of two long rows, on its own as above.
    fn products_long(x: &[f32], y: &[f32], ahead: &mut Ahead, out: &mut f32) {
        *out = sum_of_products::<_, false>(x, y, ahead);
    }
}

multiversion! {
    /// Sums the squares of the differences of a long row from a number, on its own as above.
    fn squares_long(x: &[f32], from: f32, ahead: &mut Ahead, out: &mut f32) {
        *out = fold_by(x, 0.0, ahead, |sum, x| sum + term::<_, true>(x, from), f32::sum);
    }
}
