//! How a tap joins the result of a vector of points.

use pulp::Simd;

/// How taps become a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    Sum,
    Max,
    /// The number of the first greatest tap.
    Position,
    SumOfProducts,
    /// The same, where what does not exist is not multiplied.
    SumOfSeen,
    SumOfChosen,
}

/// How a tap joins the result of some points.
pub(super) trait Join {
    /// What points have so far.
    type Sum<S: Simd>: Copy;
    fn start<S: Simd>(simd: S) -> Self::Sum<S>;
    /// Takes the elements of some points, and what is compared or multiplied with them.
    fn join<S: Simd>(simd: S, sum: &mut Self::Sum<S>, first: S::f32s, second: S::f32s, number: i32);
    fn end<S: Simd>(simd: S, sum: Self::Sum<S>) -> S::f32s;
    /// True iff elements are compared.
    const COMPARES: bool = false;
    /// True iff elements are multiplied.
    const SCALES: bool = false;
    /// True iff elements that do not exist have no factor.
    const SKIPS: bool = false;
}

pub(super) struct Sum;
pub(super) struct Max;
pub(super) struct Position;
pub(super) struct Products<const SKIPS: bool>;
pub(super) struct Chosen;

impl Join for Sum {
    type Sum<S: Simd> = S::f32s;

    #[inline(always)]
    fn start<S: Simd>(simd: S) -> S::f32s {
        simd.splat_f32s(0.0)
    }

    #[inline(always)]
    fn join<S: Simd>(simd: S, sum: &mut S::f32s, first: S::f32s, _: S::f32s, _: i32) {
        *sum = simd.add_f32s(*sum, first);
    }

    #[inline(always)]
    fn end<S: Simd>(_: S, sum: S::f32s) -> S::f32s {
        sum
    }
}

/// Whether a tap takes the place of an earlier one as the greatest: a NaN does, and the first one stays.
#[inline(always)]
fn replaces<S: Simd>(simd: S, x: S::f32s, best: S::f32s) -> S::m32s {
    simd.and_m32s(simd.not_m32s(simd.less_than_or_equal_f32s(x, best)), simd.equal_f32s(best, best))
}

impl Join for Max {
    type Sum<S: Simd> = S::f32s;

    #[inline(always)]
    fn start<S: Simd>(simd: S) -> S::f32s {
        simd.splat_f32s(f32::NEG_INFINITY)
    }

    #[inline(always)]
    fn join<S: Simd>(simd: S, sum: &mut S::f32s, first: S::f32s, _: S::f32s, _: i32) {
        *sum = simd.select_f32s(replaces(simd, first, *sum), first, *sum);
    }

    #[inline(always)]
    fn end<S: Simd>(_: S, sum: S::f32s) -> S::f32s {
        sum
    }
}

impl Join for Position {
    type Sum<S: Simd> = (S::f32s, S::i32s);

    #[inline(always)]
    fn start<S: Simd>(simd: S) -> Self::Sum<S> {
        (simd.splat_f32s(f32::NEG_INFINITY), simd.splat_i32s(0))
    }

    #[inline(always)]
    fn join<S: Simd>(simd: S, (best, at): &mut Self::Sum<S>, first: S::f32s, _: S::f32s, number: i32) {
        let better = replaces(simd, first, *best);
        *best = simd.select_f32s(better, first, *best);
        *at = simd.select_i32s(better, simd.splat_i32s(number), *at);
    }

    #[inline(always)]
    fn end<S: Simd>(_: S, (_, at): Self::Sum<S>) -> S::f32s {
        bytemuck::cast(at)
    }
}

impl<const SKIPS: bool> Join for Products<SKIPS> {
    type Sum<S: Simd> = S::f32s;
    const SCALES: bool = true;
    const SKIPS: bool = SKIPS;

    #[inline(always)]
    fn start<S: Simd>(simd: S) -> S::f32s {
        simd.splat_f32s(0.0)
    }

    #[inline(always)]
    fn join<S: Simd>(simd: S, sum: &mut S::f32s, first: S::f32s, second: S::f32s, _: i32) {
        *sum = simd.mul_add_e_f32s(first, second, *sum);
    }

    #[inline(always)]
    fn end<S: Simd>(_: S, sum: S::f32s) -> S::f32s {
        sum
    }
}

impl Join for Chosen {
    type Sum<S: Simd> = S::f32s;
    const COMPARES: bool = true;

    #[inline(always)]
    fn start<S: Simd>(simd: S) -> S::f32s {
        simd.splat_f32s(0.0)
    }

    #[inline(always)]
    fn join<S: Simd>(simd: S, sum: &mut S::f32s, first: S::f32s, second: S::f32s, number: i32) {
        let here = simd.equal_u32s(bytemuck::cast(second), simd.splat_u32s(number as u32));
        *sum = simd.add_f32s(*sum, simd.select_f32s(here, first, simd.splat_f32s(0.0)));
    }

    #[inline(always)]
    fn end<S: Simd>(_: S, sum: S::f32s) -> S::f32s {
        sum
    }
}
