//! Images with the zeros around them that windows see.
//!
//! A bound is on a value that is a sum over axes, a row of an image, say: an output's row plus a window's. If the address
//! grows by the same for each unit of that value, whichever axis it comes from, all that the axes do to it is to
//! choose a value; a copy that has every value they choose needs no bounds any more.

use bytemuck::Pod;
use kiln_ir::{Bound, Index};

use super::runs::{Axis, address};
use crate::memory::View;
use crate::task::for_each;

/// How to copy an argument so that an operand needs no bounds.
#[derive(Debug)]
pub(super) struct Padded {
    /// The address where all values and coordinates are 0.
    base: i64,
    /// What is not bounded: batches and channels.
    free: Vec<Axis>,
    /// By stride, the greatest first.
    values: Vec<Value>,
}

/// One bounded value.
#[derive(Debug, Clone)]
struct Value {
    /// What a unit of it adds to an address.
    stride: i64,
    /// The least that axes choose, and how many from there on.
    least: i64,
    n: usize,
    /// Those that exist, counted from the least.
    live: std::ops::Range<usize>,
}

impl Padded {
    /// For an address over `dims` that is 0 where a bound fails; and its strides in the copy.
    pub(super) fn new(index: &Index, valid: &[Bound], dims: &[usize]) -> Option<(Padded, Vec<i64>)> {
        let rank = dims.len();
        let of_address = index.affine(rank)?;
        let shares: Vec<Vec<i64>> = valid.iter().map(|b| b.index.affine(rank)).collect::<Option<_>>()?;
        let owner = |axis: usize| -> Option<Option<usize>> {
            let mut owners = (0..valid.len()).filter(|&b| shares[b][axis] != 0);
            let owner = owners.next();
            owners.next().is_none().then_some(owner)
        };
        let owners: Vec<Option<usize>> =
            (0..rank).map(|axis| if dims[axis] == 1 { Some(None) } else { owner(axis) }).collect::<Option<_>>()?;
        let mut base = index.constant;
        let mut values = Vec::with_capacity(valid.len());
        for (b, bound) in valid.iter().enumerate() {
            let mut own = (0..rank).filter(|&a| owners[a] == Some(b));
            let first = own.next()?;
            let stride = of_address[first] / shares[b][first];
            let even = |a: usize| of_address[a] == stride * shares[b][a];
            if stride <= 0 || !even(first) || !own.all(even) {
                return None;
            }
            let (least, most) = bound.index.range(dims);
            let n = (most - least + 1) as usize;
            let within = |v: i64| (v - least).clamp(0, n as i64) as usize;
            base -= stride * bound.index.constant;
            values
                .push((b, Value { stride, least, n, live: within(bound.lo)..within(bound.hi).max(within(bound.lo)) }));
        }
        values.sort_by_key(|(_, v)| std::cmp::Reverse(v.stride));
        let image: usize = values.iter().map(|(_, v)| v.n).product();
        // Row-major: what is free in its own order, then the values.
        let mut strides = vec![0; rank];
        let mut free = Vec::new();
        let mut step = image;
        for axis in (0..rank).rev().filter(|&a| dims[a] != 1 && owners[a].is_none() && of_address[a] != 0) {
            strides[axis] = step as i64;
            step = step.checked_mul(dims[axis])?;
            free.insert(0, (dims[axis], of_address[axis]));
        }
        let mut step = 1;
        for (b, value) in values.iter().rev() {
            for axis in (0..rank).filter(|&a| owners[a] == Some(*b)) {
                strides[axis] = step as i64 * shares[*b][axis];
            }
            step *= value.n;
        }
        let padded = Padded { base, free, values: values.into_iter().map(|(_, v)| v).collect() };
        Some((padded, strides))
    }

    /// Elements of the copy.
    pub(super) fn len(&self) -> usize {
        self.n_free() * self.image()
    }

    fn n_free(&self) -> usize {
        self.free.iter().map(|a| a.0).product()
    }

    fn image(&self) -> usize {
        self.values.iter().map(|v| v.n).product()
    }

    /// Copies an argument.
    pub(super) fn fill<T: Pod + Send + Sync>(&self, src: View, out: View, parallel: bool) {
        let (n, image) = (self.n_free(), self.image());
        let least: i64 = self.values.iter().map(|v| v.stride * v.least).sum();
        for_each(
            parallel,
            n,
            2 * image,
            || (),
            |(), i| {
                // SAFETY: each task writes an image of its own.
                let out = unsafe { out.slice_mut::<T>(i * image, image) };
                fill(src, self.base + least + address(&self.free, i), &self.values, out);
            },
        );
    }
}

/// Copies one image, from the address of its least values on.
fn fill<T: Pod>(src: View, at: i64, values: &[Value], out: &mut [T]) {
    let Some((value, inner)) = values.split_first() else {
        out[0] = src.get(at as usize);
        return;
    };
    let width: usize = inner.iter().map(|v| v.n).product();
    let (before, rest) = out.split_at_mut(value.live.start * width);
    let (live, after) = rest.split_at_mut(value.live.len() * width);
    before.fill(T::zeroed());
    after.fill(T::zeroed());
    let at = at + value.stride * value.live.start as i64;
    if inner.is_empty() && value.stride == 1 {
        if !live.is_empty() {
            live.copy_from_slice(src.slice(at as usize, live.len()));
        }
        return;
    }
    for (i, out) in live.chunks_exact_mut(width.max(1)).enumerate() {
        fill(src, at + value.stride * i as i64, inner, out);
    }
}
