//! Sorting, and the greatest few.

use kiln_ir::Op;
use kiln_ir::sort::{Part, Sort};

use super::axis_of;
use crate::Tensor;
use crate::record::record;

impl Tensor {
    #[track_caller]
    fn sorted(&self, part: Part, axis: isize, descending: bool) -> Tensor {
        let axis = axis_of("sort", axis, self.rank());
        record(Op::Sort(Sort { part, axis, descending, keep: self.dims()[axis] }), &[self])
    }

    /// The elements in order along an axis, and where each was.
    ///
    /// Shapes: both as this.
    /// Dtypes: any; positions `i32`.
    /// Gradient: the values'; back to where each was.
    /// Numerics: stable, so equals keep their order, descending too; NaN is greater than all numbers; both zeros are
    /// equal. The same on every device, to the bit.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let (values, positions) = Tensor::new(&[2.0f32, 3.0, 1.0, 2.0], &[4], &device)?.sort(0, false);
    /// assert_eq!(values.to_vec::<f32>()?, [1.0, 2.0, 2.0, 3.0]);
    /// assert_eq!(positions.to_vec::<i32>()?, [2, 0, 3, 1]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the axis is out of range.
    #[track_caller]
    pub fn sort(&self, axis: isize, descending: bool) -> (Tensor, Tensor) {
        (self.sorted(Part::Values, axis, descending), self.sorted(Part::Indices, axis, descending))
    }

    /// Where the elements were that [`Tensor::sort`] gives, `i32`.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let x = Tensor::new(&[2.0f32, 3.0, 1.0], &[3], &device)?;
    /// assert_eq!(x.argsort(0, true).to_vec::<i32>()?, [1, 0, 2]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// As [`Tensor::sort`].
    #[track_caller]
    pub fn argsort(&self, axis: isize, descending: bool) -> Tensor {
        self.sorted(Part::Indices, axis, descending)
    }

    /// The `k` greatest along an axis, or the least, in order, and where each was.
    ///
    /// Shapes: both as this, with `k` along the axis.
    /// Otherwise as [`Tensor::sort`], whose first `k` they are; of equals, the first ones. No others are sorted:
    /// the CPU tells them apart before, a GPU drops them on the way.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let (values, positions) = Tensor::new(&[2.0f32, 3.0, 1.0, 5.0], &[4], &device)?.topk(2, 0, true);
    /// assert_eq!(values.to_vec::<f32>()?, [5.0, 3.0]);
    /// assert_eq!(positions.to_vec::<i32>()?, [3, 1]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the axis is out of range, or has fewer than `k` elements.
    #[track_caller]
    pub fn topk(&self, k: usize, axis: isize, largest: bool) -> (Tensor, Tensor) {
        let axis = axis_of("topk", axis, self.rank());
        assert!(k <= self.dims()[axis], "topk: {k} of axis {axis} of {}{}", self.dtype(), self.shape());
        let part = |part| record(Op::Sort(Sort { part, axis, descending: largest, keep: k }), &[self]);
        (part(Part::Values), part(Part::Indices))
    }
}
