//! Layers one after the other.

use kiln_graph::Tensor;

use super::Layer;
use crate::{Leaf, LeafMut, Module, Path};

/// A chain of layers, whose parameters are named by their number: `0.weight`, `2.bias`.
///
/// ```
/// # use kiln_graph::{Device, Tensor};
/// use kiln_nn::{Layer, Linear, Module, Relu, Sequential};
/// # let device = Device::new(kiln_cpu::CpuBackend::new());
/// let model = Sequential::new().with(Linear::new(4, 8, &device)).with(Relu).with(Linear::new(8, 2, &device));
/// assert_eq!(model.forward(&Tensor::zeros(&[3, 4], &device)).dims(), [3, 2]);
/// let names: Vec<String> = model.params().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["0.weight", "0.bias", "2.weight", "2.bias"]);
/// ```
#[derive(Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Layer + Send + Sync>>,
}

impl Sequential {
    /// A chain without layers: its output is its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// The chain with one more layer.
    pub fn with(mut self, layer: impl Layer + Send + Sync + 'static) -> Sequential {
        self.layers.push(Box::new(layer));
        self
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// True iff there is no layer.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl Module for Sequential {
    fn visit<'a>(&'a self, at: &mut Path, f: &mut dyn FnMut(&Path, Leaf<'a>)) {
        self.layers.visit(at, f);
    }

    fn visit_mut<'a>(&'a mut self, at: &mut Path, f: &mut dyn FnMut(&Path, LeafMut<'a>)) {
        self.layers.visit_mut(at, f);
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.layers.iter().fold(x.clone(), |x, layer| layer.forward(&x))
    }
}
