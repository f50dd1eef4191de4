//! Two steps of arithmetic as one: what lies between them never leaves a vector register.
//!
//! A step reads and writes its lanes in the nearest cache, and that costs more than a sum or a product does. So
//! lowering joins a sum, difference or product with the one that alone reads it, where [`PAIRS`] has a row for both.
//! A product that is added is then rounded once where the processor can; everything else is rounded as before.

use bytemuck::Pod;
use kiln_ir::{DType, PointOp};

use crate::math;
use crate::point::{map2, map3};
use crate::simd::{Operand, Out, multiversion};

/// Formulas over `x`, `y` and `z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fused {
    /// `x·y + z`
    MulAdd,
    /// `x·y - z`
    MulSub,
    /// `z - x·y`
    SubMul,
    /// `(x + y)·z`
    SumMul,
    /// `(x - y)·z`
    DifferenceMul,
    /// `x·y·z`
    MulMul,
    /// `x·y / z`
    MulDiv,
    /// `x + y + z`
    AddAdd,
    /// `exp(x - y)`
    ExpDifference,
}

/// `(first, second, the operand of the second that the first one is, both)`; `x` and `y` are the operands of the first.
const PAIRS: &[(PointOp, PointOp, usize, Fused)] = &[
    (PointOp::Mul, PointOp::Add, 0, Fused::MulAdd),
    (PointOp::Mul, PointOp::Add, 1, Fused::MulAdd),
    (PointOp::Mul, PointOp::Sub, 0, Fused::MulSub),
    (PointOp::Mul, PointOp::Sub, 1, Fused::SubMul),
    (PointOp::Add, PointOp::Mul, 0, Fused::SumMul),
    (PointOp::Add, PointOp::Mul, 1, Fused::SumMul),
    (PointOp::Sub, PointOp::Mul, 0, Fused::DifferenceMul),
    (PointOp::Sub, PointOp::Mul, 1, Fused::DifferenceMul),
    (PointOp::Mul, PointOp::Mul, 0, Fused::MulMul),
    (PointOp::Mul, PointOp::Mul, 1, Fused::MulMul),
    (PointOp::Mul, PointOp::Div, 0, Fused::MulDiv),
    (PointOp::Add, PointOp::Add, 0, Fused::AddAdd),
    (PointOp::Add, PointOp::Add, 1, Fused::AddAdd),
    (PointOp::Sub, PointOp::Exp, 0, Fused::ExpDifference),
];

/// What `second` is with `first` as its operand number `side`, if that is one step.
pub(crate) fn pair(first: PointOp, second: PointOp, side: usize, dtype: DType) -> Option<Fused> {
    let found = PAIRS.iter().find(|row| (row.0, row.1, row.2) == (first, second, side));
    found.filter(|_| matches!(dtype, DType::F32 | DType::F64)).map(|row| row.3)
}

impl Fused {
    /// True iff `x` may be what the result overwrites.
    pub(crate) fn updates(self) -> bool {
        self != Fused::ExpDifference
    }
}

/// Applies a formula to the first `n` lanes.
pub(crate) fn fused(op: Fused, dtype: DType, n: usize, dst: &mut Out, args: [Operand; 3]) {
    let n = n.next_multiple_of(16);
    // A single value is best the second factor or summand, where loops have it in a register.
    let [x, y, z] = args;
    let args =
        if x.one && !y.one && !matches!(op, Fused::DifferenceMul | Fused::ExpDifference) { [y, x, z] } else { args };
    match dtype {
        DType::F64 => float64(op, n, dst, args),
        _ => float32(op, n, dst, args),
    }
}

macro_rules! arms {
    ($t:ty, $fused:ident, $exp:expr, $op:ident, $n:ident, $dst:ident, $args:ident) => {{
        let fma = |x: $t, y: $t, z: $t| if $fused { x.mul_add(y, z) } else { x * y + z };
        match $op {
            Fused::MulAdd => map($n, $dst, $args, fma),
            Fused::MulSub => map($n, $dst, $args, |x: $t, y, z| fma(x, y, -z)),
            Fused::SubMul => map($n, $dst, $args, |x: $t, y, z| fma(-x, y, z)),
            Fused::SumMul => map($n, $dst, $args, |x: $t, y, z| (x + y) * z),
            Fused::DifferenceMul => map($n, $dst, $args, |x: $t, y, z| (x - y) * z),
            Fused::MulMul => map($n, $dst, $args, |x: $t, y, z| x * y * z),
            Fused::MulDiv => map($n, $dst, $args, |x: $t, y, z| x * y / z),
            Fused::AddAdd => map($n, $dst, $args, |x: $t, y, z| x + y + z),
            Fused::ExpDifference => map2($n, $dst, $args, |x: $t, y| $exp(x - y)),
        }
    }};
}

multiversion! {
    fn float32(op: Fused, n: usize, dst: &mut Out, args: [Operand; 3]) {
        arms!(f32, FMA, math::exp::<FMA>, op, n, dst, args)
    }
}

multiversion! {
    fn float64(op: Fused, n: usize, dst: &mut Out, args: [Operand; 3]) {
        arms!(f64, FMA, f64::exp, op, n, dst, args)
    }
}

/// As [`map`], where `x` is what the result takes the place of.
#[inline(always)]
fn update<T: Pod>(n: usize, dst: &mut Out, [y, z]: [Operand; 2], f: impl Fn(T, T, T) -> T) {
    let out = dst.lanes_mut::<T>()[..n].iter_mut();
    let (ones, y, z) = ((y.one, z.one), y.lanes::<T>(), z.lanes::<T>());
    match ones {
        (false, false) => {
            for ((o, &y), &z) in out.zip(&y[..n]).zip(&z[..n]) {
                *o = f(*o, y, z);
            }
        }
        (true, false) => {
            let y = y[0];
            for (o, &z) in out.zip(&z[..n]) {
                *o = f(*o, y, z);
            }
        }
        (false, true) => {
            let z = z[0];
            for (o, &y) in out.zip(&y[..n]) {
                *o = f(*o, y, z);
            }
        }
        (true, true) => {
            let (y, z) = (y[0], z[0]);
            for o in out {
                *o = f(*o, y, z);
            }
        }
    }
}

/// One loop for each way in which `y` and `z` may be single values.
#[inline(always)]
fn map<T: Pod>(n: usize, dst: &mut Out, args: [Operand; 3], f: impl Fn(T, T, T) -> T) {
    let [x, y, z] = args;
    if x.one {
        return map3(n, dst, args, f);
    }
    if x.own {
        return update(n, dst, [y, z], f);
    }
    let out = dst.lanes_mut::<T>()[..n].iter_mut().zip(&x.lanes::<T>()[..n]);
    let (ones, y, z) = ((y.one, z.one), y.lanes::<T>(), z.lanes::<T>());
    match ones {
        (false, false) => {
            for (((o, &x), &y), &z) in out.zip(&y[..n]).zip(&z[..n]) {
                *o = f(x, y, z);
            }
        }
        (true, false) => {
            let y = y[0];
            for ((o, &x), &z) in out.zip(&z[..n]) {
                *o = f(x, y, z);
            }
        }
        (false, true) => {
            let z = z[0];
            for ((o, &x), &y) in out.zip(&y[..n]) {
                *o = f(x, y, z);
            }
        }
        (true, true) => {
            let (y, z) = (y[0], z[0]);
            for (o, &x) in out {
                *o = f(x, y, z);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::point;
    use crate::simd::{Isa, Reg, with_isa};

    type Formula = fn(f32, f32, f32) -> f32;

    const ALL: [(Fused, Formula); 9] = [
        (Fused::MulAdd, |x, y, z| x * y + z),
        (Fused::MulSub, |x, y, z| x * y - z),
        (Fused::SubMul, |x, y, z| z - x * y),
        (Fused::SumMul, |x, y, z| (x + y) * z),
        (Fused::DifferenceMul, |x, y, z| (x - y) * z),
        (Fused::MulMul, |x, y, z| x * y * z),
        (Fused::MulDiv, |x, y, z| x * y / z),
        (Fused::AddAdd, |x, y, z| x + y + z),
        (Fused::ExpDifference, |x, y, _| (x - y).exp()),
    ];

    #[test]
    fn every_formula_on_every_instruction_set() {
        let n = 80;
        let check = |out: &Reg, want: &dyn Fn(usize) -> f32, name: &str| {
            for (i, &got) in out.lanes::<f32>()[..n].iter().enumerate() {
                let want = want(i);
                let same = got == want || (got.is_nan() && want.is_nan());
                assert!(same || (got - want).abs() <= 1e-6 * want.abs(), "{name}: {got} ≠ {want}");
            }
        };
        let mut regs = [0, 1, 2].map(|_| Reg::with_bytes(4 * n));
        for (k, reg) in regs.iter_mut().enumerate() {
            // Quarters, of which all sums and products here are exact.
            reg.lanes_mut::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = (i * (k + 3) % 17) as f32 / 4.0 - 2.0);
        }
        for isa in Isa::available() {
            for (op, want) in ALL {
                for ones in 0..8 {
                    let operand = |k: usize| {
                        let whole = regs[k].operand();
                        if ones >> k & 1 == 1 { whole.repeated() } else { whole }
                    };
                    let lane = |k: usize, i: usize| regs[k].lanes::<f32>()[if ones >> k & 1 == 1 { 0 } else { i }];
                    let mut out = Reg::with_bytes(4 * n);
                    let args = [operand(0), operand(1), operand(2)];
                    with_isa(isa, || fused(op, DType::F32, n, &mut out.out(), args));
                    check(&out, &|i| want(lane(0, i), lane(1, i), lane(2, i)), &format!("{op:?} on {isa:?}, {ones}"));
                    if ones & 1 == 0 && op.updates() {
                        // The first operand is what the result overwrites.
                        let mut out = regs[0].clone();
                        let args = [Operand::own(), operand(1), operand(2)];
                        with_isa(isa, || fused(op, DType::F32, n, &mut out.out(), args));
                        check(&out, &|i| want(lane(0, i), lane(1, i), lane(2, i)), &format!("{op:?} in place, {ones}"));
                    }
                }
            }
            let mut out = Reg::with_bytes(4 * n);
            let args = [regs[0].operand(), regs[1].operand(), regs[1].operand()];
            with_isa(isa, || point(PointOp::Max, DType::F32, n, &mut out.out(), args));
            let pairs = regs[0].lanes::<f32>().iter().zip(regs[1].lanes());
            assert!(pairs.zip(out.lanes::<f32>()).all(|((&x, &y), &got)| got == f32::max(x, y)), "max on {isa:?}");
        }
    }
}
