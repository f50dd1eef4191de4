//! Lookup tables.

use kiln_graph::{Device, Tensor};

use super::Layer;
use crate::{Module, Param};

/// A row of a table for each index: see [`Tensor::index_select`].
///
/// Parameters: `weight [n, d]`, normal with deviation 1.
/// Shapes: `[..]` of `i32` or `u32` → `[.., d]`.
#[derive(Module, Clone, Debug)]
#[module(crate = "crate")]
pub struct Embedding {
    /// `[n, d]`.
    pub weight: Param,
}

impl Embedding {
    /// A table of `n` rows of `dim` numbers.
    #[track_caller]
    pub fn new(n: usize, dim: usize, device: &Device) -> Embedding {
        Embedding { weight: Param::new(Tensor::randn(&[n, dim], device)) }
    }
}

impl Layer for Embedding {
    /// # Panics
    /// If the index is not of integers.
    #[track_caller]
    fn forward(&self, index: &Tensor) -> Tensor {
        self.weight.index_select(0, index)
    }
}
