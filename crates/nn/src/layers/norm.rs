//! Normalisation: over the features of a sample, or over a batch.

use kiln_graph::{Device, Tensor};

use super::Layer;
use crate::{Mode, Module, Param, State};

/// `(x − mean) / √(var + eps) · weight + bias` over the last axis.
///
/// Parameters: `weight [d]` of ones, `bias [d]` of zeros. Default: eps = 1e-5.
///
/// Ba et al. 2016, <https://arxiv.org/abs/1607.06450>, eq. 4.
#[derive(Module, Clone, Debug)]
#[module(crate = "crate")]
pub struct LayerNorm {
    /// `[d]`.
    pub weight: Param,
    /// `[d]`.
    pub bias: Param,
    eps: f64,
}

impl LayerNorm {
    /// Over a last axis of this dim.
    #[track_caller]
    pub fn new(dim: usize, device: &Device) -> LayerNorm {
        let [weight, bias] = affine(dim, device);
        LayerNorm { weight, bias, eps: 1e-5 }
    }

    /// The same layer with another `eps`.
    pub fn eps(self, eps: f64) -> LayerNorm {
        LayerNorm { eps, ..self }
    }
}

impl Layer for LayerNorm {
    /// # Panics
    /// If the last dim is not the layer's.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let found = x.dims().last();
        assert!(
            found == Some(&self.weight.numel()),
            "layer_norm: input {}{}, weight {}",
            x.dtype(),
            x.shape(),
            self.weight.shape()
        );
        x.normalize(self.eps) * self.weight.tensor() + self.bias.tensor()
    }
}

/// `(x − mean) / √(var + eps) · weight + bias` per channel of `[n, c, h, w]`.
///
/// In training, mean and variance are those of the batch, and the running ones follow:
/// `running ← (1 − momentum) · running + momentum · batch`, the variance with Bessel's correction.
/// Otherwise the running ones are used.
///
/// Parameters: `weight [c]` of ones, `bias [c]` of zeros. States: `running_mean [c]` of zeros,
/// `running_var [c]` of ones. Defaults: eps = 1e-5, momentum = 0.1.
///
/// Ioffe and Szegedy 2015, <https://arxiv.org/abs/1502.03167>, algorithm 1.
#[derive(Module, Clone, Debug)]
#[module(crate = "crate")]
pub struct BatchNorm2d {
    /// `[c]`.
    pub weight: Param,
    /// `[c]`.
    pub bias: Param,
    /// `[c]`.
    pub running_mean: State,
    /// `[c]`.
    pub running_var: State,
    eps: f64,
    momentum: f64,
    mode: Mode,
}

impl BatchNorm2d {
    /// Over this many channels.
    #[track_caller]
    pub fn new(n_channels: usize, device: &Device) -> BatchNorm2d {
        let [weight, bias] = affine(n_channels, device);
        let state = |value: f64| State::new(Tensor::full(&[n_channels], value, weight.dtype(), device).detach());
        let (running_mean, running_var) = (state(0.0), state(1.0));
        BatchNorm2d { weight, bias, running_mean, running_var, eps: 1e-5, momentum: 0.1, mode: Mode::default() }
    }

    /// The same layer with another share of the batch in the running statistics.
    pub fn momentum(self, momentum: f64) -> BatchNorm2d {
        BatchNorm2d { momentum, ..self }
    }

    #[track_caller]
    fn follow(&self, running: &State, batch: &Tensor) {
        let batch = batch.detach().flatten(0);
        running.set(running.get() * (1.0 - self.momentum) + batch * self.momentum);
    }
}

impl Layer for BatchNorm2d {
    /// # Panics
    /// If the rank is not 4, or the channels are not the layer's.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let n_channels = self.weight.numel();
        assert!(
            x.rank() == 4 && x.dims()[1] == n_channels,
            "batch_norm2d: input {}{}, {n_channels} channels",
            x.dtype(),
            x.shape()
        );
        let channels = |t: &Tensor| t.reshape(&[n_channels, 1, 1]);
        if self.mode.is_training() {
            let [normal, mean, var] = x.normalize_over(&[0, 2, 3], self.eps);
            let n = (x.numel() / n_channels.max(1)) as f64;
            self.follow(&self.running_mean, &mean);
            self.follow(&self.running_var, &(&var * (n / (n - 1.0).max(1.0))));
            return normal * channels(&self.weight) + channels(&self.bias);
        }
        let [mean, var] = [&self.running_mean, &self.running_var].map(|running| channels(&running.get()));
        let scale = (var + self.eps).rsqrt() * channels(&self.weight);
        (x - mean) * scale + channels(&self.bias)
    }
}

/// Weight one and bias zero, in memory so that an optimizer updates them in place from the first step on.
#[track_caller]
fn affine(dim: usize, device: &Device) -> [Param; 2] {
    [Tensor::ones(&[dim], device), Tensor::zeros(&[dim], device)].map(|t| Param::new(t.detach()))
}
