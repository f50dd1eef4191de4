//! Reductions. Axes may be negative, counting from the end; the reduced axes vanish, or stay as
//! dims of 1 in the `_keepdim` forms.

use std::sync::Arc;

use kiln_ir::{Axes, DType, Expr, ExprNode, Op, PointOp, ReduceOp, Shape};

use super::axis_of;
use crate::Tensor;
use crate::record::record;

/// Axes as they are counted from the front, ascending, each once.
#[track_caller]
pub(super) fn axes_of(op: &str, axes: &[isize], rank: usize) -> Axes {
    let mut named = [false; Shape::MAX_RANK];
    for &axis in axes {
        named[axis_of(op, axis, rank)] = true;
    }
    (0..rank).filter(|&axis| named[axis]).collect()
}

impl Tensor {
    /// A reduction over ascending axes, which stay as dims of 1.
    #[track_caller]
    pub(crate) fn reduce(&self, op: ReduceOp, axes: &[isize]) -> Tensor {
        self.reduce_over(op, axes_of(op.name(), axes, self.rank()))
    }

    #[track_caller]
    fn reduce_over(&self, op: ReduceOp, axes: Axes) -> Tensor {
        // One element is its own sum, product and extreme; `record` would have refused truth values.
        let one = axes.iter().all(|&a| self.dims()[a] == 1) && op != ReduceOp::ArgMax && self.dtype() != DType::Bool;
        match axes.is_empty() || one {
            true => self.clone(),
            false => record(Op::Reduce(op, axes), &[self]),
        }
    }

    fn all_axes(&self) -> Axes {
        (0..self.rank()).collect()
    }

    /// The tensor without these axes, which have dim 1.
    #[track_caller]
    fn without(&self, op: &str, axes: &[isize]) -> Tensor {
        let gone = axes_of(op, axes, self.rank());
        let kept: Shape = (0..self.rank()).filter(|a| !gone.contains(a)).map(|a| self.dims()[a]).collect();
        self.reshape(&kept)
    }

    /// Sum over axes.
    ///
    /// # Panics
    /// If an axis is out of range, or the dtype is `bool`.
    #[track_caller]
    pub fn sum(&self, axes: &[isize]) -> Tensor {
        self.sum_keepdim(axes).without("sum", axes)
    }

    /// Sum over axes, which stay as dims of 1.
    ///
    /// # Panics
    /// As [`Tensor::sum`].
    #[track_caller]
    pub fn sum_keepdim(&self, axes: &[isize]) -> Tensor {
        self.reduce(ReduceOp::Sum, axes)
    }

    /// Sum of all elements, a scalar.
    #[track_caller]
    pub fn sum_all(&self) -> Tensor {
        self.reduce_over(ReduceOp::Sum, self.all_axes()).reshape(&[])
    }

    /// Mean over axes; NaN over an empty one.
    ///
    /// # Panics
    /// If an axis is out of range, or the dtype is not a float.
    #[track_caller]
    pub fn mean(&self, axes: &[isize]) -> Tensor {
        self.mean_keepdim(axes).without("mean", axes)
    }

    /// Mean over axes, which stay as dims of 1.
    ///
    /// # Panics
    /// As [`Tensor::mean`].
    #[track_caller]
    pub fn mean_keepdim(&self, axes: &[isize]) -> Tensor {
        self.mean_over(axes_of("mean", axes, self.rank()))
    }

    #[track_caller]
    pub(super) fn mean_over(&self, axes: Axes) -> Tensor {
        assert!(self.dtype().is_float(), "mean: takes floats, got {}{}", self.dtype(), self.shape());
        let sum = self.reduce_over(ReduceOp::Sum, axes);
        let n = self.numel().checked_div(sum.numel()).unwrap_or(0);
        let nodes = vec![ExprNode::Input(0), ExprNode::Const(n as f64), ExprNode::Op(PointOp::Div, [0, 1, 0])];
        record(Op::Map(Arc::new(Expr { nodes })), &[&sum])
    }

    /// Mean of all elements, a scalar.
    #[track_caller]
    pub fn mean_all(&self) -> Tensor {
        self.mean_over(self.all_axes()).reshape(&[])
    }

    /// Variance over axes, which stay as dims of 1: `Σ(x − mean)² / n`, without Bessel's correction.
    ///
    /// # Panics
    /// As [`Tensor::mean`].
    #[track_caller]
    pub fn var_keepdim(&self, axes: &[isize]) -> Tensor {
        (self - self.mean_keepdim(axes)).square().mean_keepdim(axes)
    }

    /// Product over axes.
    ///
    /// # Panics
    /// As [`Tensor::sum`].
    #[track_caller]
    pub fn prod(&self, axes: &[isize]) -> Tensor {
        self.reduce(ReduceOp::Prod, axes).without("prod", axes)
    }

    /// Greatest over axes; NaN if any is. Gradient: to the first greatest.
    ///
    /// # Panics
    /// As [`Tensor::sum`].
    #[track_caller]
    pub fn amax(&self, axes: &[isize]) -> Tensor {
        self.amax_keepdim(axes).without("amax", axes)
    }

    /// Greatest over axes, which stay as dims of 1.
    ///
    /// # Panics
    /// As [`Tensor::sum`].
    #[track_caller]
    pub fn amax_keepdim(&self, axes: &[isize]) -> Tensor {
        self.reduce(ReduceOp::Max, axes)
    }

    /// Least over axes; NaN if any is. Gradient: to the first least.
    ///
    /// # Panics
    /// As [`Tensor::sum`].
    #[track_caller]
    pub fn amin(&self, axes: &[isize]) -> Tensor {
        self.reduce(ReduceOp::Min, axes).without("amin", axes)
    }

    /// Position of the first greatest along an axis, `i32`.
    ///
    /// # Panics
    /// If the axis is out of range.
    #[track_caller]
    pub fn argmax(&self, axis: isize) -> Tensor {
        self.reduce(ReduceOp::ArgMax, &[axis]).without("argmax", &[axis])
    }

    /// Position of the first least along an axis, `i32`.
    ///
    /// # Panics
    /// If the axis is out of range, or the dtype is unsigned: it has no negatives.
    #[track_caller]
    pub fn argmin(&self, axis: isize) -> Tensor {
        let signed = self.dtype().is_float() || self.dtype() == DType::I32;
        assert!(signed, "argmin: takes signed numbers, got {}{}", self.dtype(), self.shape());
        (-self).argmax(axis)
    }

    /// Summed over what was broadcast, back to a shape that broadcasts to this one's.
    #[track_caller]
    pub(crate) fn sum_to(&self, shape: &Shape) -> Tensor {
        if self.shape() == shape {
            return self.clone();
        }
        let new = self.rank() - shape.rank();
        let repeated = |&a: &usize| a < new || (shape[a - new] == 1 && self.dims()[a] != 1);
        let axes: Vec<isize> = (0..self.rank()).filter(repeated).map(|a| a as isize).collect();
        self.reduce(ReduceOp::Sum, &axes).reshape(shape)
    }

    /// How many elements of a `bool` tensor hold, a scalar `i32`.
    ///
    /// # Panics
    /// If the dtype is not `bool`.
    #[track_caller]
    pub fn count(&self) -> Tensor {
        assert!(self.dtype() == DType::Bool, "count: takes bool, got {}{}", self.dtype(), self.shape());
        self.cast(DType::I32).sum_all()
    }
}
