//! Stochastic gradient descent, with momentum if asked for.

use kiln_graph::Tensor;

use super::{Optimizer, Rule};
use crate::{Module, Schedule};

/// Gradient descent with momentum:
///
/// ```text
/// g ← g + λ p          b ← μ b + g          p ← p − lr · b      (Nesterov: p ← p − lr · (g + μ b))
/// ```
///
/// Defaults: μ = 0 (then no buffer is kept), λ = 0, no Nesterov.
///
/// ```
/// # use kiln_graph::{Device, Tensor};
/// use kiln_nn::{Backward, Layer, Linear, Sgd};
/// # let device = Device::new(kiln_cpu::CpuBackend::new());
/// let mut model = Linear::new(1, 1, &device);
/// let mut opt = Sgd::new(0.5).build(&model);
/// let before = model.bias.as_ref().unwrap().item()?;
/// let grads = model.forward(&Tensor::ones(&[1, 1], &device)).sum_all().backward(&model);
/// opt.step(&mut model, grads)?;
/// assert!((before - model.bias.as_ref().unwrap().item()? - 0.5).abs() < 1e-6);
/// # Ok::<(), kiln_ir::Error>(())
/// ```
///
/// Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", in PyTorch's form.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sgd {
    schedule: Schedule,
    momentum: f64,
    weight_decay: f64,
    nesterov: bool,
}

impl Sgd {
    /// With this learning rate or schedule.
    pub fn new(lr: impl Into<Schedule>) -> Sgd {
        Sgd { schedule: lr.into(), momentum: 0.0, weight_decay: 0.0, nesterov: false }
    }

    /// μ, how much of the last step is done again.
    pub fn momentum(self, momentum: f64) -> Sgd {
        Sgd { momentum, ..self }
    }

    /// λ, of which the parameter's share is added to the gradient.
    pub fn weight_decay(self, weight_decay: f64) -> Sgd {
        Sgd { weight_decay, ..self }
    }

    /// Looks ahead by one momentum step.
    pub fn nesterov(self) -> Sgd {
        Sgd { nesterov: true, ..self }
    }

    /// The optimizer of a model.
    pub fn build<M: Module + ?Sized>(self, model: &M) -> Optimizer<Sgd> {
        Optimizer::new(self, self.schedule, model)
    }
}

impl Rule for Sgd {
    fn slots(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    fn numbers(&self, lr: f64, _: u64) -> Vec<f64> {
        vec![lr, self.momentum, self.weight_decay]
    }

    fn update(&self, numbers: &[Tensor], param: &Tensor, grad: &Tensor, slots: &mut [Tensor]) -> Tensor {
        let [lr, momentum, weight_decay] = numbers else { unreachable!("`numbers` says how many there are") };
        let grad = if self.weight_decay == 0.0 { grad.clone() } else { grad + param * weight_decay };
        let Some(buffer) = slots.first_mut() else { return param - grad * lr };
        *buffer = &*buffer * momentum + &grad;
        match self.nesterov {
            true => param - (grad + &*buffer * momentum) * lr,
            false => param - &*buffer * lr,
        }
    }
}
