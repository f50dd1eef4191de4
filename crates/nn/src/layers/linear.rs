//! The affine layer.

use kiln_graph::{Device, Tensor};

use super::{Layer, uniform_by_fan_in};
use crate::{Module, Param};

/// An affine map of the last axis, `y = x · Wᵀ + b`.
///
/// Parameters: `weight [out, in]`, `bias [out]`, both uniform in `±1/√in`.
/// Shapes: `[.., in]` → `[.., out]`.
#[derive(Module, Clone, Debug)]
#[module(crate = "crate")]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param,
    /// `[out]`.
    pub bias: Option<Param>,
}

impl Linear {
    /// A layer with a bias.
    #[track_caller]
    pub fn new(n_in: usize, n_out: usize, device: &Device) -> Linear {
        let bias = Some(uniform_by_fan_in(&[n_out], n_in, device));
        Linear { bias, ..Linear::without_bias(n_in, n_out, device) }
    }

    /// A layer without a bias.
    #[track_caller]
    pub fn without_bias(n_in: usize, n_out: usize, device: &Device) -> Linear {
        Linear { weight: uniform_by_fan_in(&[n_out, n_in], n_in, device), bias: None }
    }
}

impl Layer for Linear {
    /// # Panics
    /// If the last dim of the input is not the layer's.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(self.weight.tensor(), self.bias.as_ref().map(|bias| bias.tensor()))
    }
}
