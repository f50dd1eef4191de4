//! Gradients as a value: one per parameter of a model, made by `backward`, consumed by an optimizer.

use std::marker::PhantomData;
use std::ops::Add;

use kiln_graph::Tensor;

use crate::{Module, Param};

/// The gradients of a loss with respect to the parameters of an `M`.
///
/// A parameter on which the loss does not depend has none; [`Grads::missing`] names those.
pub struct Grads<M: ?Sized> {
    entries: Vec<(String, Option<Tensor>)>,
    model: PhantomData<fn(&M)>,
}

/// Gradients of a tensor with respect to a model.
pub trait Backward {
    /// The gradient of this scalar with respect to each parameter of the model.
    ///
    /// ```
    /// # use kiln_graph::{Device, Tensor};
    /// use kiln_nn::{Backward, Layer, Linear};
    /// # let device = Device::new(kiln_cpu::CpuBackend::new());
    /// let model = Linear::new(2, 1, &device);
    /// let x = Tensor::new(&[3.0f32, 4.0], &[1, 2], &device)?;
    /// let grads = model.forward(&x).sum_all().backward(&model);
    /// assert_eq!(grads.get("weight").unwrap().to_vec::<f32>()?, [3.0, 4.0]);
    /// assert_eq!(grads.get("bias").unwrap().to_vec::<f32>()?, [1.0]);
    /// # Ok::<(), kiln_ir::Error>(())
    /// ```
    ///
    /// # Panics
    /// If this is not one float, or reaches no parameter: `eval` or a step cut its history, say.
    fn backward<M: Module + ?Sized>(&self, model: &M) -> Grads<M>;
}

impl Backward for Tensor {
    #[track_caller]
    fn backward<M: Module + ?Sized>(&self, model: &M) -> Grads<M> {
        let params = model.params();
        let tensors: Vec<&Tensor> = params.iter().map(|(_, p)| p.tensor()).collect();
        let grads = self.grad(&tensors);
        assert!(
            tensors.is_empty() || grads.iter().any(Option::is_some),
            "backward: the loss reaches no parameter of the model; help: what `eval` or a step computed has no history"
        );
        drop(tensors);
        let entries = params.into_iter().map(|(name, _)| name).zip(grads).collect();
        Grads { entries, model: PhantomData }
    }
}

impl<M: Module + ?Sized> Grads<M> {
    /// Gradients that were computed some other way: `f` gives each parameter's, or none.
    ///
    /// # Panics
    /// If one has other dims or another dtype than its parameter.
    #[track_caller]
    pub fn from_fn(model: &M, mut f: impl FnMut(&str, &Param) -> Option<Tensor>) -> Grads<M> {
        let entry = |(name, param): (String, &Param)| {
            let grad = f(&name, param);
            if let Some(g) = &grad {
                let (found, expected) = ((g.dtype(), g.shape()), (param.dtype(), param.shape()));
                assert!(found == expected, "grads: {name} is {}{}, got {}{}", expected.0, expected.1, found.0, found.1);
            }
            (name, grad)
        };
        Grads { entries: model.params().into_iter().map(entry).collect(), model: PhantomData }
    }
}

impl<M: ?Sized> Grads<M> {
    /// The gradient of the parameter with this path; `None` if it has none.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|(n, _)| n == name).and_then(|(_, grad)| grad.as_ref())
    }

    /// Every parameter's path and gradient, in the order of the model's fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&Tensor>)> {
        self.entries.iter().map(|(name, grad)| (name.as_str(), grad.as_ref()))
    }

    /// The paths of the parameters that no gradient reaches.
    pub fn missing(&self) -> Vec<&str> {
        self.iter().filter(|(_, grad)| grad.is_none()).map(|(name, _)| name).collect()
    }

    /// The Euclidean norm over all gradients, a scalar; `None` if there is no gradient.
    pub fn norm(&self) -> Option<Tensor> {
        let squares = self.entries.iter().filter_map(|(_, grad)| Some(grad.as_ref()?.square().sum_all()));
        squares.reduce(|sum, square| sum + square).map(|sum| sum.sqrt())
    }

    /// All gradients scaled down so that their common norm is at most `max`.
    ///
    /// Pascanu et al. 2012, <https://arxiv.org/abs/1211.5063>, algorithm 1.
    ///
    /// # Panics
    /// If `max` is not above zero.
    #[track_caller]
    pub fn clip_norm(self, max: f64) -> Grads<M> {
        assert!(max > 0.0, "clip_norm: norm {max}");
        let Some(norm) = self.norm() else { return self };
        let limit = Tensor::scalar(max, norm.dtype(), norm.device());
        let scale = (limit / (norm + 1e-6)).minimum(1.0);
        self.map(|grad| grad * &scale)
    }

    /// Each gradient replaced.
    pub fn map(self, f: impl Fn(Tensor) -> Tensor) -> Grads<M> {
        let entries = self.entries.into_iter().map(|(name, grad)| (name, grad.map(&f))).collect();
        Grads { entries, model: PhantomData }
    }

    pub(crate) fn into_entries(self) -> Vec<(String, Option<Tensor>)> {
        self.entries
    }
}

/// Sums of gradients, for a batch that is computed in parts.
impl<M: ?Sized> Add for Grads<M> {
    type Output = Grads<M>;

    /// # Panics
    /// If the two come from models with different parameters.
    #[track_caller]
    fn add(self, other: Grads<M>) -> Grads<M> {
        assert!(
            self.entries.iter().map(|e| &e.0).eq(other.entries.iter().map(|e| &e.0)),
            "grads: summed with those of another model"
        );
        let sum = |(a, b): (Option<Tensor>, Option<Tensor>)| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        let both = self.entries.into_iter().zip(other.entries);
        let entries = both.map(|((name, a), (_, b))| (name, sum((a, b)))).collect();
        Grads { entries, model: PhantomData }
    }
}

impl<M: ?Sized> std::fmt::Debug for Grads<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
