//! AdamW: moments of the gradient, and weight decay beside them.

use std::sync::{Arc, LazyLock};

use kiln_graph::Tensor;
use kiln_ir::expr::E;
use kiln_ir::{Expr, PointOp};

use super::{Optimizer, Rule};
use crate::{Module, Schedule};

/// `m · β₁ + g · (1 − β₁)`.
static FIRST: LazyLock<Arc<Expr>> = LazyLock::new(|| {
    let [m, g, beta, rest] = [0, 1, 2, 3].map(E::input);
    (m * beta + g * rest).build().into()
});

/// `v · β₂ + g² · (1 − β₂)`.
static SECOND: LazyLock<Arc<Expr>> = LazyLock::new(|| {
    let [v, g, beta, rest] = [0, 1, 2, 3].map(E::input);
    (v * beta + &g * &g * rest).build().into()
});

/// The parameter's next value; see [`AdamW`].
static NEXT: LazyLock<Arc<Expr>> = LazyLock::new(|| {
    let [p, m, v, keep, step, correction, eps] = [0, 1, 2, 3, 4, 5, 6].map(E::input);
    (p * keep - m * step / (v.map(PointOp::Sqrt) * correction + eps)).build().into()
});

/// AdamW, with weight decay apart from the gradient:
///
/// ```text
/// m ← β₁ m + (1 − β₁) g          p ← (1 − lr · λ) p
/// v ← β₂ v + (1 − β₂) g²         p ← p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
/// ```
///
/// Defaults: β = (0.9, 0.999), ε = 1e-8, λ = 0.01.
///
/// ```
/// # use kiln_graph::{Device, Tensor};
/// use kiln_nn::{AdamW, Backward, Layer, Linear};
/// # let device = Device::new(kiln_cpu::CpuBackend::new());
/// let mut model = Linear::new(1, 1, &device);
/// let mut opt = AdamW::new(0.1).weight_decay(0.0).build(&model);
/// let before = model.bias.as_ref().unwrap().item()?;
/// let loss = model.forward(&Tensor::ones(&[1, 1], &device)).sum_all();
/// let grads = loss.backward(&model);
/// opt.step(&mut model, grads)?;
/// // The first step of Adam is the learning rate, whatever the size of the gradient.
/// let moved = before - model.bias.as_ref().unwrap().item()?;
/// assert!((moved - 0.1).abs() < 1e-5);
/// # Ok::<(), kiln_ir::Error>(())
/// ```
///
/// Loshchilov and Hutter 2017, <https://arxiv.org/abs/1711.05101>, algorithm 2.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    schedule: Schedule,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

impl AdamW {
    /// With this learning rate or schedule.
    pub fn new(lr: impl Into<Schedule>) -> AdamW {
        AdamW { schedule: lr.into(), beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }

    /// The decay of the two moments.
    ///
    /// # Panics
    /// If one is not in `0..1`.
    #[track_caller]
    pub fn betas(self, beta1: f64, beta2: f64) -> AdamW {
        let range = 0.0..1.0;
        assert!(range.contains(&beta1) && range.contains(&beta2), "adamw: betas {beta1}, {beta2}");
        AdamW { beta1, beta2, ..self }
    }

    /// What is added to the denominator.
    pub fn eps(self, eps: f64) -> AdamW {
        AdamW { eps, ..self }
    }

    /// λ, of which the learning rate times the parameter is taken off each step.
    pub fn weight_decay(self, weight_decay: f64) -> AdamW {
        AdamW { weight_decay, ..self }
    }

    /// The optimizer of a model.
    pub fn build<M: Module + ?Sized>(self, model: &M) -> Optimizer<AdamW> {
        Optimizer::new(self, self.schedule, model)
    }
}

impl Rule for AdamW {
    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn numbers(&self, lr: f64, t: u64) -> Vec<f64> {
        let (beta1, beta2) = (self.beta1, self.beta2);
        let step = lr / (1.0 - beta1.powf(t as f64));
        let correction = (1.0 - beta2.powf(t as f64)).sqrt().recip();
        vec![beta1, 1.0 - beta1, beta2, 1.0 - beta2, step, correction, self.eps, 1.0 - lr * self.weight_decay]
    }

    fn update(&self, numbers: &[Tensor], param: &Tensor, grad: &Tensor, slots: &mut [Tensor]) -> Tensor {
        let ([beta1, rest1, beta2, rest2, step, correction, eps, keep], [m, v]) = (numbers, slots) else {
            unreachable!("`numbers` and `slots` say how many there are")
        };
        *m = Tensor::map(&[m, grad, beta1, rest1], &FIRST);
        *v = Tensor::map(&[v, grad, beta2, rest2], &SECOND);
        Tensor::map(&[param, m, v, keep, step, correction, eps], &NEXT)
    }
}
