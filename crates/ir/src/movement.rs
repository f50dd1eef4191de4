//! Movement ops: the ways to look at a tensor differently. None of them ever executes.
//!
//! Each is a shape rule and an [`IndexMap`] from its output to its input; the inverse direction,
//! which gradients need, is again one of them.

use crate::{Axes, Bound, Index, IndexMap, Shape};

/// A view of one tensor, described by what changes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Movement {
    /// The same elements in row-major order under other dims.
    Reshape(Shape),
    /// Output axis `i` is input axis `perm[i]`.
    Permute(Axes),
    /// Dims of size 1 repeated; new axes come first.
    Expand(Shape),
    /// `len` elements of `axis` from `start`, every `step`-th.
    Slice {
        /// The axis that is cut.
        axis: usize,
        /// The first element kept.
        start: usize,
        /// How many are kept.
        len: usize,
        /// Distance between two kept elements.
        step: usize,
    },
    /// `axis` in reverse order.
    Flip(usize),
    /// Zeros around `axis`, and `interior` of them between any two elements.
    Pad {
        /// The axis that grows.
        axis: usize,
        /// Zeros before the first element.
        lo: usize,
        /// Zeros after the last element.
        hi: usize,
        /// Zeros between neighbours.
        interior: usize,
    },
    /// Overlapping windows: `axis` becomes `[count, size]`, `out[o, k] = in[o·stride + k·dilation]`.
    Window {
        /// The axis that is windowed.
        axis: usize,
        /// Elements in a window.
        size: usize,
        /// Distance between the starts of two windows.
        stride: usize,
        /// Distance between two elements of a window.
        dilation: usize,
    },
    /// The adjoint of [`Movement::Window`] before its sum over `k`: `[count, size]` at `axis` becomes
    /// `[len, size]`, `out[i, k] = in[(i − k·dilation) / stride, k]` where that is a whole number in
    /// range, else 0.
    Unwindow {
        /// The axis of the window count; the window's elements follow it.
        axis: usize,
        /// The dim of the axis that was windowed.
        len: usize,
        /// As in the window.
        stride: usize,
        /// As in the window.
        dilation: usize,
    },
    /// The adjoint of [`Movement::Unwindow`]: `out[o, k] = in[o·stride + k·dilation, k]`.
    Rewindow {
        /// The axis of the elements; the window's elements follow it.
        axis: usize,
        /// How many windows.
        count: usize,
        /// As in the window.
        stride: usize,
        /// As in the window.
        dilation: usize,
    },
}

impl Movement {
    /// The permutation that undoes another: output axis `perm[i]` is input axis `i`.
    ///
    /// ```
    /// assert_eq!(*kiln_ir::Movement::inverse(&[2, 0, 1]), [1, 2, 0]);
    /// ```
    pub fn inverse(perm: &[usize]) -> Axes {
        perm.iter().enumerate().fold(perm.into(), |inverse: Axes, (i, &p)| inverse.with(p, i))
    }

    /// The op's name in messages and dumps.
    pub fn name(&self) -> &'static str {
        match self {
            Movement::Reshape(_) => "reshape",
            Movement::Permute(_) => "permute",
            Movement::Expand(_) => "expand",
            Movement::Slice { .. } => "slice",
            Movement::Flip(_) => "flip",
            Movement::Pad { .. } => "pad",
            Movement::Window { .. } => "window",
            Movement::Unwindow { .. } => "unwindow",
            Movement::Rewindow { .. } => "rewindow",
        }
    }

    /// The output's shape, or the rule that the input breaks.
    pub fn shape(&self, x: &Shape) -> Result<Shape, String> {
        let rank = x.rank();
        let check_axis = |axis: usize| match axis < rank {
            true => Ok(()),
            false => Err(format!("axis {axis} out of range for rank {rank}")),
        };
        match self {
            Movement::Reshape(to) if to.numel() == x.numel() => Ok(*to),
            Movement::Reshape(to) => Err(format!("numel differs: {} ≠ {} of {to}", x.numel(), to.numel())),
            Movement::Permute(perm) => {
                let mut seen = [false; Shape::MAX_RANK];
                let is_new = |&p: &usize| p < rank && !std::mem::replace(&mut seen[p], true);
                match perm.len() == rank && perm.iter().all(is_new) {
                    true => Ok(perm.iter().enumerate().fold(*x, |out, (axis, &p)| out.with(axis, x[p]))),
                    false => Err(format!("{perm:?} is not a permutation of 0..{rank}")),
                }
            }
            Movement::Expand(to) => match x.broadcast(to) {
                Some(s) if s == *to => Ok(*to),
                _ => Err(format!("cannot expand to {to}")),
            },
            &Movement::Slice { axis, start, len, step } => {
                check_axis(axis)?;
                let end = if len == 0 { start } else { start + (len - 1) * step + 1 };
                match step > 0 && end <= x[axis] {
                    true => Ok(x.with(axis, len)),
                    false => {
                        Err(format!("{len} elements from {start} by step {step} exceed dim {} of axis {axis}", x[axis]))
                    }
                }
            }
            &Movement::Flip(axis) => check_axis(axis).map(|()| *x),
            &Movement::Pad { axis, lo, hi, interior } => {
                check_axis(axis)?;
                Ok(x.with(axis, lo + hi + x[axis] + x[axis].saturating_sub(1) * interior))
            }
            &Movement::Window { axis, size, stride, dilation } => {
                check_axis(axis)?;
                let span = (size.max(1) - 1) * dilation + 1;
                if size == 0 || stride == 0 || dilation == 0 || span > x[axis] {
                    return Err(format!(
                        "window of {size} (dilation {dilation}, stride {stride}) does not fit dim {} of axis {axis}",
                        x[axis]
                    ));
                }
                let mut dims = x.to_vec();
                dims[axis] = (x[axis] - span) / stride + 1;
                dims.insert(axis + 1, size);
                Ok(Shape::new(&dims))
            }
            &Movement::Unwindow { axis, len, .. } => check_axis(axis + 1).map(|()| x.with(axis, len)),
            &Movement::Rewindow { axis, count, .. } => check_axis(axis + 1).map(|()| x.with(axis, count)),
        }
    }

    /// The map from the output's coordinates to the input's.
    ///
    /// # Panics
    /// If [`Movement::shape`] refuses `x`.
    pub fn map(&self, x: &Shape) -> IndexMap {
        let out = self.shape(x).expect("the shape rule was checked when the view was recorded");
        let mut map = IndexMap::identity(&out);
        let signed = |n: usize| n as i64;
        match self {
            Movement::Reshape(_) => {
                let flat = map.flatten(&out);
                let strides = x.strides();
                map.coords = x
                    .iter()
                    .zip(strides)
                    .map(|(&d, s)| flat.div(signed(s), &out).modulo(signed(d.max(1)), &out))
                    .collect();
            }
            Movement::Permute(perm) => {
                let mut coords = vec![Index::default(); perm.len()];
                perm.iter().zip(map.coords).for_each(|(&p, c)| coords[p] = c);
                map.coords = coords;
            }
            Movement::Expand(_) => {
                map.coords.drain(..out.rank() - x.rank());
                x.iter().zip(&mut map.coords).filter(|(d, _)| **d == 1).for_each(|(_, c)| *c = Index::constant(0));
            }
            &Movement::Slice { axis, start, step, .. } => {
                map.coords[axis] = map.coords[axis].clone().scale(signed(step)).offset(signed(start));
            }
            &Movement::Flip(axis) => {
                map.coords[axis] = map.coords[axis].clone().scale(-1).offset(signed(out[axis].max(1)) - 1);
            }
            &Movement::Pad { axis, lo, interior, .. } => {
                let at = map.coords[axis].clone().offset(-signed(lo));
                let step = signed(interior) + 1;
                divide_exactly(&mut map, axis, at, step, x[axis], &out);
            }
            &Movement::Window { axis, stride, dilation, .. } => {
                let k = map.coords.remove(axis + 1).scale(signed(dilation));
                map.coords[axis] = map.coords[axis].clone().scale(signed(stride)).add(&k, &out);
            }
            &Movement::Unwindow { axis, stride, dilation, .. } => {
                let k = map.coords[axis + 1].clone().scale(-signed(dilation));
                let at = map.coords[axis].add(&k, &out);
                divide_exactly(&mut map, axis, at, signed(stride), x[axis], &out);
            }
            &Movement::Rewindow { axis, stride, dilation, .. } => {
                let k = map.coords[axis + 1].clone().scale(signed(dilation));
                map.coords[axis] = map.coords[axis].clone().scale(signed(stride)).add(&k, &out);
            }
        }
        map
    }
}

/// Sets `axis` to `at / step`, valid where `at` is a multiple of `step` and the quotient is in `0..dim`.
fn divide_exactly(map: &mut IndexMap, axis: usize, at: Index, step: i64, dim: usize, dims: &[usize]) {
    let mut require = |index: Index, lo: i64, hi: i64| {
        let (least, greatest) = index.range(dims);
        if least < lo || greatest >= hi {
            map.valid.push(Bound { index, lo, hi });
        }
    };
    require(at.clone(), 0, (dim as i64 - 1) * step + 1);
    require(at.modulo(step, dims), 0, 1);
    map.coords[axis] = at.div(step, dims);
    map.valid.sort();
}
