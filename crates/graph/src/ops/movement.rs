//! Views: other ways to look at the same elements. Nothing is copied, now or later.

use std::ops::Range;

use kiln_ir::{Axes, DType, Movement, Op, Shape};

use crate::Tensor;
use crate::record::record;

/// The axis that a possibly negative number names; -1 is the last.
#[track_caller]
pub(crate) fn axis_of(op: &str, axis: isize, rank: usize) -> usize {
    let at = if axis < 0 { axis + rank as isize } else { axis };
    assert!((0..rank as isize).contains(&at), "{op}: axis {axis} out of range for rank {rank}");
    at as usize
}

impl Tensor {
    #[track_caller]
    pub(crate) fn view(&self, movement: Movement) -> Tensor {
        record(Op::View(movement), &[self])
    }

    /// The same elements in row-major order under other dims.
    ///
    /// # Panics
    /// If the number of elements differs.
    #[track_caller]
    pub fn reshape(&self, dims: &[usize]) -> Tensor {
        match dims == self.dims() {
            true => self.clone(),
            false => self.view(Movement::Reshape(Shape::new(dims))),
        }
    }

    /// Axes `from..` merged into one.
    ///
    /// # Panics
    /// If there is no axis `from`.
    #[track_caller]
    pub fn flatten(&self, from: usize) -> Tensor {
        assert!(from < self.rank(), "flatten: axis {from} out of range for rank {}", self.rank());
        let rest = self.dims()[from..].iter().product();
        self.reshape(&[&self.dims()[..from], &[rest]].concat())
    }

    /// Axis `i` of the result is axis `perm[i]` of this.
    ///
    /// # Panics
    /// If `perm` is not a permutation of the axes.
    #[track_caller]
    pub fn permute(&self, perm: &[usize]) -> Tensor {
        let rank = self.rank();
        assert!(
            perm.len() == rank,
            "permute: {perm:?} is not a permutation of 0..{rank}: input {}{}",
            self.dtype(),
            self.shape()
        );
        match perm.iter().copied().eq(0..rank) {
            true => self.clone(),
            false => self.view(Movement::Permute(Axes::new(perm))),
        }
    }

    /// Two axes exchanged; negative ones count from the end.
    ///
    /// # Panics
    /// If an axis is out of range.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        let (a, b) = (axis_of("transpose", a, self.rank()), axis_of("transpose", b, self.rank()));
        if a == b {
            return self.clone();
        }
        let axes: Axes = (0..self.rank()).collect();
        self.view(Movement::Permute(axes.with(a, b).with(b, a)))
    }

    /// The last two axes exchanged.
    ///
    /// # Panics
    /// If there are fewer than two.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        self.transpose(-2, -1)
    }

    /// Dims of 1 repeated, and new axes in front, to reach these dims.
    ///
    /// # Panics
    /// If the dims do not broadcast to these.
    #[track_caller]
    pub fn expand(&self, dims: &[usize]) -> Tensor {
        match dims == self.dims() {
            true => self.clone(),
            false => self.view(Movement::Expand(Shape::new(dims))),
        }
    }

    /// The elements in `range` along an axis.
    ///
    /// # Panics
    /// If the axis or the range is out of bounds.
    #[track_caller]
    pub fn slice(&self, axis: isize, range: Range<usize>) -> Tensor {
        self.slice_step(axis, range, 1)
    }

    /// Every `step`-th element in `range` along an axis.
    ///
    /// # Panics
    /// If the axis or the range is out of bounds, or `step` is 0.
    #[track_caller]
    pub fn slice_step(&self, axis: isize, range: Range<usize>, step: usize) -> Tensor {
        let axis = axis_of("slice", axis, self.rank());
        assert!(step > 0, "slice: step is 0");
        assert!(
            range.start <= range.end && range.end <= self.dims()[axis],
            "slice: {range:?} out of bounds for axis {axis} of {}{}",
            self.dtype(),
            self.shape()
        );
        match (range.start, range.len(), step) {
            (0, len, 1) if len == self.dims()[axis] => self.clone(),
            (start, len, step) => self.view(Movement::Slice { axis, start, len: len.div_ceil(step), step }),
        }
    }

    /// An axis in reverse order.
    ///
    /// # Panics
    /// If the axis is out of range.
    #[track_caller]
    pub fn flip(&self, axis: isize) -> Tensor {
        self.view(Movement::Flip(axis_of("flip", axis, self.rank())))
    }

    /// Zeros before and after an axis.
    ///
    /// # Panics
    /// If the axis is out of range.
    #[track_caller]
    pub fn pad(&self, axis: isize, lo: usize, hi: usize) -> Tensor {
        let axis = axis_of("pad", axis, self.rank());
        match (lo, hi) {
            (0, 0) => self.clone(),
            _ => self.view(Movement::Pad { axis, lo, hi, interior: 0 }),
        }
    }

    /// A new axis of dim 1 at this place.
    ///
    /// # Panics
    /// If `axis` is greater than the rank.
    #[track_caller]
    pub fn unsqueeze(&self, axis: usize) -> Tensor {
        assert!(axis <= self.rank(), "unsqueeze: axis {axis} out of range for rank {}", self.rank());
        self.reshape(&[&self.dims()[..axis], &[1], &self.dims()[axis..]].concat())
    }

    /// Without an axis of dim 1.
    ///
    /// # Panics
    /// If the axis is out of range or its dim is not 1.
    #[track_caller]
    pub fn squeeze(&self, axis: isize) -> Tensor {
        let axis = axis_of("squeeze", axis, self.rank());
        assert!(self.dims()[axis] == 1, "squeeze: axis {axis} of {}{} is not 1", self.dtype(), self.shape());
        self.reshape(&[&self.dims()[..axis], &self.dims()[axis + 1..]].concat())
    }

    /// Overlapping windows along an axis, which becomes `[count, size]`:
    /// `out[o, k] = in[o·stride + k·dilation]`.
    ///
    /// # Panics
    /// If the axis is out of range, or no window fits.
    #[track_caller]
    pub fn unfold(&self, axis: isize, size: usize, stride: usize, dilation: usize) -> Tensor {
        let axis = axis_of("unfold", axis, self.rank());
        let dim = self.dims()[axis];
        // Windows side by side are a reshape, whose gradient needs no sum.
        if stride == size && dilation == 1 && (1..=dim).contains(&size) {
            let count = dim / size;
            let whole = self.slice(axis as isize, 0..count * size);
            return whole.reshape(&[&self.dims()[..axis], &[count, size], &self.dims()[axis + 1..]].concat());
        }
        self.view(Movement::Window { axis, size, stride, dilation })
    }

    /// Tensors side by side along an axis.
    ///
    /// # Panics
    /// If there is none, or they differ in dtype or in another dim.
    #[track_caller]
    pub fn cat(tensors: &[&Tensor], axis: isize) -> Tensor {
        assert!(!tensors.is_empty(), "cat: of no tensors");
        let axis = axis_of("cat", axis, tensors[0].rank());
        let other = tensors.iter().find(|t| t.rank() != tensors[0].rank());
        assert!(
            other.is_none(),
            "cat: ranks differ: {} and {}",
            tensors[0].shape(),
            other.unwrap_or(&tensors[0]).shape()
        );
        let whole: usize = tensors.iter().map(|t| t.dims()[axis]).sum();
        let dims = tensors[0].shape().with(axis, whole);
        let place = tensors[0].device();
        let mut at = 0;
        let mut joined: Option<Tensor> = None;
        for t in tensors {
            assert!(
                t.dtype() == tensors[0].dtype() && t.shape().with(axis, whole) == dims,
                "cat: {}{} beside {}{} along axis {axis}",
                tensors[0].dtype(),
                tensors[0].shape(),
                t.dtype(),
                t.shape()
            );
            let n = t.dims()[axis];
            let spread = t.pad(axis as isize, at, whole - at - n);
            joined = Some(match joined {
                None => spread,
                Some(before) => {
                    let there = Tensor::full(&t.shape().with(axis, at), 1.0, DType::Bool, place);
                    there.pad(axis as isize, 0, whole - at).select(&before, &spread)
                }
            });
            at += n;
        }
        joined.expect("there is at least one")
    }

    /// Tensors of equal dims along a new first axis.
    ///
    /// # Panics
    /// As [`Tensor::cat`].
    #[track_caller]
    pub fn stack(tensors: &[&Tensor]) -> Tensor {
        let rows: Vec<Tensor> = tensors.iter().map(|t| t.unsqueeze(0)).collect();
        Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)
    }
}
