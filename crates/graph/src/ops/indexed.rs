//! Lookups by index, and their adjoint.

use kiln_ir::{Op, Shape};

use super::axis_of;
use crate::Tensor;
use crate::record::record;

impl Tensor {
    /// Slices of this along an axis, looked up: `out[.., i.., ..] = self[.., index[i..], ..]`.
    ///
    /// Shapes: the axis is replaced by the index's dims.
    /// Dtypes: any; the index `i32` or `u32`. An index out of range is clamped.
    /// Gradient: this; equal indices add up in order.
    ///
    /// # Panics
    /// If the axis is out of range or empty, or the index is not an integer.
    #[track_caller]
    pub fn index_select(&self, axis: isize, index: &Tensor) -> Tensor {
        let axis = axis_of("index_select", axis, self.rank());
        record(Op::Gather(axis), &[self, index])
    }

    /// Zeros of `size` along an axis, plus each slice of `values` at its index, added in order:
    /// `out[.., index[i..], ..] += values[.., i.., ..]`. This tensor is the index.
    ///
    /// # Panics
    /// If the values lack the index's dims at the axis.
    #[track_caller]
    pub fn scatter_add(&self, axis: usize, size: usize, values: &Tensor) -> Tensor {
        record(Op::Scatter { axis, size }, &[self, values])
    }

    /// 1 at each index along a new last axis, 0 elsewhere, `f32`.
    ///
    /// # Panics
    /// If this is not an `i32` tensor.
    #[track_caller]
    pub fn one_hot(&self, n_classes: usize) -> Tensor {
        self.is_class(n_classes).cast(kiln_ir::DType::F32)
    }

    /// Whether each class along a new last axis is the one that this `i32` tensor names.
    #[track_caller]
    pub(crate) fn is_class(&self, n_classes: usize) -> Tensor {
        let dims = [self.dims(), &[n_classes]].concat();
        let class = Tensor::iota(&dims, self.rank(), self.device());
        self.unsqueeze(self.rank()).eq(class)
    }

    /// Row-major position of every point of these dims, `u32`.
    #[track_caller]
    pub(crate) fn positions(dims: &[usize], device: &crate::Device) -> Tensor {
        let numel = Shape::new(dims).numel();
        Tensor::iota(&[numel], 0, device).cast(kiln_ir::DType::U32).reshape(dims)
    }
}
