//! Gradients as a value: one per parameter of a model, made by `backward`, consumed by an optimizer.

use std::marker::PhantomData;
use std::ops::Add;
use std::sync::OnceLock;

use kiln_graph::{Owed, Tensor};

use crate::{Module, Param};

/// The gradients of a loss with respect to the parameters of an `M`.
///
/// A parameter on which the loss does not depend has none; [`Grads::missing`] names those.
///
/// They are recorded when something looks at them. An optimizer that has met the same loss before need not.
pub struct Grads<M: ?Sized> {
    names: Vec<String>,
    /// One for each name, once they are looked at.
    tensors: OnceLock<Vec<Option<Tensor>>>,
    /// Where they come from otherwise.
    owed: Option<Owed>,
    /// The norms to which they are then clipped, one after the other.
    clips: Vec<f64>,
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
        let owed = self.grad_later(&tensors);
        assert!(
            tensors.is_empty() || owed.is_some(),
            "backward: the loss reaches no parameter of the model; help: what `eval` or a step computed has no history"
        );
        drop(tensors);
        let names = params.into_iter().map(|(name, _)| name).collect();
        let tensors = if owed.is_some() { OnceLock::new() } else { OnceLock::from(Vec::new()) };
        Grads { names, tensors, owed, clips: Vec::new(), model: PhantomData }
    }
}

impl<M: Module + ?Sized> Grads<M> {
    /// Gradients that were computed some other way: `f` gives each parameter's, or none.
    ///
    /// # Panics
    /// If one has other dims or another dtype than its parameter.
    #[track_caller]
    pub fn from_fn(model: &M, mut f: impl FnMut(&str, &Param) -> Option<Tensor>) -> Grads<M> {
        let grad = |(name, param): (String, &Param)| {
            let grad = f(&name, param);
            if let Some(g) = &grad {
                let (found, expected) = ((g.dtype(), g.shape()), (param.dtype(), param.shape()));
                assert!(found == expected, "grads: {name} is {}{}, got {}{}", expected.0, expected.1, found.0, found.1);
            }
            (name, grad)
        };
        let (names, tensors) = model.params().into_iter().map(grad).unzip();
        Grads::given(names, tensors)
    }
}

impl<M: ?Sized> Grads<M> {
    fn given(names: Vec<String>, tensors: Vec<Option<Tensor>>) -> Grads<M> {
        Grads { names, tensors: OnceLock::from(tensors), owed: None, clips: Vec::new(), model: PhantomData }
    }

    fn tensors(&self) -> &[Option<Tensor>] {
        self.tensors.get_or_init(|| {
            let owed = self.owed.as_ref().expect("gradients are given, or owed").grads().to_vec();
            clipped(owed, &self.clips)
        })
    }

    /// The gradient of the parameter with this path; `None` if it has none.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(n, _)| *n == name).and_then(|(_, grad)| grad)
    }

    /// Every parameter's path and gradient, in the order of the model's fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&Tensor>)> {
        self.names.iter().zip(self.tensors()).map(|(name, grad)| (name.as_str(), grad.as_ref()))
    }

    /// The paths of the parameters that no gradient reaches.
    pub fn missing(&self) -> Vec<&str> {
        self.iter().filter(|(_, grad)| grad.is_none()).map(|(name, _)| name).collect()
    }

    /// The Euclidean norm over all gradients, a scalar; `None` if there is no gradient.
    #[track_caller]
    pub fn norm(&self) -> Option<Tensor> {
        norm(self.tensors())
    }

    /// All gradients scaled down so that their common norm is at most `max`.
    ///
    /// Pascanu et al. 2012, <https://arxiv.org/abs/1211.5063>, algorithm 1.
    ///
    /// # Panics
    /// If `max` is not above zero.
    #[track_caller]
    pub fn clip_norm(mut self, max: f64) -> Grads<M> {
        assert!(max > 0.0, "clip_norm: norm {max}");
        match self.tensors.take() {
            Some(grads) => Grads::given(self.names, clipped(grads, &[max])),
            None => {
                self.clips.push(max);
                self
            }
        }
    }

    /// Each gradient replaced.
    pub fn map(self, f: impl Fn(Tensor) -> Tensor) -> Grads<M> {
        let (names, grads) = self.into_parts();
        Grads::given(names, grads.into_iter().map(|grad| grad.map(&f)).collect())
    }

    /// The paths of the parameters, and their gradients.
    pub(crate) fn into_parts(self) -> (Vec<String>, Vec<Option<Tensor>>) {
        self.tensors();
        (self.names, self.tensors.into_inner().expect("they were looked at"))
    }

    /// What is owed with respect to the parameters as they are, the norms to clip it to, and the parameters' paths;
    /// itself, if something has looked at them or the model has other parameters by now.
    pub(crate) fn into_owed(mut self, params: &[&Tensor]) -> Result<(Owed, Vec<f64>, Vec<String>), Grads<M>> {
        match self.owed.take_if(|owed| self.tensors.get().is_none() && owed.is_due(params)) {
            Some(owed) => Ok((owed, self.clips, self.names)),
            None => Err(self),
        }
    }
}

/// Gradients clipped to these norms, one after the other.
#[track_caller]
fn clipped(grads: Vec<Option<Tensor>>, clips: &[f64]) -> Vec<Option<Tensor>> {
    let mut grads = grads;
    for &max in clips {
        grads = clip(grads, |like| limit(max, like));
    }
    grads
}

#[track_caller]
fn norm(grads: &[Option<Tensor>]) -> Option<Tensor> {
    let squares = grads.iter().flatten().map(|grad| grad.square().sum_all());
    squares.reduce(|sum, square| sum + square).map(|sum| sum.sqrt())
}

/// A norm to clip to, as a number beside others like this one.
#[track_caller]
pub(crate) fn limit(max: f64, like: &Tensor) -> Tensor {
    Tensor::scalar(max, like.dtype(), like.device())
}

/// Gradients scaled down so that their common norm is at most a limit.
#[track_caller]
pub(crate) fn clip(grads: Vec<Option<Tensor>>, limit: impl FnOnce(&Tensor) -> Tensor) -> Vec<Option<Tensor>> {
    let Some(norm) = norm(&grads) else { return grads };
    let scale = (limit(&norm) / (norm + 1e-6)).minimum(1.0);
    grads.into_iter().map(|grad| grad.map(|grad| grad * &scale)).collect()
}

/// Sums of gradients, for a batch that is computed in parts.
impl<M: ?Sized> Add for Grads<M> {
    type Output = Grads<M>;

    /// # Panics
    /// If the two come from models with different parameters.
    #[track_caller]
    fn add(self, other: Grads<M>) -> Grads<M> {
        assert!(self.names == other.names, "grads: summed with those of another model");
        let sum = |(a, b): (Option<Tensor>, Option<Tensor>)| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        let ((names, a), (_, b)) = (self.into_parts(), other.into_parts());
        Grads::given(names, a.into_iter().zip(b).map(sum).collect())
    }
}

impl<M: ?Sized> std::fmt::Debug for Grads<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
