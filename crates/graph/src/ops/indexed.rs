//! Lookups by index, and their adjoint.

use kiln_ir::expr::E;
use kiln_ir::{DType, Op, PointOp, Shape};

use super::{axis_of, map};
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

    /// Elements of this along an axis, each looked up for itself: `out[i, j, k] = self[i, index[i, j, k], k]` along
    /// axis 1.
    ///
    /// Shapes: the index's; it has this rank, and beside the axis no dim greater than this has.
    /// Dtypes: any; the index `i32` or `u32`. An index out of range is clamped.
    /// Gradient: this; equal indices add up in order.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &device)?;
    /// let index = Tensor::new(&[0i32, 0, 1, 0], &[2, 2], &device)?;
    /// assert_eq!(x.gather(1, &index).to_vec::<f32>()?, [1.0, 1.0, 4.0, 3.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the axis is out of range, or empty where the index is not, the dims do not fit, or the index is not an
    /// integer.
    #[track_caller]
    pub fn gather(&self, axis: isize, index: &Tensor) -> Tensor {
        let axis = axis_of("gather", axis, self.rank());
        let fits = |a: usize| a == axis || index.dims()[a] <= self.dims()[a];
        assert!(
            index.rank() == self.rank() && (0..self.rank()).all(fits) && index.dtype().is_int(),
            "gather: index {}{} does not fit {}{} along axis {axis}",
            index.dtype(),
            index.shape(),
            self.dtype(),
            self.shape()
        );
        if index.numel() == 0 {
            return Tensor::full(index.dims(), 0.0, self.dtype(), self.device());
        }
        let beside = (0..self.rank()).filter(|a| *a != axis);
        let table = beside.fold(self.clone(), |t, a| t.slice(a as isize, 0..index.dims()[a]));
        let places = index.places(axis, table.dims()[axis]);
        table.reshape(&[table.numel()]).index_select(0, &places)
    }

    /// The adjoint of [`Tensor::gather`]: zeros of these dims, plus each value where this tensor, the index, says
    /// along the axis.
    #[track_caller]
    pub(crate) fn add_along(&self, axis: usize, dims: &[usize], values: &Tensor) -> Tensor {
        let places = self.places(axis, dims[axis]);
        places.scatter_add(0, dims.iter().product(), values).reshape(dims)
    }

    /// Where in row-major order the elements lie that this index names along an axis of this size.
    #[track_caller]
    fn places(&self, axis: usize, size: usize) -> Tensor {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let rows = [numel(&self.dims()[..axis]), self.dims()[axis], numel(&self.dims()[axis + 1..])];
        let along = |a: usize| Tensor::iota(&rows, a, self.device());
        let clamped = E::op(PointOp::Min, &[&E::input(0), &E::lit(size as f64 - 1.0)]);
        let clamped = E::op(PointOp::Max, &[&clamped, &E::lit(0.0)]);
        let place = (E::input(1) * size as f64 + clamped) * rows[2] as f64 + E::input(2);
        let index = self.cast(DType::I32).reshape(&rows);
        map(&[&index, &along(0), &along(2)], &place).reshape(self.dims())
    }

    /// 1 at each index along a new last axis, 0 elsewhere, `f32`.
    ///
    /// # Panics
    /// If this is not an `i32` tensor.
    #[track_caller]
    pub fn one_hot(&self, n_classes: usize) -> Tensor {
        self.is_class(n_classes).cast(DType::F32)
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
        Tensor::iota(&[numel], 0, device).cast(DType::U32).reshape(dims)
    }
}
