//! Several steps of arithmetic as one: what lies between them never leaves a vector register.
//!
//! A step reads and writes its lanes in the nearest cache, and that costs more than a sum or a product does. So
//! lowering joins a step with the one that alone reads it, where [`JOINS`] has a row for both; what came of two may be
//! joined again. A product that is added is then rounded once where the processor can; everything else is rounded as
//! before.

use kiln_ir::{DType, PointOp};

use crate::ahead::Ahead;
use crate::math;
use crate::simd::{Operand, Out, multiversion};
use crate::walks::{NO_OWN, lanes, ones, pieces};

/// Operands that a formula has at most.
pub(crate) const MOST: usize = 5;

/// Formulas over `x`, `y`, `z`, `v` and `w`.
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
    /// `√x·y + z`, as under Adam's step.
    SqrtMulAdd,
    /// `x·y + z·v`, as an average that follows.
    SumOfProducts,
    /// `x·y·z + v`
    MulMulAdd,
    /// `x·y·z + v·w`, as an average of squares that follows.
    MulMulSum,
    /// `v - x·y / z`
    SubMulDiv,
    /// `v·w - x·y / z`, as Adam's step with decay.
    DecayMulDiv,
    /// `(x·y + z)·v`
    MulAddMul,
    /// `(x·y·z + v)·w`
    MulMulAddMul,
    /// `tanh((x·y + z)·v)`, as in GELU's usual form.
    TanhMulAddMul,
    /// `tanh((x·y·z + v)·w)`, as in its gradient.
    TanhMulMulAddMul,
    /// `(x + y)·z·v`
    SumMulMul,
    /// `(x + y)·z + v`
    SumMulAdd,
    /// `(x + y)·z·v + w`
    SumMulMulAdd,
    /// `v·(z - x·y)·w`
    SubMulMulMul,
    /// `(x - y)·z·v`
    DifferenceMulMul,
    /// `(x - y)·z·v + w`, as a layer norm.
    DifferenceMulMulAdd,
    /// `x·y + z + v·w`, as in the gradient of a layer norm.
    SumOfProductsAdd,
    /// `x / y`, in place.
    Quotient,
    /// `x·y`, in place.
    Product,
}

/// What is joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Op(PointOp),
    Fused(Fused),
}

/// `(first, second, the operand of the second that the first one is, both)`: over the operands of the first, then the
/// others of the second.
const JOINS: &[(Step, Step, usize, Fused)] = {
    use Fused::*;
    use PointOp::{Add, Div, Exp, Mul, Sqrt, Sub, Tanh};
    use Step::{Fused as F, Op};
    &[
        (Op(Mul), Op(Add), 0, MulAdd),
        (Op(Mul), Op(Add), 1, MulAdd),
        (Op(Mul), Op(Sub), 0, MulSub),
        (Op(Mul), Op(Sub), 1, SubMul),
        (Op(Add), Op(Mul), 0, SumMul),
        (Op(Add), Op(Mul), 1, SumMul),
        (Op(Sub), Op(Mul), 0, DifferenceMul),
        (Op(Sub), Op(Mul), 1, DifferenceMul),
        (Op(Mul), Op(Mul), 0, MulMul),
        (Op(Mul), Op(Mul), 1, MulMul),
        (Op(Mul), Op(Div), 0, MulDiv),
        (Op(Add), Op(Add), 0, AddAdd),
        (Op(Add), Op(Add), 1, AddAdd),
        (Op(Sub), Op(Exp), 0, ExpDifference),
        (Op(Sqrt), F(MulAdd), 0, SqrtMulAdd),
        (Op(Sqrt), F(MulAdd), 1, SqrtMulAdd),
        (Op(Mul), F(MulAdd), 2, SumOfProducts),
        (F(MulMul), Op(Add), 0, MulMulAdd),
        (F(MulMul), Op(Add), 1, MulMulAdd),
        (F(MulMul), F(MulAdd), 2, MulMulSum),
        (F(MulDiv), Op(Sub), 1, SubMulDiv),
        (F(MulDiv), F(MulSub), 2, DecayMulDiv),
        (F(MulAdd), Op(Mul), 0, MulAddMul),
        (F(MulMulAdd), Op(Mul), 0, MulMulAddMul),
        (F(MulAddMul), Op(Tanh), 0, TanhMulAddMul),
        (F(MulMulAddMul), Op(Tanh), 0, TanhMulMulAddMul),
        (Op(Add), F(MulMul), 2, SumMulMul),
        (F(SumMul), Op(Add), 0, SumMulAdd),
        (F(SumMul), Op(Add), 1, SumMulAdd),
        (F(SumMul), F(MulAdd), 0, SumMulMulAdd),
        (F(SubMul), F(MulMul), 1, SubMulMulMul),
        (F(DifferenceMul), Op(Mul), 0, DifferenceMulMul),
        (F(DifferenceMulMul), Op(Add), 0, DifferenceMulMulAdd),
        (F(MulAdd), F(MulAdd), 2, SumOfProductsAdd),
    ]
};

/// What `second` is with `first` as its operand number `side`, if that is one step. Formulas are of `f32`: those of `f64`
/// would be a seventh of this crate's code.
pub(crate) fn join(first: Step, second: Step, side: usize, dtype: DType) -> Option<Fused> {
    let found = JOINS.iter().find(|row| (row.0, row.1, row.2) == (first, second, side));
    found.filter(|_| dtype == DType::F32).map(|row| row.3)
}

impl Fused {
    /// How many operands it has.
    pub(crate) fn arity(self) -> usize {
        match self {
            Fused::ExpDifference | Fused::Quotient | Fused::Product => 2,
            Fused::SumOfProducts | Fused::MulMulAdd | Fused::SubMulDiv => 4,
            Fused::MulAddMul | Fused::TanhMulAddMul | Fused::SumMulMul | Fused::SumMulAdd => 4,
            Fused::DifferenceMulMul => 4,
            Fused::MulMulSum | Fused::DecayMulDiv | Fused::MulMulAddMul | Fused::TanhMulMulAddMul => 5,
            Fused::SumMulMulAdd | Fused::SubMulMulMul | Fused::SumOfProductsAdd | Fused::DifferenceMulMulAdd => 5,
            _ => 3,
        }
    }

    /// True iff it takes several times as long as a sum does.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Fused::Quotient | Fused::ExpDifference | Fused::TanhMulAddMul | Fused::TanhMulMulAddMul)
    }

    /// The operand that may be what the result overwrites.
    pub(crate) fn own(self) -> Option<usize> {
        match self {
            Fused::ExpDifference => None,
            Fused::SumOfProducts => Some(2),
            Fused::MulMulAdd | Fused::MulMulSum | Fused::SubMulDiv | Fused::DecayMulDiv => Some(3),
            Fused::SumMulAdd => Some(3),
            Fused::SumMulMulAdd => Some(4),
            _ => Some(0),
        }
    }
}

/// Applies a formula to the first `n` lanes.
pub(crate) fn fused(op: Fused, n: usize, dst: &mut Out, args: &[Operand; MOST], ahead: Ahead) {
    float32(op, n.next_multiple_of(16), dst, args, ahead);
}

multiversion! {
    fn float32(op: Fused, n: usize, dst: &mut Out, args: &[Operand; MOST], ahead: Ahead) {
        let fma = math::fma::<FMA>;
        // The loop for the operands that are single values, as bits: one of those written out, or else one for any, as
        // always on processors too old to multiply and add at once. Operand `$own` may be what is overwritten.
        macro_rules! each {
            ($own:literal, [$($ones:literal)*], $f:expr) => {{
                let args = args.first_chunk().expect("no formula has more operands");
                let f = $f;
                match (ones(args), args[$own].own) {
                    $(($ones, false) if FMA => lanes::<_, _, _, $ones, NO_OWN>(n, dst, args, ahead, f),
                    ($ones, true) if FMA => lanes::<_, _, _, $ones, $own>(n, dst, args, ahead, f),)*
                    _ => pieces(n, dst, args, ahead, f),
                }
            }};
        }
        match op {
            Fused::MulAdd => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| fma(x, y, z)),
            Fused::MulSub => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| fma(x, y, -z)),
            Fused::SubMul => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| fma(-x, y, z)),
            Fused::SumMul => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| (x + y) * z),
            Fused::DifferenceMul => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| (x - y) * z),
            Fused::MulMul => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| x * y * z),
            Fused::MulDiv => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| x * y / z),
            Fused::AddAdd => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| x + y + z),
            Fused::ExpDifference => each!(0, [0 2], |[x, y]: [f32; 2]| math::exp::<FMA>(x - y)),
            Fused::SqrtMulAdd => each!(0, [0 2 4 6], |[x, y, z]: [f32; 3]| fma(x.sqrt(), y, z)),
            Fused::SumOfProducts => each!(2, [0 8 10], |[x, y, z, v]: [f32; 4]| fma(z, v, x * y)),
            Fused::MulMulAdd => each!(3, [0 2 4], |[x, y, z, v]: [f32; 4]| fma(x * y, z, v)),
            Fused::MulMulSum => each!(3, [20], |[x, y, z, v, w]: [f32; 5]| fma(v, w, x * y * z)),
            Fused::SubMulDiv => each!(3, [2], |[x, y, z, v]: [f32; 4]| v - x * y / z),
            Fused::MulAddMul => each!(0, [0 10], |[x, y, z, v]: [f32; 4]| fma(x, y, z) * v),
            Fused::MulMulAddMul => each!(0, [20], |[x, y, z, v, w]: [f32; 5]| fma(x * y, z, v) * w),
            Fused::TanhMulAddMul => each!(0, [10], |[x, y, z, v]: [f32; 4]| math::tanh::<FMA>(fma(x, y, z) * v)),
            Fused::TanhMulMulAddMul => each!(0, [20], |[x, y, z, v, w]: [f32; 5]| math::tanh::<FMA>(fma(x * y, z, v) * w)),
            Fused::SumMulMul => each!(0, [0 10], |[x, y, z, v]: [f32; 4]| z * v * (x + y)),
            Fused::SumMulAdd => each!(3, [0 2], |[x, y, z, v]: [f32; 4]| fma(x + y, z, v)),
            Fused::SumMulMulAdd => each!(4, [10], |[x, y, z, v, w]: [f32; 5]| fma((x + y) * z, v, w)),
            Fused::SubMulMulMul => each!(0, [20], |[x, y, z, v, w]: [f32; 5]| v * fma(-x, y, z) * w),
            Fused::DifferenceMulMul => each!(0, [0 6], |[x, y, z, v]: [f32; 4]| (x - y) * z * v),
            Fused::DifferenceMulMulAdd => each!(0, [0 6], |[x, y, z, v, w]: [f32; 5]| fma((x - y) * z, v, w)),
            Fused::SumOfProductsAdd => each!(0, [22], |[x, y, z, v, w]: [f32; 5]| fma(v, w, fma(x, y, z))),
            Fused::Quotient => each!(0, [0 2], |[x, y]: [f32; 2]| x / y),
            Fused::Product => each!(0, [0 2], |[x, y]: [f32; 2]| x * y),
            Fused::DecayMulDiv => each!(3, [18], |[x, y, z, v, w]: [f32; 5]| fma(v, w, -(x * y / z))),
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_ir::Index;
    use kiln_ir::kernel::{Access, Arg, Body, Instr, Store};

    use super::*;
    use crate::lower::{Goal, lower};
    use crate::point::point;
    use crate::program::{Micro, Rowed};
    use crate::simd::{Isa, Reg, with_isa};

    type Formula = fn([f32; MOST]) -> f32;

    const ALL: [(Fused, Formula); 28] = [
        (Fused::MulAdd, |[x, y, z, ..]| x * y + z),
        (Fused::MulSub, |[x, y, z, ..]| x * y - z),
        (Fused::SubMul, |[x, y, z, ..]| z - x * y),
        (Fused::SumMul, |[x, y, z, ..]| (x + y) * z),
        (Fused::DifferenceMul, |[x, y, z, ..]| (x - y) * z),
        (Fused::MulMul, |[x, y, z, ..]| x * y * z),
        (Fused::MulDiv, |[x, y, z, ..]| x * y / z),
        (Fused::AddAdd, |[x, y, z, ..]| x + y + z),
        (Fused::ExpDifference, |[x, y, ..]| (x - y).exp()),
        (Fused::SqrtMulAdd, |[x, y, z, ..]| x.sqrt() * y + z),
        (Fused::SumOfProducts, |[x, y, z, v, _]| x * y + z * v),
        (Fused::MulMulAdd, |[x, y, z, v, _]| x * y * z + v),
        (Fused::MulMulSum, |[x, y, z, v, w]| x * y * z + v * w),
        (Fused::SubMulDiv, |[x, y, z, v, _]| v - x * y / z),
        (Fused::DecayMulDiv, |[x, y, z, v, w]| v * w - x * y / z),
        (Fused::MulAddMul, |[x, y, z, v, _]| (x * y + z) * v),
        (Fused::MulMulAddMul, |[x, y, z, v, w]| (x * y * z + v) * w),
        (Fused::TanhMulAddMul, |[x, y, z, v, _]| ((x * y + z) * v).tanh()),
        (Fused::TanhMulMulAddMul, |[x, y, z, v, w]| ((x * y * z + v) * w).tanh()),
        (Fused::SumMulMul, |[x, y, z, v, _]| (x + y) * z * v),
        (Fused::SumMulAdd, |[x, y, z, v, _]| (x + y) * z + v),
        (Fused::SumMulMulAdd, |[x, y, z, v, w]| (x + y) * z * v + w),
        (Fused::SubMulMulMul, |[x, y, z, v, w]| v * (z - x * y) * w),
        (Fused::DifferenceMulMul, |[x, y, z, v, _]| (x - y) * z * v),
        (Fused::DifferenceMulMulAdd, |[x, y, z, v, w]| (x - y) * z * v + w),
        (Fused::SumOfProductsAdd, |[x, y, z, v, w]| x * y + z + v * w),
        (Fused::Quotient, |[x, y, ..]| x / y),
        (Fused::Product, |[x, y, ..]| x * y),
    ];

    #[test]
    fn every_formula_on_every_instruction_set() {
        let n = 80;
        let check = |out: &Reg, want: &dyn Fn(usize) -> f32, name: &str| {
            for (i, &got) in out.lanes::<f32>()[..n].iter().enumerate() {
                let want = want(i);
                let same = got == want || (got.is_nan() && want.is_nan());
                // Roots and quotients are rounded before a difference of numbers about 1 is taken.
                assert!(same || (got - want).abs() <= 1e-6 * want.abs().max(1.0), "{name}: {got} ≠ {want}");
            }
        };
        let mut regs = [0, 1, 2, 3, 4].map(|_| Reg::with_bytes(4 * n));
        for (k, reg) in regs.iter_mut().enumerate() {
            // Quarters, of which all sums and products here are exact.
            reg.lanes_mut::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = (i * (k + 3) % 17) as f32 / 4.0 - 2.0);
        }
        for isa in Isa::available() {
            for (op, want) in ALL {
                for ones in 0..1 << op.arity() {
                    let single = |k: usize| ones >> k & 1 == 1;
                    let operand = |k: usize| {
                        let whole = regs[k].operand();
                        if single(k) { whole.repeated() } else { whole }
                    };
                    let lane = |k: usize, i: usize| regs[k].lanes::<f32>()[if single(k) { 0 } else { i }];
                    let want = |i: usize| want([0, 1, 2, 3, 4].map(|k| lane(k, i)));
                    let mut out = Reg::with_bytes(4 * n);
                    let args = [0, 1, 2, 3, 4].map(operand);
                    with_isa(isa, || fused(op, n, &mut out.out(), &args, Ahead::none()));
                    check(&out, &want, &format!("{op:?} on {isa:?}, {ones}"));
                    if let Some(own) = op.own().filter(|&own| !single(own)) {
                        let mut out = regs[own].clone();
                        let args = [0, 1, 2, 3, 4].map(|k| if k == own { Operand::own() } else { operand(k) });
                        with_isa(isa, || fused(op, n, &mut out.out(), &args, Ahead::none()));
                        check(&out, &want, &format!("{op:?} in place on {isa:?}, {ones}"));
                    }
                }
            }
            let mut out = Reg::with_bytes(4 * n);
            let args = [regs[0].operand(), regs[1].operand(), regs[1].operand()];
            with_isa(isa, || point(PointOp::Max, DType::F32, n, &mut out.out(), &args, Ahead::none()));
            let pairs = regs[0].lanes::<f32>().iter().zip(regs[1].lanes());
            assert!(pairs.zip(out.lanes::<f32>()).all(|((&x, &y), &got)| got == f32::max(x, y)), "max on {isa:?}");
        }
    }

    /// `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`
    #[test]
    fn gelu_is_three_steps() {
        let (mut body, dtype, at) = (Body::default(), DType::F32, Index::var(0));
        let x = body.push(Instr::Load { arg: 0, index: at.clone(), valid: vec![], gather: None }, dtype);
        let [cubic, root, half, one] =
            [0.044715, 0.7978845, 0.5, 1.0].map(|c| body.push(Instr::Const(dtype, c), dtype));
        let mut op = |op, x, y| body.push(Instr::Op(op, [x, y, y]), dtype);
        let square = op(PointOp::Mul, x, x);
        let cube = op(PointOp::Mul, square, x);
        let scaled = op(PointOp::Mul, cube, cubic);
        let sum = op(PointOp::Add, x, scaled);
        let inner = op(PointOp::Mul, sum, root);
        let tanh = op(PointOp::Tanh, inner, inner);
        let (left, right) = (op(PointOp::Mul, x, half), op(PointOp::Add, tanh, one));
        let value = op(PointOp::Mul, left, right);
        body.stores.push(Store { arg: 1, index: at, value });
        let args = [Access::Read, Access::Write].map(|access| Arg { dtype, numel: 64, access });
        let space = Rowed { outer: vec![64], row: vec![], inner: false };
        let program = lower(&body, &args, &space, Goal::default());
        let steps = program.passes[0].points.iter().filter_map(|step| match step {
            Micro::Load { .. } => None,
            Micro::Fused { op, .. } => Some(*op),
            _ => panic!("no other steps"),
        });
        assert_eq!(steps.collect::<Vec<_>>(), [Fused::MulMul, Fused::TanhMulAddMul, Fused::SumMulMul]);
    }

    #[test]
    fn joins_lead_from_formulas_that_there_are() {
        for &(first, second, side, both) in JOINS {
            let arity = |step: Step| match step {
                Step::Op(op) => op.row().arity,
                Step::Fused(op) => op.arity(),
            };
            assert!(side < arity(second), "{second:?} has no operand {side}");
            assert_eq!(arity(first) + arity(second) - 1, both.arity(), "{first:?} and {second:?} as {both:?}");
        }
    }
}
