//! The narrow waist of Kiln: what a graph is, what a kernel is, and what a backend promises.
//!
//! Everything here is plain data and pure functions. Above it, `kiln-graph` records tensors into a
//! [`Graph`] and plans it into [`Kernel`]s; below it, `kiln-cpu` and `kiln-device` execute kernels
//! behind the [`Backend`] trait. Neither side sees the other.
//!
//! Reading order: [`DType`], [`Shape`], [`index`] (how views become arithmetic), [`ops`] (one op,
//! one row), [`Expr`], [`Graph`], [`kernel`], [`Backend`], and [`mod@reference`], the oracle in `f64`.

#![forbid(unsafe_code)]

pub mod attention;
mod backend;
mod dtype;
mod error;
pub mod expr;
mod file;
mod graph;
pub mod index;
pub mod kernel;
pub mod linear;
mod movement;
pub mod ops;
pub mod random;
pub mod reference;
mod rewrite;
pub mod scan;
pub mod scatter;
mod shape;
pub mod sort;

pub use backend::{
    Backend, Buffer, Caps, Executable, Fence, KernelTime, Readback, Reject, Slot, Step, Tape, n_bindings, window_bytes,
};
pub use dtype::DType;
pub use error::{Error, ErrorKind, Result};
pub use expr::{Expr, ExprNode};
pub use file::write_file;
pub use graph::{Contraction, Graph, Node, NodeId, Op, infer, verify};
pub use index::{Atom, Bound, Index, IndexMap};
pub use kernel::{Access, Kernel};
pub use movement::Movement;
pub use ops::{OPS, PointOp, ReduceOp};
pub use shape::{Axes, Shape};
