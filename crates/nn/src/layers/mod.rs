//! Layers: structs of parameters with a `forward`, named and initialised as PyTorch's.

mod activation;
mod conv;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod pool;
mod sequential;

use kiln_graph::{Device, Tensor};

use crate::{Module, Param};

pub use activation::{Flatten, Gelu, Relu};
pub use conv::Conv2d;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{BatchNorm2d, LayerNorm};
pub use pool::{AvgPool2d, MaxPool2d};
pub use sequential::Sequential;

/// A module from one tensor to one tensor.
pub trait Layer: Module {
    /// The output for an input.
    fn forward(&self, x: &Tensor) -> Tensor;
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        (**self).forward(x)
    }
}

/// Uniform in `±1/√fan_in`, the initialisation of PyTorch's linear and convolution layers.
fn uniform_by_fan_in(dims: &[usize], fan_in: usize, device: &Device) -> Param {
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    Param::new(Tensor::uniform(dims, -bound, bound, device))
}
