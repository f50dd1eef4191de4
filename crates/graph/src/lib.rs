//! Tensors of Kiln: recording, gradients, and the planner that turns a recorded graph into kernels.
//!
//! A [`Tensor`] is a counted handle on a lazily computed value. Its methods record; reading a value or
//! [`Device::eval`] captures what lies behind, plans it into a few kernels, and fires them. The plan
//! is found again by its structure the next time.
//!
//! Reading order: `tensor`, `ops` (the methods), `record` (the checks), `node` and `history` (liveness), `grad` and
//! `vjp`, `turn`, `capture`, `known` and `behind`, [`mod@plan`], `exec`, then what need not be recorded again: [`sequel`] and
//! [`trace`].

#![forbid(unsafe_code)]

mod behind;
mod cache;
mod capture;
mod check;
mod checkpoint;
mod clock;
mod device;
mod difference;
mod element;
mod env;
mod exec;
mod formulas;
mod grad;
mod history;
mod inputs;
mod inspect;
mod known;
mod node;
mod ops;
mod owed;
pub mod plan;
mod program;
mod read;
mod record;
pub mod sequel;
mod stepwise;
mod tensor;
mod timeline;
pub mod trace;
mod turn;
mod vjp;

pub use checkpoint::checkpoint;
pub use clock::Clock;
pub use device::Device;
pub use element::Element;
pub use ops::{Conv2dOptions, Operand, Pool2dOptions, generator_state, manual_seed, set_generator_state};
pub use owed::Owed;
pub use program::Program;
pub use read::Later;
pub use tensor::Tensor;
