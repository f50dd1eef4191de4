//! Elementary functions of `f32` without branches, so that loops over them vectorise.
//!
//! Each reduces its argument to a short interval and evaluates a polynomial there. Constants are
//! those of Cephes (Moshier 1992) unless stated. `FMA` picks a fused multiply-add where it is one
//! instruction. Tested against `f64` over the whole domain at the foot of the file.

/// `a·b + c`.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `c[0]·xⁿ + … + c[n]`.
#[inline(always)]
fn poly<const FMA: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[0];
    for &next in &c[1..] {
        sum = fma::<FMA>(sum, x, next);
    }
    sum
}

/// Adding and subtracting `1.5·2²³` rounds to the nearest whole number while `|x| < 2²²`.
const ROUND: f32 = 12_582_912.0;

/// `eʳ` and `n·2²³` with `x = n·ln 2 + r` and `|r| ≤ ln 2 / 2`, for `|x| < 2²¹`. Coefficients: weighted least squares,
/// reweighted until the relative error is even, 4·10⁻⁹.
#[inline(always)]
fn exp_parts<const FMA: bool>(x: f32) -> (f32, u32) {
    let whole = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    // The low bits of the sum are n, and go where exponents are.
    let exponent = whole.to_bits().wrapping_shl(23);
    let whole = whole - ROUND;
    // ln 2 in two parts, the first exact in few bits.
    let r = fma::<FMA>(whole, -0.693_359_4, x);
    let r = fma::<FMA>(whole, 2.121_944_4e-4, r);
    // Pairs of terms side by side: one after the other, processors cannot see far enough ahead to be busy meanwhile.
    let square = r * r;
    let low = fma::<FMA>(r, 1.666_653_5e-1, 0.5);
    let high = fma::<FMA>(square, 1.386_38e-3, fma::<FMA>(r, 8.367_5e-3, 4.166_724e-2));
    (fma::<FMA>(square, fma::<FMA>(square, high, low), r + 1.0), exponent)
}

/// `eˣ`: `2ⁿ·eʳ`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Beyond these the result is 0 or ∞ anyway; the comparisons let NaN through.
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -104.0 { -104.0 } else { clamped };
    let (e, exponent) = exp_parts::<FMA>(clamped);
    // In two factors, since 2ⁿ alone may overflow or be subnormal. NaN makes n arbitrary, and the product is NaN still.
    let (bias, rest) = if clamped < -86.0 { (127 + 64, 1.0 / TWO_64) } else { (127 - 1, 2.0) };
    e * f32::from_bits(exponent.wrapping_add(bias << 23)) * rest
}

/// `2⁶⁴`
const TWO_64: f32 = 18_446_744_073_709_551_616.0;

/// `eˣ` for `x ≤ 88`, but 0 for `x < -87`: beside 1, the greatest share of a softmax, that is nothing.
#[inline(always)]
pub(crate) fn exp_share<const FMA: bool>(x: f32) -> f32 {
    let clamped = if x < -87.0 { -87.0 } else { x };
    let (e, exponent) = exp_parts::<FMA>(clamped);
    // NaN makes n arbitrary, and the product is NaN still.
    let e = e * f32::from_bits(exponent.wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { e }
}

/// `ln x`: `e·ln 2 + ln m` with `√½ ≤ m < √2`.
#[inline(always)]
pub(crate) fn log<const FMA: bool>(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 33_554_432.0 } else { x };
    // Subtracting the bits of √½ makes the exponent field count from there.
    let bits = scaled.to_bits().wrapping_sub(0x3F35_04F3);
    let e = ((bits as i32) >> 23) as f32 - if subnormal { 25.0 } else { 0.0 };
    let m = f32::from_bits((bits & 0x007F_FFFF) + 0x3F35_04F3) - 1.0;
    let z = m * m;
    let p = poly::<FMA, 9>(
        m,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_7e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let y = fma::<FMA>(p * m, z, e * -2.121_944_4e-4);
    let y = fma::<FMA>(z, -0.5, y);
    let y = fma::<FMA>(e, 0.693_359_4, m + y);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// `tanh x`: an odd polynomial near 0, `1 - 2 / (e^{2|x|} + 1)` beyond.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = poly::<FMA, 5>(z, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = fma::<FMA>(p * z, x, x);
    // From 9.02 on the result is 1.
    let far = 1.0 - 2.0 / (exp_twice::<FMA>(if a > 10.0 { 10.0 } else { a }) + 1.0);
    // NaN is near.
    if a >= 0.625 { far.copysign(x) } else { near }
}

/// `e²ˣ` for `0 ≤ x ≤ 10`, good enough to be divided by where it is more than 3. Coefficients: interpolation at Chebyshev
/// nodes, 10⁻⁸ off.
#[inline(always)]
fn exp_twice<const FMA: bool>(x: f32) -> f32 {
    exp_about::<FMA, 7>(x, 2.0, [8.912_776_4e-2, 2.676_225e-1, 6.666_649e-1, 1.333_326_1, 2.0, 2.0, 1.0])
}

/// `eˣ` to the power of `times` where that needs no clamping: `2ⁿ·p(r)` with `x = n·ln 2 / times + r`, the last digits of `ln 2`
/// left out.
#[inline(always)]
fn exp_about<const FMA: bool, const N: usize>(x: f32, times: f32, p: [f32; N]) -> f32 {
    let whole = fma::<FMA>(x, times * std::f32::consts::LOG2_E, ROUND);
    let r = fma::<FMA>(whole - ROUND, -std::f32::consts::LN_2 / times, x);
    // The low bits of the sum are n, which goes where exponents are.
    f32::from_bits(poly::<FMA, N>(r, p).to_bits().wrapping_add(whole.to_bits().wrapping_shl(23)))
}

/// `1 / (1 + e⁻ˣ)`, through `e^{-|x|}` so that neither tail overflows.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-x.abs());
    let top = if x < 0.0 { e } else { 1.0 };
    top / (1.0 + e)
}

/// The error function: an odd polynomial near 0, `1 - e^{-q(|x|)}` beyond.
///
/// Coefficients: Juffa 2019, "A faster erff with a maximum error of 1 ulp".
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    // From 3.84 on the result is 1.
    let a = x.abs();
    let a = if a > 4.0 { 4.0 } else { a };
    let z = a * a;
    let near = poly::<FMA, 6>(
        z,
        [-5.967_617_e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
    );
    let near = fma::<FMA>(near, x, x);
    let r = fma::<FMA>(-1.728_534_7e-5, a, 3.831_972e-4);
    let u = fma::<FMA>(-3.883_964_4e-3, a, 2.425_462_2e-2);
    let r = fma::<FMA>(r, z, u);
    let r = poly::<FMA, 4>(a, [r, -1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1]);
    let r = fma::<FMA>(r, a, -a);
    let far = (1.0 - exp_small::<FMA>(r)).copysign(x);
    // NaN is near.
    if a > 0.927_734_4 { far } else { near }
}

/// `eˣ` for `-20 ≤ x ≤ -1.6`, good enough to be taken from 1. Coefficients: weighted least squares, reweighted until the
/// relative error is even, 10⁻⁷.
#[inline(always)]
fn exp_small<const FMA: bool>(x: f32) -> f32 {
    exp_about::<FMA, 6>(x, 1.0, [8.312_502e-3, 4.189_033e-2, 1.666_711_5e-1, 4.999_923e-1, 1.0, 1.0])
}

/// Beyond this, [`sin_cos`] has lost too many digits.
pub(crate) const TRIG_LIMIT: f32 = 1e8;

/// `sin` of `x + quadrants·π/2`, for `|x| ≤ TRIG_LIMIT`; the reduction happens in `f64`.
#[inline(always)]
pub(crate) fn sin_cos<const FMA: bool>(x: f32, quadrants: i32) -> f32 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5·2⁵²
    let wide = x as f64;
    let whole = wide * std::f64::consts::FRAC_2_PI + ROUND;
    let q = (whole.to_bits() as i32).wrapping_add(quadrants);
    let whole = whole - ROUND;
    let r = (wide - whole * std::f64::consts::FRAC_PI_2 - whole * 6.123_233_995_736_766e-17) as f32;
    let z = r * r;
    let s = poly::<FMA, 3>(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let s = fma::<FMA>(s * z, r, r);
    let c = poly::<FMA, 3>(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let c = fma::<FMA>(c, z * z, fma::<FMA>(z, -0.5, 1.0));
    let value = if q & 1 == 0 { s } else { c };
    if q & 2 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `step`-th finite float.
    fn sweep(step: usize) -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(step).map(f32::from_bits).filter(|x| x.is_finite())
    }

    fn check(name: &str, ulps: f64, f: fn(f32) -> f32, reference: fn(f64) -> f64, keep: fn(f32) -> bool) {
        let mut worst = (0.0, 0.0);
        for x in sweep(9973).filter(|&x| keep(x)) {
            let (got, want) = (f(x), reference(x as f64));
            let rounded = want as f32;
            if got == rounded || (got.is_nan() && want.is_nan()) {
                continue;
            }
            let ulp = f64::max(rounded.abs().next_up() as f64 - rounded.abs() as f64, 1e-45);
            let error = (got as f64 - want).abs() / ulp;
            if error.is_nan() || error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 <= ulps, "{name}: {} ulp at {:e}", worst.0, worst.1);
    }

    #[test]
    fn functions_are_within_their_ulps() {
        let all = |_: f32| true;
        check("exp", 2.0, exp::<true>, f64::exp, all);
        check("exp without fma", 2.0, exp::<false>, f64::exp, all);
        let share = |x: f32| (-87.0..=88.0).contains(&x);
        check("exp of a share", 2.0, exp_share::<true>, f64::exp, share);
        check("exp of a share without fma", 2.0, exp_share::<false>, f64::exp, share);
        check("log", 2.0, log::<true>, f64::ln, all);
        check("log without fma", 2.0, log::<false>, f64::ln, all);
        check("tanh", 2.0, tanh::<true>, f64::tanh, all);
        check("tanh without fma", 2.0, tanh::<false>, f64::tanh, all);
        check("erf", 2.0, erf::<true>, kiln_ir::ops::erf, all);
        check("erf without fma", 2.0, erf::<false>, kiln_ir::ops::erf, all);
        check("sigmoid", 3.0, sigmoid::<true>, |x| 1.0 / (1.0 + (-x).exp()), all);
        check("sin", 2.0, |x| sin_cos::<true>(x, 0), f64::sin, |x| x.abs() <= 1e5);
        check("cos", 2.0, |x| sin_cos::<true>(x, 1), f64::cos, |x| x.abs() <= 1e5);
    }

    #[test]
    fn edges_are_as_ieee_has_them() {
        let inf = f32::INFINITY;
        assert_eq!([exp::<true>(inf), exp::<true>(-inf), exp::<true>(0.0)], [inf, 0.0, 1.0]);
        assert_eq!([exp_share::<true>(-inf), exp_share::<true>(-88.0), exp_share::<true>(0.0)], [0.0, 0.0, 1.0]);
        assert_eq!([log::<true>(inf), log::<true>(0.0), log::<true>(1.0)], [inf, -inf, 0.0]);
        assert_eq!([tanh::<true>(inf), tanh::<true>(-inf)], [1.0, -1.0]);
        assert_eq!([erf::<true>(inf), erf::<true>(-inf)], [1.0, -1.0]);
        assert_eq!([sigmoid::<true>(inf), sigmoid::<true>(-inf)], [1.0, 0.0]);
        for f in [exp::<true>, exp_share::<true>, log::<true>, tanh::<true>, erf::<true>, sigmoid::<true>] {
            assert!(f(f32::NAN).is_nan());
        }
        // Bits of a NaN that would be added to exponents.
        assert!(tanh::<true>(f32::from_bits(0x7FC0_01FF)).is_nan());
        assert!(log::<true>(-1.0).is_nan());
    }
}
