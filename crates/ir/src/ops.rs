//! The op table: every pointwise and reduce op is one row, and everything else is derived from it.
//!
//! A row carries its name, its documentation, its value in `f64`, its WGSL, its gradient as a
//! formula, and the domain and tolerance of its tests. The law tests walk [`OPS`]. To add an op,
//! add a row; the CPU's exhaustive match then asks for its vector kernel.

use crate::DType;
use crate::expr::E;
use crate::random::threefry2x32;

/// Which dtypes an op takes and gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typing {
    /// Floats of one dtype, giving it.
    Float,
    /// Numbers of one dtype, giving it.
    Number,
    /// Integers of one dtype, giving it.
    Integer,
    /// Integers or truth values of one dtype, giving it.
    Bits,
    /// Two of one dtype, giving a truth value.
    Compare,
    /// A truth value and two of one dtype, giving that dtype.
    Select,
    /// Three `u32`, giving `u32`.
    Words,
}

/// How far a backend may be from the reference.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// Equal to the bit.
    Exact,
    /// Relative to `max(1, |reference|)`.
    Relative(f64),
}

/// The gradient of a row.
#[derive(Clone, Copy)]
pub enum Gradient {
    /// Zero almost everywhere, or not a float; the reason is for readers.
    None(&'static str),
    /// One formula per operand over the cotangent `g`, the operands `x`, and the value `y`.
    Formulas(fn(g: &E, x: &[E; 3], y: &E) -> Vec<Option<E>>),
}

/// One pointwise op.
pub struct Row {
    /// The op this row describes.
    pub op: PointOp,
    /// Its name in dumps, messages and the op table.
    pub name: &'static str,
    /// What it computes.
    pub doc: &'static str,
    /// Number of operands, 1 to 3.
    pub arity: usize,
    /// Which dtypes it takes and gives.
    pub typing: Typing,
    /// The value in `f64`; the dtype is that of the last operand and decides integer wrapping.
    pub reference: fn(DType, [f64; 3]) -> f64,
    /// The WGSL expression over `x`, `y`, `z`; `k_…` calls are defined in the shaders' prelude.
    pub wgsl: &'static str,
    /// The gradient.
    pub gradient: Gradient,
    /// The domain of the tests, for each float operand.
    pub probe: (f64, f64),
    /// How far a backend may be from the reference.
    pub tolerance: Tolerance,
}

macro_rules! rows {
    ($( $(#[doc = $doc:literal])+ $op:ident, $name:literal, $arity:literal, $typing:ident {
        reference: $reference:expr, wgsl: $wgsl:literal, grad: $grad:expr, probe: $probe:expr, tol: $tol:expr $(,)?
    } )*) => {
        /// A pointwise op: a key into [`OPS`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum PointOp { $( $(#[doc = $doc])+ $op ),* }

        /// Every pointwise op, in declaration order.
        pub static OPS: &[Row] = &[$( Row {
            op: PointOp::$op, name: $name, doc: concat!($($doc),+), arity: $arity, typing: Typing::$typing,
            reference: $reference, wgsl: $wgsl, gradient: $grad, probe: $probe, tolerance: $tol,
        } ),*];
    };
}

use Gradient::{Formulas, None as NoGradient};
use PointOp as P;
use Tolerance::{Exact, Relative};

const STEP: Gradient = NoGradient("piecewise constant");
const DISCRETE: Gradient = NoGradient("not a float");

/// Integer arithmetic with 32-bit wrapping, floats as they are.
fn wrap(dtype: DType, float: f64, int: fn(i64, i64) -> i64, [x, y, _]: [f64; 3]) -> f64 {
    match dtype {
        DType::I32 => int(x as i64, y as i64) as i32 as f64,
        DType::U32 => int(x as i64, y as i64) as u32 as f64,
        DType::U8 => int(x as i64, y as i64) as u8 as f64,
        _ => float,
    }
}

fn bits(dtype: DType, f: fn(u32, u32) -> u32, [x, y, _]: [f64; 3]) -> f64 {
    match dtype {
        DType::I32 => f(x as i32 as u32, y as i32 as u32) as i32 as f64,
        DType::Bool => (f((x != 0.0) as u32, (y != 0.0) as u32) & 1) as f64,
        _ => f(x as u32, y as u32) as f64,
    }
}

/// The error function, by its series where that is short and by a continued fraction elsewhere.
///
/// Abramowitz and Stegun 1964, 7.1.6 and 7.1.14; the terms kept leave an error below 1e-15.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() || a > 6.0 {
        return if a.is_nan() { x } else { x.signum() };
    }
    let scale = 2.0 / std::f64::consts::PI.sqrt();
    let value = if a < 2.5 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 && n < 200.0 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        scale * (-a * a).exp() * sum
    } else {
        let tail = (1..=60).rev().fold(a, |t, k| a + k as f64 / 2.0 / t);
        1.0 - scale / 2.0 * (-a * a).exp() / tail
    };
    value.copysign(x)
}

rows! {
    /// Negation `-x`.
    Neg, "neg", 1, Number { reference: |t, [x, _, _]| wrap(t, -x, |x, _| -x, [x, 0.0, 0.0]), wgsl: "k_neg(x)",
        grad: Formulas(|g, _, _| vec![Some(-g)]), probe: (-100.0, 100.0), tol: Exact }
    /// Absolute value `|x|`; the gradient at 0 is 0.
    Abs, "abs", 1, Number { reference: |t, [x, _, _]| wrap(t, x.abs(), |x, _| x.abs(), [x, 0.0, 0.0]), wgsl: "abs(x)",
        grad: Formulas(|g, x, _| vec![Some(g * x[0].map(P::Sign))]), probe: (-100.0, 100.0), tol: Exact }
    /// Sign of `x`: -1, 0 or 1; NaN stays NaN.
    Sign, "sign", 1, Float { reference: |_, [x, _, _]| if x == 0.0 || x.is_nan() { x } else { x.signum() }, wgsl: "sign(x)",
        grad: STEP, probe: (-100.0, 100.0), tol: Exact }
    /// Exponential `eˣ`.
    Exp, "exp", 1, Float { reference: |_, [x, _, _]| x.exp(), wgsl: "exp(x)",
        grad: Formulas(|g, _, y| vec![Some(g * y)]), probe: (-30.0, 10.0), tol: Relative(1e-5) }
    /// Natural logarithm; -∞ at 0, NaN below.
    Log, "log", 1, Float { reference: |_, [x, _, _]| x.ln(), wgsl: "log(x)",
        grad: Formulas(|g, x, _| vec![Some(g / &x[0])]), probe: (0.01, 100.0), tol: Relative(1e-5) }
    /// Sine; the tests stay where WGSL bounds its error.
    Sin, "sin", 1, Float { reference: |_, [x, _, _]| x.sin(), wgsl: "sin(x)",
        grad: Formulas(|g, x, _| vec![Some(g * x[0].map(P::Cos))]), probe: (-3.1, 3.1), tol: Relative(1e-3) }
    /// Cosine; the tests stay where WGSL bounds its error.
    Cos, "cos", 1, Float { reference: |_, [x, _, _]| x.cos(), wgsl: "cos(x)",
        grad: Formulas(|g, x, _| vec![Some(-(g * x[0].map(P::Sin)))]), probe: (-3.1, 3.1), tol: Relative(1e-3) }
    /// Hyperbolic tangent, finite on both tails.
    Tanh, "tanh", 1, Float { reference: |_, [x, _, _]| x.tanh(), wgsl: "k_tanh(x)",
        grad: Formulas(|g, _, y| vec![Some(g * (1.0 - y * y))]), probe: (-20.0, 20.0), tol: Relative(1e-5) }
    /// Error function `2/√π ∫₀ˣ e^(-t²) dt`.
    Erf, "erf", 1, Float { reference: |_, [x, _, _]| erf(x), wgsl: "k_erf(x)",
        grad: Formulas(|g, x, _| vec![Some(g * (std::f64::consts::FRAC_2_SQRT_PI * (-(&x[0] * &x[0])).map(P::Exp)))]),
        probe: (-5.0, 5.0), tol: Relative(1e-5) }
    /// Square root; NaN below 0.
    Sqrt, "sqrt", 1, Float { reference: |_, [x, _, _]| x.sqrt(), wgsl: "sqrt(x)",
        grad: Formulas(|g, _, y| vec![Some(0.5 * g / y)]), probe: (0.01, 100.0), tol: Relative(1e-6) }
    /// Reciprocal square root `1/√x`.
    Rsqrt, "rsqrt", 1, Float { reference: |_, [x, _, _]| 1.0 / x.sqrt(), wgsl: "inverseSqrt(x)",
        grad: Formulas(|g, x, y| vec![Some(-0.5 * g * y / &x[0])]), probe: (0.01, 100.0), tol: Relative(1e-5) }
    /// Logistic sigmoid `1 / (1 + e⁻ˣ)`, finite on both tails.
    Sigmoid, "sigmoid", 1, Float { reference: |_, [x, _, _]| 1.0 / (1.0 + (-x).exp()), wgsl: "k_sigmoid(x)",
        grad: Formulas(|g, _, y| vec![Some(g * y * (1.0 - y))]), probe: (-80.0, 80.0), tol: Relative(1e-5) }
    /// Rectifier `max(x, 0)`; NaN stays NaN, the gradient at 0 is 0.
    Relu, "relu", 1, Float { reference: |_, [x, _, _]| if x <= 0.0 { 0.0 } else { x }, wgsl: "k_relu(x)",
        grad: Formulas(|g, _, y| vec![Some(g.when(&E::op(P::Lt, &[&E::lit(0.0), y]), &E::lit(0.0)))]), probe: (-10.0, 10.0), tol: Exact }
    /// Largest whole number not above `x`.
    Floor, "floor", 1, Float { reference: |_, [x, _, _]| x.floor(), wgsl: "floor(x)", grad: STEP, probe: (-100.0, 100.0), tol: Exact }
    /// Smallest whole number not below `x`.
    Ceil, "ceil", 1, Float { reference: |_, [x, _, _]| x.ceil(), wgsl: "ceil(x)", grad: STEP, probe: (-100.0, 100.0), tol: Exact }
    /// Nearest whole number, ties to even.
    Round, "round", 1, Float { reference: |_, [x, _, _]| x.round_ties_even(), wgsl: "round(x)", grad: STEP, probe: (-100.0, 100.0), tol: Exact }
    /// Complement: logical for `bool`, bitwise for integers.
    Not, "not", 1, Bits { reference: |t, a| bits(t, |x, _| !x, a), wgsl: "k_not(x)", grad: DISCRETE, probe: (0.0, 9.0), tol: Exact }
    /// Sum `x + y`.
    Add, "add", 2, Number { reference: |t, a| wrap(t, a[0] + a[1], i64::wrapping_add, a), wgsl: "x + y",
        grad: Formulas(|g, _, _| vec![Some(g.clone()), Some(g.clone())]), probe: (-100.0, 100.0), tol: Relative(1e-6) }
    /// Difference `x - y`.
    Sub, "sub", 2, Number { reference: |t, a| wrap(t, a[0] - a[1], i64::wrapping_sub, a), wgsl: "x - y",
        grad: Formulas(|g, _, _| vec![Some(g.clone()), Some(-g)]), probe: (-100.0, 100.0), tol: Relative(1e-6) }
    /// Product `x · y`.
    Mul, "mul", 2, Number { reference: |t, a| wrap(t, a[0] * a[1], i64::wrapping_mul, a), wgsl: "x * y",
        grad: Formulas(|g, x, _| vec![Some(g * &x[1]), Some(g * &x[0])]), probe: (-100.0, 100.0), tol: Relative(1e-6) }
    /// Quotient `x / y`; integers truncate, and division by zero gives 0.
    Div, "div", 2, Number { reference: |t, a| wrap(t, a[0] / a[1], |x, y| if y == 0 { 0 } else { x / y }, a), wgsl: "k_div(x, y)",
        grad: Formulas(|g, x, y| vec![Some(g / &x[1]), Some(-(g * y / &x[1]))]), probe: (0.5, 50.0), tol: Relative(1e-6) }
    /// Remainder of truncated division, with the sign of `x`; 0 for a zero integer divisor.
    Rem, "rem", 2, Number { reference: |t, a| wrap(t, a[0] % a[1], |x, y| if y == 0 { 0 } else { x % y }, a), wgsl: "k_rem(x, y)",
        grad: NoGradient("discontinuous in both operands"), probe: (0.5, 50.0), tol: Relative(1e-4) }
    /// Power `xʸ` for `x ≥ 0`.
    Pow, "pow", 2, Float { reference: |_, [x, y, _]| x.powf(y), wgsl: "pow(x, y)",
        grad: Formulas(|g, x, y| vec![
            Some(g * &x[1] * E::op(P::Pow, &[&x[0], &(&x[1] - 1.0)])),
            Some(g * y * x[0].map(P::Log)),
        ]), probe: (0.5, 4.0), tol: Relative(1e-4) }
    /// Lesser of two; NaN if either is. At a tie the gradient is halved.
    Min, "min", 2, Number { reference: |_, [x, y, _]| if x.is_nan() || x < y { x } else { y }, wgsl: "k_min(x, y)",
        grad: Formulas(|g, x, _| extremum(g, &x[0], &x[1])), probe: (-100.0, 100.0), tol: Exact }
    /// Greater of two; NaN if either is. At a tie the gradient is halved.
    Max, "max", 2, Number { reference: |_, [x, y, _]| if x.is_nan() || x > y { x } else { y }, wgsl: "k_max(x, y)",
        grad: Formulas(|g, x, _| extremum(g, &x[1], &x[0])), probe: (-100.0, 100.0), tol: Exact }
    /// `x < y`.
    Lt, "lt", 2, Compare { reference: |_, [x, y, _]| (x < y) as u8 as f64, wgsl: "x < y", grad: DISCRETE, probe: (-9.0, 9.0), tol: Exact }
    /// `x = y`.
    Eq, "eq", 2, Compare { reference: |_, [x, y, _]| (x == y) as u8 as f64, wgsl: "x == y", grad: DISCRETE, probe: (-9.0, 9.0), tol: Exact }
    /// Conjunction: logical for `bool`, bitwise for integers.
    And, "and", 2, Bits { reference: |t, a| bits(t, |x, y| x & y, a), wgsl: "x & y", grad: DISCRETE, probe: (0.0, 9.0), tol: Exact }
    /// Disjunction: logical for `bool`, bitwise for integers.
    Or, "or", 2, Bits { reference: |t, a| bits(t, |x, y| x | y, a), wgsl: "x | y", grad: DISCRETE, probe: (0.0, 9.0), tol: Exact }
    /// Exclusive or: logical for `bool`, bitwise for integers.
    Xor, "xor", 2, Bits { reference: |t, a| bits(t, |x, y| x ^ y, a), wgsl: "k_xor(x, y)", grad: DISCRETE, probe: (0.0, 9.0), tol: Exact }
    /// Logical shift right by `y mod 32` bits.
    Shr, "shr", 2, Integer { reference: |t, a| match t {
            DType::I32 => ((a[0] as i32) >> (a[1] as i32 as u32 % 32)) as f64,
            _ => bits(t, |x, y| x >> (y % 32), a),
        }, wgsl: "k_shr(x, y)", grad: DISCRETE, probe: (0.0, 9.0), tol: Exact }
    /// `y` where the truth value `x` holds, else `z`.
    Select, "select", 3, Select { reference: |_, [x, y, z]| if x != 0.0 { y } else { z }, wgsl: "select(z, y, x)",
        grad: Formulas(|g, x, _| vec![None, Some(g.when(&x[0], &E::lit(0.0))), Some(E::lit(0.0).when(&x[0], g))]),
        probe: (-9.0, 9.0), tol: Exact }
    /// First word of Threefry2x32-20 with key `(x, y)` and counter `(z, 0)`.
    Threefry, "threefry", 3, Words { reference: |_, [x, y, z]| threefry2x32([x as u32, y as u32], [z as u32, 0])[0] as f64,
        wgsl: "k_threefry(x, y, z)", grad: DISCRETE, probe: (0.0, 1e6), tol: Exact }
}

/// The cotangents of an op that keeps its first operand where `less < more`; halved at a tie.
fn extremum(g: &E, less: &E, more: &E) -> Vec<Option<E>> {
    let half = (g * 0.5).when(&E::op(P::Eq, &[less, more]), &E::lit(0.0));
    let winner = g.when(&E::op(P::Lt, &[less, more]), &half);
    let loser = g.when(&E::op(P::Lt, &[more, less]), &half);
    vec![Some(winner), Some(loser)]
}

impl PointOp {
    /// The op's row.
    pub fn row(self) -> &'static Row {
        &OPS[self as usize]
    }

    /// The dtype of the result.
    ///
    /// # Errors
    /// The rule that the operands break.
    pub fn result(self, args: &[DType]) -> Result<DType, String> {
        let same = args.windows(2).all(|w| w[0] == w[1]);
        let fail = |rule: &str| Err(rule.to_owned());
        match self.row().typing {
            Typing::Float if same && args[0].is_float() => Ok(args[0]),
            Typing::Float => fail("takes floats of one dtype"),
            Typing::Number if same && args[0] != DType::Bool => Ok(args[0]),
            Typing::Number => fail("takes numbers of one dtype"),
            Typing::Integer if same && args[0].is_int() => Ok(args[0]),
            Typing::Integer => fail("takes integers of one dtype"),
            Typing::Bits if same && !args[0].is_float() => Ok(args[0]),
            Typing::Bits => fail("takes integers or bool of one dtype"),
            Typing::Compare if same => Ok(DType::Bool),
            Typing::Compare => fail("takes two of one dtype"),
            Typing::Select if args[0] == DType::Bool && args[1] == args[2] => Ok(args[1]),
            Typing::Select => fail("takes bool and two of one dtype"),
            Typing::Words if args == [DType::U32; 3] => Ok(DType::U32),
            Typing::Words => fail("takes three u32"),
        }
    }
}

/// A reduction over axes, which stay as dims of 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ReduceOp {
    /// Sum; 0 when empty.
    Sum,
    /// Product; 1 when empty.
    Prod,
    /// Greatest; NaN if any is, the least value of the dtype when empty.
    Max,
    /// Least; NaN if any is, the greatest value of the dtype when empty.
    Min,
    /// Position of the first greatest along one axis, as `i32`.
    ArgMax,
}

impl ReduceOp {
    /// Every reduction.
    pub const ALL: [ReduceOp; 5] = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax];

    /// The name in messages and dumps.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "amax",
            ReduceOp::Min => "amin",
            ReduceOp::ArgMax => "argmax",
        }
    }

    /// The value of an empty reduction.
    pub fn identity(self, dtype: DType) -> f64 {
        let (least, greatest) = match dtype {
            DType::I32 => (i32::MIN as f64, i32::MAX as f64),
            DType::U32 => (0.0, u32::MAX as f64),
            DType::U8 => (0.0, 255.0),
            DType::Bool => (0.0, 1.0),
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        };
        match self {
            ReduceOp::Sum | ReduceOp::ArgMax => 0.0,
            ReduceOp::Prod => 1.0,
            ReduceOp::Max => least,
            ReduceOp::Min => greatest,
        }
    }
}
