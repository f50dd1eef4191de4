//! The convolution layer.

use kiln_graph::{Conv2dOptions, Device, Tensor};

use super::{Layer, uniform_by_fan_in};
use crate::{Module, Param};

/// Two-dimensional convolution: see [`Tensor::conv2d`].
///
/// Parameters: `weight [out, in / groups, k, k]`, `bias [out]`, both uniform in `±1/√(in / groups · k²)`.
/// Shapes: `[n, in, h, w]` → `[n, out, h', w']`.
#[derive(Module, Clone, Debug)]
#[module(crate = "crate")]
pub struct Conv2d {
    /// `[out, in / groups, k, k]`.
    pub weight: Param,
    /// `[out]`.
    pub bias: Option<Param>,
    options: Conv2dOptions,
}

impl Conv2d {
    /// Square windows of `size` with a bias; stride 1, no padding.
    #[track_caller]
    pub fn new(n_in: usize, n_out: usize, size: usize, device: &Device) -> Conv2d {
        Conv2d::with_options(n_in, n_out, [size; 2], Conv2dOptions::default(), device)
    }

    /// Windows of any form.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    #[track_caller]
    pub fn with_options(
        n_in: usize,
        n_out: usize,
        size: [usize; 2],
        options: Conv2dOptions,
        device: &Device,
    ) -> Conv2d {
        let groups = options.groups;
        assert!(
            groups > 0 && n_in.is_multiple_of(groups) && n_out.is_multiple_of(groups),
            "conv2d: {groups} groups do not divide {n_in} and {n_out} channels"
        );
        let fan_in = n_in / groups * size[0] * size[1];
        let weight = uniform_by_fan_in(&[n_out, n_in / groups, size[0], size[1]], fan_in, device);
        Conv2d { weight, bias: Some(uniform_by_fan_in(&[n_out], fan_in, device)), options }
    }

    /// The same layer with this many zeros on each side.
    pub fn padding(mut self, padding: usize) -> Conv2d {
        self.options.padding = [padding; 2];
        self
    }

    /// The same layer with windows this far apart.
    pub fn stride(mut self, stride: usize) -> Conv2d {
        self.options.stride = [stride; 2];
        self
    }

    /// The same layer without a bias.
    pub fn without_bias(self) -> Conv2d {
        Conv2d { bias: None, ..self }
    }
}

impl Layer for Conv2d {
    /// # Panics
    /// As [`Tensor::conv2d`].
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let out = x.conv2d(&self.weight, self.options);
        match &self.bias {
            Some(bias) => out + bias.reshape(&[bias.numel(), 1, 1]),
            None => out,
        }
    }
}
