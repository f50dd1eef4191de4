//! Kiln on wgpu: adapters, buffers, WGSL emission, pipelines, replay.
//!
//! [`WgpuBackend`] implements [`kiln_ir::Backend`] for any GPU that Vulkan, Metal or DX12 reaches.
//! Nothing here knows of tensors. The hard idea is the split in two: [`emit`](mod@emit) turns a
//! kernel into text and never sees a device; the rest runs text and never looks into a kernel.
//!
//! Reading order: `adapter` (which device), `quirks` (what it does otherwise than one would think),
//! `known` (how large it is), `gpu` (errors), `line` (submission), `memory` (buffers), `emit` (kernels as WGSL), `emitted` (what
//! was asked before), `pipeline` (compilation), `kept` (on disk), `tape` (replay), `profile`, `probe`
//! (whether matrices multiply as they should), `backend`.

mod adapter;
mod backend;
pub mod emit;
mod emitted;
mod gpu;
mod kept;
mod known;
mod line;
mod memory;
mod pipeline;
mod probe;
mod profile;
mod quirks;
mod tape;

pub use adapter::{AdapterInfo, AdapterKind, adapters};
pub use backend::{Options, WgpuBackend};
pub use gpu::Made;
pub use wgpu;
