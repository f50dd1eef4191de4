//! Pooling layers: windows without parameters.

use kiln_graph::{Pool2dOptions, Tensor};

use super::Layer;
use crate::Module;

macro_rules! pool {
    ($($(#[$doc:meta])* $name:ident $method:ident)*) => { $(
        $(#[$doc])*
        #[derive(Module, Clone, Copy, Debug)]
        #[module(crate = "crate")]
        pub struct $name {
            options: Pool2dOptions,
        }

        impl $name {
            /// Square windows of `size`, side by side.
            pub fn new(size: usize) -> $name {
                $name { options: Pool2dOptions { size: [size; 2], stride: [size; 2], padding: [0; 2] } }
            }

            /// The same windows at this distance.
            pub fn stride(mut self, stride: usize) -> $name {
                self.options.stride = [stride; 2];
                self
            }

            /// That much around the image, at most half a window.
            pub fn padding(mut self, padding: usize) -> $name {
                self.options.padding = [padding; 2];
                self
            }
        }

        impl Layer for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                x.$method(self.options)
            }
        }
    )* };
}

pool! {
    /// The greatest of each window: see [`Tensor::max_pool2d`].
    MaxPool2d max_pool2d
    /// The mean of each window: see [`Tensor::avg_pool2d`].
    AvgPool2d avg_pool2d
}
