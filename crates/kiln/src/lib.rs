//! Kiln: deep learning in Rust for any GPU that wgpu reaches (Vulkan, Metal, DX12), and for the CPU.
//!
//! You write ordinary tensor code. Kiln records it, fuses the whole training step into a few kernels, and fires
//! them at once.
//!
//! ```
//! use kiln::prelude::*;
//!
//! # fn main() -> kiln::Result<()> {
//! let device = Device::cpu();
//! let x = Tensor::new(&[1.0f32, 2.0, 3.0], &[3], &device)?;
//! let y = (&x * &x).sum_all();
//! assert_eq!(y.item()?, 14.0);
//! assert_eq!(y.grad(&[&x])[0].as_ref().unwrap().to_vec::<f32>()?, [2.0, 4.0, 6.0]);
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`prelude`] | what a training program needs |
//! | [`nn`] | modules, layers, optimizers, schedules |
//! | [`data`] | data sets and batches |
//! | [`train`] | progress, history, plots, metrics |
//! | [`graph`] | tensors, gradients, plans |
//! | [`ir`] | what graphs and kernels are, for backends and tools |
//!
//! # Environment
//!
//! | variable | effect |
//! |---|---|
//! | `KILN_DEVICE` | what [`DeviceExt::best`] gives: `cpu`, `gpu`, or `gpu:N` for the N-th adapter |
//! | `KILN_THREADS` | threads of the CPU backend |
//! | `KILN_DEBUG` | `1` adapter and limits, `2` one line a kernel, `3` why neighbours did not fuse, `4` WGSL, `5` graphs |
//! | `KILN_DUMP` | a directory for graph, plan and kernels of each new plan |
//! | `KILN_TRACE` | a file for what host and GPU did when, for Chrome's trace viewer or Perfetto; times every kernel |
//! | `KILN_CACHE` | a directory for compiled kernels, which Vulkan's drivers give away; `off` keeps none. Otherwise `kiln` in the user's directory of caches |
//! | `KILN_CHECK=cpu` | compares every kernel with the reference and stops at the first difference |

#![forbid(unsafe_code)]

mod device;
#[cfg(feature = "wgpu")]
mod kept;

pub use kiln_data as data;
pub use kiln_graph as graph;
pub use kiln_ir as ir;
pub use kiln_nn as nn;
pub use kiln_train as train;

pub use device::DeviceExt;
pub use kiln_graph::{Device, Tensor, manual_seed};
pub use kiln_ir::{DType, Error, ErrorKind, Result};

/// wgpu itself, for programs that share a device with Kiln.
#[cfg(feature = "wgpu")]
pub use kiln_device::wgpu;

/// What a training program needs.
pub mod prelude {
    pub use crate::DeviceExt as _;
    pub use kiln_data::Images;
    pub use kiln_graph::{Conv2dOptions, Device, Pool2dOptions, Tensor, checkpoint, manual_seed};
    pub use kiln_ir::DType;
    pub use kiln_nn::{
        AdamW, AvgPool2d, Backward, BatchNorm2d, Conv2d, Dropout, Embedding, Flatten, Gelu, Grads, Layer, LayerNorm,
        Linear, MaxPool2d, Module, Optimizer, Param, Relu, Schedule, Sequential, Sgd, State, jit,
    };
    pub use kiln_train::{ConfusionMatrix, EarlyStopping, History, Progress};
}
