//! Modules, layers, optimizers and schedules of Kiln, written with nothing but the public tensor API.
//!
//! A model is a plain struct with `#[derive(Module)]`; its parameters are named by field path. Gradients are a
//! value, [`Grads`], that an [`Optimizer`] consumes.
//!
//! Reading order: `module` (what a model is), `param` (its leaves), `layers`, `grads`, `optim`, `schedule`, [`mod@file`], `load`.

#![forbid(unsafe_code)]

pub mod file;
mod grads;
mod jit;
mod layers;
mod load;
mod module;
mod optim;
mod param;
mod schedule;

pub use grads::{Backward, Grads};
pub use jit::{Carry, Jit, jit};
/// Implements [`Module`](trait@Module) for a struct or an enum: see the derive's attributes.
pub use kiln_derive::Module;
pub use layers::{
    AvgPool2d, BatchNorm2d, Conv2d, Dropout, Embedding, Flatten, Gelu, Layer, LayerNorm, Linear, MaxPool2d, Relu,
    Sequential,
};
pub use load::{LoadReport, Mismatch};
pub use module::{Leaf, LeafMut, Module, Path};
pub use optim::{AdamW, Optimizer, Rule, Sgd};
pub use param::{Mode, Param, State};
pub use schedule::Schedule;
