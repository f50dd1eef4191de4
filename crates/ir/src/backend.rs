//! What a backend promises: seven verbs over buffers and kernels, and the figures in [`Caps`].
//!
//! The hard idea is *record once, replay often*: [`Backend::record`] fixes which executable binds
//! which slot; [`Backend::replay`] only supplies argument buffers and scalars. Calls take effect in
//! call order.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernel::{Access, Kernel};
use crate::{DType, Node, Result};

/// Where a step finds a buffer: among the arguments of a replay, or among the tape's temporaries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Slot {
    /// The n-th argument: a leaf in, or a survivor out.
    Arg(u32),
    /// The n-th temporary, alive only within the replay.
    Temp(u32),
}

/// One dispatch of a tape.
#[derive(Clone)]
pub struct Step {
    /// What runs.
    pub exe: Executable,
    /// One slot per argument of the kernel, in its order.
    pub binds: Vec<(Slot, Access)>,
    /// For each scalar of the kernel, its place among the scalars of a replay.
    pub scalars: Vec<u32>,
}

/// Why a backend will not run a kernel; the fuser cuts there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reject {
    /// A dtype that the device lacks.
    DType(DType),
    /// More buffers than one kernel may bind.
    Bindings {
        /// How many the kernel needs.
        needed: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A kernel family or a form of it that the backend lacks.
    Unsupported(&'static str),
}

/// What a device can do, read before anything is fused.
#[derive(Clone, PartialEq, Debug)]
pub struct Caps {
    /// The device's name, for people.
    pub name: String,
    /// Dtypes that buffers may hold.
    pub dtypes: Vec<DType>,
    /// Buffers that one kernel may bind.
    pub max_bindings: usize,
    /// Bytes that one binding may span; larger buffers take several.
    pub max_binding_bytes: u64,
    /// Workgroups along one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Bytes in which a `bool` is stored: 1 or 4.
    pub bool_bytes: usize,
    /// Invocations that keep the device busy: long sums are split until there are so many. 1 where a few
    /// results are enough.
    pub lanes: usize,
    /// Peak arithmetic, floating-point operations per second.
    pub flops: f64,
    /// Peak memory traffic, bytes per second.
    pub bandwidth: f64,
}

impl Caps {
    /// Bytes of a buffer that holds `numel` elements; a multiple of 4, never 0.
    pub fn bytes(&self, dtype: DType, numel: usize) -> u64 {
        let one = if dtype == DType::Bool { self.bool_bytes } else { dtype.size_bytes() };
        ((numel * one) as u64).next_multiple_of(4).max(4)
    }

    /// How many of [`Caps::max_bindings`] a node's value takes.
    pub fn bindings_of(&self, node: &Node) -> usize {
        n_bindings(self.bytes_of(node), self.max_binding_bytes)
    }

    /// Bytes of a buffer that holds a node's value.
    pub fn bytes_of(&self, node: &Node) -> u64 {
        self.bytes(node.dtype, node.shape.numel())
    }
}

/// How many bindings a buffer of so many bytes takes: one, or windows whose size is a power of two.
pub fn n_bindings(bytes: u64, max_binding_bytes: u64) -> usize {
    match bytes <= max_binding_bytes {
        true => 1,
        false => bytes.div_ceil(window_bytes(max_binding_bytes)) as usize,
    }
}

/// Bytes of a window on what is larger than one binding: a power of two, so also a multiple of any device's alignment.
pub fn window_bytes(max_binding_bytes: u64) -> u64 {
    1 << max_binding_bytes.max(1).ilog2()
}

/// A handle on device memory; the last clone to drop returns it to the backend's pool.
#[derive(Clone)]
pub struct Buffer {
    id: u64,
    bytes: u64,
    memory: Arc<dyn Any + Send + Sync>,
}

impl Buffer {
    /// Wraps a backend's memory of this size.
    pub fn new<T: Any + Send + Sync>(bytes: u64, memory: T) -> Buffer {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Buffer { id: NEXT.fetch_add(1, Ordering::Relaxed), bytes, memory: Arc::new(memory) }
    }

    /// A number that no other buffer of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The backend's memory.
    ///
    /// # Panics
    /// If the buffer belongs to another kind of backend.
    pub fn memory<T: Any>(&self) -> &T {
        self.memory.downcast_ref().expect("buffer: belongs to another backend")
    }
}

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<dyn Any + Send + Sync>);

        impl $name {
            /// Wraps a backend's value.
            pub fn new<T: Any + Send + Sync>(value: T) -> $name {
                $name(Arc::new(value))
            }

            /// True iff there is another handle on it.
            pub fn is_shared(&self) -> bool {
                Arc::strong_count(&self.0) > 1
            }

            /// The backend's value.
            ///
            /// # Panics
            /// If it was made by another kind of backend.
            pub fn get<T: Any>(&self) -> &T {
                self.0.downcast_ref().expect("made by another backend")
            }
        }
    };
}

opaque! {
    /// A compiled kernel.
    Executable
}
opaque! {
    /// A recorded sequence of steps.
    Tape
}

/// Bytes on their way back from a device.
pub struct Readback(Box<dyn FnOnce() -> Result<Vec<u8>> + Send>);

impl Readback {
    /// Wraps the wait for the bytes.
    pub fn new(wait: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) -> Readback {
        Readback(Box::new(wait))
    }

    /// Blocks until the bytes are here.
    ///
    /// # Errors
    /// If the device failed.
    pub fn wait(self) -> Result<Vec<u8>> {
        (self.0)()
    }
}

/// The end of a replay, which may lie in the future.
pub struct Fence(Box<dyn FnOnce() -> Result<()> + Send>);

impl Fence {
    /// Wraps the wait for the replay's end.
    pub fn new(wait: impl FnOnce() -> Result<()> + Send + 'static) -> Fence {
        Fence(Box::new(wait))
    }

    /// Blocks until the replay has ended. Dropping a fence does not wait.
    ///
    /// # Errors
    /// If the device failed.
    pub fn wait(self) -> Result<()> {
        (self.0)()
    }
}

/// How long a kernel ran, and when, by the device's own clock.
#[derive(Clone, PartialEq, Debug)]
pub struct KernelTime {
    /// What the kernel does.
    pub name: String,
    /// Nanoseconds from a moment of the device's to its begin.
    pub begin_ns: f64,
    /// Nanoseconds between its begin and its end.
    pub gpu_ns: f64,
}

/// A device that executes kernels.
pub trait Backend: Send + Sync {
    /// What the device can do.
    fn caps(&self) -> &Caps;

    /// Whether a kernel can run here.
    ///
    /// # Errors
    /// What stands in the way; the fuser cuts the kernel there.
    fn supports(&self, kernel: &Kernel) -> Result<(), Reject>;

    /// Memory of at least this size, with undefined content.
    ///
    /// # Errors
    /// If memory is exhausted.
    fn alloc(&self, bytes: u64) -> Result<Buffer>;

    /// Copies bytes into a buffer, from byte `at`.
    ///
    /// # Errors
    /// If the device failed.
    fn write(&self, dst: &Buffer, at: u64, data: &[u8]) -> Result<()>;

    /// Starts copying a range of bytes out of a buffer.
    fn read(&self, src: &Buffer, range: Range<u64>) -> Readback;

    /// Compiles kernels, as a batch so that it can be done in parallel.
    fn compile(&self, kernels: &[Kernel]) -> Vec<Result<Executable>>;

    /// The text that a kernel was compiled from, for people; `None` where there is none.
    fn source(&self, _: &Executable) -> Option<String> {
        None
    }

    /// How long kernels ran since the last call, in order, after waiting for them; none where nobody times them.
    ///
    /// # Errors
    /// If the device failed.
    fn take_times(&self) -> Result<Vec<KernelTime>> {
        Ok(Vec::new())
    }

    /// Fixes a sequence of steps over temporaries of these sizes in bytes.
    ///
    /// # Errors
    /// If the temporaries do not fit in memory.
    fn record(&self, steps: &[Step], temps: &[u64]) -> Result<Tape>;

    /// Runs a tape with these argument buffers and scalar words.
    ///
    /// # Errors
    /// If the device failed.
    fn replay(&self, tape: &Tape, args: &[Buffer], scalars: &[u32]) -> Result<Fence>;
}
