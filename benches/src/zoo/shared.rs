//! What several models of the zoo share: two layers with a GELU between them, images and their patches, parts of a tensor.

use kiln::prelude::*;

use crate::training::{Batch, classified};

/// Two affine layers with a GELU between them, on the last axis.
#[derive(Module)]
pub(super) struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    /// `dim` numbers, in between `hidden`, and `dim` again.
    pub(super) fn new(dim: usize, hidden: usize, device: &Device) -> FeedForward {
        FeedForward { up: Linear::new(dim, hidden, device), down: Linear::new(hidden, dim, device) }
    }

    /// `[.., dim]` → the same.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        self.down.forward(&self.up.forward(x).gelu())
    }
}

/// A convolution that turns each square patch of an image into `dim` numbers.
pub(super) fn patches(dim: usize, size: usize, device: &Device) -> Conv2d {
    Conv2d::new(3, dim, size, device).stride(size).without_bias()
}

/// `n` square images in three colours, each of one of ten classes.
pub(super) fn images(n: usize, size: usize, device: &Device) -> Batch {
    classified(&[n, 3, size, size], 10, device)
}

/// `N` equal parts of the last axis.
pub(super) fn parts<const N: usize>(x: &Tensor) -> [Tensor; N] {
    let width = x.dims()[x.rank() - 1] / N;
    std::array::from_fn(|n| x.slice(-1, n * width..(n + 1) * width))
}
