//! Running reductions along an axis.

use kiln_ir::scan::Scan;
use kiln_ir::{DType, Op, ReduceOp};

use super::axis_of;
use crate::Tensor;
use crate::record::record;

impl Tensor {
    #[track_caller]
    fn scan(&self, op: ReduceOp, axis: isize) -> Tensor {
        let scan = Scan { op, axis: 0, reverse: false };
        let axis = axis_of(scan.name(), axis, self.rank());
        record(Op::Scan(Scan { axis, ..scan }), &[self])
    }

    /// Running sum along an axis, `out[i] = x[0] + … + x[i]`.
    ///
    /// Shapes: as this.
    /// Dtypes: floats, `i32` and `u32`, which wrap. The CPU sums `f32` and narrower floats in `f64`, a GPU in `f32`,
    /// where the rounding error grows with the number of tiles before an element, not with that of elements.
    /// Gradient: this; the running sum of the cotangent from the other end.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &device)?;
    /// assert_eq!(x.cumsum(-1).to_vec::<f32>()?, [1.0, 3.0, 3.0, 7.0]);
    /// assert_eq!(x.cumsum(0).to_vec::<f32>()?, [1.0, 2.0, 4.0, 6.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the axis is out of range, or the dtype is `u8` or `bool`.
    #[track_caller]
    pub fn cumsum(&self, axis: isize) -> Tensor {
        self.scan(ReduceOp::Sum, axis)
    }

    /// Running product along an axis, `out[i] = x[0] · … · x[i]`.
    ///
    /// Shapes: as this.
    /// Dtypes: as [`Tensor::cumsum`]. A GPU multiplies `f32` with an exponent of its own: no part of a product leaves the
    /// range that the whole stays in.
    /// Gradient: this, also where elements are 0; gradients of that gradient, only where none is.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[2.0f32, 3.0, 0.0, 5.0], &[4], &device)?;
    /// assert_eq!(x.cumprod(0).to_vec::<f32>()?, [2.0, 6.0, 0.0, 0.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// As [`Tensor::cumsum`].
    #[track_caller]
    pub fn cumprod(&self, axis: isize) -> Tensor {
        self.scan(ReduceOp::Prod, axis)
    }

    /// Greatest so far along an axis, and where it is: the last of equals, as in PyTorch.
    ///
    /// Shapes: both as this.
    /// Dtypes: values as [`Tensor::cumsum`]'s; positions `i32`.
    /// Gradient: the values'; to where each was found.
    /// Numerics: NaN from the first NaN on.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let (values, positions) = Tensor::new(&[1.0f32, 3.0, 2.0, 3.0], &[4], &device)?.cummax(0);
    /// assert_eq!(values.to_vec::<f32>()?, [1.0, 3.0, 3.0, 3.0]);
    /// assert_eq!(positions.to_vec::<i32>()?, [0, 1, 1, 3]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// As [`Tensor::cumsum`].
    #[track_caller]
    pub fn cummax(&self, axis: isize) -> (Tensor, Tensor) {
        self.running_extreme(ReduceOp::Max, axis)
    }

    /// Least so far along an axis, and where it is: the last of equals, as in PyTorch.
    ///
    /// Otherwise as [`Tensor::cummax`].
    ///
    /// # Panics
    /// As [`Tensor::cumsum`].
    #[track_caller]
    pub fn cummin(&self, axis: isize) -> (Tensor, Tensor) {
        self.running_extreme(ReduceOp::Min, axis)
    }

    #[track_caller]
    fn running_extreme(&self, op: ReduceOp, axis: isize) -> (Tensor, Tensor) {
        let values = self.scan(op, axis);
        let axis = axis_of(op.name(), axis, self.rank());
        let positions = self.reached(&values, Scan { op, axis, reverse: false });
        (values, positions)
    }

    /// Where each of the running extremes of this was found: the nearest element that is it, or the nearest NaN.
    #[track_caller]
    pub(crate) fn reached(&self, values: &Tensor, scan: Scan) -> Tensor {
        let at = Tensor::iota(self.dims(), scan.axis, self.device());
        let mut is_it = self.eq(values);
        if self.dtype().is_float() {
            is_it = is_it.logical_or(self.is_nan());
        }
        let (nearest, none) = match scan.reverse {
            false => (ReduceOp::Max, 0),
            true => (ReduceOp::Min, self.dims()[scan.axis].saturating_sub(1)),
        };
        let none = Tensor::full(&[], none as f64, DType::I32, self.device());
        record(Op::Scan(Scan { op: nearest, ..scan }), &[&is_it.select(&at, &none)])
    }
}
