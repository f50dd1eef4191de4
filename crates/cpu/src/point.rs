//! The vector kernels of the op table: an exhaustive match per compute dtype.
//!
//! Every arm is one loop over lanes. Loops run to a whole number of cache lines, past the last
//! point of a tile: registers are that long, and what lies there is defined, if meaningless.

use bytemuck::Pod;
use kiln_ir::PointOp as P;
use kiln_ir::random::{PARITY, ROTATIONS};
use kiln_ir::{DType, PointOp};

use crate::math;
use crate::simd::{Operand, Out, multiversion};

/// Applies an op to the first `n` lanes; `dtype` is the compute dtype of the last operand.
pub(crate) fn point(op: PointOp, dtype: DType, n: usize, dst: &mut Out, args: [Operand; 3]) {
    let n = n.next_multiple_of(16);
    match dtype {
        DType::F32 => {
            float32(op, n, dst, args);
            if matches!(op, P::Sin | P::Cos) {
                mend_trig(op, n, dst, args[0]);
            }
        }
        DType::F64 => float64(op, n, dst, args),
        DType::I32 => int32(op, n, dst, args),
        DType::U32 => uint32(op, n, dst, args),
        DType::Bool => truth(op, n, dst, args),
        DType::F16 | DType::BF16 | DType::U8 => unreachable!("{dtype} is no compute dtype"),
    }
}

#[inline(always)]
fn map1<T: Pod, U: Pod>(n: usize, dst: &mut Out, x: Operand, f: impl Fn(T) -> U) {
    let out = &mut dst.lanes_mut()[..n];
    if x.one {
        return out.fill(f(x.lanes()[0]));
    }
    for (o, &x) in out.iter_mut().zip(&x.lanes()[..n]) {
        *o = f(x);
    }
}

#[inline(always)]
pub(crate) fn map2<T: Pod, U: Pod>(n: usize, dst: &mut Out, [x, y, _]: [Operand; 3], f: impl Fn(T, T) -> U) {
    let out = dst.lanes_mut()[..n].iter_mut();
    let (ones, x, y) = ((x.one, y.one), x.lanes::<T>(), y.lanes::<T>());
    match ones {
        (false, false) => {
            for ((o, &x), &y) in out.zip(&x[..n]).zip(&y[..n]) {
                *o = f(x, y);
            }
        }
        (false, true) => {
            let y = y[0];
            for (o, &x) in out.zip(&x[..n]) {
                *o = f(x, y);
            }
        }
        (true, false) => {
            let x = x[0];
            for (o, &y) in out.zip(&y[..n]) {
                *o = f(x, y);
            }
        }
        (true, true) => out.into_slice().fill(f(x[0], y[0])),
    }
}

#[inline(always)]
pub(crate) fn map3<A: Pod, T: Pod, U: Pod>(n: usize, dst: &mut Out, [x, y, z]: [Operand; 3], f: impl Fn(A, T, T) -> U) {
    let (x, y, z) = (Piecewise::<A>::new(x), Piecewise::<T>::new(y), Piecewise::<T>::new(z));
    for (i, out) in dst.lanes_mut()[..n].chunks_mut(PIECE).enumerate() {
        let (x, y, z) = (x.piece(i, out.len()), y.piece(i, out.len()), z.piece(i, out.len()));
        for (((o, &x), &y), &z) in out.iter_mut().zip(x).zip(y).zip(z) {
            *o = f(x, y, z);
        }
    }
}

/// Lanes that are read at once where any operand may be a single value.
const PIECE: usize = 64;

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

/// The arms that both float dtypes share; `$exp` and its like are what they compute with.
macro_rules! float_arms {
    ($t:ty, $op:ident, $n:ident, $dst:ident, $args:ident;
     $exp:expr, $log:expr, $sin:expr, $cos:expr, $tanh:expr, $erf:expr, $sigmoid:expr) => {{
        let x = $args[0];
        match $op {
            P::Neg => map1($n, $dst, x, |x: $t| -x),
            P::Abs => map1($n, $dst, x, <$t>::abs),
            P::Sign => map1($n, $dst, x, |x: $t| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
            P::Exp => map1($n, $dst, x, $exp),
            P::Log => map1($n, $dst, x, $log),
            P::Sin => map1($n, $dst, x, $sin),
            P::Cos => map1($n, $dst, x, $cos),
            P::Tanh => map1($n, $dst, x, $tanh),
            P::Erf => map1($n, $dst, x, $erf),
            P::Sqrt => map1($n, $dst, x, <$t>::sqrt),
            P::Rsqrt => map1($n, $dst, x, |x: $t| 1.0 / x.sqrt()),
            P::Sigmoid => map1($n, $dst, x, $sigmoid),
            P::Relu => map1($n, $dst, x, |x: $t| if x <= 0.0 { 0.0 } else { x }),
            P::Floor => map1($n, $dst, x, <$t>::floor),
            P::Ceil => map1($n, $dst, x, <$t>::ceil),
            P::Round => map1($n, $dst, x, <$t>::round_ties_even),
            P::Add => map2($n, $dst, $args, |x: $t, y| x + y),
            P::Sub => map2($n, $dst, $args, |x: $t, y| x - y),
            P::Mul => map2($n, $dst, $args, |x: $t, y| x * y),
            P::Div => map2($n, $dst, $args, |x: $t, y| x / y),
            P::Rem => map2($n, $dst, $args, |x: $t, y| x % y),
            P::Pow => map2($n, $dst, $args, <$t>::powf),
            P::Min => map2($n, $dst, $args, |x: $t, y| if x.is_nan() || x < y { x } else { y }),
            P::Max => map2($n, $dst, $args, |x: $t, y| if x.is_nan() || x > y { x } else { y }),
            P::Lt => map2($n, $dst, $args, |x: $t, y| (x < y) as u32),
            P::Eq => map2($n, $dst, $args, |x: $t, y| (x == y) as u32),
            P::Select => map3($n, $dst, $args, |x: u32, y: $t, z| if x != 0 { y } else { z }),
            P::Not | P::And | P::Or | P::Xor | P::Shr | P::Threefry => unreachable!("{:?} of a float", $op),
        }
    }};
}

multiversion! {
    fn float32(op: PointOp, n: usize, dst: &mut Out, args: [Operand; 3]) {
        float_arms!(f32, op, n, dst, args;
            math::exp::<FMA>, math::log::<FMA>,
            |x| math::sin_cos::<FMA>(x, 0), |x| math::sin_cos::<FMA>(x, 1),
            math::tanh::<FMA>, math::erf::<FMA>, math::sigmoid::<FMA>)
    }
}

multiversion! {
    fn float64(op: PointOp, n: usize, dst: &mut Out, args: [Operand; 3]) {
        float_arms!(f64, op, n, dst, args;
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

/// The arms that both integer dtypes share.
macro_rules! int_arms {
    ($t:ty, $op:ident, $n:ident, $dst:ident, $args:ident; $abs:expr) => {{
        let x = $args[0];
        match $op {
            P::Neg => map1($n, $dst, x, <$t>::wrapping_neg),
            P::Abs => map1($n, $dst, x, $abs),
            P::Not => map1($n, $dst, x, |x: $t| !x),
            P::Add => map2($n, $dst, $args, <$t>::wrapping_add),
            P::Sub => map2($n, $dst, $args, <$t>::wrapping_sub),
            P::Mul => map2($n, $dst, $args, <$t>::wrapping_mul),
            P::Div => map2($n, $dst, $args, |x: $t, y| if y == 0 { 0 } else { x.wrapping_div(y) }),
            P::Rem => map2($n, $dst, $args, |x: $t, y| if y == 0 { 0 } else { x.wrapping_rem(y) }),
            P::Min => map2($n, $dst, $args, <$t>::min),
            P::Max => map2($n, $dst, $args, <$t>::max),
            P::Lt => map2($n, $dst, $args, |x: $t, y| (x < y) as u32),
            P::Eq => map2($n, $dst, $args, |x: $t, y| (x == y) as u32),
            P::And => map2($n, $dst, $args, |x: $t, y| x & y),
            P::Or => map2($n, $dst, $args, |x: $t, y| x | y),
            P::Xor => map2($n, $dst, $args, |x: $t, y| x ^ y),
            P::Shr => map2($n, $dst, $args, |x: $t, y| x.wrapping_shr(y as u32)),
            P::Select => map3($n, $dst, $args, |x: u32, y: $t, z| if x != 0 { y } else { z }),
            P::Threefry => map3($n, $dst, $args, threefry),
            P::Sign
            | P::Exp
            | P::Log
            | P::Sin
            | P::Cos
            | P::Tanh
            | P::Erf
            | P::Sqrt
            | P::Rsqrt
            | P::Sigmoid
            | P::Relu
            | P::Floor
            | P::Ceil
            | P::Round
            | P::Pow => unreachable!("{:?} of an integer", $op),
        }
    }};
}

multiversion! {
    fn int32(op: PointOp, n: usize, dst: &mut Out, args: [Operand; 3]) {
        int_arms!(i32, op, n, dst, args; i32::wrapping_abs)
    }
}

multiversion! {
    fn uint32(op: PointOp, n: usize, dst: &mut Out, args: [Operand; 3]) {
        int_arms!(u32, op, n, dst, args; |x: u32| x)
    }
}

multiversion! {
    fn truth(op: PointOp, n: usize, dst: &mut Out, args: [Operand; 3]) {
        match op {
            P::Not => map1(n, dst, args[0], |x: u32| x ^ 1),
            P::Lt => map2(n, dst, args, |x: u32, y| (x < y) as u32),
            P::Eq => map2(n, dst, args, |x: u32, y| (x == y) as u32),
            P::And => map2(n, dst, args, |x: u32, y| x & y),
            P::Or => map2(n, dst, args, |x: u32, y| x | y),
            P::Xor => map2(n, dst, args, |x: u32, y| x ^ y),
            P::Select => map3(n, dst, args, |x: u32, y: u32, z| if x != 0 { y } else { z }),
            P::Neg | P::Abs | P::Sign | P::Exp | P::Log | P::Sin | P::Cos | P::Tanh | P::Erf | P::Sqrt | P::Rsqrt
            | P::Sigmoid | P::Relu | P::Floor | P::Ceil | P::Round | P::Add | P::Sub | P::Mul | P::Div | P::Rem
            | P::Pow | P::Min | P::Max | P::Shr | P::Threefry => unreachable!("{op:?} of truth values"),
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
