//! Pointwise methods and operators. Operands broadcast as NumPy's do and have one dtype.

use std::sync::{Arc, LazyLock};

use kiln_ir::expr::E;
use kiln_ir::{DType, Expr, ExprNode, OPS, Op, PointOp, Shape};

use crate::Tensor;
use crate::node::Source;
use crate::record::{record, source};

/// The formula of each row, made once: equal pointers make equal programs cheap to recognise.
static ROWS: LazyLock<Vec<Arc<Expr>>> = LazyLock::new(|| OPS.iter().map(|row| Arc::new(Expr::of(row.op))).collect());

/// Records a row of `OPS`.
#[track_caller]
fn row(op: PointOp, inputs: &[&Tensor]) -> Tensor {
    record(Op::Map(ROWS[op as usize].clone()), inputs)
}

/// Records a formula over inputs `0..`.
#[track_caller]
pub(crate) fn map(inputs: &[&Tensor], formula: &E) -> Tensor {
    record(Op::Map(Arc::new(formula.build())), inputs)
}

/// The right side of a binary op: a tensor, or a number that takes the other side's dtype.
pub trait Operand {
    #[doc(hidden)]
    fn apply(&self, op: PointOp, lhs: &Tensor) -> Tensor;
}

impl Operand for Tensor {
    #[track_caller]
    fn apply(&self, op: PointOp, lhs: &Tensor) -> Tensor {
        row(op, &[lhs, self])
    }
}

impl Operand for &Tensor {
    #[track_caller]
    fn apply(&self, op: PointOp, lhs: &Tensor) -> Tensor {
        row(op, &[lhs, self])
    }
}

impl Operand for f64 {
    #[track_caller]
    fn apply(&self, op: PointOp, lhs: &Tensor) -> Tensor {
        with_number(op, lhs, *self, false)
    }
}

/// A row with a number on one side. Small whole numbers are part of the program; any other `f32` is a
/// slot, so that a learning rate may change without a new plan.
#[track_caller]
fn with_number(op: PointOp, x: &Tensor, v: f64, number_first: bool) -> Tensor {
    let small = v.fract() == 0.0 && v.abs() <= 4.0;
    let word = match x.dtype() {
        _ if small => None,
        DType::F32 => Some((v as f32).to_bits()),
        DType::I32 => Some(v as i32 as u32),
        DType::U32 => Some(v as u32),
        _ => None,
    };
    match word {
        Some(word) => {
            let number = source(x.device(), Source::Scalar { word, origin: None }, Shape::scalar(), x.dtype());
            if number_first { row(op, &[&number, x]) } else { row(op, &[x, &number]) }
        }
        None => {
            let at = if number_first { [0, 1, 1] } else { [1, 0, 0] };
            let nodes = vec![ExprNode::Const(v), ExprNode::Input(0), ExprNode::Op(op, at)];
            record(Op::Map(Arc::new(Expr { nodes })), &[x])
        }
    }
}

macro_rules! unary {
    ($( $(#[doc = $doc:literal])+ $name:ident $op:ident )*) => {
        impl Tensor { $(
            $(#[doc = $doc])+
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                row(PointOp::$op, &[self])
            }
        )* }
    };
}

unary! {
    /// `|x|`, element by element; the gradient at 0 is 0.
    abs Abs
    /// -1, 0 or 1; no gradient.
    sign Sign
    /// `eˣ`.
    exp Exp
    /// Natural logarithm.
    log Log
    /// Sine.
    sin Sin
    /// Cosine.
    cos Cos
    /// Hyperbolic tangent.
    tanh Tanh
    /// Error function `2/√π ∫₀ˣ e^(-t²) dt`.
    erf Erf
    /// Square root.
    sqrt Sqrt
    /// `1 / √x`.
    rsqrt Rsqrt
    /// Logistic sigmoid `1 / (1 + e⁻ˣ)`.
    sigmoid Sigmoid
    /// `max(x, 0)`; the gradient at 0 is 0.
    relu Relu
    /// Largest whole number not above `x`; no gradient.
    floor Floor
    /// Smallest whole number not below `x`; no gradient.
    ceil Ceil
    /// Nearest whole number, ties to even; no gradient.
    round Round
    /// Complement: logical for `bool`, bitwise for integers.
    logical_not Not
}

macro_rules! binary {
    ($( $(#[doc = $doc:literal])+ $name:ident $op:ident )*) => {
        impl Tensor { $(
            $(#[doc = $doc])+
            ///
            /// # Panics
            /// If the shapes do not broadcast, or the dtypes differ or do not fit the op.
            #[track_caller]
            pub fn $name(&self, rhs: impl Operand) -> Tensor {
                rhs.apply(PointOp::$op, self)
            }
        )* }
    };
}

binary! {
    /// Lesser of two; NaN if either is. At a tie the gradient is halved.
    minimum Min
    /// Greater of two; NaN if either is. At a tie the gradient is halved.
    maximum Max
    /// `xʸ` for `x ≥ 0`.
    pow Pow
    /// Remainder of truncated division, with the sign of `x`; no gradient.
    rem Rem
    /// Whether `x < y`, as `bool`.
    lt Lt
    /// Whether `x = y`, as `bool`.
    eq Eq
    /// Conjunction: logical for `bool`, bitwise for integers.
    logical_and And
    /// Disjunction: logical for `bool`, bitwise for integers.
    logical_or Or
    /// Exclusive or: logical for `bool`, bitwise for integers.
    logical_xor Xor
    /// Shift right by `y mod 32` bits, with the sign for `i32`.
    shift_right Shr
}

impl Tensor {
    /// A formula over these tensors, as one step: `x[i]` is its input `i`. Operands broadcast; each op of the
    /// formula has its own gradient.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// use kiln_ir::{PointOp, expr::E};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[3.0f32, 4.0], &[2], &device)?;
    /// let hypotenuse = (E::input(0) * E::input(0) + E::input(1) * E::input(1)).map(PointOp::Sqrt);
    /// let y = Tensor::map(&[&x, &x.flip(0)], &hypotenuse.build().into());
    /// assert_eq!(y.to_vec::<f32>()?, [5.0, 5.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If there are not as many tensors as inputs, the shapes do not broadcast, or the dtypes do not fit.
    #[track_caller]
    pub fn map(x: &[&Tensor], formula: &Arc<Expr>) -> Tensor {
        assert!(!x.is_empty(), "map: of no tensors");
        record(Op::Map(formula.clone()), x)
    }

    /// Whether `x > y`, as `bool`.
    ///
    /// # Panics
    /// As [`Tensor::lt`].
    #[track_caller]
    pub fn gt(&self, rhs: &Tensor) -> Tensor {
        rhs.lt(self)
    }

    /// Where this `bool` tensor holds, `yes`, elsewhere `no`; PyTorch's `where`.
    ///
    /// # Panics
    /// If this is not `bool`, the dtypes of the branches differ, or the shapes do not broadcast.
    #[track_caller]
    pub fn select(&self, yes: &Tensor, no: &Tensor) -> Tensor {
        row(PointOp::Select, &[self, yes, no])
    }

    /// `x²`.
    #[track_caller]
    pub fn square(&self) -> Tensor {
        static SQUARE: LazyLock<Arc<Expr>> = LazyLock::new(|| (E::input(0) * E::input(0)).build().into());
        Tensor::map(&[self], &SQUARE)
    }

    /// The elements converted to a dtype. To an integer it truncates and saturates; to `bool` it is
    /// `x ≠ 0`. Gradient: between floats.
    ///
    /// # Panics
    /// If the device lacks the dtype.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        self.device().check("cast", dtype);
        match dtype == self.dtype() {
            true => self.clone(),
            false => record(Op::Map(Arc::new(Expr::cast(dtype))), &[self]),
        }
    }

    /// First word of Threefry2x32-20 with this key and counters `(self, 0)`.
    #[track_caller]
    pub(crate) fn threefry(&self, key: [&Tensor; 2]) -> Tensor {
        row(PointOp::Threefry, &[key[0], key[1], self])
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident)*) => { $(
        operators! { @ $trait $method (&Tensor, &Tensor) |a, b| row(PointOp::$trait, &[a, b]) }
        operators! { @ $trait $method (&Tensor, Tensor) |a, b| row(PointOp::$trait, &[a, &b]) }
        operators! { @ $trait $method (Tensor, &Tensor) |a, b| row(PointOp::$trait, &[&a, b]) }
        operators! { @ $trait $method (Tensor, Tensor) |a, b| row(PointOp::$trait, &[&a, &b]) }
        operators! { @ $trait $method (&Tensor, f64) |a, b| with_number(PointOp::$trait, a, b, false) }
        operators! { @ $trait $method (Tensor, f64) |a, b| with_number(PointOp::$trait, &a, b, false) }
        operators! { @ $trait $method (f64, &Tensor) |a, b| with_number(PointOp::$trait, b, a, true) }
        operators! { @ $trait $method (f64, Tensor) |a, b| with_number(PointOp::$trait, &b, a, true) }
    )* };
    (@ $trait:ident $method:ident ($lhs:ty, $rhs:ty) |$a:ident, $b:ident| $value:expr) => {
        impl std::ops::$trait<$rhs> for $lhs {
            type Output = Tensor;

            #[track_caller]
            fn $method(self, rhs: $rhs) -> Tensor {
                let ($a, $b) = (self, rhs);
                $value
            }
        }
    };
}

operators! { Add add Sub sub Mul mul Div div }

impl std::ops::Neg for &Tensor {
    type Output = Tensor;

    #[track_caller]
    fn neg(self) -> Tensor {
        row(PointOp::Neg, &[self])
    }
}

impl std::ops::Neg for Tensor {
    type Output = Tensor;

    #[track_caller]
    fn neg(self) -> Tensor {
        row(PointOp::Neg, &[&self])
    }
}
