//! Kernels: the closed set of things that a backend can execute.
//!
//! Each is an index space and straight-line bodies of [`Instr`] over it. A [`Loop`] visits rows of
//! points and may reduce over a row in the middle, any number of times, which is enough for softmax,
//! norms and losses in one kernel. A [`Dot`] contracts two bodies and finishes with a third. Views
//! have become addresses by now; nothing here knows of tensors.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::attention::{Extents, Part};
use crate::index::{Bound, Index};
use crate::sort;
use crate::{DType, PointOp, ReduceOp};

/// How a kernel uses an argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Only loads.
    Read,
    /// Only stores; every element is stored.
    Write,
    /// Loads and stores, each load at the index that the same point stores.
    ReadWrite,
}

/// One buffer that a kernel binds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Arg {
    /// How elements are stored.
    pub dtype: DType,
    /// How many elements the kernel may touch.
    pub numel: usize,
    /// How it is used.
    pub access: Access,
}

/// The position of an instruction, whose value it names.
pub type Value = u32;

/// A scalar step at one point of an index space.
#[derive(Clone, PartialEq, Debug)]
pub enum Instr {
    /// An element of an argument, 0 where a bound fails; narrow dtypes widen to their compute dtype.
    Load {
        /// Which argument.
        arg: u32,
        /// The element, row-major; axis `rank` of the space stands for the gathered index.
        index: Index,
        /// Where the element exists.
        valid: Vec<Bound>,
        /// A value clamped to `0..n` that becomes coordinate `rank`.
        gather: Option<(Value, usize)>,
    },
    /// A literal.
    Const(DType, f64),
    /// A scalar word given at each run: the n-th of the kernel, an `f32`, `i32`, `u32` or `bool`.
    Scalar(DType, u32),
    /// An index expression as `i32`.
    Coord(Index),
    /// Whether all bounds hold.
    Inside(Vec<Bound>),
    /// A row of `OPS`; unused operands repeat the last.
    Op(PointOp, [Value; 3]),
    /// Conversion, rounding as [`DType::round`] says and staying in the compute dtype.
    Cast(DType, Value),
    /// A reduction of a value over the row.
    Reduce(ReduceOp, Value),
    /// A reduction of a value over the same point of all rows: known at the end, and only stored.
    ColumnReduce(ReduceOp, Value),
    /// The contraction's sum, in the last body of a [`Dot`].
    Acc,
}

/// A value that is kept. Stores happen after the last reduction, so no row loads what it has stored.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Store {
    /// Into which argument.
    pub arg: u32,
    /// At which element.
    pub index: Index,
    /// Which value.
    pub value: Value,
}

/// Straight-line code at one point of an index space.
#[derive(Clone, PartialEq, Hash, Debug, Default)]
pub struct Body {
    /// Steps; each names only earlier ones.
    pub instrs: Vec<Instr>,
    /// The compute dtype of each step's value.
    pub types: Vec<DType>,
    /// What is kept.
    pub stores: Vec<Store>,
}

/// Rows of points, each with a chain of maps and reductions.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Loop {
    /// Dims of the rows' space; rows are independent.
    pub outer: Vec<usize>,
    /// Dims of a row; empty iff nothing is reduced.
    pub row: Vec<usize>,
    /// Bound buffers.
    pub args: Vec<Arg>,
    /// Axes `0..outer` are the row, then come the axes within it.
    pub body: Body,
}

/// A contraction with prologues and an epilogue.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Dot {
    /// Dims that both operands and the result share.
    pub batch: Vec<usize>,
    /// Dims of the left operand only.
    pub m: Vec<usize>,
    /// Dims of the right operand only.
    pub n: Vec<usize>,
    /// Dims that are summed over.
    pub k: Vec<usize>,
    /// Bound buffers, shared by the three bodies.
    pub args: Vec<Arg>,
    /// The left operand at `[batch.., m.., k..]`: the value of the last step.
    pub lhs: Body,
    /// The right operand at `[batch.., k.., n..]`: the value of the last step.
    pub rhs: Body,
    /// What becomes of the sum at `[batch.., m.., n..]`.
    pub epilogue: Body,
}

/// Slices added into zeros at computed places, in the order of the slices.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Scatter {
    /// Dims before the scattered axis.
    pub outer: Vec<usize>,
    /// Dims of the index.
    pub index: Vec<usize>,
    /// Dims after the scattered axis.
    pub inner: Vec<usize>,
    /// The result's dim along the axis; an index outside is clamped.
    pub size: usize,
    /// Bound buffers: the index, the values, the result.
    pub args: [Arg; 3],
}

/// Parts of an attention with equal inputs, without its scores in memory: see [`Part`].
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Attention {
    /// How large it is.
    pub extents: Extents,
    /// True iff row `i` sees columns up to `i` only.
    pub causal: bool,
    /// Bound buffers, shared by the operands.
    pub args: Vec<Arg>,
    /// `q, k, v, bias`, and if the parts are gradients `logsum, delta, g`: each at the coordinates of its own
    /// dims, `[b.., t, d]` for `q`, as the value of the last step.
    pub operands: Vec<Body>,
    /// Which parts are stored, into which argument, in row-major order: some of the forward ones, or some of
    /// the gradients.
    pub stores: Vec<(Part, u32)>,
}

/// A running reduction of rows, each from the beginning or from the end.
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Scan {
    /// Sum, product or an extreme.
    pub op: ReduceOp,
    /// True iff it runs from the end.
    pub reverse: bool,
    /// Dims before the axis that it runs along.
    pub outer: usize,
    /// The dim of that axis.
    pub len: usize,
    /// Dims after it.
    pub inner: usize,
    /// Bound buffers: the values and the result.
    pub args: [Arg; 2],
}

/// Parts of a stable sort of rows: see [`crate::sort::Sort`].
#[derive(Clone, PartialEq, Hash, Debug)]
pub struct Sort {
    /// True iff the greatest comes first.
    pub descending: bool,
    /// Dims before the axis that is sorted along.
    pub outer: usize,
    /// The dim of that axis.
    pub len: usize,
    /// Dims after it.
    pub inner: usize,
    /// How many of each row are kept: the dim of the axis in what is stored.
    pub keep: usize,
    /// Bound buffers: the elements, and what is stored.
    pub args: Vec<Arg>,
    /// Which parts are stored, into which argument.
    pub stores: Vec<(sort::Part, u32)>,
}

/// Anything that a backend executes.
#[derive(Clone, PartialEq, Hash, Debug)]
pub enum Kernel {
    /// Elementwise work and reductions.
    Loop(Loop),
    /// Matmul, convolution and every other contraction.
    Dot(Dot),
    /// The gradient of a gather.
    Scatter(Scatter),
    /// Scaled dot-product attention, or its gradients.
    Attention(Attention),
    /// A running reduction.
    Scan(Scan),
    /// A stable sort.
    Sort(Sort),
    /// Loops that do not depend on each other, for the price of one dispatch. All of them name the same
    /// arguments and scalars.
    Group(Vec<Loop>),
}

impl Body {
    /// Appends a step whose value has this compute dtype, or finds an equal earlier one.
    pub fn push(&mut self, instr: Instr, dtype: DType) -> Value {
        let found = self.instrs.iter().zip(&self.types).position(|(i, t)| *t == dtype && same(i, &instr));
        found.unwrap_or_else(|| {
            self.instrs.push(instr);
            self.types.push(dtype);
            self.instrs.len() - 1
        }) as Value
    }

    /// True iff something is reduced over rows, rather than along them.
    pub fn reduces_columns(&self) -> bool {
        self.instrs.iter().any(|i| matches!(i, Instr::ColumnReduce(..)))
    }

    /// True for each value that differs within a row of a space of this rank: it loads or computes
    /// with one of the axes `outer..rank`, and no reduction lies between.
    pub fn varies_in_row(&self, outer: usize, rank: usize) -> Vec<bool> {
        let mut varies: Vec<bool> = Vec::with_capacity(self.instrs.len());
        // A gathered coordinate is axis `rank`: there the value that it comes from decides.
        let row = |axis: usize| (outer..rank).contains(&axis);
        let bounded = |bounds: &[Bound]| bounds.iter().any(|b| b.index.uses(&row));
        for instr in &self.instrs {
            let of = |v: &Value| varies[*v as usize];
            let differs = match instr {
                Instr::Load { index, valid, gather, .. } => {
                    index.uses(&row) || bounded(valid) || gather.is_some_and(|(v, _)| of(&v))
                }
                Instr::Coord(index) => index.uses(&row),
                Instr::Inside(bounds) => bounded(bounds),
                Instr::Op(op, args) => args[..op.row().arity].iter().any(of),
                Instr::Cast(_, a) | Instr::ColumnReduce(_, a) => of(a),
                Instr::Const(..) | Instr::Scalar(..) | Instr::Reduce(..) | Instr::Acc => false,
            };
            varies.push(differs);
        }
        varies
    }
}

/// Equality with literals compared by bits, so that NaN finds itself and 0 does not find -0.
fn same(a: &Instr, b: &Instr) -> bool {
    match (a, b) {
        (Instr::Const(_, x), Instr::Const(_, y)) => x.to_bits() == y.to_bits(),
        _ => a == b,
    }
}

/// Literals count by their bits, which tell 0 from -0.
impl Hash for Instr {
    fn hash<H: Hasher>(&self, h: &mut H) {
        std::mem::discriminant(self).hash(h);
        match self {
            Instr::Load { arg, index, valid, gather } => (arg, index, valid, gather).hash(h),
            Instr::Const(t, v) => (t, v.to_bits()).hash(h),
            Instr::Scalar(t, n) => (t, n).hash(h),
            Instr::Coord(index) => index.hash(h),
            Instr::Inside(bounds) => bounds.hash(h),
            Instr::Op(op, args) => (op, args).hash(h),
            Instr::Cast(t, v) => (t, v).hash(h),
            Instr::Reduce(op, v) | Instr::ColumnReduce(op, v) => (op, v).hash(h),
            Instr::Acc => {}
        }
    }
}

impl Kernel {
    /// A hash, long enough that no two kernels share one.
    pub fn key(&self) -> u128 {
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, self).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    }

    /// The loops that it consists of, if it does.
    pub fn loops(&self) -> &[Loop] {
        match self {
            Kernel::Loop(k) => std::slice::from_ref(k),
            Kernel::Group(loops) => loops,
            Kernel::Dot(_) | Kernel::Scatter(_) | Kernel::Attention(_) | Kernel::Scan(_) | Kernel::Sort(_) => &[],
        }
    }

    /// The kernel's bound buffers.
    pub fn args(&self) -> &[Arg] {
        match self {
            Kernel::Loop(k) => &k.args,
            Kernel::Dot(k) => &k.args,
            Kernel::Scatter(k) => &k.args,
            Kernel::Attention(k) => &k.args,
            Kernel::Scan(k) => &k.args,
            Kernel::Sort(k) => &k.args,
            Kernel::Group(loops) => loops.first().map_or(&[], |k| &k.args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(index: Index, gather: Option<(Value, usize)>) -> Instr {
        Instr::Load { arg: 0, index, valid: Vec::new(), gather }
    }

    #[test]
    fn keys_tell_kernels_apart() {
        let kernel = |value: f64, len: usize, op: ReduceOp| {
            let mut body = Body::default();
            let value = body.push(Instr::Const(DType::F32, value), DType::F32);
            body.push(Instr::Reduce(op, value), DType::F32);
            Kernel::Loop(Loop { outer: vec![2], row: vec![len], args: Vec::new(), body })
        };
        let key = |value, len, op| kernel(value, len, op).key();
        let first = key(0.0, 3, ReduceOp::Sum);
        assert_eq!(first, key(0.0, 3, ReduceOp::Sum));
        assert_eq!(key(f64::NAN, 3, ReduceOp::Sum), key(f64::NAN, 3, ReduceOp::Sum));
        for other in [key(-0.0, 3, ReduceOp::Sum), key(0.0, 4, ReduceOp::Sum), key(0.0, 3, ReduceOp::Max)] {
            assert_ne!(first, other);
        }
        let Kernel::Loop(alone) = kernel(0.0, 3, ReduceOp::Sum) else { unreachable!() };
        assert_ne!(first, Kernel::Group(vec![alone]).key());
    }

    #[test]
    fn a_value_varies_in_its_row_until_it_is_reduced() {
        let mut body = Body::default();
        let scale = body.push(load(Index::var(0), None), DType::F32);
        let x = body.push(load(Index::var(1), None), DType::F32);
        let y = body.push(Instr::Op(PointOp::Mul, [scale, x, x]), DType::F32);
        let sum = body.push(Instr::Reduce(ReduceOp::Sum, y), DType::F32);
        body.push(Instr::Op(PointOp::Div, [sum, scale, scale]), DType::F32);
        assert_eq!(body.varies_in_row(1, 2), [false, true, true, false, false]);
    }

    #[test]
    fn a_gather_varies_with_the_value_it_is_indexed_by() {
        let mut body = Body::default();
        let token = body.push(load(Index::var(0), None), DType::I32);
        body.push(load(Index::var(2), Some((token, 9))), DType::F32);
        let other = body.push(load(Index::var(1), None), DType::I32);
        body.push(load(Index::var(2), Some((other, 9))), DType::F32);
        assert_eq!(body.varies_in_row(1, 2), [false, false, true, true]);
    }

    #[test]
    fn equal_steps_are_one_and_signed_zeros_are_two() {
        let mut body = Body::default();
        let zero = body.push(Instr::Const(DType::F32, 0.0), DType::F32);
        assert_eq!(body.push(Instr::Const(DType::F32, 0.0), DType::F32), zero);
        assert_ne!(body.push(Instr::Const(DType::F32, -0.0), DType::F32), zero);
    }
}
