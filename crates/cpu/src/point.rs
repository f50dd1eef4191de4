//! The vector kernels of the op table: an exhaustive match per compute dtype.
//!
//! Every arm is one loop over lanes. Loops run to a whole number of cache lines, past the last
//! point of a tile: registers are that long, and what lies there is defined, if meaningless.

use bytemuck::Pod;
use kiln_ir::PointOp as P;
use kiln_ir::random::{PARITY, ROTATIONS};
use kiln_ir::{DType, PointOp};

use crate::ahead::Ahead;
use crate::math;
use crate::simd::{Operand, Out, multiversion};
use crate::walks::{NO_OWN, PIECE, lanes, ones};

/// Applies an op to the first `n` lanes; `dtype` is the compute dtype of the last operand.
pub(crate) fn point(op: PointOp, dtype: DType, n: usize, dst: &mut Out, args: &[Operand; 3], ahead: Ahead) {
    let n = n.next_multiple_of(16);
    match dtype {
        DType::F32 => {
            float32(op, n, dst, args, ahead);
            if matches!(op, P::Sin | P::Cos) {
                mend_trig(op, n, dst, args[0]);
            }
        }
        DType::F64 => float64(op, n, dst, args, ahead),
        DType::U32 if depends_on_sign(op) => uint32(op, n, dst, args, ahead),
        DType::Bool if op == P::Not => map1(n, dst, args[0], ahead, |x: u32| x ^ 1),
        // The rest is the same for all words, and truth values are 0 and 1.
        DType::I32 | DType::U32 | DType::Bool => int32(op, n, dst, args, ahead),
        DType::F16 | DType::BF16 | DType::U8 => unreachable!("{dtype} is no compute dtype"),
    }
}

#[inline(always)]
fn map1<T: Pod, U: Pod>(n: usize, dst: &mut Out, x: Operand, ahead: Ahead, f: impl Fn(T) -> U) {
    if x.one {
        return dst.lanes_mut()[..n].fill(f(x.lanes()[0]));
    }
    lanes::<_, _, _, 0, NO_OWN>(n, dst, &[x], ahead, |[x]| f(x));
}

#[inline(always)]
fn map2<T: Pod, U: Pod>(n: usize, dst: &mut Out, &[x, y, _]: &[Operand; 3], ahead: Ahead, f: impl Fn(T, T) -> U) {
    let f = |[x, y]: [T; 2]| f(x, y);
    match ones(&[x, y]) {
        0 => lanes::<_, _, _, 0, NO_OWN>(n, dst, &[x, y], ahead, f),
        1 => lanes::<_, _, _, 1, NO_OWN>(n, dst, &[x, y], ahead, f),
        2 => lanes::<_, _, _, 2, NO_OWN>(n, dst, &[x, y], ahead, f),
        _ => dst.lanes_mut()[..n].fill(f([x.lanes()[0], y.lanes()[0]])),
    }
}

/// As [`map2`], in one loop for operands of any kind.
#[inline(always)]
fn map2_any<T: Pod, U: Pod>(n: usize, dst: &mut Out, &[x, y, _]: &[Operand; 3], ahead: Ahead, f: impl Fn(T, T) -> U) {
    map3(n, dst, &[x, y, y], ahead, |x: T, y: T, _| f(x, y));
}

#[inline(always)]
fn map3<A: Pod, T: Pod, U: Pod>(
    n: usize,
    dst: &mut Out,
    &[x, y, z]: &[Operand; 3],
    mut ahead: Ahead,
    f: impl Fn(A, T, T) -> U,
) {
    let (x, y, z) = (Piecewise::<A>::new(x), Piecewise::<T>::new(y), Piecewise::<T>::new(z));
    for (i, out) in dst.lanes_mut()[..n].chunks_mut(PIECE).enumerate() {
        ahead.ask();
        let (x, y, z) = (x.piece(i, out.len()), y.piece(i, out.len()), z.piece(i, out.len()));
        for (((o, &x), &y), &z) in out.iter_mut().zip(x).zip(y).zip(z) {
            *o = f(x, y, z);
        }
    }
}

/// An operand piece by piece; a single value is spread once over one piece.
struct Piecewise<'a, T> {
    lanes: &'a [T],
    spread: [T; PIECE],
    one: bool,
}

impl<'a, T: Pod> Piecewise<'a, T> {
    #[inline(always)]
    fn new(x: Operand<'a>) -> Piecewise<'a, T> {
        let lanes = x.lanes::<T>();
        Piecewise { lanes, spread: [lanes[0]; PIECE], one: x.one }
    }

    #[inline(always)]
    fn piece(&self, i: usize, n: usize) -> &[T] {
        if self.one { &self.spread[..n] } else { &self.lanes[i * PIECE..][..n] }
    }
}

/// The arms that both float dtypes share; `$map2` is the loop of two operands, `$exp` and its like are what they compute with.
macro_rules! float_arms {
    ($t:ty, $map2:ident, $op:ident, $n:ident, $dst:ident, $args:ident, $ahead:ident;
     $exp:expr, $log:expr, $sin:expr, $cos:expr, $tanh:expr, $erf:expr, $sigmoid:expr) => {{
        let x = $args[0];
        match $op {
            P::Neg => map1($n, $dst, x, $ahead, |x: $t| -x),
            P::Abs => map1($n, $dst, x, $ahead, <$t>::abs),
            P::Sign => map1($n, $dst, x, $ahead, |x: $t| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
            P::Exp => map1($n, $dst, x, $ahead, $exp),
            P::Log => map1($n, $dst, x, $ahead, $log),
            P::Sin => map1($n, $dst, x, $ahead, $sin),
            P::Cos => map1($n, $dst, x, $ahead, $cos),
            P::Tanh => map1($n, $dst, x, $ahead, $tanh),
            P::Erf => map1($n, $dst, x, $ahead, $erf),
            P::Sqrt => map1($n, $dst, x, $ahead, <$t>::sqrt),
            P::Rsqrt => map1($n, $dst, x, $ahead, |x: $t| 1.0 / x.sqrt()),
            P::Sigmoid => map1($n, $dst, x, $ahead, $sigmoid),
            P::Relu => map1($n, $dst, x, $ahead, |x: $t| if x <= 0.0 { 0.0 } else { x }),
            P::Floor => map1($n, $dst, x, $ahead, <$t>::floor),
            P::Ceil => map1($n, $dst, x, $ahead, <$t>::ceil),
            P::Round => map1($n, $dst, x, $ahead, <$t>::round_ties_even),
            P::Add => $map2($n, $dst, $args, $ahead, |x: $t, y| x + y),
            P::Sub => $map2($n, $dst, $args, $ahead, |x: $t, y| x - y),
            P::Mul => $map2($n, $dst, $args, $ahead, |x: $t, y| x * y),
            P::Div => $map2($n, $dst, $args, $ahead, |x: $t, y| x / y),
            P::Rem => $map2($n, $dst, $args, $ahead, |x: $t, y| x % y),
            P::Pow => $map2($n, $dst, $args, $ahead, <$t>::powf),
            P::Min => $map2($n, $dst, $args, $ahead, |x: $t, y| if x.is_nan() || x < y { x } else { y }),
            P::Max => $map2($n, $dst, $args, $ahead, |x: $t, y| if x.is_nan() || x > y { x } else { y }),
            P::Lt => $map2($n, $dst, $args, $ahead, |x: $t, y| (x < y) as u32),
            P::Eq => $map2($n, $dst, $args, $ahead, |x: $t, y| (x == y) as u32),
            P::Select => map3($n, $dst, $args, $ahead, |x: u32, y: $t, z| if x != 0 { y } else { z }),
            P::Not | P::And | P::Or | P::Xor | P::Shr | P::Threefry => unreachable!("{:?} of a float", $op),
        }
    }};
}

multiversion! {
    fn float32(op: PointOp, n: usize, dst: &mut Out, args: &[Operand; 3], ahead: Ahead) {
        float_arms!(f32, map2, op, n, dst, args, ahead;
            math::exp::<FMA>, math::log::<FMA>,
            |x| math::sin_cos::<FMA>(x, 0), |x| math::sin_cos::<FMA>(x, 1),
            math::tanh::<FMA>, math::erf::<FMA>, math::sigmoid::<FMA>)
    }
}

multiversion! {
    fn float64(op: PointOp, n: usize, dst: &mut Out, args: &[Operand; 3], ahead: Ahead) {
        float_arms!(f64, map2_any, op, n, dst, args, ahead;
            f64::exp, f64::ln, f64::sin, f64::cos, f64::tanh, kiln_ir::ops::erf,
            |x: f64| 1.0 / (1.0 + (-x).exp()))
    }
}

/// Recomputes what lies beyond the reach of [`math::sin_cos`].
fn mend_trig(op: PointOp, n: usize, dst: &mut Out, x: Operand) {
    let x = &x.lanes::<f32>()[..if x.one { 1 } else { n }];
    if x.iter().fold(0.0, |most, x| f32::max(most, x.abs())) <= math::TRIG_LIMIT {
        return;
    }
    let x = x.iter().cycle().take(n);
    for (o, &x) in dst.lanes_mut::<f32>().iter_mut().zip(x).filter(|(_, x)| x.abs() > math::TRIG_LIMIT) {
        *o = if op == P::Sin { (x as f64).sin() } else { (x as f64).cos() } as f32;
    }
}

/// True iff an op on words depends on whether they have signs.
fn depends_on_sign(op: PointOp) -> bool {
    matches!(op, P::Abs | P::Div | P::Rem | P::Min | P::Max | P::Lt | P::Shr)
}

multiversion! {
    fn int32(op: PointOp, n: usize, dst: &mut Out, args: &[Operand; 3], ahead: Ahead) {
        let x = args[0];
        match op {
            P::Neg => map1(n, dst, x, ahead, i32::wrapping_neg),
            P::Abs => map1(n, dst, x, ahead, i32::wrapping_abs),
            P::Not => map1(n, dst, x, ahead, |x: i32| !x),
            P::Add => map2(n, dst, args, ahead, i32::wrapping_add),
            P::Sub => map2(n, dst, args, ahead, i32::wrapping_sub),
            P::Mul => map2(n, dst, args, ahead, i32::wrapping_mul),
            P::Div => map2(n, dst, args, ahead, |x: i32, y| if y == 0 { 0 } else { x.wrapping_div(y) }),
            P::Rem => map2(n, dst, args, ahead, |x: i32, y| if y == 0 { 0 } else { x.wrapping_rem(y) }),
            P::Min => map2(n, dst, args, ahead, i32::min),
            P::Max => map2(n, dst, args, ahead, i32::max),
            P::Lt => map2(n, dst, args, ahead, |x: i32, y| (x < y) as u32),
            P::Eq => map2(n, dst, args, ahead, |x: i32, y| (x == y) as u32),
            P::And => map2(n, dst, args, ahead, |x: i32, y| x & y),
            P::Or => map2(n, dst, args, ahead, |x: i32, y| x | y),
            P::Xor => map2(n, dst, args, ahead, |x: i32, y| x ^ y),
            P::Shr => map2(n, dst, args, ahead, |x: i32, y| x.wrapping_shr(y as u32)),
            P::Select => map3(n, dst, args, ahead, |x: u32, y: i32, z| if x != 0 { y } else { z }),
            P::Threefry => map3(n, dst, args, ahead, threefry),
            P::Sign | P::Exp | P::Log | P::Sin | P::Cos | P::Tanh | P::Erf | P::Sqrt | P::Rsqrt | P::Sigmoid | P::Relu
            | P::Floor | P::Ceil | P::Round | P::Pow => unreachable!("{op:?} of an integer"),
        }
    }
}

multiversion! {
    fn uint32(op: PointOp, n: usize, dst: &mut Out, args: &[Operand; 3], ahead: Ahead) {
        match op {
            P::Abs => map1(n, dst, args[0], ahead, |x: u32| x),
            P::Div => map2_any(n, dst, args, ahead, |x: u32, y| x.checked_div(y).unwrap_or(0)),
            P::Rem => map2_any(n, dst, args, ahead, |x: u32, y| x.checked_rem(y).unwrap_or(0)),
            P::Min => map2_any(n, dst, args, ahead, u32::min),
            P::Max => map2_any(n, dst, args, ahead, u32::max),
            P::Lt => map2_any(n, dst, args, ahead, |x: u32, y| (x < y) as u32),
            P::Shr => map2_any(n, dst, args, ahead, |x: u32, y| x.wrapping_shr(y)),
            P::Neg | P::Not | P::Add | P::Sub | P::Mul | P::Eq | P::And | P::Or | P::Xor | P::Select | P::Threefry
            | P::Sign | P::Exp | P::Log | P::Sin | P::Cos | P::Tanh | P::Erf | P::Sqrt | P::Rsqrt | P::Sigmoid | P::Relu
            | P::Floor | P::Ceil | P::Round | P::Pow => unreachable!("{op:?} does not depend on the sign"),
        }
    }
}

/// [`kiln_ir::random::threefry2x32`] written so that lanes run side by side.
#[inline(always)]
fn threefry(key: u32, key1: u32, counter: u32) -> u32 {
    let ks = [key, key1, PARITY ^ key ^ key1];
    let (mut a, mut b) = (counter.wrapping_add(ks[0]), ks[1]);
    for group in 0..5 {
        for round in 0..4 {
            a = a.wrapping_add(b);
            b = b.rotate_left(ROTATIONS[(group % 2) * 4 + round]) ^ a;
        }
        a = a.wrapping_add(ks[(group + 1) % 3]);
        b = b.wrapping_add(ks[(group + 2) % 3]).wrapping_add(group as u32 + 1);
    }
    a
}
