//! Kernels as WGSL: pure functions from a kernel and the device's limits to text.
//!
//! The same input gives the same bytes, and no wgpu type appears. The hard idea is *ownership of
//! words*: whatever the schedule, one invocation stores all elements that share a word, so that
//! narrow dtypes need no atomics. Reading order: `index` (addresses), `space` (fewer axes), `code`
//! and `body` (steps as lines), `rows` (what a `Loop` does in which order), `looped` and
//! `writer` (who does it, element by element), `strip` (neighbours at once) and what is made of them in
//! `points`, `turned`, `held` and `columns`, of which `plan` takes one, `group` (several loops), `dot`,
//! `tiled` and `matrix` (contractions), `scatter`, `attention`, `scan`, `sort`; and `module`, where the text
//! is put together, with `windows` on what is larger than a binding.

mod attention;
mod body;
mod code;
mod columns;
mod dot;
mod epilogue;
mod fours;
mod group;
mod held;
mod index;
mod looped;
mod matrix;
mod meet;
mod module;
mod operand;
mod plan;
mod points;
mod reduce;
mod rows;
mod scan;
mod scatter;
mod sort;
mod space;
mod strip;
mod tiled;
mod turned;
mod windows;
mod writer;

use kiln_ir::kernel::{Arg, Body, Instr};
use kiln_ir::{DType, Kernel, Reject};

pub use windows::Binding;

/// What emission depends on beside the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// True iff the adapter computes on a CPU, where a barrier costs more than the loads it saves.
    pub software: bool,
    /// Processors that compute side by side, each a workgroup or more.
    pub parts: usize,
    /// Turns that all loops of an invocation may take together.
    pub max_turns: usize,
    /// Invocations that one workgroup may have.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    /// Workgroups along one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Storage buffers that one kernel may bind.
    pub max_bindings: usize,
    /// Bytes that one binding may span; larger arguments are bound in windows.
    pub max_binding_bytes: u64,
    /// Which of the schedules is taken.
    pub schedule: Schedule,
    /// The matrices that contractions may be computed on.
    pub matrix: Option<Matrix>,
}

/// Matrices that a subgroup holds and multiplies together: f16 times f16, added up in f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matrix {
    /// Rows and columns: 8 or 16.
    pub size: u32,
    /// Invocations of a subgroup, of every one.
    pub subgroup: u32,
}

impl Target {
    /// True iff loops are spread for a device that asks for much memory at once.
    fn is_wide(&self) -> bool {
        match self.schedule {
            Schedule::Plain => false,
            Schedule::Shared => true,
            Schedule::Auto => !self.software,
        }
    }

    /// Invocations that keep every part busy: a power of two, some 1024 each.
    pub(crate) fn busy(&self) -> usize {
        1 << (1024 * self.parts.max(1)).ilog2()
    }

    /// True iff the argument is one binding.
    fn binds_whole(&self, arg: &Arg) -> bool {
        windows::count(arg, self.max_binding_bytes) == 1
    }
}

impl Default for Target {
    /// The limits that every WebGPU device has, on a real GPU.
    fn default() -> Target {
        Target {
            software: false,
            parts: LARGE,
            max_turns: usize::MAX,
            max_invocations: 256,
            max_workgroup_bytes: 16 << 10,
            max_workgroups: 65535,
            max_bindings: 8,
            max_binding_bytes: 128 << 20,
            schedule: Schedule::Auto,
            matrix: None,
        }
    }
}

/// How work is spread over invocations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Schedule {
    /// By the kernel's shape and the kind of adapter.
    #[default]
    Auto,
    /// Without workgroup memory.
    Plain,
    /// With workgroup memory wherever a kernel can use it.
    Shared,
}

/// A kernel in WGSL, with what its caller needs to bind and dispatch it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shader {
    /// What it does, for people: label of every object made from it.
    pub name: String,
    /// The text; its entry point is `main`.
    pub wgsl: String,
    /// How many workgroups run, along x; 0 where there is nothing to do.
    pub workgroups: u32,
    /// The buffers that it takes.
    pub args: Vec<Arg>,
    /// The storage buffers at bindings 0, 1, …: each argument, or the windows on it.
    pub bindings: Vec<Binding>,
    /// Words of the uniform buffer at the binding after them; no binding if 0.
    pub scalars: usize,
}

impl Shader {
    /// True iff it computes on [`Matrix`].
    pub fn uses_matrices(&self) -> bool {
        self.wgsl.contains(matrix::ENABLE)
    }
}

/// The kernel in WGSL for this target.
///
/// # Errors
/// Why the device cannot run the kernel.
pub fn emit(kernel: &Kernel, target: &Target) -> Result<Shader, Reject> {
    check_args(kernel.args(), target)?;
    if kernel.loops().iter().any(|k| k.body.reduces_columns()) {
        return Err(Reject::Unsupported("reductions over rows beside others along them"));
    }
    match kernel {
        Kernel::Loop(k) => looped::emit(k, target),
        Kernel::Dot(k) => dot::emit(k, target),
        Kernel::Scatter(k) => scatter::emit(k, target),
        Kernel::Attention(k) => attention::emit(k, target),
        Kernel::Scan(k) => scan::emit(k, target),
        Kernel::Sort(k) => sort::emit(k, target),
        Kernel::Group(loops) => group::emit(loops, target),
    }
}

/// Processors of the GPU on which schedules were measured, an H200.
pub(crate) const LARGE: usize = 132;

/// Addresses are `u32`, and a grid-stride loop must be able to step past the end.
const MAX_POINTS: usize = 1 << 31;

fn check_args(args: &[Arg], target: &Target) -> Result<(), Reject> {
    for arg in args {
        if arg.dtype == DType::F64 {
            return Err(Reject::DType(DType::F64));
        }
        if arg.numel > MAX_POINTS {
            return Err(Reject::Unsupported("an argument of more than 2³¹ elements"));
        }
    }
    let needed = args.iter().map(|arg| windows::count(arg, target.max_binding_bytes)).sum();
    match needed > target.max_bindings {
        true => Err(Reject::Bindings { needed, limit: target.max_bindings }),
        false => Ok(()),
    }
}

/// Refuses what no schedule can run: `f64`, spaces beyond `u32`, stores of a foreign type.
fn check_body(body: &Body, args: &[Arg], dims: &[usize]) -> Result<(), Reject> {
    let points = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    if points.is_none_or(|n| n > MAX_POINTS) {
        return Err(Reject::Unsupported("more than 2³¹ points"));
    }
    let named = body.instrs.iter().map(|instr| match instr {
        Instr::Const(t, _) | Instr::Scalar(t, _) | Instr::Cast(t, _) => *t,
        _ => DType::F32,
    });
    if body.types.iter().copied().chain(named).any(|t| t == DType::F64) {
        return Err(Reject::DType(DType::F64));
    }
    let fits =
        |s: &kiln_ir::kernel::Store| body.types[s.value as usize].compute() == args[s.arg as usize].dtype.compute();
    match body.stores.iter().all(fits) {
        true => Ok(()),
        false => Err(Reject::Unsupported("a store of a type that its argument does not hold")),
    }
}
