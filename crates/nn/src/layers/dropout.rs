//! Dropout.

use kiln_graph::Tensor;

use super::Layer;
use crate::{Mode, Module};

/// In training, each element is 0 with probability `p`, else divided by `1 − p`; otherwise nothing.
///
/// The mask comes from this thread's generator and is the same on every device.
///
/// Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
#[derive(Module, Clone, Debug)]
#[module(crate = "crate")]
pub struct Dropout {
    p: f64,
    mode: Mode,
}

impl Dropout {
    /// With this probability.
    ///
    /// # Panics
    /// If it is not in `0..1`.
    #[track_caller]
    pub fn new(p: f64) -> Dropout {
        assert!((0.0..1.0).contains(&p), "dropout: probability {p}");
        Dropout { p, mode: Mode::default() }
    }
}

impl Layer for Dropout {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        if !self.mode.is_training() || self.p == 0.0 {
            return x.clone();
        }
        let kept = Tensor::bernoulli(x.dims(), 1.0 - self.p, x.device());
        let zero = Tensor::full(&[], 0.0, x.dtype(), x.device());
        kept.select(&(x * (1.0 / (1.0 - self.p))), &zero)
    }
}
