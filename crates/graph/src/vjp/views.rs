//! The rules of views: what was moved goes back.
//!
//! Sums over windows that follow each other, as an image's two axes have, are made at once.

use kiln_ir::{Movement, Op, ReduceOp};

use crate::Tensor;
use crate::node::Source;

/// The cotangent of what was moved.
#[track_caller]
pub(super) fn view(movement: &Movement, x: &Tensor, g: &Tensor) -> Tensor {
    match movement {
        Movement::Reshape(_) => g.reshape(x.dims()),
        Movement::Permute(perm) => g.permute(&Movement::inverse(perm)),
        Movement::Expand(_) => g.sum_to(x.shape()),
        &Movement::Slice { axis, len: 0, .. } => {
            debug_assert!(axis < x.rank());
            Tensor::full(x.dims(), 0.0, x.dtype(), x.device())
        }
        &Movement::Slice { axis, start, len, step } => {
            let hi = x.dims()[axis] - (start + (len - 1) * step + 1);
            g.view(Movement::Pad { axis, lo: start, hi, interior: step - 1 })
        }
        &Movement::Flip(axis) => g.view(Movement::Flip(axis)),
        &Movement::Pad { axis, lo, interior, .. } => {
            let cut = |axis, len| Movement::Slice { axis, start: lo, len, step: interior + 1 };
            let len = x.dims()[axis];
            // What windows saw of the padding is not summed.
            match behind_sum(g) {
                Some(of) => of.sum_of(&of.spread.view(cut(of.place(axis), len)), &[]),
                None => g.view(cut(axis, len)),
            }
        }
        &Movement::Window { axis, stride, dilation, .. } => {
            let len = x.dims()[axis];
            let spread = |g: &Tensor, axis| g.view(Movement::Unwindow { axis, len, stride, dilation });
            // Windows of windows, as of an image, are summed over at once.
            match behind_sum(g).filter(|of| of.place(axis + 1) == of.place(axis) + 1) {
                Some(of) => of.sum_of(&spread(&of.spread, of.place(axis)), &[of.place(axis + 1)]),
                None => spread(g, axis).sum(&[axis as isize + 1]),
            }
        }
        &Movement::Unwindow { axis, stride, dilation, .. } => {
            g.view(Movement::Rewindow { axis, count: x.dims()[axis], stride, dilation })
        }
        &Movement::Rewindow { axis, stride, dilation, .. } => {
            g.view(Movement::Unwindow { axis, len: x.dims()[axis], stride, dilation })
        }
    }
}

/// A sum over windows that were spread.
struct WindowSum {
    /// What is summed.
    spread: Tensor,
    /// In order.
    axes: Vec<usize>,
}

impl WindowSum {
    /// The axis of what is summed that an axis of the sum is.
    fn place(&self, axis: usize) -> usize {
        self.axes.iter().fold(axis, |axis, &summed| axis + usize::from(summed <= axis))
    }

    /// The same sum of something else, over more axes.
    #[track_caller]
    fn sum_of(&self, spread: &Tensor, more: &[usize]) -> Tensor {
        let axes: Vec<isize> = self.axes.iter().chain(more).map(|&axis| axis as isize).collect();
        spread.sum(&axes)
    }
}

/// The sum that a cotangent is, if it is one over windows that were spread.
fn behind_sum(g: &Tensor) -> Option<WindowSum> {
    let Source::Op(Op::View(Movement::Reshape(_))) = &g.node().source else { return None };
    let sum = g.node().books().inputs.first().cloned()?;
    let Source::Op(Op::Reduce(ReduceOp::Sum, axes)) = &sum.source else { return None };
    let kept: Vec<usize> = (0..sum.shape.rank()).filter(|a| !axes.contains(a)).map(|a| sum.shape[a]).collect();
    let spread = sum.books().inputs.first().cloned().filter(|_| kept == g.dims())?;
    let mut axes = axes.to_vec();
    axes.sort_unstable();
    let mut base = spread.clone();
    while let Source::Op(Op::View(view)) = &base.source {
        match view {
            Movement::Unwindow { .. } => return Some(WindowSum { spread: Tensor::from_node(spread), axes }),
            Movement::Slice { .. } => {}
            _ => return None,
        }
        let next = base.books().inputs.first().cloned()?;
        base = next;
    }
    None
}
