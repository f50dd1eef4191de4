//! Layers without parameters, for a [`Sequential`](crate::Sequential).

use kiln_graph::Tensor;

use super::Layer;
use crate::Module;

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident |$x:ident| $value:expr)*) => { $(
        $(#[$doc])*
        #[derive(Module, Clone, Copy, Default, Debug)]
        #[module(crate = "crate")]
        pub struct $name;

        impl Layer for $name {
            #[track_caller]
            fn forward(&self, $x: &Tensor) -> Tensor {
                $value
            }
        }
    )* };
}

plain! {
    /// `max(x, 0)`: see [`Tensor::relu`].
    Relu |x| x.relu()
    /// `x · Φ(x)`: see [`Tensor::gelu`].
    Gelu |x| x.gelu()
    /// All axes but the first merged: `[n, ..]` → `[n, numel / n]`.
    Flatten |x| x.flatten(1)
}
